"""The words of the report, as a person reads them, in ``messages/``. Other tests assert facts.

After a change run this module with ``--inline-snapshot=fix,create`` and read what it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from html import unescape
from pathlib import Path

import pytest
from inline_snapshot import external_file

from diffusers_perf import report
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.report import markdown
from diffusers_perf.report.escape import JOINER
from perf_tests.tests.unit.drawn import shown
from perf_tests.tests.unit.recorded import (
    Content,
    case,
    drop,
    keep,
    machine,
    process,
    session,
    side,
    slow,
    write,
)


@pytest.fixture(autouse=True)
def folder(no_baselines: Path) -> Path:
    """A folder of baselines in which nothing is accepted."""
    return no_baselines


STORE = BaselineStore(Path("baselines"))


def visible(html: str) -> str:
    """What a person reads on the page, one line for each block."""
    html = re.sub(r"<(style|script|svg|title)\b.*?</\1>", "", " ".join(html.split()), flags=re.S)
    html = re.sub(r'<[^>]*aria-label="([^"]*)"[^>]*>', r"<p>[\1]</p>", html)
    html = re.sub(r"</?(?:p|h\d|li|tr|dl|ul|div|section|article|summary)\b[^>]*>", "\n", html)
    html = re.sub(r"</t[hd]>(?=\s*<)", " | ", html)
    lines = unescape(re.sub(r"<[^>]*>", " ", html)).splitlines()
    return "".join(
        f"{' '.join(line.split()).removesuffix(' |')}\n" for line in lines if line.strip()
    )


def run() -> Content:
    """With something to see in every part."""
    content = process("run")
    for name in ("ddim50-reference", "ddim50-fp16"):
        measured = case(content, name)["measurement"]
        measured["stages_s"] = {"denoising": 0.9, "decoder": 0.05}
        measured["families"] = {"matmul": {"gpu_s": 0.5, "kernels": 7}}
    case(content, "ddim50-fp16").update(status="slower", sentence="slower: ddim50-fp16: slow")
    keep(content, "ddim50-reference", "ddim50-fp16")
    return content


def test_page(tmp_path: Path) -> None:
    base = run()
    head = deepcopy(base)
    slow(head, "ddim50-fp16", by=1.2)
    paths = [shown(one, tmp_path / f"{name}.json") for name, one in (("b", base), ("h", head))]
    out = tmp_path / "page.html"
    assert report.write([paths[1]], STORE, base=[paths[0]], html=out) == 0
    assert visible(out.read_text()) == external_file("messages/page.txt")


def test_comment(tmp_path: Path) -> None:
    head, base = side("head"), side("base")
    for content in (*head, *base):
        keep(content, "ddim50-reference", "ddim50-fp16")
    for content in head:
        slow(content, "ddim50-fp16", by=1.06)
    heads, bases = write(head, tmp_path, "head"), write(base, tmp_path, "base")
    assert comment(heads, bases) == external_file("messages/comment.txt")


def comment(head: Sequence[Path], base: Sequence[Path]) -> str:
    content = report.make(load_run(head[0]), STORE, head=head, base=base)
    return unescape(markdown.render(content)).replace(JOINER, "")


def summary(content: Content, tmp_path: Path, *, base: Content | None = None) -> str:
    """The first sentence and the next command."""
    head = shown(content, tmp_path / "head.json")
    bases = [shown(base, tmp_path / "base.json")] if base else []
    made = report.make(load_run(head), STORE, head=[head], base=bases).summary
    return f"{made.mood}: {made.sentence}\nnext: {made.next}\n"


def test_summaries(tmp_path: Path) -> None:
    good = process("run")
    for name in ("ddim50-reference", "ddim50-tf32", "ddim50-fp16"):
        case(good, name)["status"] = "same"
    keep(good, "ddim50-reference", "ddim50-tf32", "ddim50-fp16")

    def changed(*statuses: str) -> Content:
        content = deepcopy(good)
        for name, status in zip(("ddim50-fp16", "ddim50-tf32"), statuses, strict=False):
            case(content, name).update(status=status, sentence=f"{status}: {name}: the reason")
        return content

    other = deepcopy(good)
    machine(other)["name"] = "Another GPU"
    ended = deepcopy(good)
    drop(ended, "ddim50-fp16")
    session(ended)["expected"].append("ddim50-fp16")
    nothing = deepcopy(good)
    nothing["benchmarks"] = []
    said = {
        "no baseline": summary(good, tmp_path),
        "one fails": summary(changed("slower"), tmp_path),
        "two fail": summary(changed("slower", "black"), tmp_path),
        "inconclusive": summary(changed("inconclusive", "invalid"), tmp_path),
        "ended early": summary(ended, tmp_path),
        "nothing measured": summary(nothing, tmp_path),
        "single runs": summary(good, tmp_path, base=good),
        "another machine": summary(good, tmp_path, base=other),
    }
    text = "\n".join(f"[{name}]\n{one}" for name, one in said.items())
    assert text == external_file("messages/summaries.txt")
