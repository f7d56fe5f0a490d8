"""A client process of the services' bench: one instance, or the libraries beside it. Started by `ephemeral.py`.

A call of a service is one line of `OURS` or `PEERS`: a name, and a function that does it once for a number.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from _common import run
from _processes import serve, settle_memory
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis

from mangacache import MangaCache, Settings
from mangacache.ephemeral import Limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[["Any", int], Awaitable[Any]]

MANY: Final = 100_000
"""Customers and sessions that the calls go round, so that no key is special."""
LIMIT: Final = Limit("bench", 60, 60)
_CONNECTIONS: Final = 50
_PAGE: Final = 100
_TITLES: Final = 50_000


def customer(number: int) -> str:
    """Return a customer's id, as long as ids are."""
    return f"customer-{number % MANY:08d}"


async def hold(cache: MangaCache, number: int) -> None:
    """Take a lock that nobody else wants, and give it back."""
    async with cache.locks.session(f"locked-{number}"):
        pass


async def append(cache: MangaCache, number: int) -> None:
    """Append a turn to a session that nobody listens to: what `append_and_hear` has besides."""
    await cache.session(f"heard-{number % _CONNECTIONS}").append(role="user", content="Is Berserk 1 in stock?")


async def append_and_hear(cache: MangaCache, number: int) -> None:
    """Append a turn, and hear of it by a subscription that stands."""
    session = cache.session(f"heard-{number % _CONNECTIONS}")
    events = STREAMS[session.id]
    appended = await session.append(role="user", content="Is Berserk 1 in stock?")
    while (event := await anext(events)).kind != "turn" or event.number < appended.number:
        pass


_RANDOM: Final = Random(1)
_DRAWN: Final = [int(_TITLES ** _RANDOM.random()) for _ in range(200_000)]
STREAMS: Final[dict[str, Any]] = {}

OURS: Final[dict[str, Call]] = {
    "connections.connect": lambda cache, number: cache.connections.connect(
        f"connection-{number}", f"session-{number % MANY}", customer_id=customer(number)
    ),
    "connections.refresh": lambda cache, number: cache.connections.refresh(f"connection-{number}"),
    "connections.of_session": lambda cache, number: cache.connections.of_session(f"session-{number % MANY}"),
    "rate_limits.check": lambda cache, number: cache.rate_limits.check(customer(number), limit=LIMIT),
    "rate_limits.check, refused": lambda cache, _: cache.rate_limits.check("nobody", limit=LIMIT, cost=60),
    "presence.heartbeat": lambda cache, number: cache.presence.heartbeat(customer(number)),
    "presence.is_online": lambda cache, number: cache.presence.is_online(customer(number)),
    "presence.count": lambda cache, _: cache.presence.count(),
    "presence.page": lambda cache, _: cache.presence.page(limit=_PAGE),
    "trending.record": lambda cache, number: cache.trending.record(f"title-{zipf(number)}"),
    "trending.top": lambda cache, _: cache.trending.top("day"),
    "connections.disconnect": lambda cache, number: cache.connections.disconnect(f"connection-{number}"),
    "locks.session": hold,
    "events.append": append,
    "events.append_and_hear": append_and_hear,
}
OF_A_CALLER: Final = {"events.append", "events.append_and_hear"}
"""Calls whose number is the caller's: each has a stream of its own."""


class Peers:
    """The libraries, on a pool of connections that fits."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS)
        self.redis = Redis(connection_pool=pool)
        storage = RedisStorage(f"async+{url}", implementation="redispy", connection_pool=pool)
        self.moving = MovingWindowRateLimiter(storage)
        self.counter = SlidingWindowCounterRateLimiter(storage)
        self.limit = parse("60 per minute")

    async def hold(self, number: int) -> None:
        """Take redis-py's lock and give it back: it has no fence."""
        async with self.redis.lock(f"lock-{number}", timeout=10):
            pass


