"""A revision of META is made once, and META and the summary are the same at it, whoever answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.testing.history.operations import meta_place, part_of, place_text

if TYPE_CHECKING:
    from mangacache.testing.history.operations import Operation
    from mangacache.testing.history.sessions import SessionOperations
    from mangacache.testing.history.violations import Findings


def check_facts(session: SessionOperations, findings: Findings) -> None:
    """Find a revision made twice, and answers at one revision whose META, or whose summary, differ."""
    _check_once(session, findings)
    metas: dict[int, Operation] = {}
    summaries: dict[int, Operation] = {}
    for _, _, place, operation in session.told:
        if operation.meta is not None and part_of(place):
            first = metas.setdefault(place, operation)
            if first.meta != operation.meta:
                _report("META", place, (first, operation), findings)
        if operation.summary is not None and part_of(place):
            first = summaries.setdefault(place, operation)
            if first.summary != operation.summary:
                _report("the summary", place, (first, operation), findings)


def _check_once(session: SessionOperations, findings: Findings) -> None:
    made: dict[int, Operation] = {}
    for update in session.updates:
        if update.version is not None:
            place = meta_place(update.version)
            first = made.setdefault(place, update)
            if first is not update:
                sentence = f"{place_text('meta', place)} was made twice: one of the changes is lost"
                findings.add("duplicate", sentence, (first, update), component="meta")


def _report(what: str, place: int, operations: tuple[Operation, Operation], findings: Findings) -> None:
    findings.add("mismatch", f"{what} at {place_text('meta', place)} has two contents", operations, component="meta")
