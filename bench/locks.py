"""How a lock is handed on: callers that all want the same few locks, ours beside redis-py's, which has no fence.

Reported for each: how long from one holder's end to the next one's beginning while somebody waited, how many were
passed in line by somebody who had asked later, how many holds a second. Ours pays two requests to DynamoDB for each.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _common import environment, latencies_ms, options, print_table, run, warn_if_busy, write_json
from _servers import open_servers
from redis.asyncio import Redis

from mangacache import MangaCache, Settings
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from mangacache.local import LocalStack

    Take = Callable[[int, str], AbstractAsyncContextManager[Any]]

_WORKERS: Final = 4
_HELD_S: Final = 0.005
_ASKED_CLEARLY_EARLIER_S: Final = 0.02


class Hold(NamedTuple):
    """One hold of a lock; times in seconds on the monotonic clock."""

    lock: str
    asked_s: float
    began_s: float
    ended_s: float


async def contend(take: Take, *, callers: int, locks: int, seconds: float) -> list[Hold]:
    """Have callers take locks, hold them a while, and ask again, for so long."""
    holds: list[Hold] = []
    failures: list[BaseException] = []
    tasks = TaskOwner(on_failure=lambda _, error: failures.append(error))
    until_s = time.monotonic() + seconds

    async def call(number: int) -> None:
        lock = f"lock-{number % locks}"
        while (asked_s := time.monotonic()) < until_s:
            async with take(number, lock):
                began_s = time.monotonic()
                await asyncio.sleep(_HELD_S)
                ended_s = time.monotonic()
            holds.append(Hold(lock, asked_s, began_s, ended_s))

    for number in range(callers):
        tasks.start(call(number), name=f"caller {number}")
    await tasks.settle()
    if failures:
        raise failures[0]
    return holds


def figures(holds: list[Hold], *, seconds: float) -> dict[str, Any]:
    """Return what came of it."""
    handed, passed = [], 0
    for lock in {hold.lock for hold in holds}:
        made = sorted((hold for hold in holds if hold.lock == lock), key=lambda hold: hold.began_s)
        for before, after in pairwise(made):
            if after.asked_s < before.ended_s:
                handed.append(1e3 * (after.began_s - before.ended_s))
        earliest_s = float("inf")
        for hold in reversed(made):
            passed += hold.asked_s - _ASKED_CLEARLY_EARLIER_S > earliest_s
            earliest_s = min(earliest_s, hold.asked_s)
    waits = [1e3 * (hold.began_s - hold.asked_s) for hold in holds]
    return {
        "holds": len(holds),
        "holds_per_s": round(len(holds) / seconds, 1),
        "hand_over_ms": latencies_ms(handed),
        "wait_ms": latencies_ms(waits),
        "passed_share": round(passed / len(holds), 4) if holds else None,
    }


@asynccontextmanager
async def _ours(stack: LocalStack) -> AsyncIterator[Take]:
    os.environ.update(stack.environment())
    async with AsyncExitStack() as opened:
        caches = [await opened.enter_async_context(MangaCache.open(Settings.from_env())) for _ in range(_WORKERS)]
        yield lambda number, lock: caches[number % _WORKERS].locks.session(lock, wait_s=600)


@asynccontextmanager
async def _theirs(stack: LocalStack) -> AsyncIterator[Take]:
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(Redis.from_url(stack.redis_url or "", max_connections=256))
            for _ in range(_WORKERS)
        ]
        yield lambda number, lock: clients[number % _WORKERS].lock(lock, timeout=60)


async def measure(arguments: Any) -> dict[str, Any]:
    """Run both, with few and with many that wait."""
    seconds = arguments.seconds if arguments.seconds is not None else 1.5 if arguments.quick else 10.0
    found: dict[str, Any] = {}
    async with open_servers(arguments.engine) as stack:
        found["environment"] = environment(stack, loop=arguments.loop)
        for waiting, (callers, locks) in {"2 want a lock": (8, 4), "16 want a lock": (16, 1)}.items():
            for name, peer in (("ours", _ours), ("redis_py", _theirs)):
                async with peer(stack) as take:
                    holds = await contend(take, callers=callers, locks=locks, seconds=seconds)
                found.setdefault(waiting, {})[name] = figures(holds, seconds=seconds)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="of each run (10; 1.5 with --quick)")
    arguments = parser.parse_args()
    warn_if_busy()
    found = run(measure(arguments), loop=arguments.loop)
    for waiting in (name for name in found if name != "environment"):
        sides = found[waiting]
        lines = [
            ("holds a second", [side["holds_per_s"] for side in sides.values()]),
            ("hand-over, ms, p50", [side["hand_over_ms"]["p50"] for side in sides.values()]),
            ("hand-over, ms, p99", [side["hand_over_ms"]["p99"] for side in sides.values()]),
            ("longest wait, ms", [side["wait_ms"]["max"] for side in sides.values()]),
            ("passed in line", [side["passed_share"] for side in sides.values()]),
        ]
        print_table(waiting, list(sides), lines)
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()
