"""The decision behind a read that memory does not answer: rules R2, R3, R4, R8 and R9 of the context protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from mangacache.context.messages import (
    Admit,
    Away,
    Busy,
    Fill,
    Get,
    Held,
    Lease,
    Observe,
    Pause,
    Reading,
    Release,
    Restart,
    Spoilt,
    Steps,
)
from mangacache.errors import MangaCacheError
from mangacache.store.effects import Load

if TYPE_CHECKING:
    from mangacache.model import Version
    from mangacache.store.snapshot import Snapshot

_FIRST_PAUSE_S: Final = 0.02
_LAST_PAUSE_S: Final = 0.2


def read(*, least: Version, have: Snapshot | None, now_s: float) -> Steps[Reading]:
    """Read through Redis; whoever misses fills it.

    Args:
        least: join of the token and of what memory knows.
        have: what memory holds, which is not sent again.
        now_s: wall clock; what has expired by it is never answered from Redis, since META's copy there may be
            older than its last touch.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        outcome = yield Get(least, have)
        match outcome:
            case Held(snapshot, age_s):
                if not snapshot.has_expired(now_s):
                    return Reading(snapshot, "redis", strong=False, age_s=age_s)
                return (yield from read_strongly())
            case Lease():
                filled = yield from _fill(outcome)
                if filled is not None:
                    return filled
            case Busy(left_s):
                if not (yield Pause(min(pause_s, left_s + 0.001))):
                    return (yield from read_strongly())
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            case Spoilt():
                return (yield from read_strongly())
            case Away(why):
                yield Admit(why)
                return (yield from read_strongly())
            case _:
                raise AssertionError(outcome)


def read_strongly() -> Steps[Reading]:
    """Read DynamoDB, and say in Redis what was read before it is returned (R3)."""
    snapshot = cast("Snapshot", (yield Load()))
    told = yield Observe(snapshot.version)
    return Reading(snapshot, "dynamodb", strong=True, degraded=isinstance(told, Away))


def _fill(lease: Lease) -> Steps[Reading | None]:
    """Read strongly under a lease and fill; None where the epoch changed on the way and all begins again."""
    try:
        snapshot = cast("Snapshot", (yield Load()))
    except MangaCacheError:
        yield Release(lease)
        raise
    if snapshot.foreign:  # read as it is, and not kept
        yield Release(lease)
        return Reading(snapshot, "dynamodb", strong=True)
    outcome = yield Fill(lease, snapshot)
    if isinstance(outcome, Restart):
        return None
    if isinstance(outcome, Away):  # whether it went in is unknown, so it is said again
        told = yield Observe(snapshot.version)
        return Reading(snapshot, "dynamodb", strong=True, degraded=isinstance(told, Away))
    return Reading(snapshot, "dynamodb", strong=True)
