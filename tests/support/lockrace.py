"""Races for locks among real processes that are paused, killed and cut off: how, and what must hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import statistics
import sys
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mangatest import HANG_GUARD_S

from mangacache.testing import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mangatest import World

WORKER = Path(__file__).parent.parent / "faults" / "lock_worker.py"


@dataclass
class Plan:
    """What one worker does: `strands` at once take locks of `sessions` until told to stop; 0 takes one, and waits."""

    sessions: Sequence[str]
    strands: int
    lease_s: float
    redis: str | None
    seed: int = 0


class Worker:
    """One process, the way from it to Redis, and what it reported."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, proxy: Proxy | None) -> None:
        self.name = name
        self.process = process
        self.proxy = proxy
        self.reports: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self.listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, world: World, name: str, plan: Plan, proxy: Proxy | None) -> Worker:
        given = {"endpoint": world.settings.dynamodb_endpoint, "table": world.settings.table_name, **asdict(plan)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), json.dumps(given),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
        )  # fmt: skip
        return cls(name, process, proxy)

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while (line := await self.process.stdout.readline()).endswith(b"\n"):
            self.reports.append({"worker": self.name, **json.loads(line)})
            self.heard.set()

    async def reported(self, call: str) -> dict[str, Any]:
        """Wait for a report."""
        while True:
            for report in self.reports:
                if report["call"] == call:
                    return report
            assert not self.listening.done(), f"{self.name} ended without {call}: {self.reports}"
            self.heard.clear()
            waiting = asyncio.ensure_future(self.heard.wait())
            await asyncio.wait({waiting, self.listening}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    def send(self, number: int) -> None:
        """Send a signal, if there is anybody to take it."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                self.process.send_signal(number)

    def tell(self) -> None:
        """Let it go on, or stop."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(b"\n")

    async def ended(self) -> int:
        """Wait for its end."""
        await self.listening
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.process.wait()


class LockRace:
    """Workers that race for locks while a saboteur is among them.

    Args:
        rounds: how many times a lock is to have been taken at least.
        redis_port: None has no Redis: the fence alone is the lock.
    """

    def __init__(
        self, world: World, *, rounds: int, redis_port: int | None, workers: int = 4, strands: int = 4,
        sessions: int = 6, lease_s: float = 0.2, seed: int = 1,
    ) -> None:  # fmt: skip
        self._world = world
        self._rounds = rounds
        self._redis_port = redis_port
        self._size = workers
        self._strands = strands
        self._sessions = [f"s{number}" for number in range(sessions)]
        self._lease_s = lease_s
        self._noise = random.Random(seed)
        self._started = 0
        self.faults: Counter[str] = Counter()
        self.everybody: list[Worker] = []
        self.reports: list[dict[str, Any]] = []

    async def run(self, within_s: float = HANG_GUARD_S) -> None:
        """Run it to its end."""
        async with self._world.cache() as cache:
            for name in self._sessions:
                await cache.session(name).append(role="user", content="a")
        async with AsyncExitStack() as stack, asyncio.timeout(within_s):
            stack.push_async_callback(self._end)
            running = [await self._start(stack) for _ in range(self._size)]
            for worker in running:
                await worker.reported("ready")
            while self._held() < self._rounds:
                await asyncio.sleep(self._noise.uniform(0.02, 0.08))
                await self._harm(stack, running)
            for worker in running:
                worker.send(signal.SIGCONT)
                if worker.proxy is not None:
                    worker.proxy.restore()
                worker.tell()
            assert [await worker.ended() for worker in running] == [0] * self._size
        self.reports = sorted(
            (report for worker in self.everybody for report in worker.reports), key=lambda report: report["ended"]
        )

    def _held(self) -> int:
        return sum(report["call"] == "held" for worker in self.everybody for report in worker.reports)

    async def _start(self, stack: AsyncExitStack) -> Worker:
        self._started += 1
        proxy, redis = None, None
        if self._redis_port is not None:
            proxy = await stack.enter_async_context(Proxy.open(self._redis_port))
            redis = f"redis://127.0.0.1:{proxy.port}"
        plan = Plan(self._sessions, self._strands, self._lease_s, redis, seed=self._started)
        worker = await Worker.start(self._world, f"w{self._started}", plan, proxy)
        self.everybody.append(worker)
        return worker

    async def _harm(self, stack: AsyncExitStack, running: list[Worker]) -> None:
        """Do something to a worker, and to nobody else meanwhile: pauses are longer than the lease, or shorter."""
        index = self._noise.randrange(len(running))
        worker, dice = running[index], self._noise.random()
        for_s = self._lease_s * self._noise.uniform(0.3, 3.0)
        if dice < 0.55:
            self.faults["paused"] += 1
            worker.send(signal.SIGSTOP)
            await asyncio.sleep(for_s)
            worker.send(signal.SIGCONT)
        elif dice < 0.9 and worker.proxy is not None:
            self.faults["cut off"] += 1
            worker.proxy.cut()
            await asyncio.sleep(for_s)
            worker.proxy.restore()
        elif dice > 0.93:
            self.faults["killed"] += 1
            worker.send(signal.SIGKILL)
            await worker.ended()
            running[index] = await self._start(stack)

    async def _end(self) -> None:
        for worker in self.everybody:
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGKILL)
            await worker.ended()

    # What came of it

    def figures(self) -> dict[str, Any]:
        """Return what is reported of a race."""
        calls = Counter(report["call"] for report in self.reports)
        handed = sorted(hand_overs(self.reports))
        return {
            **{call: calls[call] for call in ("held", "wrote", "refused", "stopped", "failed")},
            **self.faults,
            "by fence alone": sum(report.get("by") == "fence" for report in self.reports),
            "hand-over p50, ms": round(1e3 * statistics.median(handed), 2) if handed else None,
            "hand-over p99, ms": round(1e3 * handed[int(len(handed) * 0.99)], 2) if handed else None,
            "hand-overs": len(handed),
            "overtaken, share": round(overtaken(self.reports), 4),
        }


