"""Values from a run in GitHub Markdown: nothing becomes markup, a link or a mention."""

from __future__ import annotations

import re
from html import unescape

import pytest

from diffusers_perf.report.escape import JOINER, code, name, text


def seen(markdown: str) -> str:
    """What a person reads."""
    return unescape(re.sub(r"</?(?:span|code)>", "", markdown)).replace(JOINER, "")


LINKS = [
    "https://example.org/x",
    "see www.example.org",
    "WWW.example.org",
    "write to someone@example.org",
    "@someone and @org/team",
    "Fixes #1",
    "owner/name#12",
    "GH-1 and gh-22",
    "commit be553dea91",
    "be553dea914f8661cfae1ade162c1208532ffcec",
    "owner/name@be553dea91",
    ":white_check_mark: passed",
]
LINKED = re.compile(r"://|www\.|[@#]\w|\bgh-\d|\b[0-9a-f]{7,40}\b|:[\w+-]+:", re.IGNORECASE)
"""What GitHub turns into a link, a mention or an emoji."""


@pytest.mark.parametrize("words", LINKS)
def test_nothing_is_linked(words: str) -> None:
    assert LINKED.search(words)
    assert not LINKED.search(unescape(text(words)))
    assert seen(text(words)) == words


@pytest.mark.parametrize(
    "words",
    [
        "**bold** _it_ ~~gone~~ `code`",
        "[x](y) ![image](z) | cell",
        "<script>alert(1)</script> <!-- --> &amp; &lt;",
        "a \\| b",
        "$x^2$ and $$y$$",
    ],
)
def test_nothing_is_markup(words: str) -> None:
    escaped = text(words)
    assert not re.search(r"[*_~`|\\\[\]]|<(?!/?span>)|\$(?!</span>)", escaped)
    assert seen(escaped) == words


@pytest.mark.parametrize(
    "words", ["# title", "- item", "+ item", "1. one", "2) two", "=====", "---"]
)
def test_nothing_begins_a_block(words: str) -> None:
    assert text(words).startswith(JOINER)
    assert seen(text(words)) == words


@pytest.mark.parametrize("words", ["0.619 s", "+6.0 %", "-2", "580.159.04"])
def test_number_is_unchanged(words: str) -> None:
    assert text(words) == words


def test_value_stays_on_one_line() -> None:
    assert text("one\n\n## two\ttabs  spaces") == "one ## two tabs spaces"
    assert "\n" not in code("one\ntwo")


def test_deceptive_characters_are_visible() -> None:
    for character in "\x1b\x07\u202e\u200b\ufeff\ud800":
        assert text(f"a{character}b") == "a\ufffdb"
        assert code(f"a{character}b") == "`a\ufffdb`"


def test_ordinary_text_is_unchanged() -> None:
    assert name("ddim50-tf32+fp16") == "<code>ddim50-tf32+fp16</code>"
    command = 'pytest "perf_tests/test_generation.py::test_generation[a-b]" --model x@y.org'
    assert code(command) == f"`{command}`"


@pytest.mark.parametrize("words", ["`", "``", "a`b", "`a", "a``b`c"])
def test_backquote_does_not_end_code(words: str) -> None:
    fence = re.match("`+", code(words))
    assert fence
    assert fence[0] not in words
    assert code(words) == f"{fence[0]} {words} {fence[0]}"


def test_words_are_cut_before_they_are_escaped() -> None:
    assert text("*" * 100, 3) == "&#42;&#42;…"
    assert code("", 3) == ""
