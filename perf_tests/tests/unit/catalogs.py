"""Catalogs that several test files read."""

from __future__ import annotations

from functools import cache

from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.registry import Catalog


@cache
def ours() -> Catalog:
    """What this repository declares."""
    return declared_in("perf_tests.cases")
