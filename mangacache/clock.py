"""Time and randomness: the only place the package takes them from, so that a simulation can own them.

Three readings exist because they answer different questions. `time_s` is the wall clock: it stamps what is
stored (`created_at`, `ttl`) and may be wrong or jump; nothing about numbers or order rests on it.
`monotonic_s` is for the deadlines of work and runs as waits run. `age_s` tells how old what is known about a
session has become; when recorded chats are replayed faster than life, it runs faster with them.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def time_s(self) -> float:
        """Return the wall clock: seconds since 1970-01-01 UTC."""

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start, never going back: for deadlines."""

    def age_s(self) -> float:
        """Return seconds from an arbitrary start, never going back: for the age of what is known."""

    def processor_s(self) -> float:
        """Return the seconds of processor time that the calling thread has used."""

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return a context manager that cancels its body after `seconds` and raises `TimeoutError`."""


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def time_s(self) -> float:
        """Return the wall clock: seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start, never going back: for deadlines."""
        return time.monotonic()

    def age_s(self) -> float:
        """Return seconds from an arbitrary start, never going back: for the age of what is known."""
        return time.monotonic()

    def processor_s(self) -> float:
        """Return the seconds of processor time that the calling thread has used."""
        return time.thread_time()

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return a context manager that cancels its body after `seconds` and raises `TimeoutError`."""
        return asyncio.timeout(seconds)


class AcceleratedClock(SystemClock):
    """A clock by which sessions age `speed` times as fast, while waits and deadlines stay as they are.

    For replaying recorded conversations: a session idle for five recorded minutes ages by five minutes in
    `300 / speed` real seconds, but a time-out or a back-off, which concerns real servers, is not shortened.

    Args:
        speed: how many seconds pass by this clock in one real second.
        origin_s: the wall-clock second at which this clock reads true; processes that share it agree.
    """

    __slots__ = ("_monotonic0", "_origin_s", "_speed", "_time0")

    def __init__(self, speed: float, *, origin_s: float | None = None) -> None:
        self._speed = speed
        self._time0 = time.time()
        self._origin_s = self._time0 if origin_s is None else origin_s
        self._monotonic0 = time.monotonic()

    def time_s(self) -> float:
        """Return the accelerated wall clock."""
        real_s = self._time0 + time.monotonic() - self._monotonic0
        return self._origin_s + (real_s - self._origin_s) * self._speed

    def age_s(self) -> float:
        """Return accelerated seconds."""
        return (time.monotonic() - self._monotonic0) * self._speed


class Random(Protocol):
    """Where randomness comes from; a seeded `random.Random` satisfies it."""

    def random(self) -> float:
        """Return a float in [0, 1)."""

    def getrandbits(self, k: int, /) -> int:
        """Return `k` random bits as an integer."""


def system_random() -> Random:
    """Return a generator seeded by the operating system; new in each process that asks."""
    return _random.Random()


def random_id(random: Random) -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    return f"{random.getrandbits(128):032x}"


def timestamp(time_s: float) -> str:
    """Return `time_s` as ISO 8601 in UTC with milliseconds, `2026-11-24T09:58:00.123Z`: fixed width, so it sorts."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
