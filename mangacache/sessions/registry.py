"""All sessions that a process keeps: activation, the memory tier's bound, idle eviction, drain."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.context import Confirmed
from mangacache.errors import Closed, MangaCacheError, Rejected, Transient, VersionGone
from mangacache.model import Consistency, Context, Version
from mangacache.sessions.actor import Actor, Flight, Fresh, Mailboxes
from mangacache.sessions.touches import Touches
from mangacache.store.append import check_customer, is_anothers
from mangacache.store.effects import Sweep
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mangacache.clock import Clock, Random
    from mangacache.context import ContextTier
    from mangacache.settings import Settings
    from mangacache.store import Store
    from mangacache.store.effects import Steps
    from mangacache.store.snapshot import Snapshot
    from mangacache.telemetry import Telemetry

_TOUCHES_AT_ONCE: Final = 64
_EVICTION_LOOKS: Final = 8
_SWEEP_IDLE_EVERY_S: Final = 1.0


class Sessions:
    """The actors of one process.

    Attributes:
        settings, clock, random, store: what the handles need besides.
    """

    def __init__(
        self,
        store: Store,
        tier: ContextTier,
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.random = random
        self._tier = tier
        self._telemetry = telemetry
        self._actors: OrderedDict[str, Actor] = OrderedDict()
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._touches = Touches(store, every_s=settings.touch_every_s, clock=clock, telemetry=telemetry)
        self._mailboxes = Mailboxes(
            tasks=self._tasks,
            clock=clock,
            limit=settings.mailbox_size,
            wait_s=settings.message_deadline_s,
            after=self._touches.touch_if_due,
        )
        self._evictor = self._tasks.start(self._evict_idle(), name="evict idle sessions")
        self._closed = False
        self._lost_at_s = float("-inf")
        tier.feed(self)

    def __len__(self) -> int:
        return len(self._actors)

    def actor(self, session_id: str) -> Actor:
        """Return the session's actor, activated if need be; never awaits."""
        if self._closed:
            raise Closed("this MangaCache is closed")
        actor = self._actors.get(session_id)
        if actor is None:
            actor = self._actors[session_id] = Actor(session_id)
            self._shed(actor)
        else:
            self._actors.move_to_end(session_id)
        actor.last_used_s = self.clock.age_s()
        return actor

    def changed(self, session_id: str) -> None:
        """See `context.Memory`: what is asked for now and answered later was asked for too early, too."""
        actor = self._actors.get(session_id)
        if actor is not None:
            actor.changed_at_s = self.clock.age_s()

    def lost(self) -> None:
        """See `context.Memory`."""
        self._lost_at_s = self.clock.age_s()

    # Reading

    async def context(
        self,
        session_id: str,
        *,
        turns: int,
        at_least: Version | None,
        consistency: Consistency,
        customer_id: str | None,
    ) -> Context:
        """Return the session's context; see `Session.context`."""
        actor = self.actor(session_id)
        if actor.known is not None and is_anothers(actor.known.meta, customer_id, self.clock.time_s()):
            consistency = Consistency.LATEST  # it may have been deleted and begun again by this customer
        if self._may_answer_from_memory(actor, at_least, consistency):
            return self._answer(actor, turns=turns, source="memory")
        if consistency.max_age_s is not None and self.store.eventual is not None:
            old = await self.store.eventual.read(
                session_id,
                max_age_s=consistency.max_age_s,
                known=actor.known,
                at_least=at_least,
                customer_id=customer_id,
            )
            if old is not None:  # for this reader alone: it validates nothing, and memory does not learn it
                return self._answer(actor, turns=turns, source="dax", known=old)
        may_degrade = consistency != Consistency.LATEST or await self._tier.latest_may_degrade()
        try:
            fresh = await self._fresh(actor, at_least, strong=consistency == Consistency.STRONG)
        except Transient:
            known_before = actor.known
            if consistency in (Consistency.STRONG, Consistency.LATEST) or known_before is None:
                raise
            if known_before.foreign or (at_least is not None and not known_before.version.covers(at_least)):
                raise
            if is_anothers(known_before.meta, customer_id, self.clock.time_s()):  # learned while this read failed
                raise
            return self._answer(actor, turns=turns, source="memory", stale=True)
        if fresh.stale and consistency == Consistency.LATEST:
            raise Transient("the cache's epoch cannot be read in DynamoDB, so LATEST cannot be promised")
        if fresh.degraded and not may_degrade:
            raise Transient("Redis is away, so LATEST cannot be promised (redis_policy hold): ask at another level")
        known = fresh.known
        check_customer(known.meta, customer_id, self.clock.time_s())
        if at_least is not None and not known.version.covers(at_least):
            raise VersionGone(
                f"the token {at_least} is newer than the source of truth ({known.version}): the table was restored, "
                "or the session has expired. Read without the token to go on from what is there"
            )
        return self._answer(
            actor, turns=turns, source=fresh.source, stale=fresh.stale, degraded=fresh.degraded, known=known
        )

    def _may_answer_from_memory(self, actor: Actor, at_least: Version | None, consistency: Consistency) -> bool:
        known = actor.known
        if known is None or known.foreign or consistency in (Consistency.STRONG, Consistency.LATEST):
            return False
        if known.has_expired(self.clock.time_s()):  # or has been touched by another worker
            return False
        limit_s = consistency.max_age_s
        if limit_s is None:
            limit_s = self.settings.near_max_age_s
            if actor.validated_at_s <= max(actor.changed_at_s, self._lost_at_s):
                return False
        if self.clock.age_s() - actor.validated_at_s > limit_s:
            return False
        return at_least is None or known.version.covers(at_least)

    def _answer(
        self,
        actor: Actor,
        *,
        turns: int,
        source: str,
        stale: bool = False,
        degraded: bool = False,
        known: Snapshot | None = None,
    ) -> Context:
        self._telemetry.contexts.labels(source).inc()
        shown = known if known is not None else actor.known
        if shown is None:
            raise AssertionError("an answer without knowledge")
        return shown.context(
            actor.session_id, turns=turns, now_s=self.clock.time_s(), source=source, stale=stale, degraded=degraded
        )

    async def _fresh(self, actor: Actor, at_least: Version | None, *, strong: bool = False) -> Fresh:
        """Read through the tiers, sharing a read that has not been sent yet."""
        previous = next((flight for flight in reversed(actor.flights) if flight.strong == strong), None)
        flight = previous
        if flight is None or flight.sent:
            flight = Flight(strong=strong)
            actor.flights.append(flight)
            flight.task = self._tasks.start(self._fly(actor, flight, previous), name="read a session", awaited=True)
        if at_least is not None:
            flight.least = flight.least.join(at_least)
        task = flight.task
        if task is None:
            raise AssertionError("a flight without a task")
        await asyncio.wait((task,))
        if task.cancelled():  # by `close`: the caller was not cancelled, and must not look as if it had been
            raise Closed("this MangaCache was closed during the read")
        return task.result()

    async def _fly(self, actor: Actor, flight: Flight, previous: Flight | None) -> Fresh:
        try:
            if previous is not None and previous.task is not None:
                await asyncio.wait((previous.task,))
            flight.sent = True
            return await self._read(actor, flight)
        finally:
            actor.flights.remove(flight)

    async def _read(self, actor: Actor, flight: Flight) -> Fresh:
        have = actor.known
        if flight.strong:
            found = await self._tier.strong(actor.session_id)
        else:
            least = flight.least.join(have.version) if have is not None and not have.foreign else flight.least
            found = await self._tier.read(actor.session_id, least=least, have=have)
        known = self._learned(actor, found.snapshot, found.sent_at_s, strong=found.strong)
        if not found.stale:
            if not found.degraded:  # else the others cannot know it: each read says so, or asks again
                actor.validated_at_s = max(actor.validated_at_s, found.sent_age_s)
            actor.window_at_s = max(actor.window_at_s, found.sent_age_s - found.window_age_s)
        return Fresh(known, found.source, strong=found.strong, degraded=found.degraded, stale=found.stale)

    def _learned(self, actor: Actor, read: Snapshot, sent_at_s: float, *, strong: bool = True) -> Snapshot:
        known = actor.learn(read, strong=strong, sent_at_s=sent_at_s, now_s=self.clock.monotonic_s())
        meta = known.meta
        if meta is not None and meta.incarnation is not None:
            self._touches.learned(actor, meta)
            if meta.unswept and actor.swept_upto < meta.incarnation:
                actor.swept_upto = meta.incarnation
                self._tasks.start(
                    self._resume_sweep(actor.session_id, meta.incarnation), name="resume an interrupted sweep"
                )
        return known

    async def _resume_sweep(self, session_id: str, incarnation: int) -> None:
        await self.store.perform(session_id, Sweep(incarnation))

    # Writing

    async def write(
        self,
        session_id: str,
        begin: Callable[[Snapshot | None, Version | None], Steps[tuple[Any, Snapshot]]],
        *,
        needs_window: bool = True,
    ) -> Any:
        """Run a decision in the session's turn and return its result, once it is durable and committed (R1, R5).

        Args:
            session_id: whose turn it is.
            begin: given what is known, and what was known when the call had to wait for its turn, begins the decision.
            needs_window: whether the decision rests on what is known; one that does not reads what it needs itself.
        """
        actor = self.actor(session_id)
        waited = actor.draining
        queued_at = actor.known.version if waited and actor.known is not None else None

        async def operation() -> Any:
            base = await self._window(actor) if needs_window else actor.known
            sent_at_s, sent_age_s = self.clock.monotonic_s(), self.clock.age_s()
            known = None if base is not None and (base.foreign or self._window_too_old(actor)) else base
            try:
                since = queued_at if queued_at is not None or not waited else actor.first_version
                result, after = await self.store.run(session_id, begin(known, since))
            except MangaCacheError:
                # Whatever went wrong, what is known may be what misled the decision: read it anew next time.
                actor.forget()
                raise
            confirmed = Confirmed(degraded=True)
            try:
                confirmed = await self._tier.commit(session_id, base=base, after=after)
            finally:  # it is stored, whether or not the others have heard of it
                self._learned(actor, after, sent_at_s)
                if after is not known:  # a turn that was found in memory says nothing of the table
                    actor.window_at_s = max(actor.window_at_s, sent_age_s)
                if confirmed.degraded:  # no read without a look at Redis may tell what the others cannot know
                    actor.validated_at_s = float("-inf")
            if confirmed.degraded:
                return _degraded(result)
            if known is None:  # the decision began with a strong read, and holds what was written since
                actor.validated_at_s = max(actor.validated_at_s, sent_age_s)
            elif confirmed.current_age_s is not None and actor.known is after:
                actor.validated_at_s = max(actor.validated_at_s, confirmed.current_age_s)
            return result

        return await self._mailboxes.run(actor, operation)

    async def _window(self, actor: Actor) -> Snapshot | None:
        """Return what is known of the session, read through the tiers where nothing is.

        None where Redis is away and the limit of reads is reached: an append is never refused for that, and reads
        for itself.
        """
        if actor.known is not None:
            return actor.known
        try:
            return (await self._fresh(actor, None)).known
        except Rejected:
            return None

    async def exclusive(self, session_id: str, operation: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run something else in the session's turn, after which nothing is known of it; the tier is told."""
        actor = self.actor(session_id)

        async def forgetting() -> Any:
            try:
                result = await operation()
            finally:
                actor.forget()
            await self._tier.strong(session_id)
            return result

        return await self._mailboxes.run(actor, forgetting)

    def _window_too_old(self, actor: Actor) -> bool:
        return self.clock.age_s() - actor.window_at_s > self.settings.window_age_s

    # Leaving memory

    def _shed(self, newest: Actor) -> None:
        """Keep the memory tier within its bound: the least recently used idle sessions leave, and never the newest."""
        for _ in range(_EVICTION_LOOKS):
            if len(self._actors) <= max(self.settings.memory_sessions, 1):
                return
            session_id, oldest = next(iter(self._actors.items()))
            if oldest.busy or oldest is newest:
                self._actors.move_to_end(session_id)
                continue
            del self._actors[session_id]
            if self._touches.is_due(oldest):
                self._tasks.start(self._touches.touch(oldest), name="touch a session that leaves memory")

    async def _evict_idle(self) -> None:
        while True:
            await self.clock.sleep(_SWEEP_IDLE_EVERY_S)
            limit_s = self.clock.age_s() - self.settings.idle_s
            while self._actors:
                session_id, oldest = next(iter(self._actors.items()))
                if oldest.last_used_s > limit_s:
                    break
                if oldest.busy:
                    self._actors.move_to_end(session_id)
                    break
                del self._actors[session_id]
                await self._touches.touch(oldest)

    async def close(self) -> None:
        """Take in nothing more, finish what waits, write what META lags behind; within `drain_timeout_s`."""
        self._mailboxes.close()
        self._evictor.cancel()
        try:
            async with self.clock.timeout(self.settings.drain_timeout_s):
                await self._tasks.settle()
                await self._touch_all()
        except TimeoutError as error:
            self._telemetry.count_survived("drain_timed_out", error, sessions=len(self._actors))
        finally:  # who is cancelled here waits no longer for what is under way, and leaves nothing behind
            self._closed = True
            try:
                await self._tasks.cancel()
            finally:
                self._actors.clear()
                await self._tier.close()

    async def _touch_all(self) -> None:
        room = asyncio.Semaphore(_TOUCHES_AT_ONCE)

        async def touch(actor: Actor) -> None:
            async with room:
                await self._touches.touch(actor)

        for actor in self._actors.values():
            self._tasks.start(touch(actor), name="touch a session at the end")
        await self._tasks.settle()


def _degraded(result: Any) -> Any:
    """Return a write's result, or each of its results, marked as not told to the others."""
    if isinstance(result, tuple):
        return tuple(msgspec.structs.replace(one, degraded=True) for one in result)
    return msgspec.structs.replace(result, degraded=True)
