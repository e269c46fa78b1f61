"""Counts the words of version 1's dialect in code, messages and documents.

    python -m perf_tests.tests.english [FOLDER]
    python -m perf_tests.tests.english --glossary [FOLDER]

Prints each place and the count. `unit/test_documents.py` allows none in documents. With
`--glossary`, a row for each word that the vocabulary replaced, and why those that are left are
left: run it on a checkout of version 1 for the counts before.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIALECT = re.compile(
    r"(?<!there )\b(?:is|are) no (?!longer|more\b)|\btold\b|\bnobody\b|\bsomebody\b|\bbesides\b"
    r"|\bheld to\b|\bof what\b|\bmend(?:s|ed)?\b|\bas many again\b|\bone and the same\b"
    r"|\bcould not be told\b|\bthat is none\b|\bhold(?:s|ing)? (?:it|them|head|one|each) to\b",
    re.IGNORECASE,
)
"""A subject with "is no", and the words that style.md and design.md name."""
GLOSSARY = {
    "chapter": (r"chapters?", ""),
    "past_guide": (r"past_guide", ""),
    "trading": (r"trading", ""),
    "picture": (r"pictures?", "keys of version 1's JSON; a trained caption"),
    "promise": (r"promis(?:e|es|ed)", "keys of version 1's JSON"),
    "closeness": (r"closeness", ""),
    "proof": (r"proofs?", ""),
    "floor": (r"floors?(?!\()", "keys of version 1's JSON"),
    "bound by": (r"bound[ _]by", "of an operator that arithmetic or memory bounds"),
    "first picture": (r"first[ _]pictures?", "keys of version 1's JSON"),
    "unclear": (r"unclear", "statuses of version 1's JSON"),
    "could not be told": (r"(?:could not|cannot) be told", ""),
    "can see": (r"can see", ""),
    "plant, planted": (r"plant(?:s|ed|ing)?", ""),
    "seen": (r"\"seen\"|(?:also_)?seen_by", "tokens that a layer saw, an environment variable"),
    "told": (r"told", ""),
    "quiet": (r"\"quiet\"|is quiet(?! machine)", ""),
    "verb": (r"verbs?", ""),
    "lane": (r"lanes?", ""),
    "not quiet": (r"not (?:a )?quiet", ""),
    "disturbed": (r"disturbed(?:_by)?", "keys of version 1's JSON"),
}
"""By a word of the vocabulary's column "replaces": where it counts as that word, and what the
places are that are left. `floor()` is a function of mathematics; a quiet machine or option and
what a function has seen are plain English, and count where they are the outcome of a fault.
"""
SUFFIXES = frozenset({".py", ".md", ".sh", ".yml", ".toml", ".html", ".js", ".css"})
DATA = ("HISTORY.md", "CHANGELOG.md", "/frozen/", "/messages/", "english.py")
"""Logs, one of which lists the replaced words, and the answers of version 1 that tests compare."""


def places(root: Path = ROOT) -> Iterator[tuple[Path, int, str]]:
    """File, line and word of each hit below `root`, hidden folders of tools left out."""
    for path in sources(root):
        yield from ((path, number, word) for number, word in words(path.read_text()))


def sources(root: Path) -> Iterator[Path]:
    """Code and documents below `root`."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = re.search(r"(^|/)(\.git|\.venv|\.\w+_cache|runs|build|\w[\w-]*\.egg-info)/", name)
        if not hidden and path.suffix in SUFFIXES and not any(part in f"/{name}" for part in DATA):
            yield path


def words(text: str) -> Iterator[tuple[int, str]]:
    """Line and word of each hit in a text; a phrase may be broken over two lines."""
    for match in DIALECT.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def glossary(root: Path = ROOT) -> dict[str, int]:
    """How often each replaced word stands below `root`, in any case and in names."""
    texts = [path.read_text() for path in sources(root)]
    return {
        word: sum(len(re.findall(rf"(?i)(?<![a-z]){rule}(?![a-z])", text)) for text in texts)
        for word, (rule, _) in GLOSSARY.items()
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, metavar="FOLDER")
    parser.add_argument("--glossary", action="store_true", help="count the replaced words")
    args = parser.parse_args(arguments)
    root: Path = args.root
    if args.glossary:
        for word, count in glossary(root).items():
            print(f"{word:18} {count:5}  {GLOSSARY[word][1] if count else ''}".rstrip())
        return
    found = list(places(root))
    for path, number, word in found:
        print(f"{path.relative_to(root)}:{number}: {word}")
    print(f"{len(found)} in {len({path for path, *_ in found})} files")


if __name__ == "__main__":
    main(sys.argv[1:])
