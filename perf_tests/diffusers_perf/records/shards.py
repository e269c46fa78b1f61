"""The parts of a run that were measured by processes of their own."""

from __future__ import annotations

from diffusers_perf.records.quantities import Integer, NotNegative, PositiveInteger, Record


class Shard(Record, frozen=True, kw_only=True):
    """Which part of the cases a run was given."""

    index: PositiveInteger
    """From 1."""
    count: PositiveInteger
    cases: tuple[str, ...]
    """Ids of the cases of all shards together."""


class Placement(Record, frozen=True, kw_only=True):
    """Where a shard was measured."""

    shard: PositiveInteger
    host: str
    gpu_uuid: str | None
    """None on a CPU."""
    retries: Integer = 0
    """How often it was started anew, after the machine that measured it was lost."""
    seconds: NotNegative | None = None
    """Of its process, as `fleet` measured it."""
    start_s: NotNegative | None = None
    """Of these, what none of its cases took: imports above all."""
