"""The read path: memory, then the tiers, by reads that several readers share."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Closed, Transient, VersionGone
from mangacache.model import Consistency, Context, Version
from mangacache.sessions.actor import NEVER_S, Actor, Answer, Flight, Fresh
from mangacache.store.append import check_customer, is_anothers
from mangacache.store.effects import Sweep
from mangacache.store.values import copied

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.context import ContextTier
    from mangacache.sessions.intake import Intake
    from mangacache.sessions.residents import Residents
    from mangacache.sessions.touches import Touches
    from mangacache.settings import Settings
    from mangacache.store import Store
    from mangacache.store.snapshot import Snapshot
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

_BEYOND_MEMORY: Final = frozenset({"strong", "latest"})


class Reads:
    """Answers contexts."""

    def __init__(
        self,
        store: Store,
        tier: ContextTier,
        *,
        residents: Residents,
        intake: Intake,
        touches: Touches,
        tasks: TaskOwner,
        settings: Settings,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._tier = tier
        self._residents = residents
        self._intake = intake
        self._touches = touches
        self._tasks = tasks
        self._near_max_age_s = settings.near_max_age_s
        self._wait_s = settings.message_deadline_s
        self._clock = clock
        self._telemetry = telemetry
        self._lost_at_s = NEVER_S
        self._from_memory = telemetry.contexts.labels("memory")

    # What others write

    def changed(self, session_id: str) -> None:
        """See `context.Memory`: what is asked for now and answered later was asked for too early, too."""
        actor = self._residents.actors.get(session_id)
        if actor is not None:
            actor.changed_at_s = self._clock.age_s()

    def lost(self) -> None:
        """See `context.Memory`."""
        self._lost_at_s = self._clock.age_s()

    # From memory

    def remembered(
        self, actor: Actor, *, turns: int, at_least: Version | None, consistency: Consistency, customer_id: str | None
    ) -> Context | None:
        """Return the context from memory, without a wait; None where memory may not answer."""
        known = actor.known
        if known is None:
            return None
        now_s = self._clock.time_s()
        # Another customer's may have been deleted and begun again by this one: then it is asked for at LATEST.
        if is_anothers(known.meta, customer_id, now_s):
            return None
        if not self._may_answer_from_memory(actor, known, at_least, consistency, now_s):
            return None
        return self._answer_from_memory(actor, known, turns, now_s)

    def _may_answer_from_memory(
        self, actor: Actor, known: Snapshot, at_least: Version | None, consistency: Consistency, now_s: float
    ) -> bool:
        if known.foreign or consistency.name in _BEYOND_MEMORY:
            return False
        if known.has_expired(now_s):  # or has been touched by another worker
            return False
        limit_s = consistency.max_age_s
        if limit_s is None:
            limit_s = self._near_max_age_s
            if actor.validated_at_s <= max(actor.changed_at_s, self._lost_at_s):
                return False
        if self._clock.age_s() - actor.validated_at_s > limit_s:
            return False
        return at_least is None or known.version.covers(at_least)

    def _answer_from_memory(self, actor: Actor, known: Snapshot, turns: int, now_s: float) -> Context:
        self._from_memory.inc()
        answer = actor.answer
        if answer is None or answer.turns != turns or not answer.from_s <= now_s < answer.until_s:
            context = known.context(actor.session_id, turns=turns, now_s=now_s, source="memory")
            actor.answer = _kept(context, turns, now_s, known)
            return context
        return _copy(answer.context) if answer.owned else answer.context

    # Through the tiers

    async def context(
        self,
        session_id: str,
        *,
        turns: int,
        at_least: Version | None,
        consistency: Consistency,
        customer_id: str | None,
        waits: bool,
        deadline_s: float | None,
    ) -> Context:
        """Return the session's context; see `Session.context`."""
        actor = self._residents.actor(session_id)
        if consistency.name not in _BEYOND_MEMORY:
            self._telemetry.tier_misses.labels("memory").inc()
            if actor.known is not None:
                self._telemetry.tier_stale_refused.labels("memory").inc()
        if actor.known is not None and is_anothers(actor.known.meta, customer_id, self._clock.time_s()):
            consistency = Consistency.LATEST  # it may have been deleted and begun again by this customer
        joins = actor.activity is not None and bool(actor.activity.flights)
        if not self._intake.enter_to_read(joins=joins):
            if not waits:
                raise self._intake.refusal()
            wait_s = self._wait_s if deadline_s is None else deadline_s
            await self._intake.wait(self._clock.monotonic_s() + wait_s)
        try:
            return await self._asked(
                session_id, turns=turns, at_least=at_least, consistency=consistency, customer_id=customer_id
            )
        finally:
            self._intake.leave()

    async def _asked(
        self,
        session_id: str,
        *,
        turns: int,
        at_least: Version | None,
        consistency: Consistency,
        customer_id: str | None,
    ) -> Context:
        actor = self._residents.actor(session_id)
        if consistency.max_age_s is not None and self._store.eventual is not None:
            old = await self._store.eventual.read(
                session_id,
                max_age_s=consistency.max_age_s,
                known=actor.known,
                at_least=at_least,
                customer_id=customer_id,
            )
            if old is not None:  # for this reader alone: it validates nothing, and memory does not learn it
                return self._answer(actor, old, turns=turns, source="dax")
        may_degrade = consistency != Consistency.LATEST or await self._tier.latest_may_degrade()
        actor = self._residents.actor(session_id)  # anew: it may have left memory meanwhile
        try:
            fresh = await self.fresh(actor, at_least, strong=consistency == Consistency.STRONG)
        except Transient:
            known_before = actor.known
            if consistency in (Consistency.STRONG, Consistency.LATEST) or known_before is None:
                raise
            if known_before.foreign or (at_least is not None and not known_before.version.covers(at_least)):
                raise
            if is_anothers(known_before.meta, customer_id, self._clock.time_s()):  # learned while this read failed
                raise
            return self._answer(actor, known_before, turns=turns, source="memory", stale=True)
        if fresh.stale and consistency == Consistency.LATEST:
            raise Transient("the cache's epoch cannot be read in DynamoDB, so LATEST cannot be promised")
        if fresh.degraded and not may_degrade:
            raise Transient("Redis is away, so LATEST cannot be promised (redis_policy hold): ask at another level")
        known = fresh.known
        check_customer(known.meta, customer_id, self._clock.time_s())
        if at_least is not None and not known.version.covers(at_least):
            raise VersionGone(
                f"the token {at_least} is newer than the source of truth ({known.version}): the table was restored, "
                "or the session has expired. Read without the token to go on from what is there"
            )
        return self._answer(
            actor, known, turns=turns, source=fresh.source, stale=fresh.stale, degraded=fresh.degraded
        )  # fmt: skip

    def _answer(
        self, actor: Actor, shown: Snapshot, *, turns: int, source: str, stale: bool = False, degraded: bool = False
    ) -> Context:
        self._telemetry.contexts.labels(source).inc()
        return shown.context(
            actor.session_id, turns=turns, now_s=self._clock.time_s(), source=source, stale=stale, degraded=degraded
        )

    async def fresh(self, actor: Actor, at_least: Version | None, *, strong: bool = False) -> Fresh:
        """Read through the tiers, sharing a read that has not been sent yet."""
        activity = actor.begin_activity()
        previous = next((flight for flight in reversed(activity.flights) if flight.strong == strong), None)
        flight = previous
        if flight is None or flight.sent:
            flight = Flight(strong=strong)
            activity.flights.append(flight)
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
            actor.begin_activity().flights.remove(flight)
            actor.end_activity()

    async def _read(self, actor: Actor, flight: Flight) -> Fresh:
        have = actor.known
        if flight.strong:
            found = await self._tier.strong(actor.session_id)
        else:
            least = flight.least.join(have.version) if have is not None and not have.foreign else flight.least
            found = await self._tier.read(actor.session_id, least=least, have=have)
        known = self.learned(actor, found.snapshot, found.sent_at_s, strong=found.strong)
        if not found.stale:
            if not found.degraded:  # else the others cannot know it: each read says so, or asks again
                actor.validated_at_s = max(actor.validated_at_s, found.sent_age_s)
            actor.window_at_s = max(actor.window_at_s, found.sent_age_s - found.window_age_s)
        return Fresh(known, found.source, strong=found.strong, degraded=found.degraded, stale=found.stale)

    def learned(self, actor: Actor, read: Snapshot, sent_at_s: float, *, strong: bool = True) -> Snapshot:
        """Take what was read or written into memory, and see to what it says is still to be done."""
        before = actor.known
        known = actor.learn(read, strong=strong, sent_at_s=sent_at_s, now_s=self._clock.monotonic_s())
        if known is not before:
            self._residents.weigh(actor)
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
        await self._store.perform(session_id, Sweep(incarnation))


def _kept(context: Context, turns: int, now_s: float, known: Snapshot) -> Answer:
    """Return an answer with the time for which it stays true: while nothing expires, and nothing has come to life."""
    expiries = [turn.expires_at for turn in known.turns]
    if known.meta is not None:
        expiries.append(known.meta.expires_at)
    if known.summary is not None:
        expiries.append(known.summary.expires_at)
    until_s = min((at for at in expiries if at > now_s), default=inf)
    from_s = max((at for at in expiries if 0 < at <= now_s), default=-inf)
    owned = bool(context.meta is not None and context.meta.attributes) or any(turn.attributes for turn in context.turns)
    return Answer(_copy(context) if owned else context, turns, from_s, until_s, owned=owned)


def _copy(context: Context) -> Context:
    """Return a context in which nothing is shared that a caller could change."""
    meta = context.meta
    if meta is not None and meta.attributes:
        meta = msgspec.structs.replace(meta, attributes=copied(meta.attributes))
    turns = tuple(
        msgspec.structs.replace(turn, attributes=copied(turn.attributes)) if turn.attributes else turn
        for turn in context.turns
    )
    return msgspec.structs.replace(context, meta=meta, turns=turns)
