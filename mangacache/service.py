"""MangaCache: opens the tiers in order, hands out sessions, closes in reverse."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from mangacache.clock import SystemClock, system_random
from mangacache.context import NoTier, RedisContexts
from mangacache.ephemeral import Asker, Connections, Events, Locks, Presence, RateLimits, Trending
from mangacache.errors import Closed, Invalid, Transient
from mangacache.model import SessionPage, checked_id
from mangacache.redis import open_link
from mangacache.redis.ears import EarDialer
from mangacache.redis.subscriptions import Subscriptions
from mangacache.sessions import (
    DEFAULT_POLICY,
    Health,
    Policy,
    Prefetched,
    Session,
    Sessions,
    delete,
    health_of,
    prefetch,
)
from mangacache.sessions.copies import remembered
from mangacache.store import Store, open_transport
from mangacache.store.dax import open_dax
from mangacache.store.deletion import Delete
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from mangacache.clock import Clock, Random
    from mangacache.context import ContextTier
    from mangacache.ephemeral import EventStream
    from mangacache.redis import Link
    from mangacache.redis.subscriptions import Dial
    from mangacache.sessions import Supervisor
    from mangacache.sessions.copies import Remembered
    from mangacache.sessions.memory import Memory
    from mangacache.settings import Settings
    from mangacache.store import Transport

MOST_WAIT_S: Final = 300.0
_PASSES_APART_S: Final = 2.1
_FORGET_WITHIN_S: Final = 300.0


class MangaCache:
    """The sessions of one process, on one event loop. Made by `open`.

    Attributes:
        settings: what it was opened with.
        telemetry: its own metrics and log.
    """

    def __init__(
        self,
        store: Store,
        tier: ContextTier,
        *,
        link: Link | None,
        subscriptions: Subscriptions | None,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        memory: Memory | None = None,
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self._store = store
        self._clock = clock
        self._process_id = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._ended = asyncio.Event()
        self._sessions = Sessions(
            store, tier, settings=settings, clock=clock, random=random, telemetry=telemetry, memory=memory
        )
        asker = Asker(link, settings=settings, telemetry=telemetry)
        self._connections = Connections(asker, settings=settings, random=random, telemetry=telemetry)
        self._rate_limits = RateLimits(asker, settings=settings, clock=clock, random=random, telemetry=telemetry)
        self._presence = Presence(asker, settings=settings)
        self._trending = Trending(asker, clock=clock)
        self._subscriptions = subscriptions
        self._events = Events(subscriptions, settings=settings, check=self._check)
        self._locks = Locks(
            asker, subscriptions, store, clock=clock, random=random, telemetry=telemetry, check=self._check
        )

        supervisor = self._sessions.supervisor
        for name, breaker in store.breakers.items():
            supervisor.watch_health(name, partial(health_of, breaker))
        if link is not None:
            supervisor.watch_health("redis", lambda: Health(phase="closed" if link.up else "open"))
        supervisor.before_close("release locks", self._locks.close)
        supervisor.before_close("end connections", self._connections.close)
        supervisor.before_close("leave the count of workers", self._rate_limits.close)
        if subscriptions is not None:
            supervisor.before_close("end subscriptions", subscriptions.close)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<MangaCache {state}, table {self.settings.table_name!r}, {len(self._sessions)} sessions in memory>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        transport: Transport | None = None,
        link: Link | None = None,
        dax: Transport | None = None,
        memory: Memory | None = None,
    ) -> AsyncIterator[MangaCache]:
        """Open the tiers, check the table, and close everything at the end of the `async with` block.

        Args:
            settings: see `Settings`.
            clock: where time comes from; the machine's own by default.
            random: where randomness comes from.
            transport: the door to DynamoDB; by default the one that `dynamodb_transport` names.
            link: the way to Redis, closed at the end; by default the one that `redis_link`
                names, to `redis_endpoint`, where that is set.
            dax: the way to DAX; by default its own client, to `dax_endpoint`, where that is set.
            memory: where the supervisor learns how memory stands; the machine, or the container, by default.

        Raises:
            Invalid: no credentials, or a table with wrong keys.
            NotFound: no such table, or none that the DAX cluster knows.
            Transient: DynamoDB does not answer.
        """
        clock = clock if clock is not None else SystemClock()
        random = random if random is not None else system_random()
        telemetry = Telemetry()
        async with AsyncExitStack() as stack:
            if transport is None:
                transport = await stack.enter_async_context(open_transport(settings, telemetry=telemetry))
            door = await stack.enter_async_context(
                open_dax(settings, clock=clock, random=random, telemetry=telemetry, transport=dax)
            )
            store = Store(transport, settings=settings, clock=clock, random=random, telemetry=telemetry, dax=door)
            await store.schema.verify()
            if link is None and settings.redis_endpoint is not None:
                link = open_link(settings, clock=clock, random=random, telemetry=telemetry)
            subscriptions = _subscriptions(link, settings, clock=clock, random=random, telemetry=telemetry)
            tier: ContextTier = NoTier(store.loader.load, store.windows.load, clock=clock)
            if link is not None:
                tier = RedisContexts(
                    link,
                    store,
                    settings=settings,
                    clock=clock,
                    random=random,
                    telemetry=telemetry,
                    epoch_changed=subscriptions.anew if subscriptions is not None else None,
                )
            cache = cls(
                store,
                tier,
                link=link,
                subscriptions=subscriptions,
                settings=settings,
                clock=clock,
                random=random,
                telemetry=telemetry,
                memory=memory,
            )
            try:
                yield cache
            finally:
                await cache.close()

    def session(
        self,
        session_id: str,
        *,
        customer_id: str | None = None,
        deadline_s: float | None = None,
        when_full: str = "refuse",
    ) -> Session:
        """Return a handle on a session, which need not exist; it begins with its first append.

        Args:
            session_id: whose handle.
            customer_id: whose session it is.
            deadline_s: how long a call by this handle may wait for its turn; by default `message_deadline_s`.
            when_full: `refuse` calls for which there is no room at once, or let them `wait` until the deadline.

        Raises:
            Invalid: an argument that is none.
        """
        self._check()
        policy = DEFAULT_POLICY if deadline_s is None and when_full == "refuse" else _policy(deadline_s, when_full)
        return Session(
            self._sessions,
            session_id,
            customer_id,
            limits=self._rate_limits,
            connections=self._connections,
            events=self._events,
            check=self._check,
            policy=policy,
        )

    def customer(self, customer_id: str) -> Customer:
        """Return a handle on a customer."""
        self._check()
        return Customer(self, checked_id(customer_id, what="customer id"))

    # What Redis is for beyond contexts

    @property
    def connections(self) -> Connections:
        """Which connections a session has, and whose a connection is."""
        self._check()
        return self._connections

    @property
    def rate_limits(self) -> RateLimits:
        """How much a customer may ask for."""
        self._check()
        return self._rate_limits

    @property
    def presence(self) -> Presence:
        """Which customers are there."""
        self._check()
        return self._presence

    @property
    def trending(self) -> Trending:
        """Which titles are asked for most."""
        self._check()
        return self._trending

    @property
    def supervisor(self) -> Supervisor:
        """Who looks after the sessions in memory: `state()`, `dead_letters()`, and after closing how that went."""
        return self._sessions.supervisor

    def memory_of(self, session_id: str) -> Remembered | None:
        """Return what this process's memory holds of a session, for an operator: versions, ids and sizes, no words."""
        self._check()
        actor = self._sessions.residents.actors.get(checked_id(session_id, what="session id"))
        return None if actor is None else remembered(actor, now_age_s=self._clock.age_s())

    @property
    def locks(self) -> Locks:
        """Who of several workers may summarise a session, or do whatever else one of them is to do."""
        self._check()
        return self._locks

    @property
    def events(self) -> Events:
        """What happens to sessions, as it happens."""
        self._check()
        return self._events

    async def prefetch(self, session_ids: Iterable[str], *, concurrency: int = 16) -> Prefetched:
        """Load contexts before they are asked for: when a customer connects, before the first message.

        What is in Redis already is validated, what is not is read and put there; this process keeps them too. It is
        no more than a help: what could not be loaded is counted, and is read when it is asked for.

        Args:
            session_ids: at most 1,000.
            concurrency: how many are loaded at once, 1 to 64.

        Raises:
            Invalid: an argument is none; nothing was done.
        """
        self._check()
        return await prefetch(self._sessions, session_ids, concurrency=concurrency, telemetry=self.telemetry)

    async def forget_customer(self, customer_id: str) -> int:
        """Delete every session of a customer, and look again until none is left.

        The index by which they are found trails the table, so it is asked until two passes over 2 s apart have
        found nothing.

        Returns:
            How many sessions were deleted.

        Raises:
            Transient: the index kept naming sessions for 5 minutes: call it again.
        """
        self._check()
        checked_id(customer_id, what="customer id")
        deadline_s = self._clock.monotonic_s() + _FORGET_WITHIN_S
        deleted, clean = 0, 0
        while self._clock.monotonic_s() < deadline_s:
            found = await self._store.customers.all_ids(customer_id)
            for session_id in found:
                decision = Delete(stamp=self._store.stamp(), only_if_of=customer_id)
                deleted += (await delete(self._sessions, session_id, decision)).existed
            clean = 0 if found else clean + 1
            if clean == 2:  # noqa: PLR2004 - the two passes promised
                return deleted
            await self._clock.sleep(_PASSES_APART_S)
        raise Transient(f"the index still names sessions of this customer; {deleted} were deleted: call it again")

    async def close(self) -> None:
        """Finish what is under way and close; called at the end of `open`'s block. Whoever calls it again waits too."""
        if self._closed:
            await self._ended.wait()
            return
        self._closed = True
        try:
            await self._sessions.close()  # what was given to `before_close` among it, and the link last
        finally:
            self._ended.set()

    def _check(self) -> None:
        if self._process_id != os.getpid():
            raise Closed(
                f"this MangaCache was opened in process {self._process_id} and is used in {os.getpid()}, a fork of "
                "it: open one in each process, after the fork"
            )
        if self._closed:
            raise Closed("this MangaCache is closed")
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self._loop:
            raise Closed("this MangaCache belongs to another event loop: open one in each loop")


