"""This repository's own declarations: workloads and suites."""

from perf_tests.cases import fast, served, suites  # noqa: F401 (declare by being imported)
