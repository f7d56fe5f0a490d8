"""Workers that share a table and a Redis, and whatever may come between them: for tests of the context cache."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mangatest import HANG_GUARD_S, SetClock, World
from redis.asyncio import Redis

from mangacache import Consistency, MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.redis import LinkLost, open_link
from mangacache.store.epochs import PARTITION
from mangacache.store.transport import AioTransport, Unanswered
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from mangacache.redis import Admission, Changes, Link, Script, Server
    from mangacache.store import Transport
    from mangacache.testing.redis import MemoryRedis

READS = ("GetItem", "Query", "BatchGetItem", "TransactGetItems", "Scan")
GUARD_S = float(os.environ.get("MANGACACHE_TEST_GUARD_S", HANG_GUARD_S))  # short where a test is expected to hang
LONGEST_GAP_S = 0.6  # longer than the workers' own pauses
WRITES = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")


class MovedClock(SetClock):
    """The machine's clocks, all of which a test can move on at once; waits stay as they are.

    A moment in which the whole process stood still, because other tests had the machine, counts as a short one: else
    knowledge that ends by time would end in the middle of a case that is about something else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counted_s = self._read_s = time.monotonic()

    def monotonic_s(self) -> float:
        read_s = time.monotonic()
        self._counted_s += min(read_s - self._read_s, LONGEST_GAP_S)
        self._read_s = read_s
        return self._counted_s + self.age_offset_s

    def age_s(self) -> float:
        return self.monotonic_s()

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return super().timeout(seconds if seconds is None or seconds < 1 else HANG_GUARD_S)

    def pass_s(self, seconds: float) -> None:
        self.age_offset_s += seconds
        self.wall_offset_s += seconds


