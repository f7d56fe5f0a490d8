"""One run: a world, its workload and its faults by one seed, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from traceback import format_exception
from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Rejected, Transient
from mangacache.model import Consistency, Version
from mangacache.tasks import TaskOwner
from mangacache.testing.history import HistoryRecorder, check_history
from mangacache.testing.history.reading import read_recorded
from mangacache.testing.simulation.checks import ENDS_LEASES, left_in_redis, survived
from mangacache.testing.simulation.faults import Chaos, Fault, planned
from mangacache.testing.simulation.following import Listener
from mangacache.testing.simulation.loop import Stuck
from mangacache.testing.simulation.workload import Chats, Client
from mangacache.testing.simulation.world import SETTINGS, World, simulate

if TYPE_CHECKING:
    import random as _random
    from collections.abc import Callable, Sequence

    from mangacache.service import MangaCache
    from mangacache.sessions import Session
    from mangacache.settings import Settings
    from mangacache.testing.history import Report
    from mangacache.testing.simulation.world import Worker

OPERATIONS: Final = 120
_LEVELS: Final = (Consistency.STRONG, Consistency.LATEST, Consistency.SESSION, Consistency.EVENTUAL(2.0))
_QUIET_S: Final = 0.5
_TRIES: Final = 20
_CROWD: Final[dict[str, Any]] = {
    "workers": 2,
    "clients": 12,
    "sessions": 1,
    "moves": 0.05,
    "leaves": 0.4,
    "rests": 0.0,
    "settings": SETTINGS.replace(near_max_age_s=0.0),
}
"""Many at once in one session, of whom many leave."""
_HEARD_WITHIN_S: Final = 120.0
"""Longer than anything takes that is lost without a sign, and longer than any wait before a connection is tried."""
_MOVED_S: Final = 5.0
"""Longer than it takes every worker to move on to another epoch: its read, the wait for those who may rely on the one
before, and a second try."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a run is like; everything in it comes from the seed.

    Attributes:
        workers, clients, sessions: how many.
        operations: of all clients together.
        settings: of every worker.
        wrong_by_s: how far the workers' wall clocks are off at most.
        levels: that reads ask for.
        token_share: of the reads that carry a token.
        moves: chance of a client to go to another worker before a call.
        leaves: chance of a caller to leave before the call has ended.
        loyalty: chance of a client to stay with its own session.
        listeners: how many follow a session by its events.
        rests, rest_s: how often a client rests after a call, and for how long at most.
        faults: what goes wrong.
    """

    workers: int
    clients: int
    sessions: int
    operations: int
    settings: Settings
    wrong_by_s: float
    levels: tuple[Consistency, ...]
    token_share: float
    moves: float
    leaves: float
    loyalty: float
    rests: float
    rest_s: float
    listeners: int
    faults: tuple[Fault, ...]

    @property
    def session_names(self) -> list[str]:
        """The sessions' ids."""
        return [f"s{number}" for number in range(self.sessions)]

    @classmethod
    def of(
        cls,
        random: _random.Random,
        *,
        operations: int,
        kinds: Sequence[str] | None = None,
        crowded: bool = False,
    ) -> Shape:
        """Return a shape at random: runs differ in kind, and not only in order."""
        settings = SETTINGS.replace(
            redis_policy=random.choice(("available", "available", "hold")),
            memory_sessions=random.choice((0, 1, 100)),
            near_max_age_s=random.choice((0.0, 1.0, 1.0)),
            idle_s=random.choice((1, 600)),
            context_ttl_s=random.choice((1, 300)),
            invalidation_queue=random.choice((1, 10_000)),
            invalidation_deadline_s=random.choice((0.1, 3.0)),
            commit_retry_s=random.choice((0.0, 0.25)),
            degraded_reads_per_s=random.choice((2, 200)),
            mailbox_size=random.choice((2, 64)),
            message_deadline_s=random.choice((0.5, 30.0)),
            touch_every_s=60,
            request_deadline_s=random.choice((3.0, 10.0)),
        )
        clients = random.randint(2, 6)
        rest_s = random.choice((0.0, 0.05, 0.6))
        span_s = 0.1 + operations / clients * (0.01 + rest_s / 3)
        shape = cls(
            workers=random.randint(2, 4),
            clients=clients,
            sessions=random.randint(1, 3),
            operations=operations,
            settings=settings,
            wrong_by_s=random.choice((0.0, 0.0, 60.0)),
            levels=tuple(random.sample(_LEVELS, random.randint(1, len(_LEVELS)))),
            token_share=random.choice((0.0, 0.7, 1.0)),
            moves=random.choice((0.05, 0.4, 1.0)),
            leaves=random.choice((0.0, 0.2)),
            loyalty=random.choice((0.2, 0.8)),
            rests=random.choice((0.0, 0.3, 1.0)),
            rest_s=rest_s,
            listeners=random.randint(0, 2),
            faults=tuple(planned(random, span_s=span_s, at_most=4, kinds=kinds)),
        )
        return replace(shape, **_CROWD) if crowded else shape


