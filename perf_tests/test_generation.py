"""Runs the cases that `perf_tests.cases` declares."""

from diffusers_perf import test_generation as test_generation
