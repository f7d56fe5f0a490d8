"""What the doctor says: a finding a check, by how bad it is, and the exit status that all of them make."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Severity(IntEnum):
    """How bad a finding is; each is worse than those before it."""

    OK = 0
    NOTE = 1
    WARNING = 2
    PROBLEM = 3

    def __str__(self) -> str:
        return self.name.lower()


class Finding(msgspec.Struct, frozen=True):
    """What one check came to.

    Attributes:
        check: its id, `redis.policy`.
        severity: how bad it is.
        seen: what was found.
        breaks: what goes wrong because of it; empty where nothing does.
        remedy: what to do; empty where nothing is to be done.
        unlooked: whether this stands for a part that could not be looked at.
    """

    check: str
    severity: Severity
    seen: str
    breaks: str = ""
    remedy: str = ""
    unlooked: bool = False

    def plain(self) -> Mapping[str, object]:
        """Return it for JSON."""
        return {
            "check": self.check,
            "severity": str(self.severity),
            "seen": self.seen,
            "breaks": self.breaks,
            "remedy": self.remedy,
        }


def ok(check: str, seen: str) -> Finding:
    """Return a finding that is well."""
    return Finding(check, Severity.OK, seen)


def note(check: str, seen: str, *, breaks: str = "", remedy: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, Severity.NOTE, seen, breaks, remedy)


def warning(check: str, seen: str, *, breaks: str, remedy: str) -> Finding:
    """Return a finding that will hurt one day, or costs something now."""
    return Finding(check, Severity.WARNING, seen, breaks, remedy)


def problem(check: str, seen: str, *, breaks: str, remedy: str) -> Finding:
    """Return a finding by which the service cannot keep what it promises."""
    return Finding(check, Severity.PROBLEM, seen, breaks, remedy)


def unlooked(check: str, why: str, *, remedy: str) -> Finding:
    """Return what stands for a part that could not be looked at."""
    return Finding(
        check,
        Severity.WARNING,
        f"could not be looked at: {why}",
        "what is wrong there stays unsaid",
        remedy,
        unlooked=True,
    )


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 where there is a problem, else 2 where a part could not be looked at, else 0."""
    known = list(findings)
    if any(finding.severity is Severity.PROBLEM for finding in known):
        return 1
    return 2 if any(finding.unlooked for finding in known) else 0


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings there are of each severity, the worst first."""
    counts = {str(severity): 0 for severity in sorted(Severity, reverse=True)}
    for finding in findings:
        counts[str(finding.severity)] += 1
    return counts
