"""How fast FLUX.1-dev's blocks are: `python -m perf_tests.training.block_speed`, in 90 seconds.

A double- and a single-stream block, in full size on seeded bfloat16 weights, in the variants below.
Each runs without a pause for as long as a card at its power limit needs to find its clock, in turn
with the others, in random order. A table says what that makes of 28 steps, at which clock, and how
far the output is from float32's, beside eager's; then what the kernels of the fastest take. What
the timestep decides is computed before, as `precomputed_conditioning` does.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch._dynamo.utils import counters

from diffusers_perf.measurement.clock import synchronized_clock
from diffusers_perf.measurement.interference import Watch
from diffusers_perf.messages.common import first_line
from diffusers_perf.techniques.conditioning import OfTimestep
from diffusers_perf.techniques.fused_mlp import fuse_gelus, fuse_mlps, split_projections
from diffusers_perf.techniques.fused_rotary import fuse_rotary
from perf_tests.training import kernels

SEED = 2023
STEPS = 28
BLOCKS = {"double": 19, "single": 38}
"""Of FLUX.1-dev, each in every step."""
VISITS = 3
"""Of each variant, whose seconds are shared among them."""
SETTLING = 0.25
"""The share of a visit that is not timed: the clock is still the last variant's."""
KERNELS = 12
PROFILED_CALLS = 10
RECOMPILE_LIMIT = 64

NO_GPU = "--device cuda: torch sees no CUDA device here; try --device cpu --width small"


@dataclass(frozen=True, kw_only=True)
class Size:
    heads: int
    channels: int
    """Of each head."""
    image: int
    text: int
    """Tokens."""

    @property
    def width(self) -> int:
        return self.heads * self.channels


