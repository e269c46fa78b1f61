"""The T5 tokenizer: one entry for each word of the captions, and one for each character.

T5's own tokenizer is a unigram model that was trained on the web. This one is written down
from the captions: their words score by how often they occur, and a character scores so low that
only an unknown word falls apart into characters. So it needs no training and no download, and is
the same on every machine.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor

from perf_tests.training.captions import every_text

MAX_TOKENS = 20
"""Length to which every caption is padded; the longest needs 16."""
START_OF_WORD = "▁"
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
CHARACTER_SCORE = -20.0
"""Log probability of a character: a word of the captions costs less than any of its letters."""

_PARTS = re.compile(r"[a-z]+|,")


@cache
def t5_tokenizer() -> Any:
    """The `T5Tokenizer` for the words of the captions, made once."""
    from transformers import T5Tokenizer

    count = Counter(part for text in every_text() for part in _PARTS.findall(text))
    total = sum(count.values())
    comma = count.pop(",")
    entries = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0)]
    entries += [
        (START_OF_WORD + word, math.log(number / total)) for word, number in sorted(count.items())
    ]
    entries.append((",", math.log(comma / total)))
    characters = sorted({*string.ascii_letters, *string.digits, *string.punctuation} - {","})
    entries += [(character, CHARACTER_SCORE) for character in (START_OF_WORD, *characters)]
    return T5Tokenizer(vocab=entries, extra_ids=0, model_max_length=MAX_TOKENS)


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """Token ids as the pipeline makes them, int64 (texts, 20)."""
    batch = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True)
    return torch.tensor(batch.input_ids)


def token_table(tokenizer: Any) -> Tensor:
    """Token ids of every caption by number, and of the empty caption last: int64 (n + 1, 20)."""
    vocabulary = tokenizer.get_vocab()
    number = {
        piece.removeprefix(START_OF_WORD): index
        for piece, index in vocabulary.items()
        if piece == "," or len(piece) > 1
    }
    end, pad = vocabulary[END], vocabulary[PAD]
    rows = []
    for text in [*every_text(), ""]:
        row = [number[part] for part in _PARTS.findall(text)] + [end]
        rows.append(row + [pad] * (MAX_TOKENS - len(row)))
    return torch.tensor(rows)
