"""A world to run in: machines with workers, a Redis, a DynamoDB and a network, on one loop with virtual time."""

from __future__ import annotations

import asyncio
import gc
import random as _random
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from mangacache.service import MangaCache
from mangacache.settings import Settings
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing.simulation import dynamodb, redis
from mangacache.testing.simulation.clock import SimulatedClock
from mangacache.testing.simulation.loop import SimulatedLoop
from mangacache.testing.simulation.network import Network
from mangacache.testing.simulation.tracing import Trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mangacache.testing.simulation.processes import Process

T = TypeVar("T")

SETTINGS: Final = Settings(table_name="simulated", redis_endpoint=f"redis://{redis.ADDRESS}")


class Died(Exception):
    """The worker was killed before the call ended: whether it had an effect is unknown."""


class SimulatedMemory:
    """The memory of a worker's machine: as much as the simulation says, whatever the real one has.

    Attributes:
        used: how many bytes count against the limit.
        limit: how many there may be; 0 where that cannot be told.
    """

    __slots__ = ("limit", "used")

    def __init__(self) -> None:
        self.used = self.limit = 0

    def used_bytes(self) -> int:
        """See `mangacache.sessions.memory.Memory`."""
        return self.used

    def limit_bytes(self) -> int:
        """See `mangacache.sessions.memory.Memory`."""
        return self.limit


class RemoteCall(Generic[T]):
    """Something that runs in a worker's process.

    Attributes:
        ended: done when it has ended there, or its process was killed, which is a `Died`.
    """

    __slots__ = ("_task", "ended")

    def __init__(self, task: asyncio.Task[T] | None, ended: asyncio.Future[T]) -> None:
        self._task = task
        self.ended = ended

    def cancel(self) -> None:
        """Cancel it, as a caller does who leaves; it may take its time to end, or end otherwise."""
        if self._task is not None:
            self._task.cancel()


