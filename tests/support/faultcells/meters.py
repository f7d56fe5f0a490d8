"""What is measured beside the calls themselves: requests to DynamoDB, connections, memory, loop lag."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from mangacache.testing.proxy.dynamodb import READS, WRITES

EVERY_S = 0.1
SLOWLY = 10
"""Every how many of these the processes themselves are looked at."""


class Meters:
    """Reads all meters of a stage ten times a second."""

    def __init__(self, stage):
        self._stage = stage
        self.rows: list[dict] = []
        self.processes: list[dict] = []
        self._task = None

    def start(self):
        self._task = asyncio.create_task(self._run())

    async def stop(self):
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self):
        ticks = 0
        while True:
            self.rows.append(self._row())
            if ticks % SLOWLY == 0:
                await self._look()
            ticks += 1
            await asyncio.sleep(EVERY_S)

    def _row(self):
        requests = self._stage.dynamodb.requests
        return {
            "at_s": self._stage.clock.monotonic_s(),
            "reads": sum(requests[name] for name in READS),
            "writes": sum(requests[name] for name in WRITES),
            "connections": sum(way.counts["accepted"] for way in self._stage.ways),
        }

    async def _look(self):
        row = {"at_s": self._stage.clock.monotonic_s(), "memory_mb": [], "lag_s": []}
        for worker in self._stage.workers:
            row["memory_mb"].append(_memory_mb(worker.process.pid) if worker.runs else None)
            row["lag_s"].append(await self._lag_s(worker))
        self.processes.append(row)

    async def _lag_s(self, worker):
        if not worker.runs:
            return None
        try:
            async with asyncio.timeout(0.5):
                text = await self._stage.talks[worker.number].metrics(worker.operator)
        except Exception:  # noqa: BLE001 - it is stopped, or has just gone
            return None
        for line in text.splitlines():
            if line.startswith("mangacache_loop_lag_seconds "):
                return float(line.rpartition(" ")[2])
        return None


def _memory_mb(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        return None
    return None
