"""Pays what a worker owes the others: invalidations first on each new connection, else a raise of the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.context import scripts
from mangacache.context.invalidations import Invalidations
from mangacache.context.knowledge import Standing
from mangacache.context.primaries import Primary
from mangacache.errors import MangaCacheError
from mangacache.redis import LinkLost, Moved, ScriptFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from mangacache.clock import Clock
    from mangacache.context.announcing import Announcer
    from mangacache.context.calls import Calls
    from mangacache.context.keeper import EpochKeeper
    from mangacache.model import Version
    from mangacache.redis import Argument, Link, Server
    from mangacache.settings import Settings
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

_LOOK_EVERY_S: Final = 0.05
_SETTLE_WITHIN_S: Final = 2.0


class Debts:
    """The queue of invalidations and its payment.

    What is owed is sent before anything else on a new connection. What has waited too long, or is more than can be
    remembered, is paid by raising the epoch, which empties the cache for everybody.
    """

    def __init__(
        self,
        link: Link,
        keeper: EpochKeeper,
        calls: Calls,
        *,
        announcer: Announcer,
        settings: Settings,
        clock: Clock,
        tasks: TaskOwner,
        telemetry: Telemetry,
    ) -> None:
        self._link = link
        self._keeper = keeper
        self._calls = calls
        self._announcer = announcer
        self._clock = clock
        self._tasks = tasks
        self._telemetry = telemetry
        self._queue = Invalidations(limit=settings.invalidation_queue, deadline_s=settings.invalidation_deadline_s)
        self._payer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return repr(self._queue)

    def owe(self, session_id: str, version: Version, customer_id: str | None) -> None:
        """Remember a version that was acknowledged and that Redis has not confirmed."""
        self._queue.owe(session_id, version, now_s=self._clock.monotonic_s(), customer_id=customer_id)
        if self._payer is None or self._payer.done():
            self._payer = self._tasks.start(self._pay(), name="pay invalidations")

    async def admit(self, server: Server) -> int:
        """Admit a connection (R6), and send on it what is owed before anybody else sends anything."""
        epoch = await self._keeper.admit(server)
        if not self._queue:
            return epoch
        primary = Primary.of(await server.info())

        async def send(session_id: str, version: Version) -> bool:
            if not primary.serves(self._calls.key(session_id, epoch)):
                return False  # another node's, and paid over its own connection
            await server.run(scripts.TOLD, self._calls.key(session_id, epoch), self._told(session_id, version))
            return True

        # Under an epoch that may have been raised unheard nothing is paid: the others may be reading elsewhere.
        if not self._queue.overflowed and await self._keeper.standing() is not Standing.UNSURE:
            await self._send_all(send)
        return epoch

    async def settle(self) -> None:
        """Pay everything now, at the end.

        Raises:
            MangaCacheError: neither Redis nor DynamoDB took it.
        """
        if not self._queue:
            return
        try:
            async with self._clock.timeout(_SETTLE_WITHIN_S):
                await self._pay_by_link()
        except TimeoutError as error:
            self._telemetry.count_survived("invalidations_slow", error)
        if self._queue:
            await self._pay_by_epoch()

    async def _pay(self) -> None:
        """Pay by whatever way opens first, for as long as something is owed."""
        while self._queue:
            if self._link.up and not self._queue.overflowed:
                await self._pay_by_link()
            due_at_s = self._queue.due_at_s
            if due_at_s is not None and self._clock.monotonic_s() >= due_at_s:
                try:
                    await self._pay_by_epoch()
                except MangaCacheError as error:
                    self._telemetry.count_survived("epoch_not_raised", error)
            if self._queue:
                await self._clock.sleep(_LOOK_EVERY_S)

    async def _pay_by_link(self) -> None:
        """Send what is owed over the link; what is not confirmed under a sure epoch stays owed."""

        async def send(session_id: str, version: Version) -> bool:
            if await self._keeper.standing() is Standing.UNSURE:
                raise LinkLost("the epoch cannot be asked for", sent=False)
            epoch = self._keeper.epoch
            told = self._told(session_id, version)
            await self._link.run(scripts.TOLD, self._calls.key(session_id, epoch), told, tag=epoch)
            return True

        try:
            await self._send_all(send)
        except (LinkLost, Moved, ScriptFailed):
            return  # still owed; the next look tries again

    def _told(self, session_id: str, version: Version) -> list[Argument]:
        """Return the script's arguments; in a cluster, the customer's listeners are told beside it."""
        notice, channel, customers = self._calls.owed(session_id, self._queue.customer_of(session_id))
        if customers and self._announcer.is_needed:
            self._announcer.announce(customers, self._calls.whole(version, notice))
            customers = ""
        return [*self._calls.observe(version), notice, channel, customers]

    async def _send_all(self, send: Callable[[str, Version], Awaitable[bool]]) -> None:
        for session_id, version in self._queue.owed():
            if await send(session_id, version):
                self._queue.paid(session_id, version)
                self._telemetry.cache_events.labels("invalidated").inc()

    async def _pay_by_epoch(self) -> None:
        before_s = self._clock.monotonic_s()
        await self._keeper.raise_unheard()
        self._queue.raised(before_s=before_s)
