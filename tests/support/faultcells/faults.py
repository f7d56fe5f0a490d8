"""The faults: what each needs, what it breaks, and how that is put right again. All by the cell's seed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faultcells import breaking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faultcells.breaking import Breakage

FAKETIME_PLACES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)


@dataclass(frozen=True)
class Fault:
    """One of the sixteen.

    Attributes:
        name: with its number in front.
        title: what goes wrong, for people.
        breaks: does it, and puts it right.
        points: whether the workers have fault points at their doors.
        dax: whether they read through a DAX emulator.
        faketime: whether the Redis server's clock can be stepped.
        servers: on which it can be had.
        excused: how durable calls may fail meanwhile: only where DynamoDB itself is away.
    """

    name: str
    title: str
    breaks: Callable[[Breakage], Awaitable[None]]
    points: bool = False
    dax: bool = False
    faketime: bool = False
    servers: tuple[str, ...] = ("valkey", "redis")
    excused: frozenset[str] = frozenset()

    def faketime_environment(self, stage):
        """Return what has a server take its wall clock from a file."""
        return {
            "LD_PRELOAD": str(faketime_library()),
            "FAKETIME_TIMESTAMP_FILE": str(stage.clock_file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


def faketime_library():
    """Return where libfaketime is; None where it is not."""
    named = os.environ.get("LIBFAKETIME")
    places = [named] if named else list(FAKETIME_PLACES)
    return next((Path(place) for place in places if Path(place).exists()), None)


AWAY = frozenset({"transient"})

FAULTS = (
    Fault("01-killed", "Redis is killed, and restarted empty", breaking.killed),
    Fault("02-snapshot", "Redis is killed, and restarted from an old snapshot", breaking.old_snapshot),
    Fault("03-stopped", "Redis stands still (SIGSTOP), for 2 s and for 20 s", breaking.stopped),
    Fault("04-failover", "Redis fails over to a replica 300 ms behind", breaking.failover),
    Fault("05-split", "two primaries at once, seen by different workers", breaking.split),
    Fault("06-flushed", "FLUSHALL, and a storm of evictions", breaking.flushed),
    Fault("07-proxy", "the way to Redis delays, resets, is cut one way, loses replies", breaking.bad_way),
    Fault("08-push", "only the subscriptions' connection is cut, then only those that are tracked", breaking.push_cut),
    Fault("09-dax", "DAX is killed, is stale, and is slow until the pool is full", breaking.dax, dax=True),
    Fault(
        "10-dynamodb",
        "DynamoDB throttles half, does not answer, does 5 % of writes and says nothing",
        breaking.dynamodb,
        excused=AWAY,
    ),
    Fault(
        "11-points",
        "a worker is killed before the write, before COMMIT, before the acknowledgement",
        breaking.points,
        points=True,
    ),
    Fault("12-stopped-worker", "a worker that holds sessions and locks stands still", breaking.stopped_worker),
    Fault("13-sigterm", "workers leave on SIGTERM under load, one after the other", breaking.sigterm),
    Fault(
        "14-clocks",
        "the clocks of Redis and of a worker are stepped by 600 s, both ways",
        breaking.clocks,
        faketime=True,
        servers=("valkey",),
    ),
    Fault("15-poison", "poison and oversized messages", breaking.poison),
    Fault("16-two", "two of the others at once", breaking.two, points=True, excused=AWAY),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
