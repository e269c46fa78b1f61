"""What the judge found: a status, and the five parts of a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Self

from diffusers_perf.catalog.status import Status, worst
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.messages.numbers import plural


@dataclass(frozen=True, kw_only=True)
class Message:
    """What happened, what was measured, what was expected and from where, the limit, what next."""

    what: str = ""
    measured: str = ""
    expected: str = ""
    limit: str = ""
    advice: str = ""
    """What to do before the next command, in words."""
    command: Command | None = None


@dataclass(frozen=True, kw_only=True)
class Finding(Message):
    """What one rule found. Without a message, all is well."""

    status: Status
    metric: str
    """As in `catalog.metrics`, or a word for what is not a metric (``workload``)."""
    case: str = ""
    """The id of the case."""

    @classmethod
    def of(cls, status: Status, metric: str, case: str, message: Message) -> Self:
        parts = {field.name: getattr(message, field.name) for field in fields(Message)}
        return cls(status=status, metric=metric, case=case, **parts)

    @property
    def said(self) -> str:
        """What happened and to which case."""
        return f"{self.case}: {self.what}" if self.case else self.what

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        return f"{self.status}: {self.said}"

    @property
    def details(self) -> str:
        """What happened, and in brackets what was measured and the limit."""
        parts = [part for part in (self.measured, f"limit {self.limit}" * bool(self.limit)) if part]
        return f"{self.said} ({'; '.join(parts)})" if parts else self.said

    @property
    def next(self) -> str:
        """The command, on a line of its own below what to do before."""
        return _next(self, self.case)

    @property
    def command_line(self) -> str:
        """The command alone; what to do in words where there is none."""
        return self.command.of(self.case) if self.command else self.advice

    def text(self) -> str:
        """The whole message."""
        return "\n".join((self.sentence, *_parts([self])))


def texts(findings: Iterable[Finding]) -> Iterator[tuple[Status, str]]:
    """Each message with its status, the worst first.

    Messages that say the same of several cases are one, with a line for each case.
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: -finding.status.severity):
        key = (finding.status, finding.metric, finding.advice, finding.command)
        # Without a case, or twice of one case, it is not the same of several.
        alone = not finding.case or finding.case in [one.case for one in groups.get(key, ())]
        groups.setdefault((finding,) if alone else key, []).append(finding)
    for group in groups.values():
        yield group[0].status, _text(group)


def _text(group: list[Finding]) -> str:
    first, *others = group
    if not others:
        return first.text()
    label = first.metric.replace("_", " ")
    lines = [f"{first.status}: {label} in {plural(len(group), 'case')}"]
    lines += [f"  {finding.said}{_own_parts(finding, group)}" for finding in group]
    return "\n".join((*lines, *_parts(group)))


def _parts(group: list[Finding]) -> Iterator[str]:
    """The lines of a message below its first, as far as they are the same for all of these."""
    for name in ("measured", "expected", "limit"):
        parts = {getattr(finding, name) for finding in group}
        if len(parts) == 1 and (part := parts.pop()):
            yield f"  {name:10}{part}"
    if then := _next(group[0], *(finding.case for finding in group)):
        yield "  next      " + then.replace("\n", "\n" + " " * 12)


def _own_parts(finding: Finding, group: list[Finding]) -> str:
    """What this one measured, where the others measured something else; and its limit."""
    parts = [
        getattr(finding, name)
        for name in ("measured", "limit")
        if len({getattr(other, name) for other in group}) > 1
    ]
    return f" ({'; '.join(filter(None, parts))})" if any(parts) else ""


def _next(finding: Finding, *cases: str) -> str:
    command = finding.command.of(*cases) if finding.command else ""
    if finding.advice and command:
        return f"{finding.advice}:\n{command}"
    return finding.advice or command


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All findings on a case."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst of the findings."""
        return worst(finding.status for finding in self.findings)

    @property
    def passes(self) -> bool:
        return self.status.passes

    @property
    def sentence(self) -> str:
        """The worst finding in one line; empty if all is well."""
        found = next((f for f in self.findings if f.status == self.status and f.what), None)
        return found.sentence if found else ""

    @property
    def messages(self) -> tuple[Finding, ...]:
        """The findings that have something to say, the worst first."""
        # An improvement is not worth keeping while something else is broken.
        found = [f for f in self.findings if f.what and (self.passes or not f.status.improves)]
        return tuple(sorted(found, key=lambda f: -f.status.severity))

    def text(self) -> str:
        return "\n".join(finding.text() for finding in self.messages)
