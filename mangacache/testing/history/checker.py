"""The checker: every check over every session, and one report."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from mangacache.testing.history.clients import ClientCheck
from mangacache.testing.history.contents import Contents
from mangacache.testing.history.ending import check_ending
from mangacache.testing.history.facts import check_facts
from mangacache.testing.history.makers import check_makers
from mangacache.testing.history.order import check_order
from mangacache.testing.history.promises import Promises, Timing
from mangacache.testing.history.reading import RecordedHistory
from mangacache.testing.history.sessions import SessionOperations
from mangacache.testing.history.violations import Findings, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.testing.history.operations import Operation


_OUTCOME: Final = attrgetter("kind", "outcome")


def check_history(
    operations: Iterable[Operation] | RecordedHistory, *, promises: Promises | None = None, limit: int = 10
) -> Report:
    """Hold a history to what is promised.

    The time it takes grows with the operations' number alone, n log n: nothing is searched.

    Args:
        operations: all operations on the sessions of interest, by every process; or what `read_history` returned.
        promises: what they are held to.
        limit: how many violations of each name to explain; all are counted.
    """
    promises = promises or Promises()
    findings, timing, notes = Findings(limit=limit), Timing(promises), list[str]()
    if isinstance(operations, RecordedHistory):
        notes += _notes_of(operations)
        operations = operations.operations
    by_session: dict[str, list[Operation]] = {}
    for operation in operations:
        of_session = by_session.get(operation.session)
        if of_session is None:
            of_session = by_session[operation.session] = []
        of_session.append(operation)
    outcomes = Counter(chain.from_iterable(map(_OUTCOME, found) for found in by_session.values()))
    unread = sum(_check(SessionOperations(found), timing, promises, findings) for found in by_session.values())
    if unread:
        notes.append(
            f"{unread} acknowledged appends were not looked up at the end: record the `state` of each session last"
        )
    return Report(
        operations=outcomes.total(),
        sessions=len(by_session),
        outcomes={f"{kind} {outcome}": number for (kind, outcome), number in outcomes.items()},
        counts=dict(findings.counts),
        violations=tuple(findings.violations),
        notes=tuple(notes),
    )


def _check(session: SessionOperations, timing: Timing, promises: Promises, findings: Findings) -> int:
    """Check one session; return how many acknowledged appends could not be looked up at its end."""
    contents = Contents(findings, turns_expire=promises.turns_expire)
    contents.learn(session)
    check_order(session, contents, timing, findings)
    ClientCheck(session, contents, timing, findings, per_client=promises.per_client).run()
    if promises.turns_expire:
        return 0
    check_makers(session, contents, findings)
    check_facts(session, findings)
    return check_ending(session, findings)


def _notes_of(history: RecordedHistory) -> list[str]:
    notes = (
        [f"{history.torn} files, or parts of one, end in a torn record, as a kill leaves them"] if history.torn else []
    )
    return notes + [f"{damage}: a phantom, hole or mismatch may come from that" for damage in history.damage]
