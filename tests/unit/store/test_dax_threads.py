"""Calls that block, in threads of our own: bounded, with an end to every wait, and each answer for its own caller."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref

import pytest

from mangacache import Closed, Rejected
from mangacache.clock import SystemClock
from mangacache.store.dax.threads import Threads
from mangacache.telemetry import Telemetry

HANG_GUARD_S = 60


class HandClock(SystemClock):
    """A clock that moves when it is told to; who sleeps by it wakes then."""

    def __init__(self):
        self.now_s = 0.0
        self._moved = asyncio.Event()

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            await self._moved.wait()

    def move(self, seconds):
        self.now_s += seconds
        self._moved.set()
        self._moved = asyncio.Event()


class Gates:
    """Calls that wait in their threads until they are let go."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.made = 0

    def call(self):
        self.made += 1
        self.begun.release()
        assert self.go.wait(HANG_GUARD_S)
        return "done"

    async def have_begun(self, count):
        for _ in range(count):
            assert await asyncio.to_thread(self.begun.acquire, timeout=HANG_GUARD_S)


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def gates():
    made = Gates()
    yield made
    made.go.set()


@pytest.fixture
def make(telemetry):
    """Return what makes threads; they are closed by their tests."""

    def made(count=2, *, limit=8, timeout_s=HANG_GUARD_S, clock=None):
        clock = clock if clock is not None else SystemClock()
        return Threads(count, limit=limit, timeout_s=timeout_s, clock=clock, telemetry=telemetry)

    return made


async def _until(condition):
    async with asyncio.timeout(HANG_GUARD_S):
        while not condition():  # noqa: ASYNC110 - looks from outside
            await asyncio.sleep(0.002)


async def test_calls_run_beside_the_loop_and_no_more_at_once_than_there_are_threads(make, gates):
    threads = make(2)
    calls = [asyncio.ensure_future(threads.run(gates.call)) for _ in range(5)]
    await gates.have_begun(2)
    assert (gates.made, threads.under_way) == (2, 5)
    gates.go.set()
    assert await asyncio.gather(*calls) == ["done"] * 5
    assert threads.under_way == 0
    await threads.close()


async def test_a_call_beyond_the_limit_is_refused_and_not_made(make, gates):
    threads = make(1, limit=3)
    calls = [asyncio.ensure_future(threads.run(gates.call)) for _ in range(3)]
    await gates.have_begun(1)
    with pytest.raises(Rejected, match="dax_calls"):
        await threads.run(gates.call)
    gates.go.set()
    await asyncio.gather(*calls)
    assert gates.made == 3
    await threads.close()


async def test_what_a_call_raises_its_caller_hears(make):
    threads = make()

    def fail():
        raise ConnectionResetError("by peer")

    with pytest.raises(ConnectionResetError):
        await threads.run(fail)
    assert await threads.run(lambda: 1) == 1
    await threads.close()


