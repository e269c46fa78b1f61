"""Values from a run as GitHub Markdown in which nothing is markup, a link or a mention.

A run may come from the code of a pull request, while its report is posted with a maintainer's
rights. HTML entities keep Markdown out. They do not stop GitHub's linking, which reads the text
that is left: a word joiner does, an invisible character without width.
"""

from __future__ import annotations

import html
import re

JOINER = "\u2060"
MARKUP = re.compile(r"[\\`*_\[\]|~]")
LINKED = re.compile(
    r":(?=//)|www(?=\.)|[@#](?=\w)|\bgh-(?=\d)|:(?=[\w+-]+:)",
    re.IGNORECASE,
)
"""What comes before the place where a joiner keeps GitHub from linking."""
SHORTEST_COMMIT = 7
COMMIT = re.compile(rf"\b[0-9a-f]{{{SHORTEST_COMMIT},}}\b", re.IGNORECASE)
LINE_START = re.compile(r"(?:[-+]|#{1,6}|\d{1,9}[.)])(?:\s|$)|[-=]+$")
"""What would begin a list, a heading or a rule."""
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, and those that change the direction of the text after them."""


def text(words: str, most: int | None = None) -> str:
    """Words that read as they are, on one line; cut to this many characters of them."""
    plain = _plain(words, most)
    joined = LINKED.sub(lambda found: found[0] + JOINER, plain)
    joined = COMMIT.sub(_apart, joined)
    if LINE_START.match(joined):
        joined = JOINER + joined
    escaped = html.escape(joined, quote=False)
    escaped = MARKUP.sub(lambda found: f"&#{ord(found[0])};", escaped)
    # GitHub reads mathematics between dollars; this is how its documentation writes one.
    return escaped.replace("$", "<span>$</span>")


def name(words: str, most: int | None = None) -> str:
    """The same in the letters of code."""
    return f"<code>{text(words, most)}</code>"


def code(words: str, most: int | None = None) -> str:
    """Code to be copied, without joiners. Not for a cell of a table: a ``|`` would end it."""
    plain = _plain(words, most)
    longest = max(map(len, re.findall("`+", plain)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{plain}{pad}{fence}" if plain else ""


def _apart(commit: re.Match[str]) -> str:
    step = SHORTEST_COMMIT - 1
    return JOINER.join(commit[0][at : at + step] for at in range(0, len(commit[0]), step))


def _plain(words: str, most: int | None) -> str:
    plain = " ".join(UNSEEN.sub("\ufffd", " ".join(words.split())).split())
    return plain if most is None or len(plain) <= most else plain[: most - 1] + "…"
