"""The run record: its JSON Schema, what never reaches a file, and runs of version 1."""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from inline_snapshot import external_file

from diffusers_perf.catalog.metrics import GPU_SPEEDUP, LATENCY_SPEEDUP
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.cli import __main__ as command
from diffusers_perf.records import pixels, run
from diffusers_perf.records.files import as_json
from diffusers_perf.records.quantities import Record
from diffusers_perf.records.reading import run_of
from diffusers_perf.records.run import Run, RunFile
from perf_tests.tests import schema1
from perf_tests.tests.unit.recorded import FOLDER as RECORDED

SCHEMA = Path(run.__file__).with_name("run.schema.json")

# The JSON Schema


def schema_of(kind: type[Record]) -> dict[str, Any]:
    """The JSON Schema of a record, with the docstring of each field as its description."""
    (whole,), parts = msgspec.json.schema_components(
        [kind],
        schema_hook=lambda _: {"description": "any JSON value"},
        ref_template="#/$defs/{name}",
    )
    kinds = {record.__name__: record for record in records()}
    for name, part in parts.items():
        if "description" in part:
            # Releases of msgspec differ in how they indent a docstring.
            part["description"] = " ".join(part["description"].split())
        # A `Count` is an array.
        described = descriptions(kinds[name]) if name in kinds and "properties" in part else {}
        for field, words in described.items():
            part["properties"][field]["description"] = words
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "$defs": parts}


def records(kind: type[Record] = Record) -> Iterator[type[Record]]:
    """All kinds of records below this one."""
    for below in kind.__subclasses__():
        yield below
        yield from records(below)


def descriptions(kind: type[Record]) -> dict[str, str]:
    """By field, the docstring under it."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, words in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(words.value, ast.Constant)
            found[field.target.id] = " ".join(str(words.value.value).split())
    return found


def test_committed_run_schema_is_current() -> None:
    """After a change, run this test with ``--inline-snapshot=fix``."""
    text = json.dumps(schema_of(RunFile), indent=1) + "\n"
    assert text == external_file(SCHEMA, format=".txt")


def test_records_have_no_any() -> None:
    """A workload's values are whatever it declares; everything else has a type."""
    for kind in records():
        for field in msgspec.structs.fields(kind):
            assert field.type is not Any, f"{kind.__name__}.{field.name}"


# Numbers that are not finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_number_reaches_no_file(value: float) -> None:
    text = as_json({"time": value, "times": [value, 1.0], "path": Path("run.json")})
    assert json.loads(text) == {"time": None, "times": [None, 1.0], "path": "run.json"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_image_numbers_are_finite(value: float) -> None:
    images = np.full((1, 16, 16, 3), 0.5, dtype=np.float32)
    broken = images.copy()
    broken[0, 0, 0] = value
    look, distance = pixels.look(broken), pixels.distance(broken, images)
    assert not look.finite
    numbers = (look.mean, look.std, distance.psnr_db, distance.ssim)
    assert all(math.isfinite(number) for number in numbers)


# Runs of version 1


@pytest.fixture
def old() -> dict[str, Any]:
    """A run as version 1 wrote it."""
    content: dict[str, Any] = json.loads((RECORDED / "h200-1.json").read_text())
    assert content["perf_tests"]["schema"] == 1
    return content


def converted(content: dict[str, Any]) -> Run:
    """As all recorded runs of version 1 are, before this version reads them."""
    return run_of(schema1.upgraded(content), Path("run.json"))


def test_run_of_version_1_is_converted(old: dict[str, Any]) -> None:
    info = old["benchmarks"][1]["extra_info"]
    found = converted(old)
    assert found.session.harness_version == old["perf_tests"]["measuring"]
    assert found.machine.name == old["machine_info"]["perf_tests"]["name"]
    case = found.by_id["ddim50-tf32"]
    seen = case.measurement
    assert seen.latency_s == info["latency_s"]
    for metric in (LATENCY_SPEEDUP, GPU_SPEEDUP):
        speedup = metric.of(seen, case.compared_with)
        assert speedup == pytest.approx(info[metric.field], rel=1e-6)
    assert seen.num_images == info["images"]
    assert seen.roofline_s == info["floor_s"]
    assert seen.image_distance is not None
    assert seen.image_distance.psnr_db == info["picture"]["psnr_db"]
    assert {n: c.total(seen.steps) for n, c in seen.counters.items()} == {
        name: count["total"] for name, count in info["counters"].items()
    }
    assert seen.interference.sm_clocks_mhz == tuple(info["validity"]["sm_clocks_mhz"])
    assert case.tolerance is not None
    assert case.tolerance.psnr_db == info["promise"]["psnr_db"]
    assert case.workload["num_images"] == 1


@pytest.mark.parametrize(
    ("word", "status"),
    [("unclear", "inconclusive"), ("flat", "uniform"), ("worse picture", "worse image")],
)
def test_words_of_version_1_are_translated(old: dict[str, Any], word: str, status: str) -> None:
    old["benchmarks"][1]["extra_info"].update(verdict=word, sentence=f"{word}: ddim50-tf32: why")
    lost = {"case": "x", "workload": "w", "verdict": word, "sentence": "why", "by_choice": False}
    old["perf_tests"]["not_timed"].append(lost)
    found = converted(old)
    case = found.by_id["ddim50-tf32"]
    assert case.status == Status(status)
    assert case.sentence == f"{status}: ddim50-tf32: why"
    assert [(gone.id, gone.status) for gone in found.session.not_timed] == [("w-x", status)]


def test_numbers_of_an_image_that_is_not_finite_are_dropped(old: dict[str, Any]) -> None:
    """Version 1 wrote NaN there, which is not JSON."""
    old["benchmarks"][1]["extra_info"]["picture"].update(
        finite=False, mean=math.nan, psnr_db=-math.inf
    )
    seen = converted(old).by_id["ddim50-tf32"].measurement
    assert not seen.look.finite
    assert math.isfinite(seen.look.mean)


def test_nan_elsewhere_is_refused(old: dict[str, Any]) -> None:
    old["benchmarks"][1]["extra_info"]["gpu_busy_s"] = math.nan
    with pytest.raises(Refusal, match=r"seeded-2023/tf32: measurement\.gpu_busy_s"):
        converted(old)


def test_run_of_version_1_is_refused(
    old: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(old))
    assert command.main(["gate", str(tmp_path / "run.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("run.json: has schema 1; this version reads schema 2")


@pytest.mark.parametrize("name", ["same", "injected"])
def test_every_recorded_run_of_version_1_is_read(name: str) -> None:
    sides = json.loads(gzip.decompress((RECORDED / f"h200-{name}.json.gz").read_bytes()))
    for content in (*sides["base"], *sides["head"]):
        found = converted(content)
        assert len(found.cases) == len(content["benchmarks"])
        assert json.loads(as_json(msgspec.to_builtins(found.cases))) is not None
