"""The digest of the measuring code: what changes it, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusers_perf.measurement import measuring

CODE = '''"""A stopwatch."""


def wait(seconds: float) -> float:
    """Wait."""
    # Because.
    return seconds * 2
'''


def digest_of(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return measuring.digest_of(folder / f"{name}.py" for name in files)


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ("# Because.", "# Since.", True),
        ('"""Wait."""', '"""Wait for so long."""', True),
        ("seconds * 2", "(seconds  *  2)", True),
        ("seconds * 2", "seconds * 3", False),
        ("wait", "pause", False),
    ],
)
def test_digest_changes_with_the_measuring_code(
    tmp_path: Path, was: str, now: str, same: bool
) -> None:
    before = digest_of(tmp_path, timing=CODE)
    after = digest_of(tmp_path, timing=CODE.replace(was, now))
    assert (before == after) is same


def test_digest_changes_with_one_more_file(tmp_path: Path) -> None:
    assert digest_of(tmp_path, timing=CODE) != digest_of(tmp_path, timing=CODE, quiet="")


def test_judging_modules_exist_and_all_others_measure() -> None:
    files = {path.stem for path in Path(measuring.__file__).parent.glob("*.py")}
    assert files > set(measuring.NOT_MEASURING)
    assert {"timing", "counters", "bench", "interference", "roofline"} <= files - set(
        measuring.NOT_MEASURING
    )
    assert len(measuring.digest()) == 12
