"""Offloaded cases are loaded and changed in the host's memory. Here the CPU stands for the GPU:
what is moved to it names its number, and what is moved back does not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusers_perf import models
from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import counting, layers
from diffusers_perf.measurement.discovery import anatomy_of, denoisers, modules
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import DoesNotFit, Source, built
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB
from perf_tests.cases import workloads
from perf_tests.tests import tiny
from perf_tests.tests.unit.catalogs import ours

HOST, DEVICE = torch.device("cpu"), torch.device("cpu:0")
Move = tuple[torch.nn.Module, bool]
"""What was moved, and whether to the device."""
SMALL = replace(workloads.DDIM50_SMALL, steps=4)
FLUX = replace(workloads.FLUX8, steps=4)


@pytest.fixture(autouse=True)
def _without_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has none to fetch layers ahead on."""
    from diffusers import DiffusionPipeline

    models.quiet_libraries()
    enable = DiffusionPipeline.enable_group_offload

    def enabled(self: Any, *args: Any, **options: Any) -> None:
        enable(self, *args, **{**options, "use_stream": False})

    monkeypatch.setattr(DiffusionPipeline, "enable_group_offload", enabled)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[Move]:
    """Each module that was moved, in order."""
    seen: list[Move] = []
    move = torch.nn.Module.to

    def moving(self: Any, *args: Any, **options: Any) -> Any:
        target = options.get("device", args[0] if args else None)
        if isinstance(target, torch.device | str):
            seen.append((self, torch.device(target) == DEVICE))
        return move(self, *args, **options)

    monkeypatch.setattr(torch.nn.Module, "to", moving)
    return seen


def case_of(workload: Workload, stack: str) -> Case:
    return ours().case(workload, stack)


def images_of(workload: Workload, stack: str, source: Source) -> Any:
    with built(case_of(workload, stack), source, DEVICE) as pipeline:
        return Generation(pipeline, workload).images()


OFFLOADED = [
    (SMALL, "fp16+model_offload", "fp16"),
    (SMALL, "group_offload", "reference"),
    (FLUX, "bf16+model_offload", "bf16"),
    (FLUX, "channels_last+group_offload", "channels_last"),
    (FLUX, "int8+model_offload", "int8"),
    (SMALL, "fused_qkv+int8+model_offload", "fused_qkv+int8"),
    # Their text encoders hook themselves when they are called first.
    (tiny.workload("sd3", steps=4), "model_offload", "reference"),
    (tiny.workload("zimage", steps=4), "group_offload", "reference"),
]


@pytest.mark.parametrize(("workload", "stack", "plain"), OFFLOADED)
def test_weights_of_an_offloaded_case_are_never_on_the_device_together(
    workload: Workload,
    stack: str,
    plain: str,
    moved: list[Move],
) -> None:
    if "int8" in stack:
        pytest.importorskip("torchao")
    source = models.open_source(workload.model)
    expected = images_of(workload, plain, source)
    moved.clear()
    with built(case_of(workload, stack), source, DEVICE) as pipeline:
        on_device = [module for module, to_device in moved if to_device]
        assert all(isinstance(module, torch.nn.Linear) for module in on_device)
        assert bool(on_device) == ("int8" in stack)
        # One layer, and it is moved back before the next.
        for (module, there), (same, back) in pairwise(moved):
            assert not there or (same is module and not back)
        for optimization in case_of(workload, stack).stack:
            optimization.applied(pipeline)
        images = Generation(pipeline, workload).images()
    # Of a group, tensors are moved and no module.
    assert "group" in stack or any(to_device for _, to_device in moved)
    assert pixels.distance(images, expected).psnr_db == IDENTICAL_DB


