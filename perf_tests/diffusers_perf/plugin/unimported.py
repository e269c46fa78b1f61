"""Why a test file or conftest.py could not be imported, in one sentence with the user's line."""

from __future__ import annotations

from types import FrameType

import pytest

from diffusers_perf.catalog import mistakes


def why(collector: pytest.Collector, report: pytest.CollectReport) -> str:
    """Of a report that failed; empty where its error is not one of the file's own."""
    error = _error_of(report)
    return (_in(collector.path, error) or why_conftest(error)) if error else ""


def why_conftest(error: BaseException) -> str:
    """For an error of pytest that it cannot import one; empty for any other."""
    # pytest does not export the class of this error.
    path, cause = getattr(error, "path", None), getattr(error, "cause", None)
    return _in(path, cause) if isinstance(cause, BaseException) else ""


def _in(file: object, error: BaseException) -> str:
    def is_own(frame: FrameType) -> bool:
        return frame.f_code.co_filename == str(file)

    return mistakes.sentence(error, is_own)


def is_mistake(report: pytest.CollectReport) -> bool:
    """Whether a declaration is wrong, and not what the file does beside it."""
    error = _error_of(report)
    return error is not None and mistakes.is_mistake(error)


def _error_of(report: pytest.CollectReport) -> BaseException | None:
    call: pytest.CallInfo[object] | None = getattr(report, "call", None)
    if call is None or call.excinfo is None:
        return None
    error = call.excinfo.value
    # pytest's own stands for what could not be imported.
    return error.__cause__ if isinstance(error, pytest.Collector.CollectError) else error
