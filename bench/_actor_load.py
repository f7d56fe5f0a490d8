"""Our sessions under load, in a process of their own, on doubles that take as long to answer as the real services.

The load is open: a message is due at its time whether or not those before it have been answered, and its latency counts
from then. Everything runs in one process and on one event loop, the doubles' work included.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from _actor_client import loop_lags_ms, table
from _actor_peers import resident_bytes
from _common import latencies_ms, run
from _processes import serve

from mangacache import MangaCache, Rejected, Settings, Transient
from mangacache.clock import SystemClock
from mangacache.collector import PauseWatch, freeze
from mangacache.errors import MangaCacheError
from mangacache.testing import MemoryRedis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.redis import Link
    from mangacache.sessions import Session
    from mangacache.store.transport import Transport

_FROZEN_EACH = 100
_TRIES = 10
DYNAMODB_S = 0.005
REDIS_S = 0.0005
SETTINGS = Settings(table_name="bench-actors", memory_sessions=10_000_000)
QUESTION = "What should I read after Berserk? " * 4
ANSWER = "If you liked its art, try Vagabond; if you liked its mood, Claymore. " * 8


class SlowTransport:
    """A door behind which answers take their time."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.delay_s = 0.0

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Pass a request on, and hold its answer back."""
        answer = await self._inner.request(operation, parameters)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return answer


class SlowLink:
    """A link on which each command takes its time."""

    def __init__(self, inner: Link) -> None:
        self._inner = inner
        self.delay_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def run(self, *given: Any, **more: Any) -> Any:
        """Run a script, and hold its reply back."""
        reply = await self._inner.run(*given, **more)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return reply


async def _surely(session: Session, **turn: Any) -> None:
    """Append a turn, again where a busy machine has let it time out: it is the setting, not what is measured."""
    for _ in range(_TRIES):
        with contextlib.suppress(Transient):
            await session.append(**turn)
            return
    await session.append(**turn)


class Load:
    """Sessions that are open, and what is asked of them."""

    def __init__(self, cache: MangaCache, transport: SlowTransport, link: SlowLink, seed: int) -> None:
        self._cache = cache
        self._transport = transport
        self._link = link
        self._random = random.Random(seed)
        self._ids: list[str] = []
        self._acknowledged: dict[str, int] = {}

    async def open(self, sessions: int) -> dict[str, Any]:
        """Begin so many sessions, without the doubles' delays."""
        self._ids = [f"session-{number:06d}" for number in range(sessions)]
        began_s, left = time.perf_counter(), iter(self._ids)

        async def opener() -> None:
            for number, session_id in enumerate(left):
                session = self._cache.session(session_id, customer_id="c")
                await _surely(session, role="user", content=QUESTION, turn_id="first")
                await _surely(session, role="assistant", content=ANSWER, turn_id="second")
                if number % _FROZEN_EACH == 0:
                    gc.freeze()

        freeze()
        await asyncio.gather(*(opener() for _ in range(64)))
        self._transport.delay_s, self._link.delay_s = DYNAMODB_S, REDIS_S
        freeze()
        return {"sessions": len(self._cache._sessions), "seconds": round(time.perf_counter() - began_s, 1)}  # noqa: SLF001

    async def _chat(self, session_id: str) -> None:
        """Read the context and append a question and its answer: one chat message."""
        session = self._cache.session(session_id, customer_id="c")
        context = await session.context()
        said = await session.append(role="user", content=QUESTION)
        said = await session.append(role="assistant", content=ANSWER)
        if said.number < context.version.number + 2:
            raise AssertionError("a turn is missing")
        self._acknowledged[session_id] = max(self._acknowledged.get(session_id, 0), said.number)

    async def run(self, per_s: float, seconds: float) -> dict[str, Any]:
        """Send chat messages at a rate, and return how they and the event loop fared."""
        took, refused, failed = [], [], Counter()
        waiting: set[asyncio.Task[None]] = set()
        most_bytes = before = resident_bytes()

        async def message(due_s: float) -> None:
            try:
                await self._chat(self._random.choice(self._ids))
            except Rejected as error:
                refused.append(error.retry_after_s)
            except MangaCacheError as error:
                failed[type(error).__name__] += 1
            else:
                took.append((time.perf_counter() - due_s) * 1e3)

        with PauseWatch(SystemClock()) as watch:
            lags = asyncio.create_task(loop_lags_ms(seconds))
            began_s, cpu_s = time.perf_counter(), time.process_time()
            sent = 0
            while (now_s := time.perf_counter()) < began_s + seconds:
                while began_s + sent / per_s <= now_s:
                    task = asyncio.create_task(message(began_s + sent / per_s))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                    sent += 1
                most_bytes = max(most_bytes, resident_bytes())
                await asyncio.sleep(0.001)
            left = len(waiting)
            while waiting:
                await asyncio.wait(set(waiting))
            cpu_s = time.process_time() - cpu_s
        lag = await lags
        elapsed_s = time.perf_counter() - began_s
        return {
            "per_s": per_s,
            "sent": sent,
            "answered_per_s": round(len(took) / elapsed_s),
            "latency_ms": latencies_ms(took),
            "refused": len(refused),
            "refused_say_when": {"min_s": min(refused, default=None), "max_s": max(refused, default=None)},
            "failed": dict(failed),
            "under_way_at_the_end": left,
            "loop_lag_ms": lag["by_the_clock"],
            "own_loop_lag_ms": lag["own"],
            "gc_pause_ms_max": watch.seen().longest_ms,
            "cpu_ms_per_message": round(cpu_s * 1e3 / max(1, len(took)), 3),
            "grown_mib": round((most_bytes - before) / 2**20, 1),
        }

    async def capacity(self, seconds: float) -> dict[str, Any]:
        """Return chat messages a second at 64 in flight: what one process can do."""
        ends_s, done = time.perf_counter() + seconds, 0

        async def client() -> None:
            nonlocal done
            while time.perf_counter() < ends_s:
                await self._chat(self._random.choice(self._ids))
                done += 1

        began_s = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(64)))
        return {"per_s": round(done / (time.perf_counter() - began_s))}

    async def back_to_normal(self) -> dict[str, Any]:
        """Return how long after the load nothing is under way any more, and as many calls are let in as ever."""
        began_s = time.perf_counter()
        state = self._cache.supervisor.state()
        while state.inside or state.window < state.limit or state.loop_lag_ms > SETTINGS.loop_lag_limit_s * 1e3:
            await asyncio.sleep(0.01)
            state = self._cache.supervisor.state()
        return {"seconds": round(time.perf_counter() - began_s, 2)}

    async def close(self, in_flight: int) -> dict[str, Any]:
        """Close in the middle of writes, and return what became of them and how long it took."""
        resident = len(self._cache._sessions)  # noqa: SLF001
        acknowledged: dict[str, int] = {}
        answers: Counter[str] = Counter()

        async def write(session_id: str) -> None:
            try:
                said = await self._cache.session(session_id).append(role="user", content=QUESTION)
            except MangaCacheError as error:
                answers[type(error).__name__] += 1
            else:
                answers["acknowledged"] += 1
                acknowledged[session_id] = said.number

        tasks = [asyncio.create_task(write(session_id)) for session_id in self._random.sample(self._ids, in_flight)]
        for _ in range(2):
            await asyncio.sleep(0)
        began_s = time.perf_counter()
        await self._cache.close()
        took_s = time.perf_counter() - began_s
        await asyncio.wait(tasks)
        self._transport.delay_s = 0.0
        lost = 0
        for session_id, number in (self._acknowledged | acknowledged).items():
            lost += number > await self._newest(session_id)
        report = self._cache.supervisor.state().drain
        return {
            "resident": resident,
            "in_flight": in_flight,
            "seconds": round(took_s, 2),
            "answers": dict(answers),
            "acknowledged_checked": len(self._acknowledged | acknowledged),
            "acknowledged_lost": lost,
            "report": json.loads(json.dumps({f: getattr(report, f) for f in report.__struct_fields__}))
            if report
            else None,
        }

    async def _newest(self, session_id: str) -> int:
        answer = await self._transport.request(
            "Query",
            {
                "TableName": SETTINGS.table_name,
                "KeyConditionExpression": "PK = :pk AND begins_with(SK, :turn)",
                "ExpressionAttributeValues": {":pk": {"S": f"SESSION#{session_id}"}, ":turn": {"S": "TURN#"}},
                "ScanIndexForward": False,
                "ConsistentRead": True,
                "Limit": 1,
            },
        )
        return int(answer["Items"][0]["SK"]["S"].rpartition("-")[2]) if answer["Items"] else 0


async def _main(seed: int) -> None:
    transport = SlowTransport(await table(SETTINGS))
    link = SlowLink(MemoryRedis().link(clock=SystemClock(), timeout_s=5.0, connections=64))
    async with MangaCache.open(SETTINGS, transport=transport, link=link) as cache:  # type: ignore[arg-type]
        load = Load(cache, transport, link, seed)
        await serve(
            {
                "open": load.open,
                "run": load.run,
                "capacity": load.capacity,
                "back_to_normal": load.back_to_normal,
                "close": load.close,
            }
        )


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(_main(given["seed"]), loop=given["loop"])
