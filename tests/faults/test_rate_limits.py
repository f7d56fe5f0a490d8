"""Rate limits under attack: processes whose clocks are wrong ask at the worst of times, and Redis is killed.

An oracle that knows every unit's time says whether any window had more than it may have. RATE_ARRIVALS makes it long.
"""

from __future__ import annotations

import asyncio
import os
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import rateattack
from mangatest import HANG_GUARD_S
from rateattack import Orders, Told, wall_offset_us

from mangacache.ephemeral import Limit
from mangacache.ephemeral.rate_limits import arguments
from mangacache.local.valkey import valkey_process

if TYPE_CHECKING:
    from collections.abc import Sequence

ARRIVALS = int(os.environ.get("RATE_ARRIVALS", "12000"))
WORKERS = 4
GUARD_S = HANG_GUARD_S + ARRIVALS / 1000
LIMITS = [
    Limit("one", 1, 0.02),
    Limit("few", 7, 0.1),
    Limit("sixty", 60, 1),
    Limit("many", 500, 2),
    Limit("usual", 30, 60),
]
HARD = Limit("hard", 20, 0.5)


class Window:
    """What was told of one window, by time."""

    def __init__(self, limit: Limit, told: Sequence[Told]) -> None:
        self.limit = limit
        self.window_us = round(limit.window_s * 1_000_000)
        self.allowed = sorted((each for each in told if each.allowed), key=lambda each: each.at_us)
        self.refused = [each for each in told if not each.allowed]
        self._times = [each.at_us for each in self.allowed]
        self._before = [0, *accumulate(each.cost for each in self.allowed)]

    @property
    def is_of_redis(self) -> bool:
        """Whether Redis has decided all of it."""
        return all(each.source == "redis" for each in (*self.allowed, *self.refused))

    def units(self, from_us: float, until_us: float) -> int:
        """Return the units let through from one time to another, both included."""
        return self._before[bisect_right(self._times, until_us)] - self._before[bisect_left(self._times, from_us)]

    def fullest(self, since_us: float = 0) -> int:
        """Return how many units the fullest window has that begins then or later."""
        begins = (at for at in self._times if at >= since_us)
        return max((self.units(at, at + self.window_us - 1) for at in begins), default=0)

    def refused_without_need(self) -> list[Told]:
        """Return who was refused though there was room; a unit may leave two ticks of the script's late."""
        late_us = 2 * arguments(self.limit, 1, record=True)[2] + 1
        return [
            each
            for each in self.refused
            if self.units(each.at_us - self.window_us - late_us, each.at_us) + each.cost <= self.limit.count
        ]


class Attack:
    """The workers, each a process."""

    def __init__(self, folder: Path, port: int, limits: list[Limit], arrivals: int) -> None:
        offset_us = wall_offset_us()
        self._orders = [
            Orders(
                port=port,
                prefix=f"t{folder.name}:",
                out=str(folder / f"{number}.told"),
                seed=number,
                offset_us=offset_us,
                skew_s=(number - (WORKERS - 1) / 2) * 10 / (WORKERS - 1),  # -5 s to +5 s
                limits=limits,
                workers=WORKERS,
                arrivals=arrivals // WORKERS,
            )
            for number in range(WORKERS)
        ]
        self._limits = {limit.name: limit for limit in limits}
        self._processes: list[asyncio.subprocess.Process] = []
        self._heard: list[set[bytes]] = [set() for _ in self._orders]

    async def begin(self) -> None:
        """Start the workers; they begin together when each has counted all."""
        for orders in self._orders:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    rateattack.__file__,
                    msgspec.json.encode(orders).decode(),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
        await self.hear(b"ready\n")
        await self._say(b"begin\n")

    async def end(self, *, early: bool) -> list[Window]:
        """Wait until they are done, or have them stop; return what they were told."""
        if early:
            await self._say(b"stop\n")
        await self.hear(b"done\n")
        if not early:
            await self._say(b"stop\n")
        for process in self._processes:
            assert await process.wait() == 0
        return self._windows()

    def _windows(self) -> list[Window]:
        told: dict[tuple[str, str], list[Told]] = defaultdict(list)
        for orders in self._orders:
            for each in msgspec.msgpack.decode(Path(orders.out).read_bytes(), type=list[Told]):
                told[each.customer, each.limit].append(each)
        return [Window(self._limits[limit], each) for (_, limit), each in told.items()]

    def kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()

    async def _say(self, line: bytes) -> None:
        for process in self._processes:
            process.stdin.write(line)
            await process.stdin.drain()

    async def hear(self, line: bytes) -> None:
        """Wait until each worker has said something, whatever else it says."""
        async with asyncio.timeout(GUARD_S):
            for process, heard in zip(self._processes, self._heard, strict=True):
                while line not in heard:
                    heard.add(await process.stdout.readline())
                    assert b"" not in heard, "a worker has died"


async def test_no_window_has_more_than_its_limit_whoever_asks_whenever(tmp_path, shared_valkey):
    attack = Attack(tmp_path, shared_valkey, LIMITS, ARRIVALS)
    try:
        await attack.begin()
        windows = await attack.end(early=False)
    finally:
        attack.kill()
    told = [each for window in windows for each in (*window.allowed, *window.refused)]
    assert len(told) >= ARRIVALS - WORKERS * 16
    assert len(windows) == 2 * len(LIMITS)
    whole = [window for window in windows if window.is_of_redis]  # all of them, but on a machine that stood still
    assert whole
    over = {window.limit.name: window.fullest() for window in whole if window.fullest() > window.limit.count}
    assert over == {}
    assert [window.refused_without_need() for window in whole] == [[]] * len(whole)
    full = {window.limit.name for window in whole if window.fullest() == window.limit.count}
    assert full >= {"one", "usual"}, "the attack reached what it attacks"
    print(f"{len(told)} arrivals, {sum(each.allowed for each in told)} let through, 0 too many")


async def test_redis_is_killed_and_the_workers_share_the_limit(tmp_path):
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = valkey_process(folder=folder)
    await server.start()
    attack = Attack(tmp_path, server.port, [HARD], 0)
    try:
        await attack.begin()
        await attack.hear(b"refused\n")
        server.kill()
        await attack.hear(b"alone\n")
        windows = await attack.end(early=True)
    finally:
        attack.kill()
        await server.stop()
    for window in windows:
        by_redis = [each.at_us for each in window.allowed if each.source == "redis"]
        alone = [each.at_us for each in window.allowed if each.source == "local"]
        assert alone, "nobody is shut out"
        killed_us = max(by_redis, default=0) + 1
        print(f"fullest window {window.fullest()}, after the kill {window.fullest(killed_us)}, of {HARD.count}")
        assert window.fullest() <= 2 * HARD.count
        assert window.fullest(killed_us) <= 1.1 * HARD.count


@pytest.mark.parametrize("wrong", ["over", "needless"])
def test_the_oracle_sees_one_unit_too_many_and_one_refusal_too_many(wrong):
    limit = Limit("l", 3, 1)
    told = [Told("c", "l", 1, True, "redis", at) for at in (0, 400_000, 900_000, 1_000_100)]
    told.append(Told("c", "l", 1, False, "redis", 999_999))
    sound = Window(limit, told)
    assert (sound.fullest(), sound.refused_without_need()) == (3, [])
    if wrong == "over":
        assert Window(limit, [*told, Told("c", "l", 1, True, "redis", 999_999)]).fullest() == 4
    else:
        assert len(Window(limit, [*told, Told("c", "l", 1, False, "redis", 1_500_000)]).refused_without_need()) == 1
