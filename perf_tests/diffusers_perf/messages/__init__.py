"""The sentences that a person reads, one file per topic, as constants and pure functions.

`tests/unit/test_sentences.py` shows all of them. The judge's sentences are in `judge.messages`. The
help of an option stands at the option, and the description of a declaration at the declaration.
"""
