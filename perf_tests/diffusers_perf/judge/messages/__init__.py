"""The words of the judge: every message it has.

`run` has those of a verdict on one run, `comparison` those of head against base, `commands` what a
message asks to run next, and `numbers` how a number is written.
"""
