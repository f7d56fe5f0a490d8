"""Workers before one table and one DAX: the doubles, the adapter over a double, or the real client and an emulator."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from daxes import MovableClock, emulated
from mangatest import SetClock

from mangacache import MangaCache, Settings
from mangacache.clock import system_random
from mangacache.store import Store, open_transport
from mangacache.store.dax import AioDaxTransport, dax_transport
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDax, MemoryDynamoDB, MemoryRedis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from mangacache.store import Transport

WAYS = ("double", "threads", "emulator")
OLD_S = 302.0
"""The least age at which EVENTUAL may be answered by DAX with its default TTL."""


class Counting:
    """A transport that counts what goes by, and can be made to fail."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.counts: Counter[str] = Counter()
        self.before: Callable[[str, Mapping[str, Any]], None] = lambda _operation, _parameters: None

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        self.counts[operation] += 1
        self.before(operation, parameters)
        return await self._inner.request(operation, parameters)

    @property
    def reads(self) -> int:
        return sum(self.counts[name] for name in ("GetItem", "Query", "BatchGetItem"))


class Worker:
    """One worker: its cache, and what it asked of DynamoDB and of DAX."""

    def __init__(self, cache: MangaCache, table: Counting) -> None:
        self.cache = cache
        self.table = table

    def session(self, session_id: str = "s", **options: Any) -> Any:
        return self.cache.session(session_id, **options)

    async def say(self, *contents: str, session_id: str = "s") -> Any:
        done = None
        for content in contents:
            done = await self.session(session_id).append(role="user", content=content, turn_id=content)
        return done

    async def heard(self, session_id: str = "s", **options: Any) -> list[str]:
        context = await self.session(session_id).context(turns=32, **options)
        return [turn.content for turn in context.turns]

    def dax(self, operation: str, outcome: str = "answered") -> float:
        labels = {"operation": operation, "outcome": outcome}
        return self.cache.telemetry.value("mangacache_dax_requests_total", **labels)

    @property
    def dax_up(self) -> bool:
        return bool(self.cache.telemetry.value("mangacache_dax_up"))

    def forget(self) -> None:
        """Let every session leave memory."""
        self.cache._sessions._actors.clear()


class DaxWorld:
    """A table, a DAX and the workers before them.

    Attributes:
        settings: of every worker.
        clock: DAX's own, by which its entries grow old; `moved_s` moves it on.
        faults: DAX's fault port: `kill`, `restart`, `slow`, `lose_replies`, `throttle`, `heal`.
    """

    def __init__(self, settings: Settings, clock: MovableClock, faults: Any) -> None:
        self.settings = settings
        self.clock = clock
        self.faults = faults
        self.age = SetClock()
        self.table: Callable[[], Any] = lambda: open_transport(settings)
        self.way: Callable[[Settings], Any] = lambda _: _nothing()

    @asynccontextmanager
    async def worker(
        self, *, dax: bool = True, redis: MemoryRedis | None = None, **changes: Any
    ) -> AsyncIterator[Worker]:
        """Open a worker; without `dax` it goes to DynamoDB alone, with `redis` by that double of it as well."""
        settings = self.settings.replace(**changes)
        if not dax:
            settings = settings.replace(dax_endpoint=None)
        async with self.table() as transport, self.way(settings) as way:
            counted = Counting(transport)
            link = redis.link(clock=self.age, timeout_s=10.0) if redis is not None else None
            async with MangaCache.open(
                settings, clock=self.age, transport=counted, link=link, dax=way if dax else None
            ) as cache:
                yield Worker(cache, counted)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        async with self.table() as transport:
            yield Store(
                transport, settings=self.settings, clock=self.age, random=system_random(), telemetry=Telemetry()
            )


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def dax_world(way: str, dynamodb_url: str, **options: Any) -> AsyncIterator[DaxWorld]:
    """Set up a table, and one of `WAYS` to a DAX before it.

    Args:
        way: `double`: the double of DAX, by coroutines; `threads`: the adapter, over the double's client of plain
            calls; `emulator`: the real client and an emulator.
        dynamodb_url: the engine behind the emulator.
        options: of the cluster.
    """
    clock = MovableClock()
    # A machine that is busy with other tests is no outage, so time-outs are long where nothing is to be late.
    settings = Settings(table_name=f"t-{uuid4().hex[:12]}", retry_base_s=0.001, dax_timeout_s=10.0)
    with _cluster(way, dynamodb_url, clock, settings, options) as made:
        async with made.store() as store:
            await store.schema.create()
        yield made


@contextmanager
def _cluster(
    way: str, dynamodb_url: str, clock: MovableClock, settings: Settings, options: dict[str, Any]
) -> Iterator[DaxWorld]:
    if way == "emulator":
        with emulated(dynamodb_url, clock=clock, **options) as emulator:
            own = settings.replace(dynamodb_endpoint=dynamodb_url, dax_endpoint=emulator.endpoint)
            yield DaxWorld(own, clock, emulator)
        return
    database = MemoryDynamoDB()
    dax = MemoryDax(database.client(), clock=clock, **options)
    world = DaxWorld(settings, clock, dax.faults)

    @asynccontextmanager
    async def table() -> AsyncIterator[Transport]:
        yield AioTransport(database.client())

    @asynccontextmanager
    async def by_double(settings: Settings) -> AsyncIterator[Transport]:
        yield AioDaxTransport(dax.client(), clock=world.age, timeout_s=settings.dax_timeout_s)

    @asynccontextmanager
    async def by_threads(settings: Settings) -> AsyncIterator[Transport]:
        make = partial(dax.sync_client, loop=asyncio.get_running_loop(), read_timeout_s=settings.dax_timeout_s)
        adapter = dax_transport(make, settings, clock=world.age, telemetry=Telemetry())
        try:
            yield adapter
        finally:
            await adapter.close()

    world.table = table
    world.way = by_threads if way == "threads" else by_double
    yield world
