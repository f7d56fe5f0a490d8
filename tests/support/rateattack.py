"""A worker that asks for rate limits at the worst of times, by clocks that are wrong; it writes down what it was told.

Run as a program: its argument is a JSON object; see `Orders`. A line `begin` or `stop` on its input begins or ends its
work.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mangacache import Settings
from mangacache.clock import SystemClock
from mangacache.ephemeral import Asker, Limit, RateLimits, workers
from mangacache.redis import open_link
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.redis import Argument, Link, Script

CALLERS = 16
LONGEST_WAIT_S = 0.2


def wall_offset_us() -> int:
    """Return how far the wall clock is ahead of the monotonic one: the best of some looks."""
    looks = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(50)]
    before_s, wall_s, after_s = min(looks, key=lambda look: look[2] - look[0])
    return round((wall_s - (before_s + after_s) / 2) * 1_000_000)


class Orders(msgspec.Struct):
    """What to do: so many arrivals, or until it is stopped, by clocks that are off; all others are there first.

    Attributes:
        offset_us: from the machine's monotonic clock to its wall clock.
    """

    port: int
    prefix: str
    out: str
    seed: int
    skew_s: float
    offset_us: int
    limits: list[Limit]
    workers: int
    arrivals: int = 0


class Told(msgspec.Struct, array_like=True):
    """A decision: on which window, for what, by whom, and when (microseconds of the wall clock)."""

    customer: str
    limit: str
    cost: int
    allowed: bool
    source: str
    at_us: int


class WrongClock(SystemClock):
    """A clock that is wrong, and tells what it said last."""

    def __init__(self, skew_s: float) -> None:
        self._skew_s = skew_s
        self.said_s = 0.0

    def time_s(self) -> float:
        return super().time_s() + self._skew_s

    def monotonic_s(self) -> float:
        self.said_s = super().monotonic_s()
        return self.said_s + self._skew_s


class Overheard:
    """A link that keeps the time by which Redis decided last, for the task that asked."""

    def __init__(self, inner: Link) -> None:
        self._inner = inner
        self.now_us: dict[asyncio.Task[Any] | None, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def run(self, script: Script, key: str, arguments: Sequence[Argument], **options: Any) -> Any:
        reply = await self._inner.run(script, key, arguments, **options)
        if script.name == "rate_limit":
            self.now_us[asyncio.current_task()] = reply[3]
        return reply


async def admit(server: Any) -> int:
    del server
    return 1


class Diary:
    """What a worker was told; where it works until it is stopped, it says how far it has come.

    It says `refused` when Redis has refused something, and `alone` when it has decided by itself for three windows.
    """

    def __init__(self, orders: Orders) -> None:
        self.told: list[Told] = []
        self._speaks = not orders.arrivals
        self._long_us = 3_000_000 * max(limit.window_s for limit in orders.limits)
        self._alone_since_us: int | None = None
        self._said: set[str] = set()

    def take(self, told: Told) -> None:
        self.told.append(told)
        if told.source == "redis" and not told.allowed:
            self._say("refused")
        elif told.source == "local":
            if self._alone_since_us is None:
                self._alone_since_us = told.at_us
            if told.at_us > self._alone_since_us + self._long_us:
                self._say("alone")

    def _say(self, what: str) -> None:
        if self._speaks and what not in self._said:
            self._said.add(what)
            print(what, flush=True)


async def insist(orders: Orders, limits: RateLimits, link: Overheard, clock: WrongClock, diary: Diary) -> None:
    """Ask again and again, mostly just when it may be let through."""
    draw = random.Random(orders.seed * 1000 + next(CALLER))
    left = orders.arrivals // CALLERS if orders.arrivals else sys.maxsize
    while left and not STOPPED.is_set():
        left -= 1
        limit, customer = draw.choice(orders.limits), f"c{draw.randrange(2)}"
        cost = min(limit.count, draw.choice([1, 1, 1, 2, 5]))
        decision = await limits.check(customer, limit=limit, cost=cost)
        at_us = round(clock.said_s * 1_000_000) + orders.offset_us
        if decision.source == "redis":
            at_us = link.now_us[asyncio.current_task()]
        diary.take(Told(customer, limit.name, cost, decision.allowed, decision.source, at_us))
        if decision.source != "redis":
            await asyncio.sleep(min(decision.retry_after_s, 0.005))
        elif decision.retry_after_s < LONGEST_WAIT_S and draw.random() < 0.3:
            await asyncio.sleep(decision.retry_after_s)


STOPPED = asyncio.Event()
CALLER = itertools.count()


async def listen(begun: asyncio.Event) -> None:
    for wanted, event in ((b"begin\n", begun), (b"stop\n", STOPPED)):
        line = await asyncio.to_thread(sys.stdin.buffer.readline)
        if line != wanted:
            raise SystemExit(f"heard {line!r}")
        event.set()


async def main(orders: Orders) -> None:
    workers.GONE_AFTER_S = 600  # a machine that is busy with other tests is no end
    settings = Settings(
        redis_endpoint=f"redis://127.0.0.1:{orders.port}",
        key_prefix=orders.prefix,
        redis_timeout_s=10,
        connect_timeout_s=10,
    )
    made = random.Random(orders.seed)
    inner = open_link(settings, clock=SystemClock(), random=made, telemetry=Telemetry())
    inner.admit_with(admit)
    link, clock = Overheard(inner), WrongClock(orders.skew_s)
    asker = Asker(link, settings=settings)
    limits = RateLimits(asker, settings=settings, clock=clock, random=made, telemetry=Telemetry())
    while limits.workers.count() < orders.workers:
        await limits.workers.heard()
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    begun = asyncio.Event()
    listening = asyncio.create_task(listen(begun))
    await begun.wait()
    diary = Diary(orders)
    await asyncio.gather(*(insist(orders, limits, link, clock, diary) for _ in range(CALLERS)))
    await asyncio.to_thread(Path(orders.out).write_bytes, msgspec.msgpack.encode(diary.told))
    print("done", flush=True)
    await listening
    await limits.close()
    await inner.close()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Orders)))
