"""The four session guarantees: for what a client had seen, and for the tokens it gave.

Read your writes, monotonic reads, monotonic writes, writes follow reads. (Terry and others, "Session Guarantees for
Weakly Consistent Replicated Data", 1994.) What is broken is named by who had told the client: a write, or a read.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from mangacache.testing.history.operations import (
    NOT_HELD,
    SHIFT,
    WRITES,
    incarnation_of,
    meta_place,
    place_of,
    place_text,
    turns_place,
)

if TYPE_CHECKING:
    from mangacache.model import Version
    from mangacache.testing.history.contents import Contents
    from mangacache.testing.history.operations import Operation
    from mangacache.testing.history.promises import Timing
    from mangacache.testing.history.sessions import Point, SessionOperations
    from mangacache.testing.history.violations import Component, Findings, Name

_LATEST: Final = frozenset({"strong", "latest"})


class ClientCheck:
    """Checks the clients of one session.

    Args:
        per_client: hold each client to what it has seen; else only to the tokens it gave.
    """

    def __init__(
        self,
        session: SessionOperations,
        contents: Contents,
        timing: Timing,
        findings: Findings,
        *,
        per_client: bool,
    ) -> None:
        self._session = session
        self._contents = contents
        self._timing = timing
        self._findings = findings
        self._per_client = per_client
        self._tellers: dict[tuple[str, str, int], Operation] = {}

    def run(self) -> None:
        """Go through each client's operations in the order in which they began."""
        clients: dict[str, list[Point]] = {}
        for point in sorted(self._session.told, key=_begin):
            of_client = clients.get(point[3].client)
            if of_client is None:
                of_client = clients[point[3].client] = []
            of_client.append(point)
        for points in clients.values():
            self._follow(points)

    def _follow(self, points: list[Point]) -> None:
        known = _Known()
        pending: list[tuple[int, int, Point]] = []
        for order, point in enumerate(points):
            _, turns_at, meta_at, operation = point
            begin_ns = operation.invoked_ns
            while pending and pending[0][0] < begin_ns:
                _, _, (_, turns_told, meta_told, teller) = heappop(pending)
                if turns_told > known.turns:
                    known.turns, known.turns_teller = turns_told, teller
                if meta_told > known.meta:
                    known.meta, known.meta_teller = meta_told, teller
            heappush(pending, (point[0], order, point))
            token = operation.token
            if operation.kind in WRITES:
                turns_at, meta_at = self._held(operation, turns_at, meta_at)
            if (
                known.turns > turns_at
                or known.meta > meta_at
                or (token is not None and not _covers(turns_at, meta_at, token))
            ):
                self._look(operation, known, turns_at, meta_at)

    def _held(self, write: Operation, turns_at: int, meta_at: int) -> tuple[int, int]:
        """Return the places above which neither the client nor its token may have been: just under the write's own."""
        if write.kind == "update":
            return NOT_HELD, meta_at - 1
        if write.kind == "delete":
            return (turns_at - 1 if write.made else NOT_HELD), NOT_HELD
        first_append = self._contents.first_append
        own = [
            turn.number
            for turn in write.turns
            if turn.number and turn.turn_id not in write.repeats and first_append.get(turn.turn_id) is write
        ]
        return (place_of(incarnation_of(turns_at), min(own)) - 1 if own else NOT_HELD), NOT_HELD

    def _look(self, operation: Operation, known: _Known, turns_at: int, meta_at: int) -> None:
        """Tell a violation from what was not promised, in one component and in the other."""
        token = operation.token
        if known.turns > turns_at and self._is_promised(operation, known.turns_teller):
            broken = self._report("turns", turns_at, known.turns, operation, known.turns_teller)
        elif token is not None and turns_place(token) > turns_at:
            broken = self._report("turns", turns_at, turns_place(token), operation, None)
        else:
            broken = "turns"
        if broken == "incarnation":
            return
        if known.meta > meta_at and self._is_promised(operation, known.meta_teller):
            self._report("meta", meta_at, known.meta, operation, known.meta_teller)
        elif token is not None and meta_place(token) > meta_at:
            self._report("meta", meta_at, meta_place(token), operation, None)

    def _is_promised(self, operation: Operation, teller: Operation | None) -> bool:
        """Tell whether the operation must know what the teller told to the same client."""
        if not self._per_client or teller is None:
            return False
        if operation.kind != "read" or operation.token is not None:
            return True
        if operation.level not in _LATEST:
            return False
        if operation.level == "strong":
            return True
        told_ns = self._timing.known_from(teller)
        return (
            told_ns is not None
            and told_ns < operation.invoked_ns
            and self._timing.must_know_from(operation) is not None
        )

    def _report(
        self, component: Component, at: int, told: int, operation: Operation, teller: Operation | None
    ) -> Component:
        """Report a violation; without a teller it is the token's that was given. Return what it was about."""
        writes = operation.kind in WRITES
        at += writes
        teller = teller or self._teller(component, told, operation)
        by_write = teller is not None and teller.kind in WRITES
        name: Name
        if writes:
            name = "monotonic writes" if by_write else "writes follow reads"
        else:
            name = "read your writes" if by_write else "monotonic reads"
        if incarnation_of(told) > incarnation_of(at) or operation.kind == "delete":
            component = "incarnation"
        self._findings.add(
            name,
            f"client {operation.client!r} knew {place_text(component, told)}, and its {operation.kind} "
            f"{'made' if writes else 'returned'} {place_text(component, at)}",
            (operation,) if teller is None else (teller, operation),
            component=component,
        )
        return component

    def _teller(self, component: Component, place: int, operation: Operation) -> Operation | None:
        """Return who had told a token's part: to the same client if possible, else to anybody."""
        if not self._tellers:
            for _, turns_told, meta_told, told in self._session.told:
                for part, at in (("turns", turns_told), ("meta", meta_told)):
                    self._tellers.setdefault((told.client, part, at), told)
                    self._tellers.setdefault(("", part, at), told)
        own = self._tellers.get((operation.client, component, place))
        teller = own or self._tellers.get(("", component, place))
        return None if teller is operation else teller


class _Known:
    """What one client has been told of one session, and by which of its operations."""

    __slots__ = ("meta", "meta_teller", "turns", "turns_teller")

    def __init__(self) -> None:
        self.turns = self.meta = -1
        self.turns_teller: Operation | None = None
        self.meta_teller: Operation | None = None


def _covers(turns_at: int, meta_at: int, token: Version) -> bool:
    above = token.incarnation << SHIFT
    return turns_at >= above | token.number and meta_at >= above | token.revision


def _begin(point: Point) -> int:
    return point[3].invoked_ns
