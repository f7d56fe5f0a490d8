"""What rate limits do while Redis is away: each worker has its share, warm, or nothing; and what that lets through."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from servicehosts import HandClock
from services import Host, Services

from mangacache import Settings
from mangacache.ephemeral import Limit
from mangacache.ephemeral.local_limits import MOST_KEYS, LocalWindows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WORKERS = 4
LIMIT = 30
WINDOW_S = 60


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def workers(host, clock) -> AsyncIterator[list[Services]]:
    """Workers that have counted each other."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(host.services(clock)) for _ in range(WORKERS)]
        for _ in range(2):
            for worker in made:
                await worker.rate_limits.workers.heard()
        yield made


async def insist(workers: list[Services], clock: HandClock, seconds: int, draw: random.Random) -> list[float]:
    """Ask every worker, second after second, until it refuses; return when each unit was let through."""
    taken: list[float] = []
    for _ in range(seconds):
        for worker in draw.sample(workers, len(workers)):
            while (await worker.rate_limits.check("c")).allowed:
                taken.append(clock.monotonic_s())
        clock.pass_s(1)
    return taken


def most(taken: list[float], *, since: float = 0.0, until: float = float("inf")) -> int:
    """Return how many units the fullest window has, of those that begin in a span."""
    return max(sum(start <= at < start + WINDOW_S for at in taken) for start in taken if since <= start < until)


@pytest.mark.parametrize("seed", range(3))
async def test_an_outage_lets_through_twice_the_limit_in_its_first_window_and_then_the_limit(
    host, workers, clock, seed
):
    draw = random.Random(seed)
    calm = await insist(workers, clock, 130, draw)
    assert most(calm) == LIMIT
    host.double.kill()
    killed_at_s = clock.monotonic_s()
    away = await insist(workers, clock, 400, draw)
    taken = calm + away
    assert most(taken) <= 2 * LIMIT
    assert LIMIT / 2 <= most(taken, since=killed_at_s) <= LIMIT, "and nobody is shut out"
    host.double.restart()
    for worker in workers:
        async with asyncio.timeout(120):
            while (await worker.rate_limits.peek("c")).source != "redis":  # noqa: ASYNC110 - the link has no event for it
                await asyncio.sleep(0.001)
    back_at_s = clock.monotonic_s()
    taken += await insist(workers, clock, 200, draw)
    assert most(taken, since=killed_at_s) <= 2 * LIMIT, "the window in which Redis is back begins anew"
    assert most(taken, since=back_at_s) == LIMIT


async def test_a_warm_worker_begins_no_new_window_for_whom_it_has_served(host, clock):
    async with host.services(clock) as worker:
        assert (await worker.rate_limits.check("c", cost=25)).source == "redis"
        host.double.kill()
        decision = await worker.rate_limits.check("c")
        assert (decision.allowed, decision.remaining, decision.source) == (True, 4, "local")
        assert not (await worker.rate_limits.check("c", cost=5)).allowed
        refused = await worker.rate_limits.check("c", cost=10)
        assert (refused.retry_after_s, refused.remaining) == (60, 4)
        clock.pass_s(60)
        assert (await worker.rate_limits.check("c")).remaining == LIMIT - 1


async def test_a_closed_limit_allows_nothing_while_redis_is_away(host, clock):
    async with host.services(clock, rate_limit_policy="closed") as worker:
        assert (await worker.rate_limits.check("c")).allowed
        host.double.kill()
        for _ in range(3):
            decision = await worker.rate_limits.check("c")
            assert (decision.allowed, decision.remaining, decision.source) == (False, 0, "closed")
            assert decision.retry_after_s > 0
        counted = worker.telemetry.value("mangacache_rate_limits_total", source="closed", outcome="refused")
        assert counted == 3


async def test_the_shares_of_a_limit_make_the_limit_whatever_it_is_and_differ_by_customer(workers):
    shares = [worker.rate_limits.workers.share for worker in workers]
    for count in (1, 2, 3, 4, 29, 30, 31, 10_000):
        for customer in "abcdef":
            assert sum(share(count, customer) for share in shares) == count
    firsts = {[share(1, str(customer)) for share in shares].index(1) for customer in range(40)}
    assert firsts == set(range(WORKERS))


async def test_workers_that_never_counted_each_other_share_by_what_is_expected(clock):
    worker = Services(None, Settings(rate_limit_workers=4), clock)
    assert [(await worker.rate_limits.check("c")).allowed for _ in range(8)] == [True] * 7 + [False]
    few = Limit("few", 2)
    assert [(await worker.rate_limits.check("c", limit=few)).allowed for _ in range(2)] == [True, False]
    await worker.close()


async def test_a_worker_that_goes_without_a_word_is_counted_for_a_while_and_then_no_more(host, clock):
    async with host.services(clock) as stays, host.services(clock) as goes:
        counted = stays.rate_limits.workers
        await goes.rate_limits.workers.heard()
        for passed_s, count in ((0, 2), (14.9, 2), (0.1, 1)):
            clock.pass_s(passed_s)
            await counted.heard()
            assert counted.count() == count


def test_windows_that_nobody_uses_are_forgotten_first_and_their_number_is_bounded():
    windows, limit = LocalWindows(), Limit("few", 1)
    for number in range(MOST_KEYS + 5):
        windows.note(str(number), limit, 1, 0.0)
    assert len(windows) == MOST_KEYS
    taken = [windows.take(str(number), limit, 1, 1.0, share=1, record=False).allowed for number in (0, MOST_KEYS + 4)]
    assert taken == [True, False]


@pytest.mark.parametrize("seed", range(5))
def test_a_local_window_is_exact(seed):
    """Held to the plainest oracle: a list of every unit's time."""
    draw, windows, limit = random.Random(seed), LocalWindows(), Limit("l", 50, 10)
    now_s, taken = 0.0, []
    for _ in range(2000):
        now_s += draw.choice([0.0, 0.25, 1.0, 10.0])
        cost, record = draw.choice([1, 2, 9]), draw.random() < 0.8
        inside = sum(at > now_s - 10 for at in taken)
        decision = windows.take("k", limit, cost, now_s, share=8, record=record)
        assert decision.allowed == (inside + cost <= 8)
        if decision.allowed and record:
            taken += [now_s] * cost
            inside += cost
        assert decision.remaining == 8 - inside
        if not decision.allowed and cost <= 8:
            later_s = now_s + decision.retry_after_s
            assert windows.take("k", limit, cost, later_s, share=8, record=False).allowed
            assert sum(at > later_s - 0.01 - 10 for at in taken) + cost > 8
            now_s = later_s
