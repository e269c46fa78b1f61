"""What the guide claims of an optimization, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diffusers_perf.catalog.metrics import GPU_SPEEDUP
from diffusers_perf.messages.report import claim_of
from diffusers_perf.records.baselines import Claim
from diffusers_perf.records.measurement import Measurement


def claims(
    cases: Iterable[tuple[Measurement, Measurement | None]], published: Mapping[str, Claim]
) -> list[str]:
    """A line for each case, with its reference, whose optimization the guide makes a claim of."""
    lines = []
    for seen, reference in cases:
        claim = published.get(seen.case)
        if claim is None or reference is None:
            continue
        on_gpu = GPU_SPEEDUP.of(seen, reference)
        lines.append(
            claim_of(
                seen.case,
                smaller=1 - seen.parameters / reference.parameters,
                faster=1 - seen.latency_s / reference.latency_s,
                less_gpu_time=None if on_gpu is None else 1 - 1 / on_gpu,
                claimed_smaller=claim.smaller,
                claimed_faster=claim.faster,
            )
        )
    return lines
