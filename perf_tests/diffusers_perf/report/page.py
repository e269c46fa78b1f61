"""The page: one file that opens anywhere, with its style, script, charts and images in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from diffusers_perf.messages.numbers import percent, plural
from diffusers_perf.messages.report import WHERE_TIME_GOES
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.report import charts, figures, tradeoff
from diffusers_perf.report.content import Report, mood_of
from diffusers_perf.report.images import gallery

TEMPLATES = Path(__file__).parent / "templates"
MOST_BYTES = 4_800_000
WORDS_BYTES = 150_000
"""What style, script and frame take; and tables, for each case:"""
CASE_BYTES = 9_000


def render(
    report: Report, images: Path, store: BaselineStore, *, source: str, trends: str = ""
) -> str:
    """The page's HTML, with the images of that folder, under 5 MB. `trends` is the history's page
    beside it, if there is one.

    What came out of a run's JSON is escaped; nothing is fetched.
    """
    words = WORDS_BYTES + CASE_BYTES * len(report.cases)
    shown = gallery(report, images, store, budget_bytes=min(3_600_000, MOST_BYTES - words))
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return template("page.html").render(
        report=report,
        gallery=shown,
        charts={
            workload.name: {
                "latency": charts.latency(workload),
                "families": charts.families(workload),
                "stages": charts.stages(workload),
                "tradeoff": tradeoff.tradeoff(workload),
            }
            for workload in report.workloads
        },
        ids=_ids(report, shown.references),
        sections=_sections(report),
        facts=_facts(report),
        with_base=any(case.base for case in report.cases),
        policy=policy_for(script),
        script=script,
        source=source,
        trends=trends,
        mood_of=mood_of,
    )


@cache
def template(name: str) -> Template:
    """A page's template, with what all pages use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".") + "%"
    environment.filters["seconds"] = figures.seconds
    environment.globals.update(
        plural=plural,
        words_and_command=figures.words_and_command,
        seconds=figures.seconds,
        multiple=figures.multiple,
        mebibytes=figures.mebibytes,
        similarity=figures.similarity,
        percent_change=percent,
    )
    return environment.get_template(name)


def policy_for(script: str) -> str:
    """A policy that runs this script only and fetches nothing, whatever the page contains."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _ids(report: Report, references: Iterable[str]) -> dict[str, str]:
    """Names for images in the page: a case may be called anything."""
    names = [*(case.id for case in report.cases), *references]
    return {name: f"p{number}" for number, name in enumerate(dict.fromkeys(names))}


def _sections(report: Report) -> list[tuple[str, str]]:
    sections = [("comparison", "Comparison")] if report.comparison else []
    sections += [("findings", "Findings")] if report.summary.findings else []
    return [
        *sections,
        ("speed", "Speed"),
        ("time", WHERE_TIME_GOES),
        ("images", "Images"),
        ("tradeoffs", "Trade-offs"),
        ("counters", "Counters"),
        ("machine", "Machine"),
    ]


def _facts(report: Report) -> list[tuple[str, str]]:
    shown = ("driver", "torch", "diffusers", "model", "measured", "commit")
    return [(name, value) for name, value in report.machine if name in shown]
