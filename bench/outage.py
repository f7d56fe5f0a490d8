"""How long an outage of Redis is felt: messages at a steady rate while Redis is killed, flushed or stands still.

Each message reads the context and appends two turns. Reported for each kind of outage: what was refused, what was
read from DynamoDB, and how long after Redis is back every read is answered from the cache again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _common import environment, latencies_ms, options, print_table, run, warn_if_busy, write_json
from _servers import open_servers
from redis.asyncio import Redis

from mangacache import MangaCache, Rejected, Settings, Transient
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.local import LocalStack

_SESSIONS: Final = 64
_HITS: Final = ("memory", "redis")
_KINDS: Final = ("killed", "stalled", "flushed")


class Seen(NamedTuple):
    """One message, times in seconds on the monotonic clock; `source` is empty where the read was refused."""

    sent_s: float
    took_s: float
    source: str
    degraded: bool
    appends_refused: int


class Traffic:
    """Messages at a steady rate, whatever becomes of them: an open loop."""

    def __init__(self, cache: MangaCache, *, rate: float, sessions: int, name: str) -> None:
        self._cache = cache
        self._every_s = 1 / rate
        self._sessions = sessions
        self._name = name
        self._failures: list[BaseException] = []
        self._tasks = TaskOwner(on_failure=lambda _, error: self._failures.append(error))
        self._tokens: dict[str, Any] = {}
        self.seen: list[Seen] = []

    async def flow(self, seconds: float) -> None:
        """Send messages for so long, each at its time."""
        start_s = time.monotonic()
        for number in range(int(seconds / self._every_s)):
            due_s = start_s + number * self._every_s
            if (early_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            self._tasks.start(self._message(number, due_s), name="message")
        await self._tasks.settle()
        if self._failures:
            raise self._failures[0]

    async def _message(self, number: int, due_s: float) -> None:
        name = f"{self._name}-{number % self._sessions}"
        session = self._cache.session(name, customer_id="outage")
        source, degraded, refused = "", False, 0
        try:
            context = await session.context(at_least=self._tokens.get(name))
            source, degraded = context.source, context.degraded
        except (Rejected, Transient):
            pass  # told by the empty source
        for role in ("user", "assistant"):
            try:
                done = await session.append(role=role, content="Is the next volume out yet?")
            except (Rejected, Transient):
                refused += 1
            else:
                self._tokens[name] = done.version
        self.seen.append(Seen(due_s, time.monotonic() - due_s, source, degraded, refused))


class Outage:
    """What is done to Redis, and when it was over."""

    def __init__(self, stack: LocalStack, kind: str, *, away_s: float) -> None:
        self._stack = stack
        self._kind = kind
        self._away_s = away_s
        self.began_s = self.over_s = 0.0

    async def happen(self, after_s: float) -> None:
        """Wait, break Redis, and mend it."""
        await asyncio.sleep(after_s)
        valkey = self._stack.valkey
        if valkey is None:
            raise AssertionError("an outage without a Redis")
        self.began_s = time.monotonic()
        if self._kind == "flushed":
            async with Redis.from_url(self._stack.redis_url or "") as redis:
                await redis.flushall()
        elif self._kind == "stalled":
            valkey.pause()
            await asyncio.sleep(self._away_s)
            valkey.resume()
        else:
            valkey.kill()
            await asyncio.sleep(self._away_s)
            await valkey.restart()
        self.over_s = time.monotonic()


def figures(seen: list[Seen], outage: Outage) -> dict[str, Any]:
    """Return what an outage did; times count from Redis's return."""
    seen = sorted(seen)
    during = [one for one in seen if outage.began_s <= one.sent_s < outage.over_s]
    after = [one for one in seen if one.sent_s >= outage.over_s]
    missed = [one for one in after if one.source not in _HITS or one.degraded]
    sound = [one for one in after if not one.degraded and one.source]
    hits = [one for one in sound if one.source in _HITS]
    # The first read of a session after its context is gone fills it again: that is a miss, and no outage any more.
    return {
        "messages": len(seen),
        "appends_refused": sum(one.appends_refused for one in seen),
        "reads_refused": sum(not one.source for one in seen),
        "degraded_reads": sum(one.degraded for one in seen),
        "degraded_reads_in_the_busiest_second": max(
            Counter(int(one.sent_s) for one in seen if one.source == "dynamodb" and one.degraded).values(), default=0
        ),
        "away_s": round(outage.over_s - outage.began_s, 1),
        "cache_is_back_s": round(sound[0].sent_s - outage.over_s, 3) if sound else None,
        "last_degraded_s": round(
            max((one.sent_s for one in missed if one.degraded), default=outage.over_s) - outage.over_s, 3
        ),
        "first_hit_s": round(hits[0].sent_s - outage.over_s, 3) if hits else None,
        "misses_after": len(missed),
        "every_read_a_hit_s": round(max((one.sent_s for one in missed), default=outage.over_s) - outage.over_s, 3),
        "latency_ms": {
            "before": latencies_ms([1e3 * one.took_s for one in seen if one.sent_s < outage.began_s]),
            "during": latencies_ms([1e3 * one.took_s for one in during]),
            "after": latencies_ms([1e3 * one.took_s for one in after]),
        },
    }


@asynccontextmanager
async def _cache(stack: LocalStack, *, sessions: int) -> AsyncIterator[MangaCache]:
    os.environ.update(stack.environment())
    settings = Settings.from_env().replace(memory_sessions=max(1, sessions // 10))
    async with MangaCache.open(settings) as cache:
        yield cache


async def measure(arguments: Any) -> dict[str, Any]:
    """Run each kind of outage once."""
    found: dict[str, Any] = {}
    before_s, away_s, after_s = (2.0, 1.0, 6.0) if arguments.quick else (5.0, 3.0, 8.0)
    away_s = arguments.away_s if arguments.away_s is not None else away_s
    for kind in arguments.kinds:
        async with open_servers(arguments.engine) as stack, _cache(stack, sessions=arguments.sessions) as cache:
            found.setdefault("environment", environment(stack, loop=arguments.loop))
            traffic = Traffic(cache, rate=arguments.rate, sessions=arguments.sessions, name=kind)
            outage = Outage(stack, kind, away_s=away_s)
            await asyncio.gather(traffic.flow(before_s + away_s + after_s), outage.happen(before_s))
            found[kind] = figures(traffic.seen, outage)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second (100)")
    parser.add_argument("--sessions", type=int, default=_SESSIONS, help=f"that take turns ({_SESSIONS})")
    parser.add_argument("--away-s", type=float, help="how long Redis is killed or stands still (3; 1 with --quick)")
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=_KINDS, help="of outages (all of them)")
    arguments = parser.parse_args()
    warn_if_busy()
    found = run(measure(arguments), loop=arguments.loop)
    kinds = [kind for kind in found if kind != "environment"]
    names = [name for name in found[kinds[0]] if name != "latency_ms"]
    lines = [(name, [found[kind][name] for kind in kinds]) for name in names]
    lines += [
        (f"message p99, ms, {when}", [found[kind]["latency_ms"][when]["p99"] for kind in kinds])
        for when in ("before", "during", "after")
    ]
    print_table("Redis is", kinds, lines)
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()
