"""What the judge found: a status, and the five parts of a message."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffusers_perf.catalog.status import Status, worst


@dataclass(frozen=True, kw_only=True)
class Message:
    """What happened, what was measured, what was expected and from where, the limit, what next."""

    what: str = ""
    measured: str = ""
    expected: str = ""
    limit: str = ""
    next: str = ""
    """A command that works when pasted; a line above it may say what else to do."""


@dataclass(frozen=True, kw_only=True)
class Finding(Message):
    """What one rule found. Without a message, all is well."""

    status: Status
    metric: str
    """As in `catalog.metrics`; of what is no metric a word for it (``workload``)."""
    case: str = ""
    """The id of the case."""

    @classmethod
    def of(cls, status: Status, metric: str, case: str, message: Message) -> Finding:
        return cls(status=status, metric=metric, case=case, **vars(message))

    @property
    def said(self) -> str:
        """What happened and to which case."""
        return f"{self.case}: {self.what}" if self.case else self.what

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        return f"{self.status}: {self.said}"

    def text(self) -> str:
        """The whole message."""
        return "\n".join((self.sentence, *self.parts()))

    def parts(self) -> list[str]:
        """The lines of the message below its first."""
        parts = {"measured": self.measured, "expected": self.expected, "limit": self.limit}
        lines = [f"  {name:10}{part}" for name, part in parts.items() if part]
        if self.next:
            # The command has a line of its own.
            lines.append("  next      " + self.next.replace("\n", "\n" + " " * 12))
        return lines


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
        found = [
            replace(f, next="") if f.status.improves and not self.passes else f
            for f in self.findings
            if f.what
        ]
        return tuple(sorted(found, key=lambda f: -f.status.severity))

    def text(self) -> str:
        return "\n".join(finding.text() for finding in self.messages)
