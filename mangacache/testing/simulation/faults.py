"""What goes wrong in a simulation, chosen by its seed: when, for how long, to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mangacache.testing.simulation import dynamodb, redis

if TYPE_CHECKING:
    import random as _random
    from collections.abc import Awaitable, Callable, Sequence

    from mangacache.testing.simulation.network import Way
    from mangacache.testing.simulation.world import Worker, World


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: a key of `KINDS`.
        at_s: when, from the beginning.
        lasts_s: for how long, where it lasts.
    """

    kind: str
    at_s: float
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.at_s:.2f} s for {self.lasts_s:.2f} s"


class Chaos:
    """Makes faults happen, and mends them.

    Args:
        world: that they befall.
        replace: starts a new worker where one was taken away.
    """

    def __init__(self, world: World, replace: Callable[[], Awaitable[None]]) -> None:
        self.world = world
        self.random = world.random_for("faults")
        self._replace = replace

    async def wreak(self, fault: Fault, begun_s: float) -> None:
        """Wait for a fault's time, and let it happen for as long as it lasts."""
        clock = self.world.clock
        await clock.sleep(max(0.0, begun_s + fault.at_s - clock.monotonic_s()))
        self.world.note("fault", fault.kind)
        await KINDS[fault.kind](self, fault.lasts_s)
        self.world.note("fault", f"{fault.kind}: over")

    def mend(self) -> None:
        """End whatever can be ended."""
        world = self.world
        world.note("fault", "everything is mended")
        for process in (world.redis.process, world.dynamodb.process, *(worker.process for worker in world.workers)):
            process.go_on()
        for address in (redis.ADDRESS, dynamodb.ADDRESS):
            for way in world.network.ways_to(address):
                way.mend()
        world.dynamodb.mend()
        world.redis.unite()
        if not world.redis.node.alive:
            world.redis.restart()

    # What the kinds are made of

    def someone(self) -> Worker | None:
        """Return one of the workers that are alive."""
        alive = [worker for worker in self.world.workers if worker.alive]
        return self.random.choice(alive) if alive else None

    async def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        await self.world.clock.sleep(seconds)

    def ways(self, address: str) -> list[Way]:
        """Return the ways of one worker or of all to an address."""
        worker = self.someone()
        if worker is None or self.random.random() < _ALL:
            return self.world.network.ways_to(address)
        return [self.world.network.way(worker.process, address)]

    async def take_away(self, *, politely: bool, after_s: float) -> None:
        """Kill or stop a worker, and start another one later; one stays."""
        alive = [worker for worker in self.world.workers if worker.alive]
        if len(alive) < _LEAST:
            return
        worker = self.random.choice(alive)
        if politely:
            await worker.stop()
        else:
            worker.kill()
        await self.pass_s(after_s)
        await self._replace()


_ALL: Final = 0.3
_LEAST: Final = 2
_LOOKS_S: Final = 1.5
"""Within which a supervisor has looked at its memory."""
_NOTICES: Final = 0.5
_ALL_KEYS, _SCRIPTS = 0.1, 0.2


async def _redis_killed(chaos: Chaos, lasts_s: float) -> None:
    chaos.world.redis.kill()
    await chaos.pass_s(lasts_s)
    chaos.world.redis.restart()


async def _failover(chaos: Chaos, lasts_s: float) -> None:
    chaos.world.redis.lag()
    await chaos.pass_s(lasts_s / 4)
    chaos.world.redis.fail_over()


async def _split_brain(chaos: Chaos, lasts_s: float) -> None:
    chaos.world.redis.lag()
    await chaos.pass_s(lasts_s / 4)
    chaos.world.redis.split_brain()
    for worker in chaos.world.workers:
        if chaos.random.random() < _NOTICES:
            chaos.world.network.way(worker.process, redis.ADDRESS).reset()
    await chaos.pass_s(lasts_s)
    chaos.world.redis.unite()


async def _redis_stands_still(chaos: Chaos, lasts_s: float) -> None:
    chaos.world.redis.process.stop()
    await chaos.pass_s(lasts_s)
    chaos.world.redis.process.go_on()


async def _redis_forgets(chaos: Chaos, lasts_s: float) -> None:
    ends_s = chaos.world.clock.monotonic_s() + lasts_s
    while chaos.world.clock.monotonic_s() < ends_s:
        chance = chaos.random.random()
        if chance < _ALL_KEYS:
            chaos.world.redis.flush()
        elif chance < _SCRIPTS:
            chaos.world.redis.forget_scripts()
        else:
            chaos.world.redis.evict()
        await chaos.pass_s(chaos.random.random() * 0.1)


async def _cut(chaos: Chaos, address: str, lasts_s: float) -> None:
    ways = chaos.ways(address)
    for way in ways:
        way.cut = True
        way.reset()
    await chaos.pass_s(lasts_s)
    for way in ways:
        way.cut = False


