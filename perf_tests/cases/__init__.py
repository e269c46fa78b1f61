"""This repository's own declarations: workloads and suites."""

from perf_tests.cases import suites  # noqa: F401 (declares by being imported)
