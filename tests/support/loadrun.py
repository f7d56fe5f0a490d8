"""Runs of load on the context cache: worker processes, clients that move between them, and the checked history."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from mangacache import Consistency, MangaCache
from mangacache.settings import specs
from mangacache.tasks import TaskOwner
from mangacache.testing import HistoryRecorder, Promises, check_history, read_history

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mangacache import Settings
    from mangacache.testing import Report

_WORKER = Path(__file__).parent.parent / "faults" / "load_worker.py"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is done.

    Attributes:
        level: `latest` reads without tokens; `session` reads with them.
        operations: of all workers together.
        writes: their share.
        evictions_per_s: contexts thrown out of Redis at random.
        seed: of every choice.
    """

    level: str
    operations: int
    workers: int = 4
    clients: int = 48
    sessions: int = 8
    writes: float = 0.2
    evictions_per_s: float = 20.0
    seed: int = 0

    def names(self) -> list[str]:
        return [f"s{i}" for i in range(self.sessions)]


@dataclass
class Outcome:
    """What came of it: the checker's report, and each worker's own account (None of one that was killed)."""

    report: Report
    ends: list[dict[str, Any] | None]
    elapsed_s: float
    events: Counter[str] = field(default_factory=Counter)

    @property
    def degraded(self) -> int:
        return sum(end["degraded"] for end in self.ends if end)

    @property
    def refused(self) -> int:
        return sum(end["refused"] for end in self.ends if end)

    def summary(self) -> str:
        rate = self.report.operations / self.elapsed_s
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.report.outcomes.items()))
        events = ", ".join(f"{event} {number:.0f}" for event, number in self.events.most_common(12))
        return (
            f"{self.report.operations} operations in {self.elapsed_s:.0f} s ({rate:.0f}/s): {kinds}; "
            f"violations {self.report.counts or 'none'}; degraded reads {self.degraded}; cache: {events}"
        )