def _policy(deadline_s: float | None, when_full: str) -> Policy:
    if when_full not in {"refuse", "wait"}:
        raise Invalid(f"`when_full` is 'refuse' or 'wait', not {when_full!r:.60}")
    if deadline_s is not None and (type(deadline_s) not in {int, float} or not 0 < deadline_s <= MOST_WAIT_S):
        raise Invalid(f"`deadline_s` is above 0 and at most {MOST_WAIT_S:g} seconds, not {deadline_s!r:.60}")
    return Policy(waits=when_full == "wait", deadline_s=deadline_s)


def _subscriptions(
    link: Link | None, settings: Settings, *, clock: Clock, random: Random, telemetry: Telemetry
) -> Subscriptions | None:
    """Return what listens where the link publishes; None where there is no Redis."""
    dial: Dial | None = getattr(link, "dial", None)  # a double opens its own
    if dial is None and link is not None and settings.redis is not None:
        dial = EarDialer(settings, clock=clock)
    if dial is None:
        return None
    return Subscriptions(dial, timeout_s=settings.redis_timeout_s, clock=clock, random=random, telemetry=telemetry)


class Customer:
    """A handle on a customer of one instance."""

    __slots__ = ("_cache", "id")

    def __init__(self, cache: MangaCache, customer_id: str) -> None:
        self._cache = cache
        self.id = customer_id

    async def sessions(self, *, limit: int = 50, cursor: str | None = None) -> SessionPage:
        """Return the customer's sessions, the most recently active first.

        Read from an index that trails the table, whose order is renewed every five minutes of activity.

        Args:
            limit: sessions a page, 1 to 1,000.
            cursor: `cursor` of the page before.
        """
        cache = self._cache
        cache._check()  # noqa: SLF001 - one class in two
        now_s = cache._clock.time_s()  # noqa: SLF001
        customers = cache._store.customers  # noqa: SLF001
        return await customers.page(self.id, limit=limit, cursor=cursor, now_s=now_s)

    def events(self, *, limit: int = 256) -> EventStream:
        """Return the stream of the events of all the customer's sessions; see `Events.customer`."""
        return self._cache.events.customer(self.id, limit=limit)

    async def prefetch(self, *, sessions: int = 3) -> Prefetched:
        """Load the contexts of the customer's most recently active sessions; see `MangaCache.prefetch`.

        Args:
            sessions: how many, 1 to 1,000.
        """
        page = await self.sessions(limit=sessions)
        return await self._cache.prefetch([info.session_id for info in page.sessions])
