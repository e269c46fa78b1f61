"""Entry points: `python -m ci VERB`, one file a verb. See `python -m ci --help`."""