async def _silent(chaos: Chaos, address: str, lasts_s: float) -> None:
    ways = chaos.ways(address)
    for way in ways:
        way.silent = True
    await chaos.pass_s(lasts_s)
    for way in ways:
        way.silent = False


async def _lossy(chaos: Chaos, address: str, lasts_s: float) -> None:
    ways = chaos.ways(address)
    for way in ways:
        way.loses = chaos.random.random() * 0.2
        way.delays = chaos.random.random() * 0.3
        way.late_s = chaos.random.random() * 3
    await chaos.pass_s(lasts_s)
    for way in ways:
        way.loses = way.delays = 0.0


async def _resets(chaos: Chaos, lasts_s: float) -> None:
    for _ in range(4):
        for way in chaos.ways(redis.ADDRESS):
            way.reset()
        await chaos.pass_s(chaos.random.random() * lasts_s / 2)


async def _redis_cut(chaos: Chaos, lasts_s: float) -> None:
    await _cut(chaos, redis.ADDRESS, lasts_s)


async def _redis_silent(chaos: Chaos, lasts_s: float) -> None:
    await _silent(chaos, redis.ADDRESS, lasts_s)


async def _redis_lossy(chaos: Chaos, lasts_s: float) -> None:
    await _lossy(chaos, redis.ADDRESS, lasts_s)


async def _dynamodb_cut(chaos: Chaos, lasts_s: float) -> None:
    await _cut(chaos, dynamodb.ADDRESS, lasts_s)


async def _dynamodb_silent(chaos: Chaos, lasts_s: float) -> None:
    await _silent(chaos, dynamodb.ADDRESS, lasts_s)


async def _dynamodb_lossy(chaos: Chaos, lasts_s: float) -> None:
    await _lossy(chaos, dynamodb.ADDRESS, lasts_s)


async def _dynamodb_overloaded(chaos: Chaos, lasts_s: float) -> None:
    chaos.world.dynamodb.throttles = chaos.random.random() * 0.4
    chaos.world.dynamodb.fails = chaos.random.random() * 0.3
    await chaos.pass_s(lasts_s)
    chaos.world.dynamodb.mend()


async def _dynamodb_stands_still(chaos: Chaos, lasts_s: float) -> None:
    chaos.world.dynamodb.process.stop()
    await chaos.pass_s(lasts_s)
    chaos.world.dynamodb.process.go_on()


async def _worker_killed(chaos: Chaos, lasts_s: float) -> None:
    await chaos.take_away(politely=False, after_s=lasts_s)


async def _worker_stopped(chaos: Chaos, lasts_s: float) -> None:
    await chaos.take_away(politely=True, after_s=lasts_s)


async def _worker_stands_still(chaos: Chaos, lasts_s: float) -> None:
    worker = chaos.someone()
    if worker is not None:
        worker.process.stop()
        await chaos.pass_s(lasts_s)
        worker.process.go_on()


async def _memory_is_short(chaos: Chaos, lasts_s: float) -> None:
    worker = chaos.someone()
    if worker is not None:
        worker.memory.used, worker.memory.limit = 95, 100
        await chaos.pass_s(max(lasts_s, _LOOKS_S))
        worker.memory.used = worker.memory.limit = 0


KINDS: Final[dict[str, Callable[[Chaos, float], Awaitable[None]]]] = {
    "redis is killed and starts empty": _redis_killed,
    "redis fails over to a replica that lags": _failover,
    "redis has two primaries": _split_brain,
    "redis stands still": _redis_stands_still,
    "redis forgets keys and scripts": _redis_forgets,
    "connections to redis are reset": _resets,
    "the way to redis is cut": _redis_cut,
    "the way to redis is silent": _redis_silent,
    "the way to redis loses and delays": _redis_lossy,
    "the way to dynamodb is cut": _dynamodb_cut,
    "the way to dynamodb is silent": _dynamodb_silent,
    "the way to dynamodb loses and delays": _dynamodb_lossy,
    "dynamodb refuses and fails": _dynamodb_overloaded,
    "dynamodb stands still": _dynamodb_stands_still,
    "a worker is killed": _worker_killed,
    "a worker is told to stop": _worker_stopped,
    "a worker stands still": _worker_stands_still,
    "a worker's memory is short": _memory_is_short,
}
"""Each kind of fault, by the name that traces show."""


def planned(random: _random.Random, *, span_s: float, at_most: int, kinds: Sequence[str] | None = None) -> list[Fault]:
    """Return a plan of faults: none to `at_most` of them, within a span of time; of some kinds, or of all."""
    kinds = list(KINDS) if kinds is None else list(kinds)
    return sorted(
        (
            Fault(random.choice(kinds), random.random() * span_s, 0.02 * 200 ** random.random())
            for _ in range(random.randint(0, at_most) if kinds else 0)
        ),
        key=lambda fault: fault.at_s,
    )
