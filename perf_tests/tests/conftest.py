"""The tests' own pytest settings: in them, warnings are errors.

Not in `pyproject.toml`, which the main job reads as well: there a warning is a verdict, and one of
a library must not fail a measurement.
"""

import pytest

STRICT = pytest.mark.filterwarnings(
    "error",
    # diffusers renames an argument that every release we run with still takes.
    "ignore:`torch_dtype` is deprecated:FutureWarning",
    # Its Euler scheduler gives NumPy a tensor of torch.
    "ignore:__array__ implementation:DeprecationWarning:diffusers",
)
WITH_A_SESSION = pytest.mark.filterwarnings(
    # pytest-benchmark, of a session that was refused or that collected only.
    "ignore:Not saving anything, no benchmarks have been run!",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    # A session that a test starts in this process inherits the filters, and warnings of its own are
    # what such a test is about.
    starts_a_session = "pytester" in getattr(item, "fixturenames", ())
    item.add_marker(WITH_A_SESSION if starts_a_session else STRICT)