def stale_writes(reports: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the writes that were accepted though a later holder had the lock before they began, with its claim."""
    claims: dict[str, list[dict[str, Any]]] = defaultdict(list)
    reports = list(reports)
    for report in reports:
        if report["call"] == "held":
            claims[report["session"]].append(report)
    found = []
    for report in reports:
        if report["call"] == "wrote":
            later = (c for c in claims[report["session"]] if c["fence"] > report["fence"])
            found += [(report, claim) for claim in later if claim["ended"] < report["begun"]][:1]
    return found


def check_locks(reports: Iterable[dict[str, Any]]) -> None:
    """No write by a stale holder was accepted, no fence was given twice, and fences grow with what was written."""
    reports = list(reports)
    assert stale_writes(reports) == []
    holders: dict[tuple[str, int], str] = {}
    for report in reports:
        if report["call"] == "held":
            place = (report["session"], report["fence"])
            assert holders.setdefault(place, report["worker"] + str(report["ended"])).endswith(str(report["ended"])), (
                report
            )
    writes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for report in reports:
        if report["call"] == "wrote":
            writes[report["session"]].append((report["revision"], report["fence"]))
    for session, made in writes.items():
        made.sort()
        assert len({revision for revision, _ in made}) == len(made), session
        fences = [fence for _, fence in made]
        assert fences == sorted(fences), f"{session}: a write of an earlier holder came after one of a later"


def hand_overs(reports: Iterable[dict[str, Any]]) -> list[float]:
    """Return how long it took from one holder's leaving to the next's holding, where the next was waiting already."""
    left: dict[tuple[str, int], float] = {}
    reports = list(reports)
    for report in reports:
        if report["call"] == "left":
            left[report["session"], report["fence"]] = report["begun"]
    found = []
    for report in reports:
        before = left.get((report["session"], report["fence"] - 1)) if report["call"] == "held" else None
        if before is not None and report["begun"] < before < report["ended"]:
            found.append(report["ended"] - before)
    return found


def overtaken(reports: Iterable[dict[str, Any]], *, by_s: float = 0.05) -> float:
    """Return the share of claims that came before one of somebody who had asked clearly earlier."""
    claims: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for report in reports:
        if report["call"] == "held" and report.get("by") == "redis":
            claims[report["session"]].append(report)
    late = total = 0
    for made in claims.values():
        made.sort(key=lambda report: report["fence"])
        earliest = float("inf")
        for report in reversed(made):
            total += 1
            late += report["begun"] - by_s > earliest
            earliest = min(earliest, report["begun"])
    return late / total if total else 0.0