class Gate:
    """Something to do on the way: say that it was reached, and wait until it is opened."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self._reached.set()
        _HELD.add(self)
        try:
            await self.opened.wait()
        finally:
            _HELD.discard(self)

    async def reached(self) -> None:
        """Wait until somebody stands before it."""
        async with asyncio.timeout(GUARD_S):
            await self._reached.wait()


_HELD: set[Gate] = set()


class Tap:
    """A link through which everything passes that a worker sends, and at which it can be held up or lost.

    Attributes:
        sent: script, key and arguments of each message that went out, in order.
        cut: while True, nothing goes out and the link is down.
        delay_s: how long the next message takes on its way, and the next reply.
    """

    def __init__(self, inner: Link) -> None:
        self.inner = inner
        self.sent: list[tuple[str, str, tuple[Any, ...]]] = []
        self.cut = False
        self.delay_s: Callable[[], float] | None = None
        self._before: dict[str, list[Callable[[], Awaitable[None]]]] = {}
        self._after: dict[str, list[Callable[[], Awaitable[None]]]] = {}

    def before(self, script: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something before the next message of this script goes out; in turn where it is said again."""
        self._before.setdefault(script, []).append(act)

    def after(self, script: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something between the next reply to this script and its being heard."""
        self._after.setdefault(script, []).append(act)

    def lose(self, script: str) -> None:
        """Lose the next message of this script, and have its sender be told that it may have arrived."""

        async def lose() -> None:
            raise LinkLost("lost on purpose", sent=True)

        self.before(script, lose)

    def lose_reply(self, script: str) -> None:
        """Lose the next reply to this script."""

        async def lose() -> None:
            raise LinkLost("its reply was lost on purpose", sent=True)

        self.after(script, lose)

    def of(self, script: str) -> list[tuple[Any, ...]]:
        """Return the arguments of the messages of one script."""
        return [arguments for name, _, arguments in self.sent if name == script]

    def admit_with(self, admission: Admission) -> None:
        async def heard(server: Server) -> int:
            return await admission(_Overheard(server, self.sent))

        self.inner.admit_with(heard)

    def watch_with(self, changes: Changes) -> None:
        self.inner.watch_with(changes)

    @property
    def up(self) -> bool:
        return self.inner.up and not self.cut

    async def run(self, script: Script, key: str, arguments: Sequence[Any], **options: Any) -> Any:
        if self.cut:
            raise LinkLost("cut off", sent=False)
        if acts := self._before.get(script.name):
            await acts.pop(0)()
        if self.delay_s is not None:
            await asyncio.sleep(self.delay_s())
        self.sent.append((script.name, key, tuple(arguments)))
        reply = await self.inner.run(script, key, arguments, **options)
        if self.delay_s is not None:
            await asyncio.sleep(self.delay_s())
        if acts := self._after.get(script.name):
            await acts.pop(0)()
        return reply

    async def call(self, *command: Any, **options: Any) -> Any:
        if self.cut:
            raise LinkLost("cut off", sent=False)
        return await self.inner.call(*command, **options)

    def drop(self) -> None:
        self.inner.drop()

    async def close(self) -> None:
        await self.inner.close()


class _Overheard:
    """A new connection, as `Admission` sees it; what is sent on it is noted as `first:<script>`."""

    def __init__(self, server: Server, sent: list[tuple[str, str, tuple[Any, ...]]]) -> None:
        self._server = server
        self._sent = sent

    async def info(self) -> dict[str, str]:
        return await self._server.info()

    async def run(self, script: Script, key: str, arguments: Sequence[Any], **options: Any) -> Any:
        self._sent.append((f"first:{script.name}", key, tuple(arguments)))
        return await self._server.run(script, key, arguments, **options)

    async def call(self, *command: Any) -> Any:
        return await self._server.call(*command)


class Counted:
    """A transport that counts what is asked of the sessions' items, apart from the cache's epoch.

    Attributes:
        counts: requests by operation.
        epoch_counts: the same for the epoch item.
        away: whether DynamoDB can be reached.
        epoch_away: whether the epoch item can.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.counts: Counter[str] = Counter()
        self.epoch_counts: Counter[str] = Counter()
        self.away = False
        self.epoch_away = False
        self._before: dict[str, list[Callable[[], Awaitable[None]]]] = {}
        self._after: dict[str, list[Callable[[], Awaitable[None]]]] = {}

    def before(self, operation: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something before the next request of this kind to a session's item goes out."""
        self._before.setdefault(operation, []).append(act)

    def after(self, operation: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something between the answer to the next request of this kind and its being heard."""
        self._after.setdefault(operation, []).append(act)

    @property
    def reads(self) -> int:
        return sum(self.counts[operation] for operation in READS)

    @property
    def writes(self) -> int:
        return sum(self.counts[operation] for operation in WRITES)

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        epoch = parameters.get("Key", {}).get("PK", {}).get("S", "").startswith(PARTITION)
        (self.epoch_counts if epoch else self.counts)[operation] += 1
        if self.away or (epoch and self.epoch_away):
            raise Unanswered("DynamoDB is away", sent=False)
        if epoch:
            return await self._inner.request(operation, parameters)
        if acts := self._before.get(operation):
            await acts.pop(0)()
        answer = await self._inner.request(operation, parameters)
        if acts := self._after.get(operation):
            await acts.pop(0)()
        return answer


class Worker:
    """One worker: its cache, its way to Redis and its way to the table."""

    def __init__(self, cache: MangaCache, link: Tap, table: Counted) -> None:
        self.cache = cache
        self.link = link
        self.table = table

    def session(self, session_id: str = "s", **options: Any) -> Any:
        return self.cache.session(session_id, **options)

    async def say(self, *contents: str, session_id: str = "s", customer_id: str | None = None) -> Any:
        """Append turns whose turn_id is their content; return the last result."""
        done = None
        for content in contents:
            session = self.session(session_id, customer_id=customer_id)
            done = await session.append(role="user", content=content, turn_id=content)
        return done

    async def latest(self, session_id: str = "s", **options: Any) -> Any:
        return await self.session(session_id).context(turns=32, consistency=Consistency.LATEST, **options)

    async def heard(self, session_id: str = "s", **options: Any) -> list[str]:
        """Return the contents of the turns that a LATEST read finds."""
        return [turn.content for turn in (await self.latest(session_id, **options)).turns]

    def event(self, name: str) -> float:
        """Return how often something happened to contexts in Redis."""
        return self.cache.telemetry.value("mangacache_context_cache_total", event=name)

    def survived(self, what: str) -> float:
        return self.cache.telemetry.value("mangacache_survived_total", what=what)

    @property
    def tier(self) -> Any:
        return self.cache._sessions._tier

    def actor(self, session_id: str = "s") -> Any:
        return self.cache._sessions.residents.actors[session_id]

    def forget(self) -> None:
        """Let every session leave memory."""
        self.cache._sessions.residents.clear()

    async def has_learned(self, epoch: int) -> None:
        """Wait until this worker knows an epoch."""
        await until(lambda: self.tier._keeper.epoch >= epoch, f"epoch {epoch} is learned")


class InMemory:
    """What tests ask of a client of their own, of the double of Redis."""

    def __init__(self, double: MemoryRedis) -> None:
        self.double = double

    async def delete(self, key: str) -> int:
        return self.double._primary.db.delete(key)

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        return self.double.hash(key)

    async def hget(self, key: str, field: str) -> bytes | None:
        return self.double.hash(key).get(field.encode())

    async def hincrby(self, key: str, field: str, by: int) -> None:
        self.double._primary.db.hset(key, {field: int(self.double.hash(key)[field.encode()]) + by})


class Fleet:
    """A table, a Redis, and the workers between them.

    Attributes:
        clock: of every worker.
        redis: a client of the test's own, of the server at `port` or of the double.
    """

    def __init__(self, world: World, redis: Redis | InMemory, *, port: int = 0) -> None:
        self._world = world
        self.port = port
        self.redis = redis
        self.clock = MovedClock()
        self.prefix = f"{uuid4().hex[:8]}:"

    @asynccontextmanager
    async def worker(
        self, *, clock: SystemClock | None = None, port: int | None = None, **changes: Any
    ) -> AsyncIterator[Worker]:
        """Open a worker.

        Args:
            clock: its own clocks; the fleet's by default.
            port: reach Redis there.
            changes: settings.
        """
        clock = clock if clock is not None else self.clock
        settings = self._world.settings.replace(
            **{
                "redis_endpoint": f"redis://127.0.0.1:{port or self.port or 1}",
                "key_prefix": self.prefix,
                "redis_timeout_s": 5.0,  # a machine that is busy with other tests is no outage
                "loop_lag_limit_s": 60.0,  # and no overload
                **changes,
            }
        )
        async with self._world.transport() as transport:
            table = Counted(transport)
            tap = Tap(self._link(settings, clock))
            async with MangaCache.open(settings, clock=clock, transport=table, link=tap) as cache:
                try:
                    yield Worker(cache, tap, table)
                except BaseException:
                    for gate in tuple(_HELD):  # else closing would wait for what the failed test will not open
                        gate.opened.set()
                    raise

    def _link(self, settings: Settings, clock: SystemClock) -> Link:
        if isinstance(self.redis, InMemory):
            return self.redis.double.link(clock=clock, timeout_s=settings.redis_timeout_s)
        return open_link(settings, clock=clock, random=system_random(), telemetry=Telemetry())

    @asynccontextmanager
    async def workers(self, count: int = 2, **changes: Any) -> AsyncIterator[list[Worker]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.worker(**changes)) for _ in range(count)]

    @asynccontextmanager
    async def source(self) -> AsyncIterator[MangaCache]:
        """Open a cache without Redis: what it writes, Redis does not hear of."""
        async with self._world.cache(clock=self.clock) as cache:
            yield cache

    def key(self, session_id: str = "s", *, epoch: int = 1) -> str:
        return f"{self.prefix}session:{{{session_id}}}:context:{epoch}"

    async def evict(self, session_id: str = "s", *, epoch: int = 1) -> None:
        """Delete a session's hash, as Redis may at any time."""
        await self.redis.delete(self.key(session_id, epoch=epoch))

    async def state(self, session_id: str = "s", *, epoch: int = 1) -> str:
        """Return `full i.t.r`, `filling` or `absent`."""
        found = await self.redis.hgetall(self.key(session_id, epoch=epoch))
        if b"i" in found:
            return "full " + ".".join(found[name].decode() for name in (b"i", b"t", b"r"))
        return "filling" if found else "absent"


@asynccontextmanager
async def fleet_on(world: World, port: int) -> AsyncIterator[Fleet]:
    """Workers on a table, and on the Redis at a port of this machine."""
    async with Redis(host="127.0.0.1", port=port) as redis:
        yield Fleet(world, redis, port=port)


async def table_in_memory() -> World:
    """Return a table on the in-memory double."""
    database = MemoryDynamoDB()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        yield AioTransport(database.client())

    world = World(Settings(table_name="contexts", retry_base_s=0.001), connect)
    async with world.store() as store:
        await store.schema.create()
    return world


class Proxy:
    """A way to a server on this machine that can be cut, and turned to another server."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.is_cut = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Proxy]:
        proxy = cls(port)
        proxy._server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = proxy._server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            proxy.cut()
            proxy._server.close()
            await proxy._server.wait_closed()
            await until(lambda: not proxy._writers, "the proxy's connections are closed")

    def cut(self) -> None:
        """Break every connection, and every new one at once."""
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        self.is_cut = False

    def turn_to(self, port: int) -> None:
        """Break every connection; new ones lead to another server."""
        self.cut()
        self.target = port
        self.heal()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(back)
            try:
                await asyncio.gather(_pour(reader, back), _pour(there, writer))
            finally:
                self._writers.discard(back)
        self._writers.discard(writer)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(GUARD_S):
        while not condition():  # noqa: ASYNC110 - looks from outside
            await asyncio.sleep(0.002)
    assert condition(), what
