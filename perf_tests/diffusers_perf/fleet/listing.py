"""A plugin that writes which cases a command line selects, and measures none.

python -m pytest perf_tests --collect-only -p diffusers_perf.fleet.listing --list-cases OUT
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.fleet.plan import ListedCase
from diffusers_perf.records.files import as_json, write_whole


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-cases", type=Path, required=True, metavar="OUT", help="file to write")


def pytest_collection_finish(session: pytest.Session) -> None:
    # Not above: pytest could no longer rewrite the plugin's modules, of which it would warn.
    from diffusers_perf.plugin.collection import SESSION
    from diffusers_perf.plugin.selection import cases_of

    perf = session.config.stash.get(SESSION, None)
    declared = perf.cases if perf else ()
    listed = [
        ListedCase(id=case.id, against=tuple(references(case, declared)))
        for case in cases_of(session.items)
    ]
    write_whole(session.config.getoption("list_cases"), as_json(listed))


def references(case: Case, declared: Sequence[Case]) -> list[str]:
    """Ids of the chain of cases that it is compared with, up to the reference."""
    found: list[str] = []
    while not case.is_reference:
        against = case.against
        case = next(c for c in declared if c.workload == case.workload and c.name == against)
        found.append(case.id)
    return found
