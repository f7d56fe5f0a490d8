"""The servers of a bench, its own and gone with it; what Redis says was asked of it, and what CPU they took."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis

from mangacache.local import LocalOptions, LocalStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STATS: Final = {
    "round_trips": "total_reads_processed",
    "bytes_in": "total_net_input_bytes",
    "bytes_out": "total_net_output_bytes",
}


@asynccontextmanager
async def open_servers(engine: str, *, redis: bool = True, dax: bool = False) -> AsyncIterator[LocalStack]:
    """Start Valkey and DAX, where they are wanted, and a local DynamoDB on free loopback ports, and make the table.

    Raises:
        MangaCacheError: a server is not installed or does not come up.
    """
    async with LocalStack.open(LocalOptions(engine=engine, redis=redis, dax=dax)) as stack:
        await _create_table(stack.environment())
        yield stack


async def _create_table(variables: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mangacache.cli", "tables", "create",
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the table could not be made: {said.decode(errors='replace').strip()}")


class CpuMeter:
    """Counts the CPU time of the servers, so that a bench can tell whose limit it met; Linux alone keeps the books."""

    def __init__(self, stack: LocalStack) -> None:
        self._pids = {"dynamodb": stack.dynamodb.pid} | ({"redis": stack.valkey.pid} if stack.valkey else {})
        self._before: dict[str, float | None] = {}

    def start(self) -> None:
        """Begin to count."""
        self._before = {name: process_cpu_s(pid) for name, pid in self._pids.items()}

    def stop(self) -> dict[str, float | None]:
        """Return the seconds of each server since `start`, to 10 ms; None where that is not known."""
        spent: dict[str, float | None] = {}
        for name, pid in self._pids.items():
            now, before = process_cpu_s(pid), self._before.get(name)
            spent[name] = None if now is None or before is None else now - before
        return spent


def process_cpu_s(pid: int) -> float | None:
    """Return the CPU seconds of a process so far, to 10 ms; None where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RedisMeter:
    """Counts what reached the server, from the server's own books: it trusts no client.

    A round trip is a read of a socket that found something: a command, or a pipeline of them. Commands that a script
    runs are counted among the calls, with the script, as the server does. Made by `open`, before anybody else is
    connected: what the meter itself causes is measured then, and left out.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._before: dict[str, Any] = {}
        self._own = dict.fromkeys(_STATS, 0)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[RedisMeter]:
        """Connect, and measure an interval in which nothing happens."""
        async with Redis.from_url(url, decode_responses=True) as redis:
            meter = cls(redis)
            await meter.start()
            await meter.start()  # the first one's answer was shorter: it did not hold the call itself
            idle = await meter.stop()
            meter._own = {name: idle[name] for name in _STATS}
            yield meter

    async def start(self) -> None:
        """Begin to count."""
        self._before = await self._redis.info("everything")

    async def stop(self) -> dict[str, Any]:
        """Return what has been counted since `start`: round trips, bytes and calls by command."""
        now = await self._redis.info("everything")
        grown = {name: now[stat] - self._before[stat] - self._own[name] for name, stat in _STATS.items()}
        calls = {
            name.removeprefix("cmdstat_"): entry["calls"] - self._before.get(name, {"calls": 0})["calls"]
            for name, entry in sorted(now.items())
            if name.startswith("cmdstat_") and name != "cmdstat_info"
        }
        return grown | {"calls": {name: count for name, count in calls.items() if count}}
