"""What a stack can be made of, as `explore --list` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers_perf.catalog.discovery import shipped
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.cli.answers import listed
from diffusers_perf.plugin.finding import find_project


def stackable(model: str | None) -> Iterator[str]:
    """A line for each optimization and named stack: first what ships, whatever is wrong with the
    repository's own declarations, of which a `Refusal` says it after that.
    """
    ships = _lines(shipped())
    yield from listed(ships)
    own: dict[str, str] = {}
    for catalog in find_project(model).catalogs:
        own |= _lines(catalog)
    yield from listed({name: line for name, line in own.items() if name not in ships})


def _lines(catalog: Catalog) -> dict[str, str]:
    """By name, what each is."""
    optimizations = {name: one.line for name, one in catalog.optimizations.items()}
    return optimizations | {name: "+".join(of) for name, of in catalog.stacks.items()}
