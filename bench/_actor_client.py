"""Our actors, in a process of their own: how large they are, how fast, and what they cost while nothing happens."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _actor_peers import CALLED, CONTENDED, closed_loop, resident_bytes
from _common import percentile, run
from _processes import serve

from mangacache import Consistency, MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.collector import PauseWatch, freeze
from mangacache.sessions.actor import Actor
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB

if TYPE_CHECKING:
    from mangacache.store.transport import Transport

SETTINGS = Settings(table_name="bench-actors", memory_sessions=10_000_000)
_LAG_EVERY_S = 0.005
_SCHEDULED = Path("/proc/thread-self/schedstat")


class MovedClock(SystemClock):
    """The machine's clock, by which sessions can be made older at once."""

    __slots__ = ("offset_s",)

    def __init__(self) -> None:
        self.offset_s = 0.0

    def age_s(self) -> float:
        """Return the moved clock."""
        return super().age_s() + self.offset_s


async def table(settings: Settings) -> Transport:
    """Return the door to a table in memory."""
    transport = AioTransport(MemoryDynamoDB().client())
    store = Store(transport, settings=settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
    await store.schema.create()
    return transport


async def loop_lags_ms(seconds: float) -> dict[str, dict[str, float]]:
    """Return by how much the event loop was late, again and again.

    By the clock; and without the time in which this thread was ready to run and the machine ran others instead, which
    is the loop's own share.
    """
    lags, own, ends_s = [], [], time.perf_counter() + seconds
    while (before_s := time.perf_counter()) < ends_s:
        kept_ms = _kept_waiting_ms()
        await asyncio.sleep(_LAG_EVERY_S)
        lag_ms = max(0.0, (time.perf_counter() - before_s - _LAG_EVERY_S) * 1e3)
        lags.append(lag_ms)
        own.append(max(0.0, lag_ms - (_kept_waiting_ms() - kept_ms)))
    return {"by_the_clock": _lag(lags), "own": _lag(own)}


def _kept_waiting_ms() -> float:
    """Return how long this thread has waited for a processor so far, by Linux's count; 0 where it does not count."""
    try:
        return int(_SCHEDULED.read_text(encoding="ascii").split()[1]) / 1e6
    except (OSError, ValueError, IndexError):
        return 0.0


def _lag(lags_ms: list[float]) -> dict[str, float]:
    return {
        "p50": round(percentile(lags_ms, 0.5), 3),
        "p99": round(percentile(lags_ms, 0.99), 3),
        "p999": round(percentile(lags_ms, 0.999), 3),
        "max": round(max(lags_ms, default=0.0), 3),
    }


class Client:
    """One instance, and what is asked of it."""

    def __init__(self, cache: MangaCache, clock: MovedClock) -> None:
        self._cache = cache
        self._clock = clock
        self._sessions = cache._sessions  # noqa: SLF001 - the runtime itself is what is measured

    async def shell(self) -> dict[str, Any]:
        """Return the bytes of an actor that has been read and is idle, without its id and what it knows."""
        ids = [f"session-{number:08d}" for number in range(10_000)]
        actors: list[Actor | None] = [None] * len(ids)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for place, session_id in enumerate(ids):
            actors[place] = _read(Actor(session_id), place)
        size = (tracemalloc.get_traced_memory()[0] - before) / len(ids)
        tracemalloc.stop()
        return {"idle_bytes": round(size, 1)}

    async def populate(self, sessions: int) -> dict[str, Any]:
        """Activate so many sessions, and return what the process takes for it."""
        before = resident_bytes()
        with PauseWatch(SystemClock()) as watch:
            for number in range(sessions):
                _read(self._sessions.actor(f"session-{number:08d}"), number)
                if number % 1_000 == 0:
                    await asyncio.sleep(0)
        resident = resident_bytes()
        began_s = time.perf_counter()
        gc.collect()
        full_ms = (time.perf_counter() - began_s) * 1e3
        return {
            "sessions": sessions,
            "resident_mib": round(resident / 2**20, 1),
            "bytes_each": round((resident - before) / sessions, 1),
            "gc_while_activating": _shown(watch),
            "gc_full_collection_ms": round(full_ms, 1),
        }

    async def settle(self) -> None:
        """Be warm."""
        freeze()

    async def idle(self, seconds: float) -> dict[str, Any]:
        """Return how the loop fares while so many sessions do nothing."""
        with PauseWatch(SystemClock()) as watch:
            lags = await loop_lags_ms(seconds)
        steps = [self._step() for _ in range(200)]
        return {
            "loop_lag_ms": lags["by_the_clock"],
            "own_loop_lag_ms": lags["own"],
            "tick_ms": _ticks(steps),
            "gc": _shown(watch),
        }

    def _step(self) -> tuple[float, float]:
        """Return the milliseconds that a step of the supervisor takes: by the clock, and of the processor."""
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        self._sessions.supervisor.tick(self._clock.monotonic_s())
        return (time.perf_counter() - began_s) * 1e3, (time.thread_time() - cpu_s) * 1e3

    async def evict(self) -> dict[str, Any]:
        """Let every session be idle for too long at once, and return what each step of their eviction takes."""
        self._clock.offset_s += 10 * SETTINGS.idle_s
        began_s, steps, before = time.perf_counter(), [], len(self._sessions)
        with PauseWatch(SystemClock()) as watch:
            while len(self._sessions):
                steps.append(self._step())
                await asyncio.sleep(0)
        return {
            "evicted": before,
            "steps": len(steps),
            "tick_ms": _ticks(steps),
            "seconds": round(time.perf_counter() - began_s, 2),
            "gc": _shown(watch),
        }

    async def calls(self, seconds: float) -> dict[str, Any]:
        """Return calls a second of an operation that does no more than count, by the runtime's own `run`, two ways.

        Idle: 200 callers over 1,000 actors in turn. Waiting: 200 callers over 20 actors, and an operation that lets
        others run once, so that nearly every message waits in a mailbox for its turn.
        """
        mailboxes = self._sessions._writes._mailboxes  # noqa: SLF001
        now_s = self._clock.time_s()
        actors = [self._sessions.actor(f"called-{number}") for number in range(CALLED)]
        count = 0

        async def counting() -> int:
            nonlocal count
            count += 1
            return count

        async def letting_others_run() -> int:
            await asyncio.sleep(0)
            return await counting()

        for actor in actors:
            actor.touched_at_s = now_s
        idle = await closed_loop(lambda place: mailboxes.run(actors[place], counting), CALLED, seconds)
        waiting = await closed_loop(
            lambda place: mailboxes.run(actors[place % CONTENDED], letting_others_run), CALLED, seconds
        )
        return {"idle": idle, "waiting": waiting}

    async def hot_read(self, reads: int) -> dict[str, Any]:
        """Return how long a context from memory takes, of 20 turns, with the telemetry that it always has."""
        session = self._cache.session("hot", customer_id="c")
        for number in range(20):
            await session.append(role="user", content="What comes after volume 12? " * 10, turn_id=f"t{number}")
        level = Consistency.EVENTUAL(3600)
        await session.context(consistency=level)
        took = []
        clock = time.perf_counter_ns
        for _ in range(reads):
            began = clock()
            await session.context(consistency=level)
            took.append((clock() - began) / 1e3)
        before = self._cache.telemetry.value("mangacache_contexts_total", source="memory")
        if before < reads:
            raise AssertionError("not every read was answered by memory")
        return {"p50": round(percentile(took, 0.5), 2), "p99": round(percentile(took, 0.99), 2)}


def _read(actor: Actor, number: int) -> Actor:
    """Leave an actor as a read leaves it: each time an object of its own."""
    now_s = 1000.0 + number / 7
    actor.validated_at_s = actor.window_at_s = now_s
    actor.grew_at_s = now_s + 0.001
    actor.touched_at_s = 1.7e9 + now_s
    return actor


def _ticks(steps: list[tuple[float, float]]) -> dict[str, float]:
    """Return how long steps took; the longest also in processor time, which other processes do not lengthen."""
    walls = [wall for wall, _ in steps]
    return {
        "p50": round(percentile(walls, 0.5), 4),
        "p99": round(percentile(walls, 0.99), 3),
        "max": round(max(walls), 3),
        "cpu_max": round(max(cpu for _, cpu in steps), 3),
    }


def _shown(watch: PauseWatch) -> dict[str, float]:
    seen = watch.seen()
    return {"pauses": seen.pauses, "longest_ms": seen.longest_ms, "total_ms": seen.total_ms}


async def _main() -> None:
    clock = MovedClock()
    async with MangaCache.open(SETTINGS, clock=clock, transport=await table(SETTINGS)) as cache:
        client = Client(cache, clock)
        await serve(
            {
                "shell": client.shell,
                "populate": client.populate,
                "settle": client.settle,
                "idle": client.idle,
                "evict": client.evict,
                "calls": client.calls,
                "hot_read": client.hot_read,
            }
        )


if __name__ == "__main__":
    run(_main(), loop=json.loads(sys.argv[2])["loop"])