@pytest.mark.parametrize(("workload", "stack", "plain"), OFFLOADED)
def test_what_an_offloaded_pipeline_is_made_of_is_found_out_offloaded(
    workload: Workload,
    stack: str,
    plain: str,
    moved: list[Move],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no case before found it out, as of a reference that is offloaded itself."""
    if "int8" in stack:
        pytest.importorskip("torchao")
    with built(case_of(workload, plain), models.open_source(workload.model), DEVICE) as pipeline:
        known = anatomy_of(pipeline)
        expected = Generation(pipeline, workload).images()
    seen: list[list[bool]] = []
    anatomy: Callable[[Any], Any] = vars(Generation)["anatomy"].fget

    def finding(self: Any) -> Any:
        seen.append([to_device for _, to_device in moved])
        hooked = [hasattr(m, "_hf_hook") for m in modules(self._pipeline).values()]
        grouped = [
            any(hasattr(layer, "_diffusers_hook") for layer in m.modules())
            for m in modules(self._pipeline).values()
        ]
        assert all(hooked) or all(grouped)
        return anatomy(self)

    source = models.open_source(workload.model)
    moved.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Generation, "anatomy", property(finding))
        with built(case_of(workload, stack), source, DEVICE) as pipeline:
            pass
    assert not any(seen[0])
    with built(case_of(workload, stack), source, DEVICE) as pipeline:
        found = anatomy_of(pipeline)
        images = Generation(pipeline, workload).images()
    assert pixels.distance(images, expected).psnr_db == IDENTICAL_DB
    assert [d.name for d in found.denoisers] == [d.name for d in known.denoisers]
    assert (found.fewest, found.is_linear) == (known.fewest, known.is_linear)
    for one, other in zip(found.denoisers, known.denoisers, strict=True):
        torch.testing.assert_close(one.call.kwargs, other.call.kwargs, rtol=0, atol=0)
        torch.testing.assert_close(one.call.args, other.call.args, rtol=0, atol=0)


def test_nothing_is_left_on_a_pipeline_of_finding_out_what_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[set[str]] = []

    def fits(pipeline: Any) -> None:
        for root in modules(pipeline).values():
            seen.extend({*vars(module)} for module in root.modules())

    (last,) = case_of(SMALL, "group_offload").stack
    case = case_of(SMALL, "channels_last+group_offload")
    first = replace(case.stack[0], needs=replace(case.stack[0].needs, fits=fits))
    watching = replace(case, stack=(first, last))
    with built(watching, models.open_source("small"), DEVICE):
        pass
    assert seen
    assert not any(own & {"forward", "_diffusers_hook", "_hf_hook"} for own in seen)


@pytest.mark.parametrize("stack", ["model_offload", "group_offload"])
def test_a_pipeline_that_cannot_be_offloaded_is_skipped_before_it_is_tried(
    stack: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(StableDiffusionPipeline, "model_cpu_offload_seq", None)
    monkeypatch.delattr("diffusers.DiffusionPipeline.enable_group_offload")
    with (
        pytest.raises(DoesNotFit, match=stack),
        built(case_of(SMALL, stack), models.open_source("small"), DEVICE),
    ):
        pass


def test_offloading_comes_behind_all_other_changes() -> None:
    """A workload's base comes first in a stack, and its hooks must not be in a change's way."""
    pytest.importorskip("torchao")
    based = replace(FLUX, base=("bf16", "model_offload"))
    source = models.open_source(FLUX.model)
    expected = images_of(FLUX, "bf16+channels_last+int8", source)
    with built(case_of(based, "channels_last+int8"), source, DEVICE) as pipeline:
        assert hasattr(pipeline.transformer, "_hf_hook")
        images = Generation(pipeline, based).images()
    assert pixels.distance(images, expected).psnr_db == IDENTICAL_DB


@pytest.mark.parametrize(
    "workload",
    [SMALL, FLUX, *map(tiny.workload, tiny.FAMILIES)],
    ids=lambda workload: workload.name,
)
def test_wide_layers_are_found_without_data(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some of these families' tiny layers have other sides.
    monkeypatch.setattr(layers, "SIDES_OF", 1)
    source = models.open_source(workload.model)
    with built(case_of(workload, "reference"), source, DEVICE) as pipeline:
        with_data = layers.wide_layers(pipeline)
        held = {id(p) for root in modules(pipeline).values() for p in root.parameters()}
        assert with_data
        monkeypatch.setattr(counting, "undone", None)  # no second replay, with data
        assert layers.wide_layers(pipeline, offloaded_from=DEVICE) == with_data
        assert held == {id(p) for root in modules(pipeline).values() for p in root.parameters()}


def _routing(pipeline: Any) -> None:
    """A call in a denoiser goes its way by data, as to HiDream's experts."""
    layer = pipeline.transformer.transformer_blocks[-1].ff.net[-1]
    forward = layer.forward

    def routed(tokens: torch.Tensor) -> Any:
        experts = (tokens.sum(-1).flatten() > 0).int()
        for number, end in enumerate(experts.bincount().cpu().numpy().cumsum(0)):
            assert number in (0, 1)
            assert end >= 0
        return forward(tokens)

    layer.forward = routed


def test_wide_layers_are_fetched_one_by_one_where_a_call_depends_on_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = models.open_source(FLUX.model)
    move, alive, most = torch.Tensor.to, [0], [0]

    def left(size: int) -> None:
        alive[0] -= size

    def moving(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        moved = move(tensor, *args, **options)
        if args[:1] == (DEVICE,):
            moved = moved.clone()
            alive[0] += moved.nbytes
            most[0] = max(most[0], alive[0])
            weakref.finalize(moved.untyped_storage(), left, moved.nbytes)
        return moved

    with built(case_of(FLUX, "reference"), source, HOST) as pipeline:
        with_data = layers.wide_layers(pipeline)
        _routing(pipeline)
        assert layers.wide_layers(pipeline) == with_data
        weights = [p for m in denoisers(pipeline).values() for p in m.parameters()]
        held = [(id(p), p.data_ptr()) for p in weights]
        monkeypatch.setattr(torch.Tensor, "to", moving)
        assert layers.wide_layers(pipeline, offloaded_from=DEVICE) == with_data
        assert [(id(p), p.data_ptr()) for p in weights] == held
    # No two large ones at once, and none is left.
    assert 0 < most[0] < 2 * max(p.nbytes for p in weights)
    assert alive == [0]


def test_a_builder_is_given_the_host_where_its_pipeline_is_offloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []
    workload = tiny.workload("sd")
    source: Any = models.open_source(workload.model)
    build = source._build

    def building(*, dtype: torch.dtype, device: torch.device) -> Any:
        given.append(device)
        return build(dtype=dtype, device=device)

    monkeypatch.setattr(source, "_build", building)
    for stack in ("reference", "model_offload"):
        with built(case_of(workload, stack), source, DEVICE):
            pass
    assert given == [DEVICE, HOST]


class Gpu(TorchDispatchMode):
    """Torch's meta device stands for the GPU: how much was computed there and not yet freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.held: dict[int, int] = {}
        self.peak_bytes = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        copies = operator is torch.ops.aten._to_copy.default
        if copies and args[0].is_meta and kwargs.get("device") == HOST:
            # What it holds is not there to be copied.
            return torch.zeros((), dtype=args[0].dtype).expand(args[0].shape)
        made = operator(*args, **kwargs)
        # A skeleton's parameters come from the host, and take nothing.
        for tensor in [] if copies and not args[0].is_meta else tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                storage = tensor.untyped_storage()
                if storage._cdata not in self.held and not self._is_of(args, storage):
                    self.held[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, storage._cdata)
        self.peak_bytes = max(self.peak_bytes, sum(self.held.values()))
        return made

    @staticmethod
    def _is_of(args: Any, storage: Any) -> bool:
        """Whether it is a view of an argument."""
        given = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
        return any(t.untyped_storage()._cdata == storage._cdata for t in given)


@pytest.mark.parametrize("is_offloaded", [True, False])
def test_weights_are_computed_one_by_one_where_they_are_offloaded(is_offloaded: bool) -> None:
    """FLUX.1 in full size, for a GPU that could hold no more than its largest module's layers."""
    with Gpu() as gpu:
        pipeline = models.open_source("flux1-dev").load(
            scheduler=None,
            variants={},
            dtype=torch.bfloat16,
            device=torch.device("meta"),
            offloaded=is_offloaded,
        )
    weights = [p for module in modules(pipeline).values() for p in module.parameters()]
    assert {p.is_meta for p in weights} == {not is_offloaded}
    assert all(p.requires_grad for p in weights)
    whole = sum({id(p): p.nbytes for p in weights}.values())
    assert whole > 31 * 2**30
    assert sum(gpu.held.values()) == (0 if is_offloaded else whole)
    # The largest is a quarter of a GiB; hashes of 32 bits become its numbers.
    assert gpu.peak_bytes < 2**30 + (0 if is_offloaded else whole)
