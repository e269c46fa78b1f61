"""A catalog refuses what whoever adds a declaration can get wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Optimization, Tolerances
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.catalog.registry import Catalog, suites_of
from perf_tests.tests.unit.fake import WORKLOAD


def sound(build: Build) -> None:
    """It is."""


def blank(build: Build) -> None:
    """ """


def made(name: str) -> Optimization:
    return Optimization(
        name=name,
        apply=sound,
        applied=lambda pipeline: None,
        tolerance=Tolerances(),
        needs=Needs(),
    )


def test_optimization_has_a_docstring_and_an_applied_check() -> None:
    with pytest.raises(ValueError, match="blank has no docstring"):
        optimization(applied=lambda _: None)(blank)
    with pytest.raises(ValueError, match="sound has no applied check that can be called"):
        optimization(applied=None)(sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"decides takes members of Slot \(got 'dtype'\)"):
        optimization(applied=lambda _: None, decides=("dtype",))(sound)  # type: ignore[arg-type]


def test_declaration_stands_at_module_level() -> None:
    with pytest.raises(RuntimeError, match="declarations must be made at module level"):
        optimization(applied=lambda _: None)(sound)


def test_name_is_declared_once() -> None:
    catalog = Catalog()
    catalog.add(made("one"))
    catalog.stack("named", "one")
    for name in ("one", "named", "reference"):
        with pytest.raises(ValueError, match=f"the name '{name}' is taken"):
            catalog.add(made(name))


def test_two_workloads_have_two_names() -> None:
    catalog = Catalog()
    catalog.add_cases(WORKLOAD)
    with pytest.raises(ValueError, match=f"another workload is called '{WORKLOAD.name}'"):
        catalog.add_cases(replace(WORKLOAD, seed=WORKLOAD.seed + 1))
    # The same at another scale, of which no run has both.
    catalog.add_cases(replace(WORKLOAD, model="sd15"))
    catalog.add_cases(replace(WORKLOAD, name="another"))
    assert len(catalog.cases) == 3


def test_suite_can_be_selected_as_a_mark() -> None:
    for name in ("two words", "and", ""):
        with pytest.raises(ValueError, match="a suite's name must be a Python identifier"):
            Catalog().add_cases(WORKLOAD, suite=name)


def test_reference_is_in_each_suite_of_its_workload() -> None:
    catalog = Catalog()
    catalog.add(made("one"))
    catalog.add(made("two"))
    catalog.add_cases(WORKLOAD, "one", suite="first")
    catalog.add_cases(WORKLOAD, "two", suite="second")
    assert [suites_of(case, catalog.cases) for case in catalog.cases] == [
        ["first", "second"],
        ["first"],
        ["second"],
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps must be a positive integer (got 0)"),
        ({"height": 0}, "height must be a positive integer (got 0)"),
        ({"num_frames": 1.5}, "num_frames must be a positive integer (got 1.5)"),
        ({"generator": 1}, "generator is not part of call; it follows from steps and seed"),
    ],
)
def test_workload_can_be_generated(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{WORKLOAD.name}: {says}")):
        WORKLOAD.changed(**change)


def test_changed_workload_differs_in_nothing_else() -> None:
    changed = WORKLOAD.changed(prompt="another", seed=1, strength=0.5)
    assert changed.call == {**WORKLOAD.call, "prompt": ["another"] * 2, "strength": 0.5}
    assert (changed.seed, changed.name, changed.steps) == (1, WORKLOAD.name, WORKLOAD.steps)
    assert (changed.num_images, changed.size) == (2, "64x64")


def test_workload_of_a_video_names_its_frames() -> None:
    workload = WORKLOAD.changed(width=832, height=480, num_frames=33)
    assert workload.size == "832x480, 33 frames"


def test_each_input_of_a_workload_is_probed() -> None:
    workload = replace(WORKLOAD, sensitive_to={"guidance": {"guidance_scale": 1.0}})
    probes = workload.probes
    assert list(probes) == ["seed", "guidance", "prompt"]
    assert probes["guidance"].call == {**WORKLOAD.call, "guidance_scale": 1.0}
    assert probes["prompt"].prompts == ["at night, a fake"] * 2
    # Embeddings are the user's to change.
    bare = replace(WORKLOAD, call={"prompt_embeds": object()})
    assert list(bare.probes) == ["seed"]
