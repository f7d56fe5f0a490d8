"""How a worker's time to leave is shared, and that one step that hangs or fails holds up no other."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
from mangatest import SetClock

from mangacache import Settings
from mangacache.telemetry import Telemetry
from mangacache.worker import process
from mangacache.worker.draining import EXIT_BY_S, PORT, REQUESTS, REST, SESSIONS, SOCKETS, TRACES, Ending, plan
from mangacache.worker.readiness import Readiness


@pytest.mark.parametrize("notice_s", [0.0, 3.0, 15.0])
@pytest.mark.parametrize("drain_s", [0.0, 5.0, 20.0, 25.0])
def test_all_steps_together_leave_time_to_be_gone_in_25_seconds(notice_s, drain_s):
    within = plan(Settings(worker_notice_s=notice_s, drain_timeout_s=drain_s))
    assert within.notice_s == notice_s
    assert min(within.requests_s, within.sessions_s) >= 0
    assert within.requests_s + within.sessions_s == pytest.approx(min(drain_s, EXIT_BY_S - 3 - notice_s))
    assert within.notice_s + sum(within.shares.values()) <= EXIT_BY_S - 0.5 + 1e-9
    assert within.shares[SESSIONS] > within.sessions_s, "the sessions' own end is bounded by itself: so it is told of"


def test_the_sessions_have_time_of_their_own_whatever_requests_take():
    within = plan(Settings())
    assert within.requests_s > within.sessions_s > 5


class PassingClock(SetClock):
    """A clock that is set: what is slept passes at once, and so does each time-out whose body does not end by itself.

    Attributes:
        now_s: what it says.
    """

    def __init__(self):
        super().__init__()
        self.now_s = 1000.0

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        self.now_s += seconds
        await asyncio.sleep(0)

    @asynccontextmanager
    async def timeout(self, seconds):
        task = asyncio.create_task(self._idle_then(asyncio.current_task()))
        try:
            yield
        except asyncio.CancelledError:
            if not task.done() or asyncio.current_task().uncancel():
                raise
            self.now_s += seconds
            raise TimeoutError from None
        finally:
            task.cancel()

    async def _idle_then(self, waiting):
        for _ in range(50):  # whatever ends by itself has ended by then: nothing here waits for anything else
            await asyncio.sleep(0)
        waiting.cancel()


def ending(*names, each_s=5.0, clock=None, telemetry=None):
    shares = dict.fromkeys(names, each_s)
    return Ending(shares, clock=clock or PassingClock(), telemetry=telemetry or Telemetry())


@pytest.fixture
async def stubborn():
    """Make what cannot be cancelled, and end it with the test."""
    ends, tasks = asyncio.Event(), []

    async def hang():
        tasks.append(asyncio.current_task())
        while not ends.is_set():
            with suppress(asyncio.CancelledError):
                await ends.wait()

    yield hang
    ends.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_step_that_hangs_is_cut_off_and_named_and_the_next_is_taken(stubborn):
    for hangs in (asyncio.Event().wait, stubborn):
        taken, end = [], ending("wait for ever", "take")

        async def take(taken=taken):
            taken.append("taken")

        await end.step("wait for ever", hangs)
        await end.step("take", take)
        assert taken == ["taken"]
        assert end.undone == ["wait for ever: not done within 5 s"]
        assert end.seconds == 5


async def test_a_step_has_what_those_before_it_left_but_not_the_shares_of_those_after_it(stubborn):
    clock = PassingClock()
    end = ending("a", "b", "c", each_s=2.0, clock=clock)
    await end.step("a", lambda: clock.sleep(0.5))
    await end.step("b", stubborn)
    assert end.undone == ["b: not done within 3.5 s"]
    await end.step("c", stubborn, within_s=1.5)
    assert end.undone[1:] == ["c: not done within 1.5 s"]
    clock.now_s += 100
    await end.step("c", stubborn)
    assert end.undone[2:] == ["c: not done within 0 s"]


async def test_a_worker_in_which_everything_hangs_is_out_by_its_deadline(monkeypatch, stubborn):
    """Each step takes all of its time, none of them can be cancelled, and still there is half a second to 25 s."""
    clock, telemetry = PassingClock(), Telemetry()
    hanging = SimpleNamespace(drain=lambda _: stubborn(), settle=stubborn, close=stubborn, under_way=3)
    supervisor = SimpleNamespace(state=lambda: SimpleNamespace(drain=None))
    monkeypatch.setattr(process.anyio.to_thread, "run_sync", lambda *_, **__: stubborn())
    for settings in (Settings(), Settings(worker_notice_s=15.0, drain_timeout_s=25.0), Settings(drain_timeout_s=1.0)):
        began_s = clock.now_s
        worker = object.__new__(process.Worker)
        worker._settings, worker._clock = settings, clock
        worker._readiness = Readiness(clock=clock)
        worker._cache = SimpleNamespace(telemetry=telemetry, supervisor=supervisor, close=stubborn)
        worker._sockets = worker._requests = worker._public = worker._tracing = hanging
        undone = await worker.leave(stubborn)
        assert [each.partition(":")[0] for each in undone] == [SOCKETS, REQUESTS, PORT, SESSIONS, TRACES, REST]
        takes_s = clock.now_s - began_s
        assert takes_s <= min(EXIT_BY_S - 0.5, settings.worker_notice_s + settings.drain_timeout_s + 2.5) + 1e-9
        assert takes_s > settings.worker_notice_s + min(settings.drain_timeout_s, 7)


async def test_a_step_that_fails_is_named_and_the_next_is_taken():
    telemetry = Telemetry()
    taken, end = [], ending("fail", "give up", "take", telemetry=telemetry)

    async def fail():
        raise ValueError("a secret")

    async def give_up():
        raise asyncio.CancelledError

    async def take():
        taken.append("taken")

    await end.step("fail", fail)
    await end.step("give up", give_up)
    await end.step("take", take)
    assert (taken, end.undone) == (["taken"], ["fail: ValueError", "give up: CancelledError"])
    assert telemetry.value("mangacache_survived_total", what="drain_failed") == 2


async def test_who_is_cancelled_takes_no_further_step():
    end, ended = ending("wait", each_s=60.0, clock=SetClock()), asyncio.Event()

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(end.step("wait", wait))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        await ended.wait()
