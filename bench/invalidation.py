"""How a worker can hear that another has changed a session: client tracking and sharded pub/sub beside each other.

On a local Valkey: from the sending of a write until the other worker's memory knows that its copy is old; what a
message (a read and two writes) costs with neither, with tracking and with a channel a session; and what 50,000 keys or
channels cost the server. Docs: `docs/decisions/0006-near-caches-hear-by-tracking.md`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import hiredis
import msgspec
from _common import (
    environment,
    interleave,
    latencies_ms,
    median,
    options,
    print_table,
    warn_if_busy,
)
from _main import report
from _servers import open_servers

from mangacache import Settings
from mangacache.clock import SystemClock
from mangacache.redis import Dialer
from mangacache.redis.pipeline import WATCH, PipelinedLine, heard

if TYPE_CHECKING:
    import argparse

    from mangacache.redis import Changes

TTL_MS: Final = 3_600_000
IN_FLIGHT: Final = 50
READ: Final = "redis.call('HMGET', KEYS[1], 't', 'r') return 1"
WRITE: Final = (
    "redis.call('HSET', KEYS[1], 't', ARGV[1]) redis.call('PEXPIRE', KEYS[1], 3600000) {publish}"
    " redis.call('EXISTS', KEYS[1]) return 1"
)
PUBLISH: Final = "redis.call('SPUBLISH', KEYS[1], ARGV[1])"
WAYS: Final = ("neither", "tracking", "pubsub")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds, messages in one, writes that are followed, keys that are remembered."""

    rounds: int
    messages: int
    writes: int
    keys: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        if given.quick:
            return cls(rounds=1, messages=1_000, writes=200, keys=2_000)
        return cls(rounds=5, messages=30_000, writes=5_000, keys=50_000)


class Ear:
    """Whom a connection tells: notes when it heard of which key."""

    def __init__(self) -> None:
        self.heard: dict[str, asyncio.Event] = {}
        self.count = 0

    def changed(self, key: str) -> None:
        """See `redis.Changes`."""
        self.count += 1
        if key in self.heard:
            self.heard[key].set()

    def lost(self) -> None:
        """Nothing is measured then."""


class Line(PipelinedLine):
    """A connection that hears what is published as well."""

    def send(self, packed: bytes) -> None:
        """Send what has no reply."""
        if self._transport is not None:
            self._transport.write(packed)

    def _hear(self, said: list[Any]) -> None:
        if said[0] == b"smessage" and self._changes is not None:
            self._changes.changed(said[1].decode())
        else:
            super()._hear(said)


class Worker:
    """One worker's connection, and the way by which it hears of others."""

    def __init__(self, way: str, ear: Ear) -> None:
        self.way = way
        self.ear = ear
        self.line: Line
        self._read = self._write = ""

    async def open(self, dialer: Dialer) -> None:
        """Connect, and have the scripts known."""
        changes: Changes | None = self.ear if self.way != "neither" else None
        self.line = await dialer.open(
            dialer.address, lambda: Line(clock=SystemClock(), gone=lambda _: None, changes=changes)
        )
        await self.line.log_in(None, None, 0)
        write = WRITE.replace("{publish}", PUBLISH if self.way == "pubsub" else "")
        self._read = (await self.line.call("SCRIPT", "LOAD", READ)).decode()
        self._write = (await self.line.call("SCRIPT", "LOAD", write)).decode()

    async def listen(self, key: str) -> None:
        """Do once for a session what the way asks for."""
        if self.way == "pubsub":
            subscribe = hiredis.pack_command(("SSUBSCRIBE", key))  # answered by a push, and by no reply
            self.line.send(subscribe)
            await self.line.call("PING")

    async def read(self, key: str) -> None:
        """Read a session, and be told of its next write."""
        before = WATCH if self.way == "tracking" else b""
        heard(await self.line.put(("EVALSHA", self._read, 1, key), before), "read")

    async def write(self, key: str, value: int) -> None:
        """Write a session, and be told of the next write by another."""
        before = WATCH if self.way == "tracking" else b""
        heard(await self.line.put(("EVALSHA", self._write, 1, key, value), before), "write")