SIZES = {
    "full": Size(heads=24, channels=128, image=4096, text=512),
    "small": Size(heads=2, channels=32, image=64, text=16),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    name: str
    change: Callable[[Any], None] = lambda block: None
    options: Mapping[str, Any] | None = field(default_factory=dict)
    """Of torch.compile; None: not compiled."""
    kinds: tuple[str, ...] = tuple(BLOCKS)


def fuse_qkv(block: Any) -> None:
    for module in block.modules():
        if hasattr(module, "fuse_projections"):
            module.fuse_projections()


def each(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(block: Any) -> None:
        for own in changes:
            own(block)

    return change


def attend_on(backend: str) -> Callable[[Any], None]:
    """Set one of diffusers' backends on the block itself: Dynamo would compile nothing anew for one
    of the process.
    """

    def change(block: Any) -> None:
        block.attn.processor._attention_backend = backend

    return change


# In the order in which they are built, as long as there is time: at the end what gained nothing.
VARIANTS = (
    Variant(name="eager", options=None),
    Variant(name="compiled"),
    Variant(name="fused_mlp", change=fuse_mlps),
    Variant(name="fused_mlp, fused_rotary", change=each(fuse_mlps, fuse_rotary)),
    Variant(
        name="fused_mlp, coordinate descent tuning",
        change=fuse_mlps,
        options={"options": {"coordinate_descent_tuning": True}},
    ),
    Variant(
        name="fused_mlp, max-autotune",
        change=fuse_mlps,
        options={"mode": "max-autotune-no-cudagraphs"},
    ),
    Variant(name="flash attention", change=attend_on("_native_flash")),
    Variant(name="fused_rotary", change=fuse_rotary),
    Variant(name="GELU of fused_mlp alone", change=fuse_gelus, kinds=("single",)),
    Variant(name="split product of fused_mlp alone", change=split_projections, kinds=("single",)),
    Variant(name="cuDNN attention", change=attend_on("_native_cudnn")),
    Variant(name="fused_qkv", change=fuse_qkv),
    Variant(name="fused_mlp, fused_qkv", change=each(fuse_mlps, fuse_qkv)),
    Variant(
        name="fused_mlp, fused_rotary, fused_qkv", change=each(fuse_mlps, fuse_rotary, fuse_qkv)
    ),
)


@dataclass(kw_only=True)
class Built:
    """One variant of one block, ready to be called."""

    kind: str
    variant: Variant
    call: Callable[[], tuple[torch.Tensor, ...]]
    error: float = math.nan
    """Of the output, to float32's; its root mean square."""
    seconds: list[float] = field(default_factory=list)
    """Of a call, in each visit."""
    clocks_mhz: list[int] = field(default_factory=list)

    @property
    def ms(self) -> float:
        return 1e3 * median(self.seconds)

    @property
    def all_s(self) -> float:
        """Of all blocks of its kind in 28 steps."""
        return STEPS * BLOCKS[self.kind] * median(self.seconds)


class TooLong(BaseException):
    """A build that takes longer than it may; no handler of `Exception` shall keep it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def block_of(kind: str, size: Size, device: torch.device) -> Any:
    from diffusers.models.transformers import transformer_flux

    name = {"double": "FluxTransformerBlock", "single": "FluxSingleTransformerBlock"}[kind]
    torch.manual_seed(SEED)
    with device:
        block = getattr(transformer_flux, name)(size.width, size.heads, size.channels)
        embedded = torch.randn(1, size.width)
    for norm in [m for m in block.modules() if hasattr(m, "silu") and hasattr(m, "linear")]:
        row = OfTimestep(norm.linear)
        row.number = torch.zeros(1, dtype=torch.int64, device=device)
        with torch.no_grad():
            row.keep(row.layer(norm.silu(embedded)))
        norm.linear = row
    return block.requires_grad_(False).to(torch.bfloat16)


def inputs_of(kind: str, size: Size, device: torch.device) -> dict[str, Any]:
    """As the block before gives them: of a single-stream one, parts of a tensor."""
    torch.manual_seed(SEED)
    tokens = size.text + size.image
    with device:
        joined = torch.randn(1, tokens, size.width).to(torch.bfloat16)
        angles = torch.randn(tokens, size.channels // 2).repeat_interleave(2, dim=1)
        embedded = torch.randn(1, size.width).to(torch.bfloat16)
    text, image = joined[:, : size.text], joined[:, size.text :]
    if kind == "double":
        text, image = text.clone(), image.clone()
    return {
        "hidden_states": image,
        "encoder_hidden_states": text,
        "temb": embedded,
        "image_rotary_emb": (angles.cos(), angles.sin()),
    }


class Bench:
    """Builds the variants, and times them in turn."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self._device = device
        self._blocks = {kind: block_of(kind, size, device) for kind in BLOCKS}
        self._inputs = {kind: inputs_of(kind, size, device) for kind in BLOCKS}
        self._exact = {kind: self._in_float32(kind) for kind in BLOCKS}

    def _in_float32(self, kind: str) -> tuple[torch.Tensor, ...]:
        given = torch.utils._pytree.tree_map(torch.Tensor.float, self._inputs[kind])
        with torch.no_grad():
            exact: tuple[torch.Tensor, ...] = deepcopy(self._blocks[kind]).float()(**given)
        return exact

    def build(self, kind: str, variant: Variant) -> Built:
        """With its first calls done."""
        block, given = deepcopy(self._blocks[kind]), self._inputs[kind]
        variant.change(block)
        if variant.options is not None:
            block.compile(fullgraph=True, dynamic=False, **variant.options)

        def call() -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                made: tuple[torch.Tensor, ...] = block(**given)
            return made

        graphs = counters["stats"]["unique_graphs"]
        pairs = zip(call(), self._exact[kind], strict=True)
        apart = torch.cat([(own.float() - exact).flatten() for own, exact in pairs])
        if variant.options is not None and counters["stats"]["unique_graphs"] == graphs:
            raise RuntimeError("it runs the graph of an earlier variant")
        error = float(apart.square().mean().sqrt())
        return Built(kind=kind, variant=variant, call=call, error=error)

    def visit(self, built: Built, seconds: float) -> None:
        """Call it for so long, and note what a call took."""
        watch = Watch(device=self._device)
        start, settled = synchronized_clock(), 0
        while (passed := synchronized_clock() - start) < SETTLING * seconds:
            built.call()
            settled += 1
        calls = max(1, math.ceil((1 - SETTLING) * seconds * settled / passed))
        start = synchronized_clock()
        for number in range(calls):
            built.call()
            if number == calls // 2:
                watch.note_gpu()
        # The last calls wait in the queue.
        watch.note_gpu()
        built.seconds.append((synchronized_clock() - start) / calls)
        built.clocks_mhz += [*watch.clocks_mhz, *watch.capped_clocks_mhz]

    def ran(self, built: Built) -> Iterator[tuple[str, float]]:
        """What `PROFILED_CALLS` calls ran on the GPU, on a CPU their operators: names, seconds."""
        activity = torch.profiler.ProfilerActivity
        on_gpu = self._device.type == "cuda"
        with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as seen:
            for _ in range(PROFILED_CALLS):
                built.call()
            synchronized_clock()
        for event in seen.events():
            if on_gpu and event.device_type.name == "CUDA":
                yield event.name, event.self_device_time_total / 1e6
            elif not on_gpu:
                yield event.name, event.self_cpu_time_total / 1e6


def table(found: Sequence[Built]) -> Iterator[str]:
    """A row for each variant; `found` has each kind of block once at most."""
    yield (
        "| variant | double block | single block | 19 double, 28 steps | 38 single, 28 steps "
        "| all | SM clock | error, of eager's |"
    )
    yield "|---" * 8 + "|"
    eager = {b.kind: b.error for b in found if b.variant.options is None}
    for name in dict.fromkeys(b.variant.name for b in found):
        own = {b.kind: b for b in found if b.variant.name == name}
        each = [own.get(kind) for kind in BLOCKS]
        clocks = [f"{median(b.clocks_mhz):.0f} MHz" if b and b.clocks_mhz else "-" for b in each]
        errors = [f"{b.error / eager[b.kind]:.2f}" if b and b.kind in eager else "-" for b in each]
        cells = (
            name,
            *(f"{b.ms:.3f} ms ({_spread(b):.1%})" if b else "-" for b in each),
            *(f"{b.all_s:.3f} s" if b else "-" for b in each),
            f"{sum(b.all_s for b in own.values()):.3f} s" if len(own) == len(BLOCKS) else "-",
            ", ".join(clocks),
            ", ".join(errors),
        )
        yield f"| {' | '.join(cells)} |"


def _spread(built: Built) -> float:
    return (max(built.seconds) - min(built.seconds)) / median(built.seconds)


def build_all(bench: Bench, args: argparse.Namespace) -> list[Built]:
    """All that there is time for; what is left out is said."""
    found: list[Built] = []
    start = synchronized_clock()
    for variant in VARIANTS:
        if args.only and variant.name not in args.only:
            continue
        for kind in variant.kinds:
            timing_s = args.seconds * (len(found) + 1)
            left_s = args.budget - timing_s - (synchronized_clock() - start)
            reason = f"no time left within --budget {args.budget:g}"
            before = synchronized_clock()
            try:
                if left_s > 0:
                    with at_most(min(left_s, args.longest)):
                        found.append(bench.build(kind, variant))
                        reason = ""
            except TooLong:
                reason = f"not built after {synchronized_clock() - before:.0f} s"
            except Exception as error:
                # A variant can break anything in the compiler, and the others have to go on.
                reason = first_line(error) or type(error).__name__
            took = f"built in {synchronized_clock() - before:.1f} s"
            print(f"{kind} block, {variant.name}: {reason or took}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--width", default="full", choices=SIZES)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each variant of each block")
    parser.add_argument("--budget", type=float, default=85.0, help="seconds in all")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds to build a variant")
    parser.add_argument("--only", nargs="+", choices=[v.name for v in VARIANTS], metavar="VARIANT")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
        bench = Bench(SIZES[args.width], torch.device(args.device))
        found = build_all(bench, args)
        shuffled, order = [*found], random.Random(SEED)
        for _ in range(VISITS):
            order.shuffle(shuffled)
            for built in shuffled:
                bench.visit(built, args.seconds / VISITS)
        print(*table(found), sep="\n", flush=True)
        for kind in BLOCKS:
            own = [built for built in found if built.kind == kind]
            if own:
                best = min(own, key=lambda built: built.ms)
                of = f"{PROFILED_CALLS} calls of the {kind} block, {best.variant.name}:"
                rows = kernels.table(bench.ran(best), rows=KERNELS)
                print("", of, "", *rows, sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
