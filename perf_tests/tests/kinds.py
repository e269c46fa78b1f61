"""Kinds of regressions that users reported, and what shows that each is detected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers_perf import faults

TESTS = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind, with its examples: faults and controls of the catalog, or tests."""

    what: str
    faults: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    """``FILE::TEST`` below `tests/`, of what no single run of the catalog can show."""
    detector: str = ""
    """What detects what the tests show."""

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """Its faults that can be injected without a GPU."""
        return tuple(name for name in self.faults if faults.declared()[name].runs_on("cpu"))

    def check(self) -> None:
        """`KeyError` or `ValueError` for an example that is not there."""
        for name in self.faults:
            faults.declared()[name]
        for test in self.tests:
            file, _, name = test.partition("::")
            if f"def {name}(" not in (TESTS / file).read_text():
                raise ValueError(f"{test} is missing")


KINDS = (
    Kind(what="an image gets worse within a wide tolerance", faults=("last_step_to_one",)),
    Kind(what="a small drift of the reference", faults=("table_in_half_precision",)),
    Kind(what="a drift with a misleading reason", faults=("steps_offset_lost",)),
    Kind(what="an image depends on its batch", faults=("attention_of_a_batch",)),
    Kind(
        what="noise, output type and defaults that users get",
        faults=("generator_ignored", "pil_slow"),
    ),
    Kind(
        what="memory on the host",
        faults=("arrays_kept", "pil_images_kept", "embeddings_cached", "host_buffer"),
    ),
    Kind(what="a bounded cache", faults=("last_image_kept", "bounded_cache")),
    Kind(what="activations kept", faults=("no_grad_lost", "activations_for_gradients")),
    Kind(what="load and import", faults=("load_slow", "import_slow")),
    Kind(what="the text path", faults=("tokenizer_in_c", "tokenizer_in_python")),
    Kind(what="a cached result", faults=("call_cached", "last_call_cached", "call_copied")),
    Kind(what="a mask that stops flash attention", faults=("mask_stops_flash",)),
    Kind(what="determinism left on", faults=("determinism_left_on",)),
    Kind(what="guidance computed at scale 1", faults=("guidance_at_scale_1",)),
    Kind(what="adapters that are searched in each call", faults=("peft_walk",)),
    Kind(
        what="many small regressions",
        tests=("unit/test_pooling.py::test_small_regression_of_every_case_is_slower",),
        detector="latency of all cases together",
    ),
    Kind(
        what="another host under the same name",
        tests=(
            "unit/test_hosts.py::test_other_host_of_the_same_name_is_invalid",
            "unit/test_hosts.py::test_another_cpu_is_invalid_on_a_gpu_and_refused_without_one",
        ),
        detector="CPU model and calibration loops",
    ),
    Kind(
        what="a changed environment under the same versions",
        tests=("unit/test_ab.py::test_changed_environment_is_measured_anew",),
        detector="digest of the installed files",
    ),
    Kind(
        what="five faults at once in pairs on a busy CPU",
        tests=(
            "unit/test_starting.py::test_faults_at_once_are_detected_where_latency_is_inconclusive",
        ),
        detector="load, host time, flags, memory, counter",
    ),
    Kind(
        what="negative counts",
        tests=(
            "integration/test_uneven_steps.py::test_counts_of_a_cache_are_taken_over_its_period",
        ),
        detector="counts over a period of steps",
    ),
)
