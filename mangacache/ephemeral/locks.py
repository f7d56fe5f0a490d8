"""Locks of sessions: in Redis for who is next and when, in DynamoDB for what counts.

Redis keeps the holder and the line of those who wait; it may lose both at any time, and a holder may be paused for
longer than its lease. So whoever has taken the lock there claims the session's fence in DynamoDB, and the writes that
are done under the lock name it (`store/fences.py`): an earlier holder's are refused. The order of a claim is: read
the fence, take the lock, raise the fence if it still is what was read. Who was paused between the last two finds it
raised, and begins again.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from mangacache.ephemeral import lending
from mangacache.ephemeral.asking import shown
from mangacache.ephemeral.seeking import Means, Seeking
from mangacache.errors import Closed, Invalid
from mangacache.model import checked_id
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mangacache.clock import Clock, Random
    from mangacache.ephemeral.asking import Asker
    from mangacache.ephemeral.holding import Held
    from mangacache.ephemeral.lending import Lent
    from mangacache.redis.subscriptions import Subscriptions
    from mangacache.store import Store
    from mangacache.telemetry import Telemetry

LEASE_S: Final = 10.0
WAIT_S: Final = 30.0
_LEAST_LEASE_S: Final = 0.1
_MOST_LEASE_S: Final = 300.0
_MOST_WAIT_S: Final = 3_600.0


class Locks:
    """The locks of one instance's sessions.

    Args:
        asker: the way to Redis; without one, the fence alone is the lock.
        subscriptions: where who waits is woken; None where no Redis is configured.
        store: the fences.
        check: raises `Closed` where the instance is closed.
    """

    def __init__(
        self,
        asker: Asker,
        subscriptions: Subscriptions | None,
        store: Store,
        *,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        check: Callable[[], None],
    ) -> None:
        self._asker = asker
        self._telemetry = telemetry
        self._check = check
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._means = Means(
            asker=asker,
            subscriptions=subscriptions,
            store=store,
            clock=clock,
            random=random,
            telemetry=telemetry,
            tasks=self._tasks,
        )
        self._held: dict[Held, Seeking] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Locks by {self._asker}, {len(self._held)} held>"

    @asynccontextmanager
    async def session(
        self, session_id: str, *, lease_s: float = LEASE_S, wait_s: float = WAIT_S
    ) -> AsyncIterator[Held]:
        """Hold the lock of a session for the body of `async with`, and renew it meanwhile.

        It does not keep anybody from anything by itself: only writes that name `held.fence` are guarded. A body that
        runs on after the lock is lost is cancelled, and the block raises `Conflict`. It is not reentrant.

        Args:
            session_id: whose lock; the session need not have begun.
            lease_s: how long the lock outlives a holder that is gone, 0.1 to 300 s. A holder that cannot renew it is
                stopped after two thirds of it.
            wait_s: how long to wait for it, 0 to 3,600 s.

        Raises:
            Rejected: it was not to be had in `wait_s`, or too many wait for it.
            Conflict: the lock was lost, or the session is foreign.
            Transient: DynamoDB does not answer.
            Invalid: an argument is none.
        """
        seeking = self._seeking(session_id, lease_s=lease_s, wait_s=wait_s)
        held = await self._found(seeking)
        self._held[held] = seeking
        failed: BaseException | None = None
        held.begin(seeking.renew, tasks=self._tasks, watched=self._telemetry.count_survived)
        try:
            yield held
        except BaseException as error:
            failed = error
            raise
        finally:
            self._held.pop(held, None)
            leaving = seeking.leave()
            try:
                held.end(failed)
            finally:
                if leaving is not None and not held.lost.is_set():
                    await asyncio.wait((leaving,))

    # By token

    async def lend(self, session_id: str, *, lease_s: float = LEASE_S, wait_s: float = 0.0) -> Lent:
        """Take the lock of a session for whoever is given its token; nobody renews it but by `prolong`.

        Args:
            session_id: whose lock; the session need not have begun.
            lease_s: how long it is held from now, and from each renewal on, 0.1 to 300 s.
            wait_s: how long to wait for it, 0 to 3,600 s.

        Raises:
            Rejected, Conflict, Transient, Invalid: see `session`.
        """
        seeking = self._seeking(session_id, lease_s=lease_s, wait_s=wait_s)
        await self._found(seeking)
        return seeking.hold.lent()

    async def prolong(self, session_id: str, lock_token: str) -> Lent:
        """Hold a lent lock for its whole lease from now on, whichever instance lent it.

        Raises:
            Conflict: it is not held by this token any more.
            Invalid: it is no token.
            Transient: whether it is held could not be found out: ask again before its lease ends.
        """
        self._check()
        self._check_open()
        hold = lending.Hold.parse(lock_token)
        await lending.prolong(checked_id(session_id, what="session id"), hold, self._means)
        return hold.lent()

    async def give_back(self, session_id: str, lock_token: str) -> bool:
        """End a lent lock, whichever instance lent it; tell whether it was held by this token until now.

        Raises:
            Invalid: it is no token.
            Transient: Redis cannot be asked: the lock ends with its lease.
        """
        self._check()
        self._check_open()
        hold = lending.Hold.parse(lock_token)
        return await lending.give_back(checked_id(session_id, what="session id"), hold, self._means)

    def _seeking(self, session_id: str, *, lease_s: float, wait_s: float) -> Seeking:
        self._check()
        checked_id(session_id, what="session id")
        lease_s = _checked_s(lease_s, what="lease_s", least=_LEAST_LEASE_S, most=_MOST_LEASE_S)
        wait_s = _checked_s(wait_s, what="wait_s", least=0.0, most=_MOST_WAIT_S)
        self._check_open()
        return Seeking(session_id, lease_s=lease_s, wait_s=wait_s, means=self._means)

    async def _found(self, seeking: Seeking) -> Held:
        held = await seeking.found()
        try:
            self._check_open()
        except Closed:
            seeking.leave()
            raise
        return held

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this MangaCache is closing and gives no more locks")

    async def close(self) -> None:
        """Stop who holds a lock, and give it back."""
        self._closed = True
        held, self._held = self._held, {}
        for one in held:
            one.lose("this MangaCache is closing")
        leaving = {task for seeking in held.values() if (task := seeking.leave()) is not None}
        try:
            if leaving:
                await asyncio.wait(leaving)
        finally:
            await self._tasks.cancel()


def _checked_s(value: float, *, what: str, least: float, most: float) -> float:
    if type(value) not in (int, float) or not least <= value <= most:
        raise Invalid(f"`{what}` is {least:g} to {most:g} seconds, not {shown(value)}")
    return float(value)
