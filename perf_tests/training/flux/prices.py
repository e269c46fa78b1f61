"""What changes cost and save on the embedded transformer.

Held-out prompts, each with noise of its own, against the plain float32 images of as many steps: how
close, whether the evaluator still sees what was asked for, and what is left of the transformer's
products and of its weights. Then the distances of faults.

    python -m perf_tests.training.flux.prices
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusers_perf import models
from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.measurement.pipelines import built
from perf_tests.cases import workloads
from perf_tests.training import scores
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.flux.image_distance import GUIDANCE, faulty, nothing
from perf_tests.training.flux.scores import generate
from perf_tests.training.image_distance import SEED, distinct_captions, hooked
from perf_tests.training.prices import HEAD, PROMPTS, row
from perf_tests.training.shapes import Painter

COMMAND = "python -m perf_tests.training.flux.prices"
TRUE_GUIDANCE = 2.0
STEPS = (workloads.FLUX28.steps, workloads.FLUX8.steps)
SAVED = " transformer's products | its weights |"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the table: a stack, and what is changed of the built pipeline or of its call."""

    name: str
    stack: str = REFERENCE
    during: Callable[[Any, int], AbstractContextManager[None]] = lambda pipeline, steps: nothing(
        pipeline
    )
    """Given the pipeline and the steps."""
    share_of_steps: float = 1.0
    true_guidance: float = 1.0
    one_by_one: bool = False
    """Each image in a call of its own: what is decided of one must not depend on the others."""


def _cached(make: Callable[[], Any]) -> Callable[[Any, int], AbstractContextManager[None]]:
    @contextmanager
    def during(pipeline: Any, steps: int) -> Iterator[None]:
        pipeline.transformer.enable_cache(make())
        try:
            yield
        finally:
            pipeline.transformer.disable_cache()

    return during


def _first_block(threshold: float) -> Callable[[Any, int], AbstractContextManager[None]]:
    def config() -> Any:
        from diffusers import FirstBlockCacheConfig

        return FirstBlockCacheConfig(threshold=threshold)

    return _cached(config)


def _taylor(interval: int) -> Callable[[Any, int], AbstractContextManager[None]]:
    def config() -> Any:
        from diffusers import TaylorSeerCacheConfig

        return TaylorSeerCacheConfig(
            cache_interval=interval,
            disable_cache_before_step=3,
            taylor_factors_dtype=torch.float32,
        )

    return _cached(config)


def _unguided_late(pipeline: Any, steps: int) -> AbstractContextManager[None]:
    """The guidance that the transformer is given is 1 in the second half of the steps."""
    calls = 0

    def before(_module: Any, inputs: Any, given: dict[str, Any]) -> Any:
        nonlocal calls
        late = calls % steps >= steps // 2
        calls += 1
        return inputs, given | {"guidance": torch.ones_like(given["guidance"])} if late else given

    hook = pipeline.transformer.register_forward_pre_hook(before, with_kwargs=True)
    return hooked(hook)


