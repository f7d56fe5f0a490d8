"""How a worker's time to leave is shared, and that one step that hangs or fails holds up no other."""

from __future__ import annotations

import asyncio

import pytest
from mangatest import SetClock

from mangacache import Settings
from mangacache.telemetry import Telemetry
from mangacache.worker.draining import EXIT_BY_S, Ending, plan


@pytest.mark.parametrize("notice_s", [0.0, 3.0, 15.0])
@pytest.mark.parametrize("drain_s", [0.0, 5.0, 20.0, 25.0])
def test_all_steps_together_leave_time_to_be_gone_in_25_seconds(notice_s, drain_s):
    within = plan(Settings(worker_notice_s=notice_s, drain_timeout_s=drain_s))
    assert within.notice_s == notice_s
    assert min(within.requests_s, within.sessions_s) >= 0
    assert within.notice_s + within.requests_s + within.sessions_s <= EXIT_BY_S - 2
    assert within.requests_s + within.sessions_s == pytest.approx(min(drain_s, EXIT_BY_S - 2.5 - notice_s))


def test_the_sessions_have_time_of_their_own_whatever_requests_take():
    within = plan(Settings())
    assert within.requests_s > within.sessions_s > 5


class HastyTimeouts(SetClock):
    """A clock by which every time-out that is not a guard of the tests is over at once."""

    def timeout(self, seconds):
        return super().timeout(0.0 if seconds is not None and seconds <= 20 else seconds)


async def test_a_step_that_hangs_is_cut_off_and_named_and_the_next_is_taken():
    taken, ending = [], Ending(clock=HastyTimeouts(), telemetry=Telemetry())

    async def take():
        taken.append("taken")

    await ending.step("wait for ever", asyncio.Event().wait, within_s=5.0)
    await ending.step("take", take, within_s=5.0)
    assert taken == ["taken"]
    assert ending.undone == ["wait for ever: not done within 5 s"]


async def test_a_step_that_fails_is_named_and_the_next_is_taken():
    telemetry = Telemetry()
    taken, ending = [], Ending(clock=SetClock(), telemetry=telemetry)

    async def fail():
        raise ValueError("a secret")

    async def take():
        taken.append("taken")

    await ending.step("fail", fail, within_s=30.0)
    await ending.step("take", take, within_s=30.0)
    assert (taken, ending.undone) == (["taken"], ["fail: ValueError"])
    assert telemetry.value("mangacache_survived_total", what="drain_failed") == 1


async def test_who_is_cancelled_takes_no_further_step():
    ending = Ending(clock=SetClock(), telemetry=Telemetry())
    task = asyncio.ensure_future(ending.step("wait", asyncio.Event().wait, within_s=60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
