"""A catalog refuses what whoever adds a declaration can get wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Optimization, Slot, Tolerances
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.registry import Catalog, suites_of
from perf_tests.tests.unit.fake import WORKLOAD

NAME = WORKLOAD.name


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
    for wrong in ("dtype",), Slot.DTYPE:
        with pytest.raises(ValueError, match=r"decides must be a tuple of members of Slot \(got "):
            optimization(applied=lambda _: None, decides=wrong)(sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs must be diffusers_perf.Needs\(...\) \(got 'x'\)"):
        optimization(applied=lambda _: None, needs="x")(sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"aim must be one of speed, memory, .* \(got 'fun'\)"):
        optimization(applied=lambda _: None, aim="fun")(sound)  # type: ignore[arg-type]


def test_applied_check_that_returns_false_fails() -> None:
    namespace = dict[str, Any](optimization=optimization, sound=sound)
    for answer, passes in ((None, True), (True, True), ("seen", True), (False, False), (0, False)):
        namespace["answer"] = answer
        exec("made = optimization(applied=lambda _: answer)(sound)", namespace)
        said = f"sound: the applied check returned {answer}, so the optimization had no effect"
        with nullcontext() if passes else pytest.raises(Refusal, match=said):
            namespace["made"].applied(None)


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


@pytest.mark.parametrize("name", ["a+b", "a/b", "", ["a"]])
def test_stack_has_a_name_that_can_be_part_of_a_case(name: Any) -> None:
    with pytest.raises(ValueError, match=r"a stack's name must be a string that can be the name"):
        Catalog().stack(name, "one")


def test_stack_is_made_of_names() -> None:
    of: Any = ["one"]
    with pytest.raises(ValueError, match=r"^two: the stack must be a string .*\(got \['one'\]\)$"):
        Catalog().stack("two", of)


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
    for name in ("two words", "and", "", 3, None):
        with pytest.raises(ValueError, match="a suite's name must be a Python identifier"):
            Catalog().add_cases(WORKLOAD, suite=name)  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"name": 5}, "a workload: name must be a string that can be the name of a file (got 5)"),
        ({"name": ""}, "a workload: name must be a string that"),
        ({"name": "a/b"}, "a/b: name must be a string that"),
        ({"model": dict}, f'{NAME}: model must be a string: a Hub id, a folder, or "module:'),
        ({"model": ""}, f"{NAME}: model must be a string: a Hub id"),
        ({"call": ["a"]}, f"{NAME}: call must be a dict of arguments"),
        ({"call": {1: "a"}}, f"{NAME}: call must be a dict of arguments"),
        ({"inputs": {"image": 1}}, f"{NAME}: inputs must be a function without parameters"),
        ({"steps": "3"}, f"{NAME}: steps must be a positive integer (got '3')"),
        ({"steps": 2.5}, f"{NAME}: steps must be a positive integer (got 2.5)"),
        ({"seed": "x"}, f"{NAME}: seed must be an integer (got 'x')"),
        ({"scheduler": 5}, f"{NAME}: scheduler must be the name of a scheduler's class (got 5)"),
        ({"base": "bf16"}, f'{NAME}: base must be a tuple of names, such as ("bf16",)'),
        ({"base": ("bf16", 3)}, f"{NAME}: base must be a tuple of names"),
        ({"step_wise": "no"}, f"{NAME}: step_wise must be True or False (got 'no')"),
        ({"sensitive_to": {"a": {1: 1.0}}}, f"{NAME}: sensitive_to must be a dict such as"),
        ({"sensitive_to": {1: {"a": 1.0}}}, f"{NAME}: sensitive_to must be a dict such as"),
        ({"sensitive_to": {"a": 1.0}}, f"{NAME}: sensitive_to must be a dict such as"),
        ({"sensitive_to": ["a"]}, f"{NAME}: sensitive_to must be a dict such as"),
        (
            {"call": {"num_images_per_prompt": "2"}},
            f"{NAME}: num_images_per_prompt must be a positive integer (got '2')",
        ),
    ],
)
def test_field_of_another_kind_is_named(field: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        replace(WORKLOAD, **field)


@pytest.mark.parametrize("prompt", [None, {0: "a", 8: "b"}, [{"role": "user"}], ["a", 5]])
def test_prompt_that_is_no_text_is_not_probed(prompt: object) -> None:
    """As AnimateDiff's, which is by frame."""
    workload = replace(WORKLOAD, call={"prompt": prompt})
    assert (workload.prompts, workload.num_images) == ([], 1)
    assert list(workload.probes) == ["seed"]
    assert workload.changed(prompt_2="c").call == {"prompt": prompt, "prompt_2": "c"}