@contextmanager
def _true_guidance_early(pipeline: Any, steps: int) -> Iterator[None]:
    """In the second half of the steps the pass without the prompt gives what the other gave."""
    transformer = pipeline.transformer
    forward, calls, last = transformer.forward, 0, None

    def passed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, last
        step, is_second = divmod(calls % (2 * steps), 2)
        calls += 1
        if not (is_second and step >= steps // 2):
            last = forward(*args, **kwargs)
        return last

    transformer.forward = passed
    try:
        yield
    finally:
        del transformer.forward


CHANGES = (
    Change(name="plain float32"),
    Change(name="`fused_qkv`", stack="fused_qkv"),
    Change(name="`sdpa_math`", stack="sdpa_math"),
    Change(name="`fp16`", stack="fp16"),
    Change(name="`bf16`", stack="bf16"),
    Change(name="`bf16+int8`", stack="bf16+int8"),
    Change(name="`bf16+fp8`", stack="bf16+fp8"),
    Change(name="`bf16+fp8_tensor`", stack="bf16+fp8_tensor"),
    Change(name="`bf16+layerwise_casting`", stack="bf16+layerwise_casting"),
    Change(name="`first_block_cache` (threshold 0.1)", stack="first_block_cache", one_by_one=True),
    *(
        Change(
            name=f"first block cache, threshold {threshold:g}",
            during=_first_block(threshold),
            one_by_one=True,
        )
        for threshold in (0.05, 0.2)
    ),
    Change(name="`taylorseer` (every fifth step)", stack="taylorseer"),
    Change(name="`taylorseer_lite` (every third step)", stack="taylorseer_lite"),
    # The lossy parts of FLUX.1's fastest stacks.
    Change(name="`bf16+fp8+taylorseer_lite`", stack="bf16+fp8+taylorseer_lite"),
    Change(name="`bf16+fp8+dbcache`", stack="bf16+fp8+dbcache", one_by_one=True),
    Change(name="TaylorSeer, every second step", during=_taylor(2)),
    Change(name="TaylorSeer, every third step", during=_taylor(3)),
    Change(name="`mag_cache` (FLUX.1-dev's ratios)", stack="mag_cache"),
    Change(name="`dbcache` (cache-dit)", stack="dbcache", one_by_one=True),
    Change(name="`pyramid_attention_broadcast`", stack="pyramid_attention_broadcast"),
    Change(name="`faster_cache`", stack="faster_cache"),
    Change(name="guidance 1 in the second half of the steps", during=_unguided_late),
    Change(name=f"true guidance {TRUE_GUIDANCE:g}", true_guidance=TRUE_GUIDANCE),
    Change(
        name=f"true guidance {TRUE_GUIDANCE:g} in the first half of the steps",
        true_guidance=TRUE_GUIDANCE,
        during=_true_guidance_early,
    ),
    Change(name="three quarters of the steps", share_of_steps=0.75),
    Change(name="half of the steps", share_of_steps=0.5),
)


def table(
    device: torch.device, *, steps: int, prompts: int = PROMPTS, only: str = ""
) -> Iterator[str]:
    """The lines of the table of this many steps, as they come; `only` rows with this in the name.

    A change that this machine cannot run is a line that says why.
    """
    catalog = declared_in("perf_tests.cases")
    source = models.open_source("embedded-flux")
    workload = workloads.FLUX8.changed(steps=steps)
    captions = distinct_captions(prompts)
    texts = [caption.text for caption in captions]
    evaluator = Evaluator(Painter(torch.device("cpu")))

    def priced(name: str, made: Tensor) -> str:
        return row(name, made, accepted, scores.score(evaluator, made, captions).right)

    yield HEAD + SAVED
    yield "|---" * ((HEAD + SAVED).count("|") - 1) + "|"
    with built(catalog.case(workload, REFERENCE), source, device) as plain:
        with products(plain.transformer) as all_products:
            accepted = generate(plain, texts, seed=SEED, steps=steps, guidance=GUIDANCE)
        all_bytes = weight_bytes(plain.transformer)
        for change in CHANGES:
            if only not in change.name:
                continue
            case = catalog.case(workload, change.stack)
            if reason := _lacks(change.stack, catalog.optimizations, device):
                yield f"| {change.name} | {reason} |" + " |" * ((HEAD + SAVED).count("|") - 3)
                continue
            own = max(1, round(steps * change.share_of_steps))
            with ExitStack() as open_:
                pipeline = (
                    plain
                    if change.stack == REFERENCE
                    else open_.enter_context(built(case, source, device))
                )
                open_.enter_context(change.during(pipeline, own))
                with products(pipeline.transformer) as done:
                    made = generate(
                        pipeline,
                        texts,
                        seed=SEED,
                        steps=own,
                        guidance=GUIDANCE,
                        classifier_free=change.true_guidance,
                        batch=1 if change.one_by_one else len(texts),
                    )
                for optimization in case.stack:
                    optimization.applied(pipeline)
                yield (
                    f"{priced(change.name, made)} {done[0] / all_products[0]:.0%} "
                    f"| {weight_bytes(pipeline.transformer) / all_bytes:.0%} |"
                )
        for name, made in faulty(plain, texts, steps=steps):
            if only in name:
                yield f"{priced(f'fault: {name}', made)} | |"


@contextmanager
def products(module: torch.nn.Module) -> Iterator[list[int]]:
    """Counts multiplications in the linear layers of a module while the context is open."""
    count = [0]

    def counted(layer: Any, _inputs: Any, output: Tensor) -> None:
        count[0] += output.numel() * layer.in_features

    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    with hooked(*(layer.register_forward_hook(counted) for layer in layers)):
        yield count


def weight_bytes(module: torch.nn.Module) -> int:
    """What a module's parameters take, quantized or not."""
    return sum(map(_bytes, module.parameters()))


def _bytes(tensor: Tensor) -> int:
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if not is_traceable_wrapper_subclass(tensor):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(_bytes(getattr(tensor, name)) for name in names)


def _lacks(stack: str, optimizations: Any, device: torch.device) -> str | None:
    for name in stack.split("+"):
        if name == REFERENCE:
            continue
        needs = optimizations[name].needs
        if needs.compute_capability and device.type == "cpu":
            return f"{name} needs a CUDA GPU"
        if needs.package and find_spec(needs.package) is None:
            return f"{name} needs the package {needs.package}, not installed here"
    return None


def document(tables: Sequence[tuple[int, Sequence[str]]], *, prompts: int, where: str) -> str:
    """The tables as a Markdown document that says how they were made."""
    lines = [
        "# What changes cost and save on the embedded transformer",
        "",
        f"Written by `{COMMAND} --out FILE` on",
        f"{where}.",
        f"{prompts} held-out prompts, guidance {GUIDANCE}. PSNR in dB and SSIM to the plain",
        "float32 images of as many steps. *Obeyed*: the evaluator sees the shape and both colours",
        "that the prompt asked for. *Products*: multiplications in the transformer's linear",
        "layers.",
    ]
    for steps, rows in tables:
        lines += ["", f"## {steps} steps", "", *rows]
    return "\n".join(lines) + "\n"


def _where(device: torch.device) -> str:
    import diffusers

    machine = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"a CPU ({platform.machine()})"
    )
    return f"{machine}, torch {torch.__version__}, diffusers {diffusers.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables as they come, and write the document; the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--only", default="", metavar="WORD", help="rows with this in their name")
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file")
    arguments = parser.parse_args(argv)
    if arguments.prompts < 1:
        parser.error("--prompts: at least 1")
    here = torch.cuda.is_available()
    if arguments.device == "cuda" and not here:
        parser.error("--device cuda: torch sees no CUDA device here; leave it out")
    device = torch.device(arguments.device or ("cuda" if here else "cpu"))
    models.quiet_libraries()
    tables: list[tuple[int, list[str]]] = []
    for steps in arguments.steps:
        tables.append((steps, []))
        lines = table(device, steps=steps, prompts=arguments.prompts, only=arguments.only)
        for line in lines:
            print(line, flush=True)
            tables[-1][1].append(line)
        print()
    if arguments.out:
        where = _where(device)
        arguments.out.write_text(document(tables, prompts=arguments.prompts, where=where))
    return 0


if __name__ == "__main__":
    sys.exit(main())
