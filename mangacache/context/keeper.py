"""Keeps a worker's knowledge of the epoch fresh, and admits connections by it: rules R6 and R7."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mangacache.context.knowledge import POLL_EVERY_S, EpochKnowledge, Standing
from mangacache.context.primaries import Primary
from mangacache.errors import Closed, MangaCacheError, Transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock
    from mangacache.redis import Server
    from mangacache.store.epochs import EpochRecord, Epochs
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

_READ_WITHIN_S: Final = 1.0
_TROUBLE_S: Final = _READ_WITHIN_S + 2 * POLL_EVERY_S
"""How long after a failed read nobody waits for another: longer than from one failure of the poll to the next."""
_MAX_RAISES: Final = 8


class EpochKeeper:
    """Reads the epoch item every half second, and raises it where that is called for.

    Args:
        epochs: the item.
        changed: called when another epoch than before has been learned.

    Attributes:
        knowledge: what is known.
    """

    def __init__(
        self,
        epochs: Epochs,
        *,
        clock: Clock,
        tasks: TaskOwner,
        telemetry: Telemetry,
        changed: Callable[[], None],
    ) -> None:
        self.knowledge = EpochKnowledge()
        self._epochs = epochs
        self._clock = clock
        self._tasks = tasks
        self._telemetry = telemetry
        self._changed = changed
        self._reading: asyncio.Task[None] | None = None
        self._failed_at_s = float("-inf")

    @property
    def epoch(self) -> int:
        """The newest epoch known; 0 before the first."""
        record = self.knowledge.record
        return record.epoch if record is not None else 0

    async def standing(self) -> Standing:
        """Return what the knowledge is good for, having read the item where it has lapsed.

        While DynamoDB does not answer only the first to ask wait for it; then the poll tells when it is back.
        """
        now_s = self._clock.monotonic_s()
        standing = self.knowledge.standing(now_s)
        if standing is Standing.UNSURE and now_s - self._failed_at_s >= _TROUBLE_S:
            try:
                await self.refresh()
            except MangaCacheError:
                return Standing.UNSURE  # counted where it was read
            standing = self.knowledge.standing(self._clock.monotonic_s())
        return standing

    async def refresh(self) -> None:
        """Read the item strongly; callers at the same time share one read.

        Raises:
            MangaCacheError: DynamoDB did not answer.
        """
        if self._reading is None:
            self._reading = self._tasks.start(self._read(), name="read the epoch", awaited=True)
        reading = self._reading
        await asyncio.wait((reading,))
        if reading.cancelled():
            raise Closed("this MangaCache was closed while the cache's epoch was read")
        reading.result()

    async def _read(self) -> None:
        sent_at_s = self._clock.monotonic_s()
        try:
            async with self._clock.timeout(_READ_WITHIN_S):
                record = await self._epochs.read()
                if record.epoch < self.epoch:
                    await self._lift(record)
                    record = await self._epochs.read()
        except TimeoutError as error:
            self._failed_at_s = self._clock.monotonic_s()
            raise Transient(f"the cache's epoch could not be read within {_READ_WITHIN_S:g} s") from error
        except MangaCacheError:
            self._failed_at_s = self._clock.monotonic_s()
            raise
        finally:
            self._reading = None
        first = self.knowledge.record is None
        if self.knowledge.learn(record, sent_at_s=sent_at_s, now_s=self._clock.monotonic_s()) and not first:
            self._telemetry.log.info("epoch_learned", epoch=record.epoch)
            self._telemetry.cache_events.labels("epoch_learned").inc()
            self._changed()

    async def _lift(self, record: EpochRecord) -> None:
        """Raise an item that is lower than it was: reads follow one another, so it was lost, or restored.

        Left alone it would not be learned for a long time, and epochs gone by would be used again.
        """
        to = self.epoch + 1
        self._telemetry.log.warning("epoch_raised", epoch=to, why="the item had gone back")
        self._telemetry.cache_events.labels("epoch_raised").inc()
        await self._epochs.raise_(record.epoch, identity=record.identity, to=to)

    async def poll(self) -> None:
        """Read the item again and again, for as long as the worker lives."""
        while True:
            try:
                await self.refresh()
                now_s = self._clock.monotonic_s()
                if self.knowledge.should_settle(now_s):
                    await self._epochs.settle(self.epoch)
            except MangaCacheError as error:
                self._telemetry.count_survived("epoch_unread", error)
            await self._clock.sleep(POLL_EVERY_S)

    async def admit(self, server: Server) -> int:
        """Return the epoch under which a new connection may be used (R6).

        The server is looked for in the item; where another one stands there for what it keeps, the epoch is raised.
        Where the item cannot be read, a primary that was last known is admitted, and `standing` says that the epoch is
        unsure.

        Raises:
            Transient: the server is no primary, or the epoch cannot be read.
        """
        primary = Primary.of(await server.info())
        known = self.knowledge.record
        if self.knowledge.standing(self._clock.monotonic_s()) is Standing.UNSURE:
            try:
                await self.refresh()
            except MangaCacheError:
                if known is None or not primary.is_in(known.identity):
                    raise
                # While DynamoDB is away this primary still is the one last known: what it answers is stale (R7).
        known = self.knowledge.record
        if known is not None and primary.is_in(known.identity):
            return known.epoch
        for _ in range(_MAX_RAISES):
            await self.refresh()
            known = self.knowledge.record
            if known is None:
                raise AssertionError("a read without a record")
            if primary.is_in(known.identity):
                return known.epoch
            noted = primary.noted_in(known.identity)
            if primary.follows(known.identity):
                await self._epochs.name(noted, epoch=known.epoch, before=known.identity)
            else:
                self._telemetry.log.warning("epoch_raised", epoch=known.epoch + 1, why="another primary of Redis")
                self._telemetry.cache_events.labels("epoch_raised").inc()
                await self._epochs.raise_(known.epoch, identity=noted)
        raise Transient("workers keep meeting different primaries of Redis: the cache's epoch does not settle")

    async def raise_unheard(self) -> None:
        """Raise the epoch because invalidations could not be sent; done when a higher one is read.

        Raises:
            MangaCacheError: DynamoDB did not answer.
        """
        if self._reading is not None:  # it may have seen the epoch before the one under which the debts were made
            await asyncio.wait((self._reading,))
        await self.refresh()
        known = self.knowledge.record
        if known is None:
            raise AssertionError("a read without a record")
        await self._epochs.raise_(known.epoch, identity=known.identity)
        self._telemetry.log.warning("epoch_raised", epoch=known.epoch + 1, why="invalidations could not be sent")
        self._telemetry.cache_events.labels("epoch_raised").inc()
        while self.epoch <= known.epoch:
            await self.refresh()
