"""Which optimizations a search tries, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from diffusers_perf.catalog.declarations import Optimization, Tolerance, WeightsKind
from diffusers_perf.messages import explore as messages


def shortlist(
    optimizations: Iterable[Optimization],
    *,
    base: Sequence[Optimization],
    kind: WeightsKind,
    image: Tolerance,
    without: Sequence[str],
    memory_is_limited: bool,
    lacking: Mapping[str, str],
) -> tuple[list[Optimization], dict[str, str]]:
    """What is worth a try, and of all others why not; both in the order of the catalogue.

    One that tolerates worse images than are asked for (`image`) is not: a single image
    that happens to be close proves no tolerance. `lacking` says by name why one cannot run here.
    """
    found: list[Optimization] = []
    others: dict[str, str] = {}
    for optimization in optimizations:
        if optimization in base:
            continue
        settled = next((o for o in base if set(o.decides) & set(optimization.decides)), None)
        allowed = optimization.tolerance.on(kind) or Tolerance()
        if image.step_db is None:
            allowed = replace(allowed, step_db=None)
        needed = optimization.needs.optimization
        if optimization.name in without:
            reason: str | None = messages.LEFT_OUT
        elif optimization.aim == "comparison":
            reason = messages.FOR_COMPARISON
        elif optimization.aim == "memory" and not memory_is_limited:
            reason = messages.FOR_MEMORY
        elif settled is not None:
            reason = messages.settled_by(settled.name)
        elif (
            allowed.psnr_db < image.psnr_db
            or allowed.ssim < image.ssim
            or (allowed.step_db or 0) < (image.step_db or 0)
        ):
            reason = messages.too_tolerant(tolerance_text(allowed), tolerance_text(image))
        elif needed in others:
            reason = messages.needs(needed)
        else:
            reason = lacking.get(optimization.name)
        if reason is None:
            found.append(optimization)
        else:
            others[optimization.name] = reason
    return found, others


def tolerance_text(tolerance: Tolerance) -> str:
    """A tolerance in words."""
    parts = [f"PSNR {tolerance.psnr_db:g} dB"] if tolerance.psnr_db > 0 else []
    parts += [f"SSIM {tolerance.ssim:g}"] if tolerance.ssim > -1 else []
    parts += [messages.in_each_step(tolerance.step_db)] if tolerance.step_db else []
    return " and ".join(parts) or "none"
