"""The tokenizer: byte-pair encoding trained on the captions, in CLIP's own form.

Like CLIP's vocabulary: 256 bytes, the same 256 bytes at the end of a word, one entry a merge,
and the two special tokens last. So any text has a tokenization, and words of the captions are
one token each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from perf_tests.training.captions import every_text

MAX_TOKENS = 20
"""Length to which every caption is padded; the longest caption needs 17."""
MAX_MERGES = 512
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def corpus() -> Iterable[str]:
    """What the merges are learned from: every seventh caption, which has every word."""
    return islice(every_text(), 0, None, 7)


def train_tokenizer(texts: Iterable[str]) -> Any:
    """A `CLIPTokenizer` whose merges were learned from `texts`."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    learner = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    # CLIP's own splitting into words: the merges must be learned on what they will be used on.
    clip = CLIPTokenizer().backend_tokenizer
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=2 * len(alphabet) + MAX_MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    # pairs, though transformers' annotation says strings
    merges: list[Any] = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]

    entries = alphabet + [byte + END_OF_WORD for byte in alphabet]
    # Two different merges can spell the same entry, as in CLIP's own vocabulary.
    entries += [left + right for left, right in merges] + [START, END]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """Token ids as the pipeline makes them, int64 (texts, 20)."""
    batch = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True)
    return torch.tensor(batch.input_ids)


def token_table(tokenizer: Any) -> Tensor:
    """Token ids of every caption by number, and of the empty caption last: int64 (n + 1, 20).

    The tokenizer splits text into words first, so that each word needs to be encoded once.
    """
    words: dict[str, list[int]] = {}

    def pieces(word: str) -> list[int]:
        if word not in words:
            words[word] = tokenizer(word, add_special_tokens=False).input_ids
        return words[word]

    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    rows = []
    for text in [*every_text(), ""]:
        row = [start]
        for word in re.findall(r"[a-z]+|,", text):
            row += pieces(word)
        # CLIP pads with the end token.
        rows.append(row + [end] * (MAX_TOKENS - len(row)))
    return torch.tensor(rows)