def main() -> int:
    """Measure, print, write."""
    given = options(str(__doc__).split("\n", maxsplit=1)[0]).parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print)


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    async with open_servers(given.engine) as stack:
        found = environment(stack, loop=given.loop)
        dialer = Dialer(Settings(redis_endpoint=stack.environment()["REDIS_ENDPOINT"]), clock=SystemClock())
        delays = {way: await _delays(dialer, way, plan) for way in WAYS[1:]}
        rounds = await interleave(plan.rounds, {way: lambda way=way: _messages(dialer, way, plan) for way in WAYS})
        memory = {way: await _memory(dialer, way, plan) for way in WAYS[1:]}
    costs = {
        way: {name: round(median([each[name] for each in results]), 2) for name in results[0]}
        for way, results in rounds.items()
    }
    return {
        "bench": "invalidation",
        "delay_ms": delays,
        "message": costs,
        "server_bytes_a_key": memory,
        "load": {**msgspec.structs.asdict(plan), "in_flight": IN_FLIGHT},
        "environment": found,
    }


async def _opened(dialer: Dialer, way: str, count: int) -> list[Worker]:
    workers = [Worker(way, Ear()) for _ in range(count)]
    for worker in workers:
        await worker.open(dialer)
    return workers


async def _delays(dialer: Dialer, way: str, plan: Plan) -> dict[str, float]:
    """Have one worker write what the other has just read, and wait until it knows."""
    reader, writer = await _opened(dialer, way, 2)
    key, delays_ms = "bench:{delay}", []
    await writer.write(key, 0)
    await reader.listen(key)
    for number in range(plan.writes):
        await reader.read(key)
        known = reader.ear.heard[key] = asyncio.Event()
        begun_s = time.perf_counter()
        writing = asyncio.ensure_future(writer.write(key, number))
        await known.wait()
        delays_ms.append((time.perf_counter() - begun_s) * 1000)
        await writing
    for worker in (reader, writer):
        worker.line.abort()
    return latencies_ms(delays_ms)


async def _messages(dialer: Dialer, way: str, plan: Plan) -> dict[str, float]:
    """Return what a message costs the worker whose sessions they are, and the server: processor time, microseconds."""
    (worker,) = await _opened(dialer, way, 1)
    keys = [f"bench:{{{number}}}" for number in range(IN_FLIGHT)]
    for key in keys:
        await worker.write(key, 0)
        await worker.listen(key)
    before_s = await _server_cpu_s(worker)

    async def chat(key: str) -> None:
        for number in range(plan.messages // IN_FLIGHT):
            await worker.read(key)
            await worker.write(key, number)
            await worker.write(key, number)

    cpu_s = time.process_time()
    await asyncio.gather(*(chat(key) for key in keys))
    client_s = time.process_time() - cpu_s
    server_s = await _server_cpu_s(worker) - before_s
    worker.line.abort()
    return {
        "client_us": client_s / plan.messages * 1e6,
        "server_us": server_s / plan.messages * 1e6,
        "notices": worker.ear.count / plan.messages,
    }


async def _server_cpu_s(worker: Worker) -> float:
    text = (await worker.line.call("INFO", "cpu")).decode()
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return float(values["used_cpu_user"]) + float(values["used_cpu_sys"])


async def _memory(dialer: Dialer, way: str, plan: Plan) -> float:
    """Return what the server keeps for each session that a worker holds."""
    (worker,) = await _opened(dialer, way, 1)
    keys = [f"bench:{{{way}{number}}}" for number in range(plan.keys)]
    for start in range(0, plan.keys, 1000):
        await asyncio.gather(*(worker.line.call("HSET", key, "t", 1) for key in keys[start : start + 1000]))
        await asyncio.gather(*(worker.line.call("PEXPIRE", key, TTL_MS) for key in keys[start : start + 1000]))
    before = await _used(worker)
    for key in keys:
        await (worker.read(key) if way == "tracking" else worker.listen(key))
    used = await _used(worker) - before
    worker.line.abort()
    return round(used / plan.keys, 1)


async def _used(worker: Worker) -> int:
    text = (await worker.line.call("INFO", "memory")).decode()
    return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).split(":")[1])


def _print(figures: dict[str, Any]) -> None:
    print_table(
        "from the write to the other's memory, ms",
        ("p50", "p99", "max"),
        [(way, list(each.values())) for way, each in figures["delay_ms"].items()],
    )
    print_table(
        "a message: a read and two writes",
        ("client us", "server us", "notices"),
        [(way, list(each.values())) for way, each in figures["message"].items()],
    )
    print_table(
        "the server's memory for a session held",
        ("bytes",),
        [(way, [each]) for way, each in figures["server_bytes_a_key"].items()],
    )


if __name__ == "__main__":
    sys.exit(main())
