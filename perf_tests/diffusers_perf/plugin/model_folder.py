"""A model folder comes from elsewhere: it is not collected, and its settings do not count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusers_perf.records.files import real


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """`pytest.UsageError` where pytest took its settings from the model folder.

    It reads them before it knows this plugin's options, and takes the value behind ``--model`` for
    a test path where the two are separate arguments.
    """
    model = getattr(early_config.known_args_namespace, "model", None)
    folder, settings = _folder(model), early_config.inipath
    if folder and settings and folder in real(settings).parents:
        raise pytest.UsageError(
            f"pytest took its settings from the model folder ({settings}): write --model={model}"
        )
    return (yield)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over a model folder that lies below the tests."""
    folder = _folder(config.getoption("model", None))
    return True if folder and real(collection_path) == folder else None


def _folder(model: object) -> Path | None:
    # Path.is_dir raises for a name that is too long.
    return real(Path(model)) if isinstance(model, str) and os.path.isdir(model) else None  # noqa: PTH112
