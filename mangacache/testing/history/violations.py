"""What a check finds: each violation with the few operations that make it, told as a short story."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from mangacache.testing.history.operations import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.model import Version

Name: TypeAlias = Literal[
    "linearizability",
    "age bound",
    "read your writes",
    "monotonic reads",
    "monotonic writes",
    "writes follow reads",
    "hole",
    "duplicate",
    "lost acknowledgement",
    "phantom",
    "mismatch",
]
NAMES: Final[tuple[Name, ...]] = Name.__args__  # type: ignore[attr-defined] # what a Literal holds
Component: TypeAlias = Literal["turns", "meta", "incarnation"]

_SHOWN_TURNS: Final = 6


class Violation(msgspec.Struct, frozen=True):
    """One promise that was broken.

    Attributes:
        name: which promise.
        component: of what: the list of `turns`, `meta`, or the `incarnation` above both.
        session: in which session.
        sentence: what happened.
        operations: the few operations that show it, in the order in which they began.
    """

    name: Name
    component: Component
    session: str
    sentence: str
    operations: tuple[Operation, ...]

    def story(self) -> str:
        """Return a few lines to print: the sentence, then each operation with its times in milliseconds."""
        start_ns = min((operation.invoked_ns for operation in self.operations), default=0)
        lines = [_line(operation, start_ns) for operation in self.operations]
        return "\n".join((f"{self.name} ({self.component}) in session {self.session!r}: {self.sentence}", *lines))


def _line(operation: Operation, start_ns: int) -> str:
    begun_ms = (operation.invoked_ns - start_ns) / 1e6
    until = "    open" if operation.returned_ns is None else f"{(operation.returned_ns - start_ns) / 1e6:8.3f}"
    who = f"{operation.worker}/{operation.client}"
    return f"  {begun_ms:8.3f} .. {until} ms  {who:16} {_asked(operation)} -> {_answered(operation)}"


def _asked(operation: Operation) -> str:
    words: list[str] = [operation.kind]
    if operation.kind == "append":
        words.append(", ".join(turn.turn_id for turn in operation.turns))
    elif operation.level:
        words.append(operation.level)
    if operation.token is not None:
        words.append(f"given {_parts(operation.token)}")
    return " ".join(words)


def _answered(operation: Operation) -> str:
    if operation.outcome != "ok" or operation.version is None:
        return operation.outcome
    words = [_parts(operation.version)]
    if operation.kind == "append":
        words.append(f"as {', '.join(str(turn.number) for turn in operation.turns)}")
        if operation.repeats:
            words.append("(a repeat)")
    elif operation.turns:
        words.append(_window(operation))
    if not operation.made:
        words.append("(found nothing)")
    if operation.stale:
        words.append("stale")
    if operation.source:
        words.append(f"from {operation.source}")
    return " ".join(words)


def _parts(version: Version) -> str:
    return f"({version.incarnation}, {version.number}, {version.revision})"


def _window(operation: Operation) -> str:
    shown = [f"{turn.number}={turn.turn_id}" for turn in operation.turns[-_SHOWN_TURNS:]]
    more = ["..."] if len(operation.turns) > _SHOWN_TURNS else []
    return f"[{' '.join(more + shown)}]"


class Findings:
    """Collects violations: counts all, keeps the first few of each name."""

    def __init__(self, *, limit: int) -> None:
        self.counts: Counter[Name] = Counter()
        self.violations: list[Violation] = []
        self._limit = limit

    def add(
        self, name: Name, sentence: str, operations: Sequence[Operation], *, component: Component = "turns"
    ) -> None:
        """Add a violation that these operations make; the same operation may be named twice."""
        self.counts[name] += 1
        if self.counts[name] > self._limit:
            return
        different = {id(operation): operation for operation in operations}
        ordered = tuple(sorted(different.values(), key=_begin))
        self.violations.append(Violation(name, component, ordered[0].session, sentence, ordered))


def _begin(operation: Operation) -> int:
    return operation.invoked_ns


class Report(msgspec.Struct, frozen=True):
    """What a check has found.

    Attributes:
        operations: how many were checked.
        sessions: on how many sessions.
        outcomes: how many of each kind ended how: `{"read ok": 40, ...}`.
        counts: how many violations of each name there are.
        violations: the first ones of each name.
        notes: what the check could not look at, and why.
    """

    operations: int
    sessions: int
    outcomes: dict[str, int]
    counts: dict[Name, int]
    violations: tuple[Violation, ...]
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def text(self) -> str:
        """Return the report to print."""
        outcomes = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        lines = [f"{self.operations} operations on {self.sessions} sessions: {outcomes or 'none'}"]
        lines += [f"note: {note}" for note in self.notes]
        if self.clean:
            return "\n".join([*lines, "no violation"])
        lines.append("violations: " + ", ".join(f"{self.counts[name]} {name}" for name in NAMES if name in self.counts))
        return "\n".join(lines) + "\n\n" + "\n\n".join(violation.story() for violation in self.violations)
