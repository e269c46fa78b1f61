"""Counts the words of version 1's dialect in code, messages and documents.

    python -m perf_tests.tests.english [FOLDER]

Prints each place and the count. `unit/test_documents.py` allows none in documents.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIALECT = re.compile(
    r"(?<!there )\b(?:is|are) no (?!longer|more\b)|\btold\b|\bnobody\b|\bsomebody\b|\bbesides\b"
    r"|\bheld to\b|\bof what\b|\bmend(?:s|ed)?\b|\bas many again\b|\bone and the same\b"
    r"|\bcould not be told\b|\bthat is none\b|\bhold(?:s|ing)? (?:it|them|head|one|each) to\b",
    re.IGNORECASE,
)
"""A subject with "is no", and the words that style.md and design.md name."""
SUFFIXES = frozenset({".py", ".md", ".sh", ".yml", ".toml", ".html", ".js", ".css"})
DATA = ("HISTORY.md", "/frozen/", "/messages/", "english.py")
"""A log, and version 1's own answers, which tests compare with."""


def places(root: Path = ROOT) -> Iterator[tuple[Path, int, str]]:
    """File, line and word of each hit below `root`, hidden folders of tools left out."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = re.search(r"(^|/)(\.git|\.venv|\.\w+_cache|runs|\w[\w-]*\.egg-info)/", name)
        if hidden or path.suffix not in SUFFIXES or any(part in f"/{name}" for part in DATA):
            continue
        yield from ((path, number, word) for number, word in words(path.read_text()))


def words(text: str) -> Iterator[tuple[int, str]]:
    """Line and word of each hit in a text; a phrase may be broken over two lines."""
    for match in DIALECT.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    found = list(places(root))
    for path, number, word in found:
        print(f"{path.relative_to(root)}:{number}: {word}")
    print(f"{len(found)} in {len({path for path, *_ in found})} files")


if __name__ == "__main__":
    main()
