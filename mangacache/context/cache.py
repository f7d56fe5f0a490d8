"""The context cache in Redis: carries out what the protocol's decisions ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from mangacache.context.announcing import Announcer
from mangacache.context.calls import Calls, customer_of
from mangacache.context.debts import Debts
from mangacache.context.keeper import EpochKeeper
from mangacache.context.knowledge import Standing
from mangacache.context.limiter import ReadLimiter
from mangacache.context.messages import (
    Admit,
    Effect,
    Fill,
    Get,
    Lease,
    Observe,
    Outcome,
    Overtaken,
    Pause,
    Reading,
    Release,
    Spoilt,
    Steps,
)
from mangacache.context.reading import read, read_strongly
from mangacache.context.tier import Confirmed, Found
from mangacache.context.watching import Watch
from mangacache.context.wire import Asked, Wire
from mangacache.errors import Closed, MangaCacheError, Transient
from mangacache.redis import LinkLost, Moved, ScriptFailed
from mangacache.store.effects import Load
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock, Random
    from mangacache.context.watching import Memory
    from mangacache.model import Version
    from mangacache.redis import Link
    from mangacache.settings import Settings
    from mangacache.store import Store
    from mangacache.store.snapshot import Snapshot
    from mangacache.telemetry import Telemetry

_RETRY_PAUSE_S: Final = 0.02


class RedisContexts:
    """A `ContextTier` in Redis.

    Args:
        link: the way to Redis; owned, and closed with this.
        store: where strong reads and the epoch come from.
        epoch_changed: called when another epoch than before has been learned: who publishes may do so elsewhere now.
    """

    def __init__(
        self,
        link: Link,
        store: Store,
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        epoch_changed: Callable[[], None] | None = None,
    ) -> None:
        self._link = link
        self._epoch_changed = epoch_changed
        self._store = store
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._holds = settings.redis_policy == "hold"
        self._commit_retry_s = settings.commit_retry_s
        self._read_deadline_s = settings.request_deadline_s
        self._limiter = ReadLimiter(settings.degraded_reads_per_s)
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        calls = Calls(settings)
        self._keeper = EpochKeeper(
            store.epochs, clock=clock, tasks=self._tasks, telemetry=telemetry, changed=self._drop
        )
        announcer = Announcer(link, tasks=self._tasks, telemetry=telemetry)
        self._debts = Debts(
            link,
            self._keeper,
            calls,
            announcer=announcer,
            settings=settings,
            clock=clock,
            tasks=self._tasks,
            telemetry=telemetry,
        )
        self._wire = Wire(link, self._keeper, calls, random=random, telemetry=telemetry, announcer=announcer)
        telemetry.redis_up.set(1)
        link.admit_with(self._debts.admit)
        self._watch = Watch(settings.key_prefix, telemetry=telemetry)
        link.watch_with(self._watch)
        self._tasks.start(self._keeper.poll(), name="poll the cache's epoch")

    def __repr__(self) -> str:
        return f"<RedisContexts over {self._link}, {self._keeper.knowledge}, {self._debts}>"

    def _drop(self) -> None:
        self._link.drop()
        if self._epoch_changed is not None:
            self._epoch_changed()

    def feed(self, memory: Memory) -> None:
        """See `ContextTier`."""
        self._watch.feed(memory)

    # Reading

    async def read(self, session_id: str, *, least: Version, have: Snapshot | None) -> Found:
        """See `ContextTier`."""
        return await self._run(session_id, read(least=least, have=have, now_s=self._clock.time_s()))

    async def strong(self, session_id: str) -> Found:
        """See `ContextTier`."""
        return await self._run(session_id, read_strongly(), only_dynamodb=True)

    async def latest_may_degrade(self) -> bool:
        """See `ContextTier`."""
        if not self._holds:
            return True
        while (standing := await self._keeper.standing()) is Standing.WAITING:
            await self._wait_out()
        if standing is Standing.UNSURE:
            raise Transient("the cache's epoch cannot be read in DynamoDB, so LATEST cannot be promised")
        if not self._link.up:
            raise Transient("Redis is away, so LATEST cannot be promised (redis_policy hold): ask at another level")
        return False

    async def _run(self, session_id: str, steps: Steps[Reading], *, only_dynamodb: bool = False) -> Found:
        """Drive a read to its end: perform each effect it asks for, and tell it the outcome or the failure."""
        asked = Asked(self._clock, only_dynamodb=only_dynamodb)
        deadline_s = self._clock.monotonic_s() + self._read_deadline_s
        outcome: Outcome = None
        failure: MangaCacheError | None = None
        try:
            while True:
                effect = steps.send(outcome) if failure is None else steps.throw(failure)
                outcome, failure = None, None
                try:
                    outcome = await self._perform(session_id, effect, asked, deadline_s)
                except MangaCacheError as error:
                    failure = error
        except StopIteration as end:
            reading = cast("Reading", end.value)
        finally:
            steps.close()
        return Found(
            reading.snapshot,
            asked.source if reading.source == "dynamodb" else reading.source,
            strong=reading.strong,
            sent_at_s=asked.at_s,
            sent_age_s=asked.age_s,
            window_age_s=reading.age_s,
            degraded=reading.degraded,
            stale=asked.unsure and not reading.strong,
        )

    async def _perform(self, session_id: str, effect: Effect, asked: Asked, deadline_s: float) -> Outcome:
        outcome: Outcome = None
        match effect:
            case Get(least, have):
                outcome = await self._wire.get(session_id, least=least, have=have, asked=asked)
            case Load():
                asked.now()
                if asked.only_dynamodb:
                    return await self._store.loader.load(session_id)
                loaded = await self._store.windows.load(session_id)
                asked.source = loaded.source
                return loaded.snapshot
            case Fill(lease, snapshot):
                outcome = await self._wire.fill(session_id, lease, snapshot)
            case Observe(version):
                outcome = await self._wire.observe(session_id, version)
            case Release(lease):
                await self._wire.release(session_id, lease)
            case Pause(seconds):
                if self._clock.monotonic_s() + seconds >= deadline_s:
                    return False
                await self._clock.sleep(seconds)
                return True
            case Admit(why):
                self._limiter.take(self._clock.monotonic_s(), why=why)
        self._telemetry.cache_events.labels(type(effect if outcome is None else outcome).__name__.lower()).inc()
        if isinstance(outcome, Lease | Spoilt):
            self._telemetry.tier_misses.labels("redis").inc()
        elif isinstance(outcome, Overtaken):
            self._telemetry.tier_stale_refused.labels("redis").inc()
        return outcome

    async def _wait_out(self) -> None:
        """Wait until what others may rely on has lapsed; who waits at the end is told, as nobody waits for him."""
        waits_s = self._keeper.knowledge.waits_until_s - self._clock.monotonic_s()
        if waits_s <= 0:
            return
        waiting = self._tasks.start(self._clock.sleep(waits_s), name="wait out the epoch before", awaited=True)
        try:
            await asyncio.wait((waiting,))
        finally:
            ended = waiting.cancelled()
            waiting.cancel()
        if ended:
            raise Closed("this MangaCache was closed while the cache's last epoch was waited out")

    # Writing

    async def commit(self, session_id: str, *, base: Snapshot | None, after: Snapshot) -> Confirmed:
        """See `ContextTier`."""
        if after.foreign:
            return Confirmed()
        lost_at_s: float | None = None
        while True:
            standing = await self._keeper.standing()
            if standing is Standing.WAITING and self._holds:
                await self._wait_out()
                continue
            reaches = self._link.up  # in a cluster, one node may be away alone
            if reaches:
                sent_age_s = self._clock.age_s()
                try:
                    done = await self._wire.commit(session_id, base=base, after=after)
                except Moved:
                    continue
                except (LinkLost, ScriptFailed) as error:
                    self._telemetry.count_survived("commit_lost", error)
                    reaches = self._link.up and not (isinstance(error, LinkLost) and error.down)
                else:
                    if standing is Standing.SURE:
                        return Confirmed(sent_age_s if done.version == after.version else None)
                    if standing is Standing.WAITING:
                        return Confirmed(degraded=True)
            now_s = self._clock.monotonic_s()
            lost_at_s = lost_at_s if lost_at_s is not None else now_s
            if now_s - lost_at_s >= self._commit_retry_s or not (reaches or self._holds):
                return self._unconfirmed(session_id, after.version, customer_of(base, after))
            await self._clock.sleep(self._random.random() * _RETRY_PAUSE_S)

    def _unconfirmed(self, session_id: str, version: Version, customer_id: str | None) -> Confirmed:
        self._telemetry.cache_events.labels("commit_unconfirmed").inc()
        if self._holds:
            raise Transient(
                "what was written is stored, but Redis cannot be told, so it is not acknowledged (redis_policy hold): "
                "repeat the call, with the same turn_id"
            )
        self._debts.owe(session_id, version, customer_id)
        return Confirmed(degraded=True)

    @property
    def owed(self) -> int:
        """See `ContextTier`."""
        return len(self._debts)

    async def settle(self) -> None:
        """See `ContextTier`."""
        try:
            await self._debts.settle()
        except MangaCacheError as error:
            self._telemetry.count_survived("invalidations_unsent", error, owed=len(self._debts))

    async def close(self) -> None:
        """See `ContextTier`."""
        try:
            await self._tasks.cancel()
        finally:
            await self._link.close()