class LoadWorker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.process = process
        self.name = name
        self.done = asyncio.Event()
        self.end: dict[str, Any] | None = None
        self.killed = False

    @classmethod
    async def start(cls, plan: dict[str, Any]) -> LoadWorker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(_WORKER),
            json.dumps(plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        worker = cls(process, plan["worker"])
        assert json.loads(await process.stdout.readline()) == "ready"
        return worker

    def tell(self, message: Any) -> None:
        if self.process.returncode is None and not self.killed:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def kill(self) -> None:
        self.killed = True
        self.done.set()
        self.process.kill()


class LoadRun:
    """A run under way; what disturbs it finds the workers here."""

    def __init__(self, load: Load, workers: Sequence[LoadWorker]) -> None:
        self.load = load
        self.workers = list(workers)
        self._random = random.Random(load.seed)
        self._moves = 0
        self._moved = asyncio.Event()

    @property
    def progress(self) -> float:
        """Roughly which share of the operations is done: clients stay 25 operations on average."""
        return self._moves * 25 / self.load.operations

    async def reached(self, share: float) -> None:
        """Wait until this share of the operations is done, or everything is."""
        while self.progress < share and not all(worker.done.is_set() for worker in self.workers):
            self._moved.clear()
            await self._moved.wait()

    def begin(self) -> None:
        for i in range(self.load.clients):
            client = {"id": f"c{i}", "tokens": {}, "said": 0}
            self.workers[i % len(self.workers)].tell(client)

    async def listen(self, worker: LoadWorker) -> None:
        while line := await worker.process.stdout.readline():
            if not line.endswith(b"\n"):
                break
            message = json.loads(line)
            if message == "done":
                worker.done.set()
                self._moved.set()
            elif "hop" in message:
                self._moves += 1
                self._moved.set()
                open_ones = [other for other in self.workers if not other.done.is_set()]
                if open_ones:
                    self._random.choice(open_ones).tell(message["hop"])
            else:
                worker.end = message
        worker.done.set()  # it has ended, in whatever way
        self._moved.set()


async def run_load(
    load: Load,
    *,
    settings: Settings,
    folder: Path,
    redis_of: Callable[[int], str] | None = None,
    disturb: Callable[[LoadRun], Awaitable[Promises | None]] | None = None,
    hang_guard_s: float = 60,
) -> Outcome:
    """Run the load and check its history.

    Args:
        load: what is done.
        settings: of every worker; the table is there.
        folder: where the histories go.
        redis_of: the address by which a worker reaches Redis; the settings' by default.
        disturb: breaks things meanwhile, and says what is not promised because of it.
        hang_guard_s: gives up after this long, and so much more for every 10,000 operations.
    """
    plans = [_plan(load, i, settings, folder, redis_of) for i in range(load.workers)]
    workers = await asyncio.gather(*map(LoadWorker.start, plans))
    run = LoadRun(load, workers)
    failures: list[BaseException] = []
    tasks = TaskOwner(on_failure=lambda _, error: failures.append(error))
    listeners = [tasks.start(run.listen(worker), name=f"listen to {worker.name}") for worker in workers]
    over = asyncio.Event()
    tasks.start(_evict(settings, load, over), name="evict contexts")
    started_ns = monotonic_ns()
    promises: Promises | None = None
    try:
        async with asyncio.timeout(hang_guard_s * (2 + load.operations / 10_000)):
            run.begin()
            if disturb is not None:
                promises = await disturb(run)
            for worker in workers:
                await worker.done.wait()
            elapsed_s = (monotonic_ns() - started_ns) / 1e9
            for worker in workers:
                worker.tell("stop")
            await asyncio.wait(listeners)
            statuses = await asyncio.gather(*(worker.process.wait() for worker in workers))
    finally:
        over.set()  # redis-py can swallow a cancellation, so it is asked to end
        for worker in workers:
            if worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()
        await tasks.settle()
    assert not failures, failures
    assert [status for worker, status in zip(workers, statuses, strict=True) if status and not worker.killed] == []
    await _record_state(load, settings, folder)
    report = await asyncio.to_thread(_checked, folder, promises)
    events: Counter[str] = Counter()
    for worker in workers:
        events.update((worker.end or {}).get("events", {}))
    return Outcome(report, [worker.end for worker in workers], elapsed_s, events)


def _checked(folder: Path, promises: Promises | None) -> Report:
    return check_history(read_history(*sorted(folder.glob("*.history"))), promises=promises)


def _plan(
    load: Load, number: int, settings: Settings, folder: Path, redis_of: Callable[[int], str] | None
) -> dict[str, Any]:
    own = settings if redis_of is None else settings.replace(redis_endpoint=redis_of(number))
    return {
        "worker": f"w{number}",
        "settings": {spec.name: getattr(own, spec.name) for spec in specs()},
        "record": str(folder / f"w{number}.history"),
        "level": load.level,
        "tokens": load.level == "session",
        "sessions": load.names(),
        "operations": load.operations // load.workers,
        "writes": load.writes,
        "seed": load.seed * 1000 + number,
    }


async def _evict(settings: Settings, load: Load, over: asyncio.Event) -> None:
    """Throw contexts out at random, as `allkeys-lru` does where memory is short."""
    address = settings.redis
    if not load.evictions_per_s or address is None:
        return
    async with Redis(host=address.host, port=address.port) as redis:
        while not over.is_set():
            await asyncio.sleep(1 / load.evictions_per_s)
            try:
                if (key := await redis.randomkey()) is not None:
                    await redis.unlink(key)
            except RedisError:
                continue  # it is down on purpose


async def _record_state(load: Load, settings: Settings, folder: Path) -> None:
    """Record all that is stored, read strongly, after everything has ended."""
    with HistoryRecorder(folder / "state.history", worker="state") as recorder:
        async with MangaCache.open(settings.replace(redis_endpoint=None)) as cache:
            for name in load.names():
                session = cache.session(name)
                with recorder.state(name) as call:
                    turns, cursor = [], ""
                    while cursor is not None:
                        page = await session.history(after=cursor, limit=1000)
                        turns.extend(page.turns)
                        cursor = page.newer
                    context = await session.context(turns=1, consistency=Consistency.STRONG)
                    call.saw(context.version, turns)
