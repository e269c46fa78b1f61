"""Every reader takes any file: thousands of each, others in each run.

pytest perf_tests/tests/full/test_fuzz.py
"""

from __future__ import annotations

import pytest

from perf_tests.tests.fuzzing import COMMANDS, READERS, check, check_command


@pytest.mark.parametrize("name", READERS)
def test_any_file_is_read_or_refused_in_a_sentence(name: str) -> None:
    check(READERS[name], examples=1000)


@pytest.mark.parametrize("name", COMMANDS)
def test_any_run_is_judged_or_refused_in_a_sentence(name: str) -> None:
    check_command(name, examples=300)