class Worker:
    """A process that has a `MangaCache` open.

    Attributes:
        name: of the process.
        process: that it runs in.
        clock, memory: of its machine.
        cache: the instance; use it only in what `call` runs.
    """

    def __init__(self, world: World, name: str, settings: Settings, *, wrong_by_s: float) -> None:
        self.name = name
        self.process: Process = world.loop.process(name)
        self.clock = SimulatedClock(world.loop, wrong_by_s=wrong_by_s)
        self.memory = SimulatedMemory()
        self._world = world
        self._settings = settings
        self._cache: MangaCache | None = None
        self._calls: dict[asyncio.Future[Any], None] = {}
        self._stopping = asyncio.Event()
        self._main: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.process}>"

    @property
    def cache(self) -> MangaCache:
        """The instance."""
        if self._cache is None:
            raise AssertionError(f"{self.name} has not been opened")
        return self._cache

    @property
    def is_open(self) -> bool:
        """Whether the instance has been opened."""
        return self._cache is not None

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self.process.alive and not self._stopping.is_set()

    async def open(self) -> None:
        """Open the instance; what goes wrong is raised."""
        opened: asyncio.Future[None] = self._world.loop.create_future()
        self._main = self._started(self._run(opened), name=f"{self.name} runs").ended
        await asyncio.wait((opened, self._main), return_when=asyncio.FIRST_COMPLETED)
        if self._main.done():
            self._stopping.set()
            self._main.result()

    async def _run(self, opened: asyncio.Future[None]) -> None:
        world = self._world
        async with MangaCache.open(
            self._settings,
            clock=self.clock,
            random=world.random_for(self.name),
            transport=AioTransport(world.dynamodb.client()),
            memory=self.memory,
        ) as cache:
            self._cache = cache
            opened.set_result(None)
            await self._stopping.wait()

    async def call(self, function: Callable[[MangaCache], Awaitable[T]]) -> T:
        """Run something in the worker's process and return its result.

        Raises:
            Died: the worker was killed meanwhile.
        """
        call = self.begin(function)
        try:
            return await call.ended
        except asyncio.CancelledError:
            call.cancel()
            raise

    def begin(self, function: Callable[[MangaCache], Awaitable[T]]) -> RemoteCall[T]:
        """Begin something in the worker's process."""

        async def run() -> T:
            return await function(self.cache)

        return self._started(run(), name=f"a call to {self.name}")

    def _started(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> RemoteCall[T]:
        loop = self._world.loop
        ended: asyncio.Future[T] = loop.create_future()
        if not self.process.alive:
            coroutine.close()
            ended.set_exception(Died(f"{self.name} was killed"))
            return RemoteCall(None, ended)
        task = loop.start(self.process, coroutine, name=name)
        self._calls[ended] = None

        def passed_on(task: asyncio.Task[Any]) -> None:
            self._calls.pop(ended, None)
            if ended.done():  # the process was killed before this was heard
                task.cancelled() or task.exception()
            elif task.cancelled():
                ended.cancel()
            elif (error := task.exception()) is not None:
                ended.set_exception(error)
            else:
                ended.set_result(task.result())

        task.add_done_callback(passed_on)
        return RemoteCall(task, ended)

    async def stop(self) -> None:
        """Close the instance as SIGTERM has it closed, and wait until that is done."""
        self._stopping.set()
        if self._main is not None:
            await asyncio.wait((self._main,))
            self._main.result()

    def kill(self) -> None:
        """End the process as SIGKILL does. What it has sent may arrive still."""
        self._world.note(self.name, "killed")
        self.process.kill()
        self._world.network.died(self.process)
        calls, self._calls = self._calls, {}
        for ended in calls:
            if not ended.done():
                ended.set_exception(Died(f"{self.name} was killed"))


class World:
    """Everything that a simulation is about; made by `simulate`.

    Args:
        seed: of every choice.
        trace: take down what happens.
        show: called with each line of the trace.
        ends_within_s: how much virtual time may pass.

    Attributes:
        seed: as given.
        loop: the loop.
        random: for whoever drives the simulation.
        network, redis, dynamodb: the surroundings.
        trace: what happened; None where it is not taken down.
        begun_s, ended_s: what the loop's clock read at the beginning, and at the end.
        workers: those that were started, dead ones too.
    """

    def __init__(
        self,
        seed: int,
        *,
        trace: bool = False,
        show: Callable[[str], None] | None = None,
        ends_within_s: float = 3600.0,
    ) -> None:
        self.seed = seed
        self.loop = SimulatedLoop(self.random_for("order"), ends_within_s=ends_within_s)
        self.random = self.random_for("driver")
        self.trace = Trace(self.loop, show=show) if trace else None
        self.network = Network(self.loop, self.random_for("network"), trace=self.trace)
        self.redis = redis.SimulatedRedis(
            self.loop, self.network, clock=SimulatedClock(self.loop), random=self.random_for("redis")
        )
        self.dynamodb = dynamodb.SimulatedDynamoDB(
            self.loop, self.network, clock=SimulatedClock(self.loop), random=self.random_for("dynamodb")
        )
        self.clock = SimulatedClock(self.loop)
        self.begun_s = self.ended_s = self.loop.time()
        self.workers: list[Worker] = []

    def __repr__(self) -> str:
        return f"<World of seed {self.seed}, {len(self.workers)} workers>"

    def random_for(self, name: str) -> _random.Random:
        """Return a generator of its own for each name, seeded by the world's seed."""
        return _random.Random(f"{self.seed}/{name}")

    def note(self, who: str, what: str) -> None:
        """Have the trace take something down, where there is one."""
        if self.trace is not None:
            self.trace.note(who, what)

    async def begin(self, settings: Settings = SETTINGS) -> None:
        """Make the table."""
        store = Store(
            AioTransport(self.dynamodb.client()),
            settings=settings,
            clock=self.clock,
            random=self.random,
            telemetry=Telemetry(),
        )
        await store.schema.create()

    async def worker(
        self, name: str | None = None, *, settings: Settings = SETTINGS, wrong_by_s: float = 0.0
    ) -> Worker:
        """Start a worker in a process of its own, and open it.

        Args:
            name: of the process.
            settings: of the instance.
            wrong_by_s: how far its machine's wall clock is off.
        """
        worker = Worker(self, name or f"w{len(self.workers)}", settings, wrong_by_s=wrong_by_s)
        self.workers.append(worker)
        self.note(worker.name, "starts")
        await worker.open()
        return worker

    async def stop(self) -> None:
        """Stop every worker that is alive."""
        for worker in self.workers:
            if worker.alive:
                await worker.stop()

    def left_behind(self) -> list[str]:
        """Return what processes that have stopped should not have left: tasks, connections."""
        left = []
        for worker in self.workers:
            if worker.process.alive:
                left += [f"{worker.name} left the task {task.get_name()!r}" for task in worker.process.tasks()]
        open_ones = [session.connection for session in self.redis.sessions if not session.connection.is_closing()]
        owners = {connection.process.name for connection in open_ones}
        return left + [f"{name} left a connection to Redis" for name in sorted(owners)]


def simulate(
    story: Callable[[World], Awaitable[T]],
    *,
    seed: int = 0,
    trace: bool = False,
    show: Callable[[str], None] | None = None,
    ends_within_s: float = 3600.0,
) -> tuple[T, World]:
    """Run a story in a world of its own, with the table there, and return its result and the world.

    Args:
        story: drives the simulation: starts workers, calls them, breaks what may break.
        seed: of every choice; the same seed gives the same run.
        trace: take down what happens.
        show: called with each line of the trace.
        ends_within_s: how much virtual time may pass before the run counts as hanging.

    Raises:
        Stuck: nothing can go on, or it does not end.
    """
    world = World(seed, trace=trace, show=show, ends_within_s=ends_within_s)
    before = asyncio.events._get_running_loop()  # noqa: SLF001 - asked so that the refusal can say what is wrong
    if before is not None:
        raise RuntimeError("simulate runs a loop of its own: call it from a plain function, not from a coroutine")

    async def told() -> T:
        await world.begin()
        return await story(world)

    collects = gc.isenabled()
    gc.disable()  # when it collects depends on what ran before, and what it collects may have something to clean up
    try:
        return world.loop.run_until_complete(told()), world
    finally:
        world.ended_s = world.loop.time()
        world.loop.close()
        if collects:
            gc.enable()
