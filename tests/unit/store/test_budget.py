"""Retries of all calls together: as many as one likes in calm times, a fifth of the requests in trouble."""

from __future__ import annotations

import asyncio
import random

import pytest

from mangacache import Settings, Transient
from mangacache.clock import SystemClock
from mangacache.store.budget import BURST, PER_S, SHARE, RetryBudget
from mangacache.store.requests import Requests
from mangacache.store.transport import Throttled, Unanswered
from mangacache.telemetry import Telemetry


class StillClock(SystemClock):
    """A clock that moves when it is told to; whoever sleeps is woken at once."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        assert seconds >= 0
        await asyncio.sleep(0)

    def timeout(self, seconds):
        assert seconds > 0
        return asyncio.timeout(None)


class Troubled:
    """A transport of which a share of the calls fails."""

    def __init__(self, share, error):
        self._random = random.Random(1)
        self.share = share
        self._error = error
        self.sent = 0

    async def request(self, _operation, _parameters):
        self.sent += 1
        if self._random.random() < self.share:
            raise self._error
        return {}


def _requests(transport, clock):
    return Requests(transport, settings=Settings(), clock=clock, random=random.Random(2), telemetry=Telemetry())


def _taken(budget):
    taken = 0
    while budget.take():
        taken += 1
    return taken


def test_it_begins_full_and_is_never_fuller():
    clock = StillClock()
    budget = RetryBudget(clock)
    for _ in range(10_000):
        budget.pay_in()
    clock.now_s += 1_000_000
    assert _taken(budget) == BURST


def test_requests_pay_in_a_share_and_time_a_little():
    clock = StillClock()
    budget = RetryBudget(clock)
    _taken(budget)
    for _ in range(101):
        budget.pay_in()
    assert _taken(budget) == int(101 * SHARE)
    clock.now_s += 2.5
    assert _taken(budget) == int(2.5 * PER_S)
    clock.now_s -= 100
    assert _taken(budget) == 0
    clock.now_s += 1
    assert _taken(budget) == PER_S


@pytest.mark.parametrize("share", [1.0, 0.5])
async def test_in_trouble_a_fifth_more_is_sent_and_a_burst_and_who_may_not_try_again_is_told_at_once(share):
    transport = Troubled(share, Throttled("too much"))
    requests = _requests(transport, StillClock())
    calls = [await asyncio.gather(requests.send("GetItem", {}), return_exceptions=True) for _ in range(2_000)]
    refused = [outcome for (outcome,) in calls if isinstance(outcome, Transient)]
    assert 2_000 * SHARE <= transport.sent - 2_000 <= 2_000 * SHARE + BURST
    assert len(refused) > 2_000 * share / 2
    assert all("retries of all calls are used up" in str(error) for error in refused)
    assert all("nothing was done" in str(error) for error in refused)
    assert {error.retry_after_s for error in refused} == {Settings().retry_cap_s}


async def test_where_few_calls_fail_each_is_tried_until_it_is_answered():
    transport = Troubled(0.1, Throttled("now and then"))
    requests = _requests(transport, StillClock())
    for _ in range(5_000):
        await requests.send("GetItem", {})
    assert transport.sent > 5_300


async def test_a_call_that_may_not_be_tried_again_says_whether_it_may_have_been_done():
    transport = Troubled(1.0, Unanswered("lost"))
    requests = _requests(transport, StillClock())
    heard = [await asyncio.gather(requests.send("PutItem", {}), return_exceptions=True) for _ in range(3)]
    assert "in 101 tries (retries of all calls are used up): lost; whether it was done is unknown" in str(heard[0][0])
    assert "in 1 tries" in str(heard[2][0])


async def test_when_dynamodb_is_well_again_calls_may_be_tried_again():
    clock = StillClock()
    transport = Troubled(1.0, Throttled("too much"))
    requests = _requests(transport, clock)
    for _ in range(3):
        with pytest.raises(Transient):
            await requests.send("GetItem", {})
    clock.now_s += 5
    transport.share = 0.5
    for _ in range(10):
        await requests.send("GetItem", {})