@dataclass
class Result:
    """What came of a run.

    Attributes:
        seed: by which it runs again.
        shape: what it was like.
        operations: calls of clients, with those made again.
        report: the history checker's; None where the run was stuck.
        wrong: everything else that should not be, one sentence each.
        virtual_s: how much time passed in it.
        trace: its lines, where they were taken down.
        digest: their hash.
    """

    seed: int
    shape: Shape
    operations: int = 0
    report: Report | None = None
    wrong: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    trace: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.wrong and self.report is not None and self.report.clean

    def text(self) -> str:
        """Return what is to be known of it."""
        shape = self.shape
        lines = [
            (
                f"seed {self.seed}: {shape.workers} workers, {shape.clients} clients, {shape.sessions} sessions, "
                f"{self.operations} operations in {self.virtual_s:.2f} virtual seconds"
            ),
            *(f"  fault: {fault}" for fault in shape.faults),
            *(f"  wrong: {sentence}" for sentence in self.wrong),
        ]
        if self.report is not None and not self.report.clean:
            lines.append(self.report.text())
        return "\n".join(lines)


class Run:
    """A run under way.

    Attributes:
        world: in which it runs.
        shape: what it is like.
    """

    def __init__(self, world: World, shape: Shape) -> None:
        self.world = world
        self.shape = shape
        self.chats = Chats(self)
        self._recorders: dict[str, HistoryRecorder] = {}
        self._begun = 0
        self._clock_random = world.random_for("clocks")

    def recorder(self, worker: Worker) -> HistoryRecorder:
        """Return what records a worker's calls."""
        recorder = self._recorders.get(worker.name)
        if recorder is None:
            recorder = self._recorders[worker.name] = HistoryRecorder(worker=worker.name, clock=self.world.clock)
        return recorder

    async def add_worker(self) -> None:
        """Start one more worker; while its table does not answer it tries again, as what starts workers does."""
        while True:
            wrong_by_s = (2 * self._clock_random.random() - 1) * self.shape.wrong_by_s
            try:
                await self.world.worker(settings=self.shape.settings, wrong_by_s=wrong_by_s)
            except Exception as error:  # noqa: BLE001 - Transient is expected, and anything else a finding
                self._heard(error)
                await self.world.clock.sleep(0.1)
            else:
                return

    def _heard(self, error: Exception) -> None:
        if type(error).__name__ not in ("Transient", "Died"):
            self.chats.wrong.append(f"a worker could not be opened: {error!r}")

    async def story(self) -> Report:
        """Run it to its end, and check it."""
        world, shape = self.world, self.shape
        failed: list[str] = []
        drivers = TaskOwner(on_failure=lambda name, error: failed.append(f"{name}: {error!r}"))
        for _ in range(shape.workers):
            await self.add_worker()
        chaos = Chaos(world, self.add_worker)
        begun_s = world.clock.monotonic_s()
        each = -(-shape.operations // shape.clients)
        clients = [Client(f"c{number}", self.chats) for number in range(shape.clients)]
        chats = [drivers.start(client.chat(each), name=f"client {client.name}") for client in clients]
        sessions = shape.session_names
        listeners = [
            Listener(f"l{number}", sessions[number % len(sessions)], self.chats) for number in range(shape.listeners)
        ]
        for listener in listeners:
            drivers.start(listener.listen(), name=f"listener {listener.name}")
        faults = [
            drivers.start(chaos.wreak(fault, begun_s), name=f"fault {number}")
            for number, fault in enumerate(shape.faults)
        ]
        for task in (*chats, *faults):
            await task
        chaos.mend()
        if self.chats.degraded:
            await self._look_again()
        await self._heard_of_all(listeners)
        for listener in listeners:
            listener.leave()
        await self._end()
        await drivers.settle()
        self.chats.wrong += failed
        return await self._checked()

    async def _look_again(self) -> None:
        """See that all workers know in the end what was acknowledged while it could not be told to them."""
        world, shape = self.world, self.shape
        if shape.settings.redis_policy == "hold" or not all(worker.process.alive for worker in world.workers):
            return  # what a killed worker owed is paid by nobody
        await world.clock.sleep(shape.settings.invalidation_deadline_s + _MOVED_S)

        async def latest(session: Session) -> Version:
            for _ in range(_TRIES):  # who asks Redis for the first time since may meet another primary, and wait
                try:
                    return (await session.context(turns=1, consistency=Consistency.LATEST)).version
                except (Transient, Rejected):
                    await world.clock.sleep(_QUIET_S)
            return (await session.context(turns=1, consistency=Consistency.LATEST)).version

        async def versions(cache: MangaCache) -> list[Version]:
            return [await latest(cache.session(name)) for name in shape.session_names]

        for worker in world.workers:
            if worker.alive:
                found = dict(zip(shape.session_names, await worker.call(versions), strict=True))
                self.chats.wrong += [
                    f"{worker.name} shows {name} at {found[name]}, and {told} was acknowledged long before"
                    for name, told in self.chats.told.items()
                    if not found[name].covers(told)
                ]

    async def _heard_of_all(self, listeners: list[Listener]) -> None:
        """See that whoever listens knows in the end what was acknowledged."""
        world, told = self.world, self.chats.told
        if self.chats.degraded and not all(worker.process.alive for worker in world.workers):
            return  # what a killed worker owed is told by nobody
        ends_s = world.clock.monotonic_s() + _HEARD_WITHIN_S
        behind = listeners
        while behind and world.clock.monotonic_s() < ends_s:
            await world.clock.sleep(_QUIET_S)
            behind = [
                listener for listener in behind if not listener.seen.covers(told.get(listener.session, Version()))
            ]
        self.chats.wrong += [
            f"{listener.name} knows {listener.session} at {listener.seen}, and {told[listener.session]} was "
            "acknowledged long before"
            for listener in behind
        ]

    async def _end(self) -> None:
        world = self.world
        await world.stop()
        await world.clock.sleep(_QUIET_S)
        wrong = self.chats.wrong
        wrong += world.left_behind()
        wrong += left_in_redis(world, leases_end=any(fault.kind in ENDS_LEASES for fault in self.shape.faults))
        for worker in world.workers:
            wrong += survived(worker)
        wrong += [f"unheard: {failure}" for failure in world.loop.failures]

    async def _checked(self) -> Report:
        """Record all that is stored, read strongly, and check the history."""
        worker = await self.world.worker("state", settings=self.shape.settings.replace(redis_endpoint=None))
        recorder = self.recorder(worker)

        async def read_all(cache: MangaCache) -> None:
            for name in self.shape.session_names:
                session = cache.session(name)
                with recorder.state(name) as call:
                    turns: list[Any] = []
                    cursor: str | None = ""
                    while cursor is not None:
                        page = await session.history(after=cursor, limit=1000)
                        turns.extend(page.turns)
                        cursor = page.newer
                    context = await session.context(turns=1, consistency=Consistency.STRONG)
                    call.saw(context.version, turns)

        await worker.call(read_all)
        await worker.stop()
        recorded = [(name, bytes(recorder._memory)) for name, recorder in self._recorders.items()]  # noqa: SLF001
        return check_history(read_recorded(recorded))


def run(
    seed: int,
    *,
    operations: int = OPERATIONS,
    kinds: Sequence[str] | None = None,
    crowded: bool = False,
    trace: bool = False,
    show: Callable[[str], None] | None = None,
) -> Result:
    """Run one seed.

    Args:
        seed: of everything.
        operations: of all clients together, calls made again apart.
        kinds: of faults, keys of `faults.KINDS`: only these; None: any. Without one nothing goes wrong.
        crowded: have many clients in one session, of whom many leave before they are answered.
        trace: take down what happens.
        show: called with each line of the trace.
    """
    made: list[Run] = []

    async def story(world: World) -> Report:
        made.append(
            Run(world, Shape.of(world.random_for("shape"), operations=operations, kinds=kinds, crowded=crowded))
        )
        return await made[0].story()

    report, wrong = None, []
    try:
        report, _ = simulate(story, seed=seed, trace=trace, show=show)
    except Stuck as stuck:
        wrong.append(str(stuck))
    except Exception as error:  # noqa: BLE001 - a finding like any other, told with its seed
        wrong.append("".join(format_exception(error)))
    of = made[0]
    kept = of.world.trace
    return Result(
        seed,
        of.shape,
        operations=of.chats.operations,
        report=report,
        wrong=of.chats.wrong + wrong,
        virtual_s=of.world.ended_s - of.world.begun_s,
        trace=kept.lines if kept is not None else [],
        digest=kept.digest if kept is not None else "",
    )