async def test_a_caller_who_leaves_leaves_a_counted_orphan_and_its_thread_goes_on(make, gates, telemetry):
    threads = make(1)
    call = asyncio.ensure_future(threads.run(gates.call))
    await gates.have_begun(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (threads.orphans, threads.under_way) == (1, 1)
    assert telemetry.value("mangacache_dax_orphans_total") == 1
    gates.go.set()
    assert await threads.run(lambda: "next") == "next"
    assert (threads.orphans, threads.under_way) == (0, 0)
    await threads.close()


async def test_a_caller_who_leaves_in_the_very_moment_his_call_begins_leaves_no_uncounted_orphan(make, gates):
    clock, began, go = SystemClock(), threading.Event(), threading.Event()
    loops_own = threading.get_ident()

    class Slow(SystemClock):
        def monotonic_s(self):
            if threading.get_ident() != loops_own:
                began.set()
                assert go.wait(HANG_GUARD_S)
            return clock.monotonic_s()

    threads = make(1, clock=Slow())
    gates.go.set()
    call = asyncio.ensure_future(threads.run(gates.call))
    assert await asyncio.to_thread(began.wait, HANG_GUARD_S)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    orphans = threads.orphans
    go.set()
    await threads.close()
    assert (orphans, gates.made) in {(0, 0), (1, 1)}
    assert threads.orphans == 0


async def test_a_call_whose_caller_left_before_it_began_is_not_made(make, gates):
    threads = make(1)
    first = asyncio.ensure_future(threads.run(gates.call))
    await gates.have_begun(1)
    second = asyncio.ensure_future(threads.run(gates.call))
    await _until(lambda: threads.under_way == 2)
    second.cancel()
    await asyncio.wait((second,))
    assert threads.orphans == 0
    gates.go.set()
    await first
    await threads.close()
    assert gates.made == 1


async def test_a_call_that_takes_too_long_ends_for_its_caller_and_counts_until_it_has_ended(make, gates):
    clock = HandClock()
    threads = make(1, limit=2, timeout_s=5.0, clock=clock)
    first = asyncio.ensure_future(threads.run(gates.call))
    await gates.have_begun(1)
    second = asyncio.ensure_future(threads.run(gates.call))  # which waits for the thread that the first one has
    await _until(lambda: threads.under_way == 2)
    clock.move(5.0)
    for call in (first, second):
        with pytest.raises(TimeoutError):
            await call
    assert (threads.orphans, threads.under_way) == (1, 2)
    with pytest.raises(Rejected):
        await threads.run(gates.call)
    gates.go.set()
    await threads.drained()
    assert (gates.made, threads.orphans) == (1, 0)
    await threads.close()


async def test_each_of_many_calls_has_its_own_time(make, gates):
    clock = HandClock()
    threads = make(4, limit=100, timeout_s=5.0, clock=clock)
    for _ in range(3):  # again after the one that looks after them has had nothing to do
        early = [asyncio.ensure_future(threads.run(gates.call)) for _ in range(2)]
        await gates.have_begun(2)
        clock.move(3.0)
        late = asyncio.ensure_future(threads.run(gates.call))
        await gates.have_begun(1)
        quick = [await threads.run(lambda i=i: i) for i in range(50)]
        assert quick == list(range(50))
        clock.move(2.0)
        ended = await asyncio.gather(*early, return_exceptions=True)
        assert [type(error) for error in ended] == [TimeoutError] * 2
        assert not late.done()
        clock.move(3.0)
        with pytest.raises(TimeoutError):
            await late
        gates.go.set()
        await threads.drained()
        gates.go.clear()
        await _until(lambda: not threads._looking)
    await threads.close()


async def test_a_patient_call_waits_however_long_it_takes(make, gates):
    threads = make(2, timeout_s=0.02)
    patient = asyncio.ensure_future(threads.run(gates.call, patient=True))
    with pytest.raises(TimeoutError):
        await threads.run(gates.call)
    gates.go.set()
    assert await patient == "done"
    await threads.close()


async def test_answers_go_to_their_own_callers_while_others_leave_at_any_moment(make):
    chance = random.Random(7)
    threads = make(6, limit=10_000)
    wrong = []

    async def caller(number):
        result = await threads.run(lambda: number)
        if result != number:
            wrong.append((number, result))
        return number

    for _ in range(40):
        callers = [asyncio.ensure_future(caller(i)) for i in range(100)]
        await asyncio.sleep(0)
        for one in chance.sample(callers, 30):
            one.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        ended = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) or one == i for i, one in enumerate(ended))
    await threads.drained()
    assert (wrong, threads.orphans, threads.under_way) == ([], 0, 0)
    await threads.close()


async def test_how_long_calls_waited_for_a_thread_is_counted(make, telemetry):
    threads = make(1)
    for _ in range(5):
        await threads.run(lambda: None)
    assert telemetry.value("mangacache_dax_queue_seconds_count") == 5
    await threads.close()


async def test_closing_waits_for_what_runs_and_takes_in_nothing_more(make, gates):
    threads = make(1)
    call = asyncio.ensure_future(threads.run(gates.call))
    await gates.have_begun(1)
    closing = asyncio.ensure_future(threads.close())
    await asyncio.sleep(0)
    with pytest.raises(Closed):
        await threads.run(gates.call)
    assert not closing.done()
    gates.go.set()
    await closing
    assert await call == "done"


async def test_an_answer_is_kept_by_nobody_but_its_caller(make):
    class Big:
        pass

    threads = make(1)
    kept = weakref.ref(await threads.run(Big))
    await threads.run(lambda: None)
    gc.collect()
    assert kept() is None
    await threads.close()


def test_no_thread_outlives_the_loop_even_where_nobody_closed_them(telemetry):
    before = set(threading.enumerate())

    async def careless():
        threads = Threads(3, limit=8, timeout_s=1.0, clock=SystemClock(), telemetry=telemetry)
        await asyncio.gather(*(threads.run(lambda: None) for _ in range(6)))
        await threads.abandon()

    asyncio.run(careless())
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG_GUARD_S)
    assert set(threading.enumerate()) <= before
