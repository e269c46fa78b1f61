"""The words of everything but the judge: each sentence that a person reads, one file per topic.

Pure functions of what they say, and constants. A module that says something imports its topic, and
`tests/unit/test_sentences.py` shows all of them. The judge's are in `judge.messages`. Help texts
stand at their options, and what a declaration is at the declaration.
"""
