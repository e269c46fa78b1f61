"""The tokenizers of seeded models: CLIP's own, and one that stands in for T5's."""

from __future__ import annotations

import gzip
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

CLIP_BPE = Path(__file__).parent / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
CLIP_MERGES = 48_894
T5_MERGES = 31_500
"""As many of CLIP's as have a place among T5's 32,100 words."""
T5_WORDS = ("<pad>", "</s>", "<unk>")


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """CLIP's tokenizer, from its published byte pair merges: 49,408 entries."""
    # Each pipeline its own: words that one adds would be in every later one.
    return deepcopy(_clip_tokenizer(pad))


def stand_in_for_t5() -> Any:
    """A tokenizer with T5's special words and number of words, whose vocabulary cannot be had.

    Its words are CLIP's most frequent ones, so that a prompt has about as many tokens.
    """
    return deepcopy(_stand_in_for_t5())


@cache
def _clip_tokenizer(pad: str) -> Any:
    from transformers import CLIPTokenizer

    vocabulary, merges = _bpe(CLIP_MERGES)
    words = [*vocabulary, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab=_numbered(words), merges=merges, model_max_length=77, pad_token=pad)


@cache
def _stand_in_for_t5() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary, merges = _bpe(T5_MERGES)
    words = _numbered([*T5_WORDS, *vocabulary])
    tokenizer = Tokenizer(
        models.BPE(vocab=words, merges=merges, unk_token="<unk>", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def _bpe(count: int) -> tuple[list[str], list[Any]]:
    """The words of the first merges of CLIP's, and the merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(CLIP_BPE.read_bytes()).decode().split("\n")
    # Annotated as strings, but the tokenizers library takes pairs only.
    merges: list[Any] = [tuple(line.split()) for line in lines[1 : count + 1]]
    letters = list(bytes_to_unicode().values())
    ends = [f"{letter}</w>" for letter in letters]
    return [*letters, *ends, *("".join(merge) for merge in merges)], merges


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: index for index, word in enumerate(words)}
