"""What was acknowledged is there at the end: against the last strong read of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mangacache.testing.history.sessions import SessionOperations
    from mangacache.testing.history.violations import Findings


def check_ending(session: SessionOperations, findings: Findings) -> int:
    """Find acknowledged turns that the last state does not hold.

    Returns:
        How many acknowledged appends cannot be looked up: no state was read after them.
    """
    state = session.last_state
    if state is None or state.version is None:
        return len(session.acknowledged)
    incarnation = state.version.incarnation
    stored = {turn.turn_id for turn in state.turns}
    late = 0
    for append in session.acknowledged:
        if append.version is None or append.version.incarnation < incarnation:
            continue  # deleted since
        if (append.returned_ns or 0) > state.invoked_ns:
            late += 1
            continue
        for turn in append.turns:
            if turn.turn_id not in stored:
                findings.add(
                    "lost acknowledgement",
                    f"turn {turn.turn_id!r} was acknowledged as number {turn.number} and is not there at the end",
                    (append, state),
                )
    return late
