"""The servers of a bench, its own and gone with it; what Redis says was asked of it, and what CPU they took."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from mangacache.local import LocalOptions, LocalStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_servers(engine: str) -> AsyncIterator[LocalStack]:
    """Start Valkey and a local DynamoDB on free loopback ports, and make the table.

    Raises:
        MangaCacheError: a server is not installed or does not come up.
    """
    async with LocalStack.open(LocalOptions(engine=engine)) as stack:
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
        self._before = {name: _cpu_s(pid) for name, pid in self._pids.items()}

    def stop(self) -> dict[str, float | None]:
        """Return the seconds of each server since `start`, to 10 ms; None where that is not known."""
        spent: dict[str, float | None] = {}
        for name, pid in self._pids.items():
            now, before = _cpu_s(pid), self._before.get(name)
            spent[name] = None if now is None or before is None else now - before
        return spent


def _cpu_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RedisMeter:
    """Counts what reached the server, from the server's own books: it trusts no client.

    Commands that a client sent and their bytes come from `CLIENT LIST`, so a script counts once however much it
    does inside; `calls` come from `commandstats` and hold what scripts did, too.
    """

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, decode_responses=True)
        self._clients: dict[str, tuple[int, int, int]] = {}
        self._calls: dict[str, int] = {}

    async def close(self) -> None:
        """Close the meter's own connection."""
        await self._redis.aclose()

    async def start(self) -> None:
        """Begin to count."""
        self._clients, self._calls = await self._read()

    async def stop(self) -> dict[str, Any]:
        """Return what has been counted since `start`."""
        clients, calls = await self._read()
        sent = [0, 0, 0]
        for name, counts in clients.items():
            before = self._clients.get(name, (0, 0, 0))
            sent = [total + now - then for total, now, then in zip(sent, counts, before, strict=True)]
        made = {name: count - self._calls.get(name, 0) for name, count in calls.items()}
        return {
            "commands": sent[0],
            "bytes_in": sent[1],
            "bytes_out": sent[2],
            "calls": {name: count for name, count in sorted(made.items()) if count},
        }

    async def _read(self) -> tuple[dict[str, tuple[int, int, int]], dict[str, int]]:
        own = str(await self._redis.client_id())
        clients: dict[str, tuple[int, int, int]] = {}
        for client in await self._redis.client_list():
            if client["id"] != own:
                clients[client["id"]] = (
                    int(client["tot-cmds"]),
                    int(client["tot-net-in"]),
                    int(client["tot-net-out"]),
                )
        stats = await self._redis.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in stats.items()}
        own_calls = ("client|id", "client|list", "info")
        return clients, {name: count for name, count in calls.items() if name not in own_calls}
