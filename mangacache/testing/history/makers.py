"""Versions that nobody can have made: a hole where a later one was acknowledged, else a phantom.

The number of an append whose outcome is unknown is not known either. So each number that was told, and that no known
append made, needs one of those: one that had begun before the number, or a higher one, was told. The numbers in
order, each with the earliest of them that is left: if that fails, every assignment does.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from mangacache.testing.history.operations import SHIFT, incarnation_of, part_of, place_of, place_text
from mangacache.testing.history.sessions import TIME, Point
from mangacache.testing.history.violations import Component

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.testing.history.contents import Contents
    from mangacache.testing.history.operations import Operation
    from mangacache.testing.history.sessions import SessionOperations
    from mangacache.testing.history.violations import Findings


class _Line(msgspec.Struct, frozen=True):
    """One component's versions, which follow each other by one.

    Attributes:
        base: the highest one that was there before.
        highest: the highest one that was told.
        made: those whose makers are known.
        spare_ns: when each operation began that may have made one, and of which nobody knows.
    """

    component: Component
    incarnation: int
    base: int
    highest: int
    made: Collection[int]
    spare_ns: list[int]


def check_makers(session: SessionOperations, contents: Contents, findings: Findings) -> None:
    """Find turns, revisions and incarnations that were told, though not enough operations can have made them."""
    for line in _lines(session, contents):
        unmade = (number for number in range(line.base + 1, line.highest + 1) if number not in line.made)
        missing = list(islice(unmade, len(line.spare_ns) + 1))
        if missing:
            _check(line, missing, session.told, findings)


def _lines(session: SessionOperations, contents: Contents) -> Iterable[_Line]:
    highest: dict[int, tuple[int, int]] = {}
    for _, turns_told, meta_told, _ in session.told:
        incarnation = turns_told >> SHIFT
        parts = highest.get(incarnation)
        if parts is None:
            highest[incarnation] = turns_told, meta_told
        elif turns_told > parts[0] or meta_told > parts[1]:
            highest[incarnation] = max(turns_told, parts[0]), max(meta_told, parts[1])
    first = session.first_state.version if session.first_state is not None else None
    changes: dict[int, set[int]] = {}
    for update in session.updates:
        if update.version is not None:
            changes.setdefault(update.version.incarnation, set()).add(update.version.revision)
    lost_changes = [update.invoked_ns for update in session.updates if update.outcome == "unknown"]
    for incarnation, (turns_told, meta_told) in highest.items():
        before = first if first is not None and first.incarnation == incarnation else None
        yield _Line(
            "turns",
            incarnation,
            before.number if before is not None else 0,
            part_of(turns_told),
            contents.numbers.get(incarnation, {}).keys(),
            _lost_appends(session, contents.places.get(incarnation, {}), incarnation),
        )
        yield _Line(
            "meta",
            incarnation,
            before.revision if before is not None else 1,  # the first append makes revision 1
            part_of(meta_told),
            changes.get(incarnation, set()),
            lost_changes,
        )
    yield _Line(
        "incarnation",
        0,
        max(first.incarnation, 1) if first is not None else 1,
        max(highest, default=0),
        {delete.version.incarnation for delete in session.deletes if delete.version is not None and delete.made},
        [delete.invoked_ns for delete in session.deletes if delete.outcome == "unknown"],
    )


def _lost_appends(session: SessionOperations, places: Collection[str], incarnation: int) -> list[int]:
    """Return when each turn's append began whose number in this incarnation nobody told.

    One that was told of a number in a later incarnation may have stored the turn before, in vain: the answer was lost,
    and when it was asked for again, the session had been deleted with it. It began before anybody was told of the end.
    """
    over_ns = min((point[0] for point in session.told if incarnation_of(point[1]) > incarnation), default=0)
    begun_ns: dict[str, int] = {}
    for append in session.appends:
        in_vain = append.version is not None and append.version.incarnation > incarnation
        if append.outcome == "unknown" or (in_vain and append.invoked_ns <= over_ns):
            for turn in append.turns:
                if turn.turn_id not in places:
                    begun_ns.setdefault(turn.turn_id, append.invoked_ns)
    return list(begun_ns.values())


def _check(line: _Line, missing: list[int], told: list[Point], findings: Findings) -> None:
    """Report the first version that cannot have been made; what acknowledged writes prove goes first."""
    tellers = _tellers(line, told)
    kind = {"turns": "append", "meta": "update", "incarnation": "delete"}[line.component]
    writes = [teller for teller in tellers if teller[2].kind == kind and teller[2].made]
    if found := _first_unmade(line, missing, writes):
        what, write = found
        findings.add("hole", f"a later one was made, and nobody made {what}", (write,), component=line.component)
    elif found := _first_unmade(line, missing, tellers):
        what, teller = found
        findings.add("phantom", f"{what} was told, and nobody can have made it", (teller,), component=line.component)


def _first_unmade(
    line: _Line, missing: list[int], tellers: list[tuple[int, int, Operation]]
) -> tuple[str, Operation] | None:
    """Give each missing version the earliest operation that is left; return the first that gets none in time."""
    spares = iter(line.spare_ns)
    for number in missing:
        later = [teller for teller in tellers if teller[1] >= number]
        if not later:
            return None
        told_ns, _, teller = min(later, key=TIME)
        spare_ns = next(spares, None)
        if spare_ns is None or spare_ns > told_ns:
            place = place_of(number, 0) if line.component == "incarnation" else place_of(line.incarnation, number)
            return place_text(line.component, place), teller
    return None


def _tellers(line: _Line, told: list[Point]) -> list[tuple[int, int, Operation]]:
    """Return when each of the line's versions was told, which it was, and by whom."""
    if line.component == "incarnation":
        return [(told_ns, incarnation_of(place), operation) for told_ns, place, _, operation in told]
    of_turns = line.component == "turns"
    return [
        (told_ns, part_of(turns_told if of_turns else meta_told), operation)
        for told_ns, turns_told, meta_told, operation in told
        if incarnation_of(turns_told) == line.incarnation
    ]
