"""Warm-up: contexts that are loaded before anybody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Closed, Invalid, MangaCacheError, Rejected
from mangacache.model import Consistency, checked_id
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mangacache.sessions.registry import Sessions
    from mangacache.telemetry import Telemetry

MOST_SESSIONS: Final = 1_000
_MOST_AT_ONCE: Final = 64


class Prefetched(msgspec.Struct, frozen=True, gc=False):
    """What a warm-up came to.

    Attributes:
        loaded: contexts that were read in DynamoDB.
        warm: contexts that Redis or this process had already.
        left: those that were not loaded, because Redis is away and the limit of reads is reached, or because DynamoDB
            did not answer: they are read when they are asked for.
    """

    loaded: int = 0
    warm: int = 0
    left: int = 0


class _Tally:
    def __init__(self) -> None:
        self.loaded = self.warm = self.left = 0
        self.stopped = False

    def count(self, source: str) -> None:
        if source == "dynamodb":
            self.loaded += 1
        else:
            self.warm += 1


async def prefetch(
    sessions: Sessions, session_ids: Iterable[str], *, concurrency: int, telemetry: Telemetry
) -> Prefetched:
    """Load contexts, so many at once; once the limit of reads is reached, leave the rest alone.

    Raises:
        Invalid: an argument is none; nothing was done.
        Closed: the instance is closed.
    """
    if isinstance(session_ids, (str, bytes)):
        raise Invalid(f"`prefetch` takes session ids, and {session_ids!r:.60} is one: put it into a list")
    if type(concurrency) is not int or not 1 <= concurrency <= _MOST_AT_ONCE:
        raise Invalid(f"`concurrency` is 1 to {_MOST_AT_ONCE}, not {concurrency!r:.60}")
    wanted = tuple(dict.fromkeys(checked_id(session_id, what="session id") for session_id in session_ids))
    if len(wanted) > MOST_SESSIONS:
        raise Invalid(f"{len(wanted)} sessions are too many to load at once: give at most {MOST_SESSIONS:,}")
    tally, left = _Tally(), iter(wanted)
    failures: list[BaseException] = []
    tasks = TaskOwner(on_failure=lambda _, error: failures.append(error))
    for number in range(min(concurrency, len(wanted))):
        tasks.start(_load(sessions, left, tally, telemetry), name=f"prefetch, {number}")
    try:
        await tasks.settle()
    finally:
        await tasks.cancel()
    if failures:
        raise failures[0]
    return Prefetched(tally.loaded, tally.warm, len(wanted) - tally.loaded - tally.warm)


async def _load(sessions: Sessions, left: Iterator[str], tally: _Tally, telemetry: Telemetry) -> None:
    for session_id in left:
        if tally.stopped:
            return
        try:
            context = await sessions.context(
                session_id, turns=1, at_least=None, consistency=Consistency.SESSION, customer_id=None
            )
        except Closed:
            raise
        except Rejected as error:
            tally.stopped = True
            telemetry.count_survived("prefetch_rejected", error)
        except MangaCacheError as error:
            telemetry.count_survived("prefetch_failed", error)
        else:
            tally.count(context.source)