@pytest.mark.parametrize(
    "call", [{"batch_size": 3}, {"class_labels": [1, 2, 3]}, {"class_labels": (1, 2, 3)}]
)
def test_images_without_prompts_are_as_many_as_asked_for(call: dict[str, Any]) -> None:
    """As of diffusers' unconditional pipelines, and of DiT."""
    assert replace(WORKLOAD, call=call).num_images == 3


def test_prompts_are_found() -> None:
    assert replace(WORKLOAD, call={"prompt": ("a", "b")}).prompts == ["a", "b"]


def test_measure_takes_a_workload_and_names() -> None:
    untyped: Any = Catalog().add_cases
    with pytest.raises(ValueError, match=r"^measure takes a Workload, .* \(got 'one'\)$"):
        untyped("one", "fp16")
    with pytest.raises(ValueError, match=r"a stack is a string .* \(got \['fp16'\]\)"):
        untyped(WORKLOAD, ["fp16"])
    with pytest.raises(ValueError, match=r"against must be the name of a case \(got \['fp16'\]\)"):
        untyped(WORKLOAD, against=["fp16"])


def test_tolerance_is_one() -> None:
    untyped: Any = optimization

    def plain(build: Any) -> None:
        """Nothing."""

    with pytest.raises(ValueError, match=r"^plain: tolerance must be one of diffusers_perf.toler"):
        untyped(applied=print, tolerance=40)(plain)


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


def test_probe_of_an_input_takes_its_place() -> None:
    """What `inputs` makes goes before the call's own argument of that name."""
    workload = replace(
        WORKLOAD,
        inputs=lambda: {"image": "own", "mask": "own"},
        sensitive_to={"image": {"image": "other"}},
    )
    probes = workload.probes
    assert {**probes["image"].call, **probes["image"].inputs()} == {
        **WORKLOAD.call,
        "image": "other",
        "mask": "own",
    }
    assert probes["prompt"].inputs() == probes["seed"].inputs() == workload.inputs()


SAME = object()


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 7.5},
        {"prompt": "a fake"},  # of each in the batch
        {"latents": SAME},
        {"masks": [SAME, 1]},
        {"guidance_scale": 7.5, "seed": 0},
        {"scheduler": "PNDMScheduler"},  # with which a pipeline is built
        {},
    ],
)
def test_change_that_changes_nothing_is_refused(change: dict[str, Any]) -> None:
    """It fails every run, as an input that the pipeline ignores."""
    workload = replace(
        WORKLOAD.changed(latents=SAME, masks=[SAME, 1]),
        sensitive_to={"sound": {"guidance_scale": 1.0}, "own": change},
    )
    said = re.escape(f"{NAME}: sensitive_to['own'] does not change the call, so it cannot change")
    with pytest.raises(ValueError, match=f"^{said}"):
        Catalog().add_cases(workload)


@pytest.mark.parametrize(
    "change", [{"guidance_scale": 1.0}, {"seed": 3}, {"steps": 9}, {"latents": object()}]
)
def test_change_that_changes_something_is_declared(change: dict[str, Any]) -> None:
    workload = replace(WORKLOAD.changed(latents=SAME), sensitive_to={"own": change})
    catalog = Catalog()
    catalog.add_cases(workload)
    assert len(catalog.cases) == 1


@pytest.mark.parametrize("mask", [torch.ones(3), np.ones(3), [torch.ones(3)]])
@pytest.mark.parametrize("other", [0.5, "none", None, [0.5]])
def test_number_in_place_of_a_tensor_is_a_change(mask: Any, other: Any) -> None:
    for one, another in ((mask, other), (other, mask)):
        workload = replace(WORKLOAD.changed(mask=one), sensitive_to={"m": {"mask": another}})
        Catalog().add_cases(workload)


@pytest.mark.parametrize("make", [torch.ones, np.ones])
def test_namesake_with_tensors_of_its_own_is_refused(make: Callable[[int], Any]) -> None:
    catalog = Catalog()
    workload = WORKLOAD.changed(mask=make(3))
    catalog.add_cases(workload)
    with pytest.raises(ValueError, match=f"another workload is called '{NAME}'"):
        catalog.add_cases(WORKLOAD.changed(mask=make(3)))


def test_change_to_what_cannot_be_generated_is_refused() -> None:
    for change, says in (({"height": 0}, "must be a positive"), ({"generator": 1}, "is not part")):
        workload = replace(WORKLOAD, sensitive_to={"own": change})
        with pytest.raises(
            ValueError, match=rf"^{NAME}: .* {says} .*, in its sensitive_to\['own'\]"
        ):
            Catalog().add_cases(workload)
