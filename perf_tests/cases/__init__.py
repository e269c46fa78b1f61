"""This repository's own declarations: workloads and suites."""

from diffusers_perf import optimizations  # noqa: F401  # isort: skip

from perf_tests.cases import suites  # noqa: F401
