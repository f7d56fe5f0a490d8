"""The operations of one session, sorted for the checks, each with its places worked out once."""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, TypeAlias

from mangacache.testing.history.operations import SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.testing.history.operations import Operation

Point: TypeAlias = "tuple[int, int, int, Operation]"
"""A time; the place in the order of turns and in that of META; the operation that told them, or is held to them."""

TIME = itemgetter(0)
_BEGIN = attrgetter("invoked_ns")
_END = attrgetter("returned_ns")


class SessionOperations:
    """One session's operations.

    Attributes:
        appends: all appends, in the order in which they began; so are `updates` and `deletes`.
        acknowledged: the appends that succeeded, in the order in which they returned.
        told: those that succeeded and told a version, each at the time it returned, in that order.
        first_state: what was stored before the first write began, if that was read.
        last_state: the last strong read of everything.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        told: list[Point] = []
        writes: dict[str, list[Operation]] = {"append": [], "update": [], "delete": []}
        states: list[Operation] = []
        for operation in operations:
            kind = operation.kind
            if kind in writes:
                writes[kind].append(operation)
            elif kind == "state" and operation.outcome == "ok":
                states.append(operation)
            version, returned_ns = operation.version, operation.returned_ns
            if version is not None and returned_ns is not None:  # it has succeeded
                above = version.incarnation << SHIFT
                told.append((returned_ns, above | version.number, above | version.revision, operation))
        for begun in writes.values():
            begun.sort(key=_BEGIN)
        told.sort(key=TIME)
        self.told = told
        self.appends, self.updates, self.deletes = writes["append"], writes["update"], writes["delete"]
        self.acknowledged = sorted((append for append in self.appends if append.outcome == "ok"), key=_END)
        states.sort(key=_END)
        self.last_state = states[-1] if states else None
        self.first_state = states[0] if states and self._is_first(states[0]) else None

    def _is_first(self, state: Operation) -> bool:
        firsts = [writes[0].invoked_ns for writes in (self.appends, self.updates, self.deletes) if writes]
        return state.returned_ns is not None and state.returned_ns <= min(firsts, default=state.returned_ns)
