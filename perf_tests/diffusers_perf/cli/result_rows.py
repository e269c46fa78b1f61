"""The accepted cases of a machine as rows of a table, and what one gains over another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import GPU_BUSY, GPU_SPEEDUP, LATENCY, LATENCY_SPEEDUP
from diffusers_perf.messages.baselines import UNDECLARED
from diffusers_perf.records.baselines import CaseBaseline, MachineBaseline

SPEEDUPS = {LATENCY: LATENCY_SPEEDUP, GPU_BUSY: GPU_SPEEDUP}


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A line of the baseline, and its case if one is declared."""

    workload: str
    weights: str
    name: str
    line: CaseBaseline
    case: Case | None

    @property
    def suite(self) -> str:
        return self.case.suite if self.case else UNDECLARED

    @property
    def against(self) -> str:
        return "" if self.name == REFERENCE else self.case.against if self.case else ""

    @property
    def settings(self) -> frozenset[str]:
        """Names of all its optimizations, the workload's base too."""
        return frozenset(o.name for o in self.case.stack) if self.case else frozenset()

    def median(self, metric: Metric) -> float | None:
        """Of the accepted processes; None where it was not measured."""
        values = self.line.measured.get(metric.field)
        return median(values) if values else None

    def shown(self, metric: Metric) -> str:
        value = self.median(metric)
        return "" if value is None else metric.shown(value)

    def limit(self, metric: Metric) -> str:
        limit = self.line.limits.get(metric.limit_name)
        return "" if limit is None else metric.shown(limit)

    @property
    def roofline(self) -> str:
        """The lower bound on the latency, and how many times it the accepted latency is."""
        bound_s, latency_s = self.line.roofline_s, median(self.line.measured[LATENCY.field])
        return "" if bound_s is None else f"{bound_s:.4f} s ({latency_s / bound_s:.1f}x)"

    def count(self, name: str) -> str:
        count = self.line.counters.get(name)
        if count is None:
            return ""
        missing = f" − {count.missing:,}" if count.missing else ""
        return f"{count.fixed:,} + {count.per_step:,}{missing}"


def rows_of(baseline: MachineBaseline, cases: Iterable[Case]) -> Iterator[ResultRow]:
    """The lines of a baseline in the order in which their cases are declared, others last."""
    declared: dict[tuple[str, str, object], Case] = {
        (c.workload.name, c.name, c.workload.scale): c for c in cases
    }
    order = {id(case): index for index, case in enumerate(declared.values())}
    rows = []
    for key, line in baseline.cases.items():
        workload, model, weights, name = key.split("/", 3)
        rows.append(
            ResultRow(
                workload=workload,
                weights=model if model == weights else f"{model}, {weights}",
                name=name,
                line=line,
                case=declared.get((workload, name, line.workload.get("scale", "full"))),
            )
        )
    yield from sorted(rows, key=lambda row: order.get(id(row.case), len(order)))


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without the columns that are empty in every row."""
    kept = [i for i, _ in enumerate(heading) if i == 0 or any(row[i] for row in rows)]
    lines = [[heading[i] for i in kept], ["---" for _ in kept]]
    lines += [[row[i] for i in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def gain(slower: ResultRow, faster: ResultRow, metric: Metric) -> float | None:
    """How many times as fast the second is. Of two that are compared with one reference, the ratio
    of their speedups: each ran beside it, and may have been accepted on another host or GPU.
    """
    before, after = slower.median(metric), faster.median(metric)
    if not before or not after:
        return None
    was, now = (_speedup(row, metric) for row in (slower, faster))
    return now / was if was and now else before / after


def _speedup(row: ResultRow, metric: Metric) -> float | None:
    """Over its workload's reference; None where that is not known."""
    if row.name == REFERENCE:
        return 1.0
    return row.median(SPEEDUPS[metric]) if row.against == REFERENCE else None
