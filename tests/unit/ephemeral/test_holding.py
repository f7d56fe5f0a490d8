"""A held lock by a clock of the test's own: when it is renewed, when it counts as lost, and who hears of it."""

from __future__ import annotations

import asyncio

import pytest
from mangatest import HANG_GUARD_S

from mangacache import Conflict, Transient
from mangacache.clock import SystemClock
from mangacache.ephemeral import Held
from mangacache.tasks import TaskOwner


class StepClock(SystemClock):
    """A clock that stands still until everybody sleeps, and then goes on to where the first one wakes."""

    def __init__(self):
        self.now_s = 1000.0
        self.wakes = []

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        woken = asyncio.Event()
        self.wakes.append((self.now_s + seconds, woken))
        await woken.wait()

    async def step(self):
        """Let the first sleeper wake, once it sleeps."""
        async with asyncio.timeout(HANG_GUARD_S):
            while not self.wakes:  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0)
        self.wakes.sort(key=lambda wake: wake[0])
        self.now_s, woken = self.wakes.pop(0)
        woken.set()
        for _ in range(5):
            await asyncio.sleep(0)


class Lock:
    """A lock of a lease of 9 s, and what its renewals are to say: True, False or an error."""

    def __init__(self, *answers):
        self.clock = StepClock()
        self.answers = list(answers)
        self.renewed_at = []
        self.watched = []
        self.tasks = TaskOwner(on_failure=lambda name, error: pytest.fail(f"{name}: {error}"))
        self.held = Held("s", fence=7, source="redis", waited_s=0.0, lease_s=9.0, taken_at_s=1000.0, clock=self.clock)

    async def renew(self):
        self.renewed_at.append(self.clock.now_s - 1000.0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def begin(self):
        self.held.begin(self.renew, tasks=self.tasks, watched=lambda what, _: self.watched.append(what))

    async def hold(self):
        self.begin()
        error = None
        try:
            await asyncio.sleep(HANG_GUARD_S)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.held.end(error)
            await self.tasks.cancel()


async def test_it_is_renewed_after_each_third_of_its_lease():
    lock = Lock(*[True] * 4)
    holding = asyncio.ensure_future(lock.hold())
    for _ in range(4):
        await lock.clock.step()
    assert lock.renewed_at == [3, 6, 9, 12]
    lock.held.check()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert not lock.held.lost.is_set()


@pytest.mark.parametrize("failure", [Transient("away"), ZeroDivisionError("nobody thought of it")])
async def test_the_holder_stops_after_two_thirds_where_no_renewal_gets_through(failure):
    lock = Lock(True, *[failure] * 20)
    holding = asyncio.ensure_future(lock.hold())
    while not lock.held.lost.is_set():
        await lock.clock.step()
    assert lock.renewed_at[0] == 3
    assert lock.clock.now_s - 1000 == 3 + 6, "two thirds after the renewal that was the last was sent"
    assert lock.renewed_at[1:4] == pytest.approx([6, 6.45, 6.9])
    assert set(lock.watched) == {"lock_not_renewed"}
    with pytest.raises(Conflict, match="two thirds of its lease of 9 s"):
        await holding
    assert holding.cancelled() is False


async def test_the_holder_stops_at_once_where_the_lock_is_anothers():
    lock = Lock(False)
    holding = asyncio.ensure_future(lock.hold())
    await lock.clock.step()
    with pytest.raises(Conflict, match="another's"):
        await holding
    assert lock.renewed_at == [3]


async def test_whoever_wakes_from_a_pause_knows_by_looking_before_anybody_has_told_him():
    lock = Lock(True)
    lock.begin()
    lock.held.check()
    lock.clock.now_s += 6
    with pytest.raises(Conflict, match="two thirds"):
        lock.held.check()
    assert lock.held.lost.is_set()
    lock.held.end(None)
    await lock.tasks.cancel()


async def test_code_elsewhere_is_told_and_not_cancelled():
    lock = Lock(False)
    holding = asyncio.ensure_future(lock.hold())
    watching = asyncio.ensure_future(lock.held.lost.wait())
    await lock.clock.step()
    assert await watching is True
    with pytest.raises(Conflict):
        await holding
    assert "lost" in repr(lock.held)


async def test_a_cancellation_from_elsewhere_beside_the_loss_goes_on():
    lock = Lock(False)
    holding = asyncio.ensure_future(lock.hold())
    await asyncio.sleep(0)
    holding.cancel()
    lock.held.lose("for the test")
    with pytest.raises(asyncio.CancelledError):
        await holding
