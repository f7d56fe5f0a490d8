"""Linearizability, without a search: the source of truth has numbered the versions.

Versions of one component stand in one order. So a history is linearizable iff no operation on a version begins after
one on a higher version has returned, and each version was begun before anybody was told of it. (Gibbons and Korach,
"Testing Shared Memories", 1997, section 5: with the order of writes known, one sweep decides.)

Components are the list of turns, by (incarnation, number), and META, by (incarnation, revision). An operation tells a
whole version, but is held only to what it is about: an append to the number, an update to the revision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.testing.history.operations import NOT_HELD, WRITES, Operation, incarnation_of, place_of, place_text
from mangacache.testing.history.sessions import TIME, Point

if TYPE_CHECKING:
    from mangacache.testing.history.contents import Contents
    from mangacache.testing.history.promises import Timing
    from mangacache.testing.history.sessions import SessionOperations
    from mangacache.testing.history.violations import Component, Findings, Name

_NEVER: Final[Point] = (NOT_HELD, -1, -1, Operation("read", "", "", "", NOT_HELD))


def check_order(session: SessionOperations, contents: Contents, timing: Timing, findings: Findings) -> None:
    """Find answers older than what had been told before they were asked for."""
    promised = _promised(session.told, timing)
    strictly, freely = _held(session, contents, timing)
    if promised is session.told:
        _sweep(session.told, strictly + freely, findings)
    else:
        _sweep(session.told, strictly, findings)
        _sweep(promised, freely, findings)


def _promised(told: list[Point], timing: Timing) -> list[Point]:
    """Return what was told, each from when it is promised to be known; the same list if that is when it was told."""
    if not timing.has_gaps and not any(operation.stale for *_, operation in told):
        return told
    promised: list[Point] = []
    for point in told:
        known_ns = timing.known_from(point[3])
        if known_ns is not None:
            promised.append((known_ns, *point[1:]))
    return sorted(promised, key=TIME)


def _held(session: SessionOperations, contents: Contents, timing: Timing) -> tuple[list[Point], list[Point]]:
    """Return what is held to all that was told, and what is held to what was promised, each with its beginning.

    A write must be above what was told before it began, so it is held to the place just under its own.
    """
    strictly: list[Point] = [
        (append.invoked_ns, place_of(incarnation, number) - 1, NOT_HELD, append)
        for incarnation, numbers in contents.numbers.items()
        for number, turn in numbers.items()
        if (append := contents.first_append.get(turn.turn_id)) is not None and turn.turn_id not in append.repeats
    ]
    freely: list[Point] = []
    must_know_from = timing.must_know_from
    for _, turns_at, meta_at, operation in session.told:
        kind = operation.kind
        if kind == "read":
            if operation.level == "strong":
                strictly.append((operation.invoked_ns, turns_at, meta_at, operation))
            elif (start_ns := must_know_from(operation)) is not None:
                freely.append((start_ns, turns_at, meta_at, operation))
        elif kind == "update":
            strictly.append((operation.invoked_ns, NOT_HELD, meta_at - 1, operation))
        elif kind == "delete" and operation.made:
            strictly.append((operation.invoked_ns, turns_at - 1, NOT_HELD, operation))
        elif kind != "append":
            strictly.append((operation.invoked_ns, turns_at, meta_at, operation))
    return strictly, freely


def _sweep(told: list[Point], held: list[Point], findings: Findings) -> None:
    """Go through time once, with the highest places told so far and who told them."""
    following = iter(told)
    tell_ns, turns_told, meta_told, teller = next(following, _NEVER)
    highest_turns = highest_meta = -1
    turns_teller = meta_teller = teller
    for start_ns, turns_at, meta_at, operation in sorted(held, key=TIME):
        while tell_ns < start_ns:
            if turns_told > highest_turns:
                highest_turns, turns_teller = turns_told, teller
            if meta_told > highest_meta:
                highest_meta, meta_teller = meta_told, teller
            tell_ns, turns_told, meta_told, teller = next(following, _NEVER)
        about: Component = "turns"
        if highest_turns > turns_at:
            about = _report("turns", turns_at, highest_turns, operation, teller=turns_teller, findings=findings)
        if highest_meta > meta_at and about != "incarnation":
            _report("meta", meta_at, highest_meta, operation, teller=meta_teller, findings=findings)


def _report(
    component: Component, at: int, told: int, operation: Operation, *, teller: Operation, findings: Findings
) -> Component:
    """Report that a place was told before an operation began that is held to a lower one; return what it was about."""
    writes = operation.kind in WRITES and operation.made
    at += writes  # a write is held to the place under its own
    if incarnation_of(told) > incarnation_of(at) or (operation.kind == "delete" and writes):
        component = "incarnation"
    what = place_text(component, at)
    name: Name = "linearizability"
    if writes and told == at:
        name, sentence = "phantom", f"{what} was told before the {operation.kind} that makes it began"
    elif operation.level in ("session", "eventual"):
        name, sentence = (
            "age bound",
            f"{what} was returned, and {place_text(component, told)} had been told too long before",
        )
    else:
        how = "made" if writes else "returned"
        sentence = f"{what} was {how} by what began after {place_text(component, told)} had been told"
    findings.add(name, sentence, (teller, operation), component=component)
    return component