PEERS: Final[dict[str, Call]] = {
    "limits, moving window": lambda peers, number: peers.moving.hit(peers.limit, customer(number)),
    "limits, sliding counter": lambda peers, number: peers.counter.hit(peers.limit, customer(number)),
    "redis-py's Lock": lambda peers, number: peers.hold(number),
}


def zipf(number: int) -> int:
    """Return which title the number of an event asks for: the first is asked for most, by Zipf's law."""
    return _DRAWN[number % len(_DRAWN)]


class Client:
    """Runs calls from so many tasks at once."""

    def __init__(self, of: Any, calls: dict[str, Call]) -> None:
        self._of = of
        self._calls = calls
        self._numbers = {name: count() for name in calls}
        self._stack = AsyncExitStack()

    async def measure(self, what: str, in_flight: int, seconds: float) -> dict[str, Any]:
        """Call for so long; return how often, seconds of the processor, and each call's milliseconds."""
        call, numbers, of = self._calls[what], self._numbers[what], self._of
        took_ms: list[float] = []
        ends_s = time.perf_counter() + seconds

        async def caller(its: int) -> None:
            begun_s = time.perf_counter()
            while True:  # once at least, however busy the machine is
                await call(of, its if what in OF_A_CALLER else next(numbers))
                ended_s = time.perf_counter()
                took_ms.append(1000 * (ended_s - begun_s))
                if ended_s >= ends_s:
                    return
                begun_s = ended_s

        started_s, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(its) for its in range(in_flight)))
        return {
            "calls": len(took_ms),
            "cpu_s": time.process_time() - cpu_s,
            "elapsed_s": time.perf_counter() - started_s,
            "took_ms": took_ms,
        }

    async def repeat(self, what: str, times: int, in_flight: int = 1) -> None:
        """Call so many times."""
        call, numbers, of = self._calls[what], self._numbers[what], self._of
        left = iter(range(times))

        async def caller(its: int) -> None:
            for _ in left:
                await call(of, its if what in OF_A_CALLER else next(numbers))

        await asyncio.gather(*(caller(its) for its in range(in_flight)))

    async def again(self) -> None:
        """Begin every call's numbers anew: what was connected is found."""
        self._numbers = {name: count() for name in self._calls}

    async def leave_keys(self) -> None:
        """Have one key there of each kind that is full, or held: `full` and `held` stand in their names."""
        if isinstance(self._of, Peers):
            for _ in range(LIMIT.count):
                await self._of.moving.hit(self._of.limit, "customer-full")
                await self._of.counter.hit(self._of.limit, "customer-full")
            await self._of.redis.lock("held", timeout=60).acquire()
            return
        for _ in range(LIMIT.count):
            await self._of.rate_limits.check("customer-full", limit=LIMIT)
        await self._of.connections.connect("connection-full", "session-full", customer_id="customer-full")
        await self._stack.enter_async_context(self._of.locks.session("session-held", lease_s=60))

    async def listen(self) -> None:
        """Subscribe to the sessions that are heard."""
        for number in range(_CONNECTIONS):
            session = self._of.session(f"heard-{number}")
            STREAMS[session.id] = aiter(await self._stack.enter_async_context(session.events()))

    async def settle(self) -> None:
        """Be warm."""
        settle_memory()

    async def close(self) -> None:
        """End the subscriptions, and give the lock back."""
        await self._stack.aclose()

    async def serve(self) -> None:
        """Do what the parent asks."""
        commands = ("measure", "repeat", "again", "listen", "leave_keys", "settle", "close")
        try:
            await serve({name: getattr(self, name) for name in commands})
        finally:
            await self.close()


async def _ours() -> None:
    settings = Settings.from_env(os.environ | {"MANGACACHE_REDIS_TIMEOUT_S": "10"})
    async with MangaCache.open(settings) as cache:
        await Client(cache, OURS).serve()


async def _peers(url: str) -> None:
    peers = Peers(url)
    try:
        await Client(peers, PEERS).serve()
    finally:
        await peers.redis.aclose()
        await peers.redis.connection_pool.aclose()


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(_ours() if sys.argv[1] == "ours" else _peers(given["url"]), loop=given["loop"])
