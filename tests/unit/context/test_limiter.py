"""The limiter of reads while Redis is away."""

from __future__ import annotations

import pytest

from mangacache import Rejected
from mangacache.context.limiter import ReadLimiter


def _taken(limiter, now_s, count):
    """Return how many of `count` reads at one moment are let through."""
    through = 0
    for _ in range(count):
        try:
            limiter.take(now_s, why="cut")
        except Rejected:
            break
        through += 1
    return through


def test_a_seconds_worth_may_come_at_once_and_no_more():
    assert _taken(ReadLimiter(5), 100.0, 9) == 5


def test_it_refills_with_time_up_to_a_second_s_worth():
    limiter = ReadLimiter(5)
    _taken(limiter, 100.0, 9)
    assert _taken(limiter, 100.4, 9) == 2
    assert _taken(limiter, 1_000.0, 9) == 5


def test_in_any_second_at_most_twice_the_rate_and_in_the_long_run_the_rate():
    limiter = ReadLimiter(10)
    through = sum(_taken(limiter, 100.0 + tick / 100, 3) for tick in range(1_000))
    assert 100 <= through <= 110


@pytest.mark.parametrize("per_s", [1, 5, 200])
def test_who_is_refused_is_told_when_to_come_again_and_then_gets_through(per_s):
    limiter = ReadLimiter(per_s)
    _taken(limiter, 100.0, per_s)
    with pytest.raises(Rejected, match=r"\(cut\).*degraded_reads_per_s") as refused:
        limiter.take(100.0, why="cut")
    assert 0 < refused.value.retry_after_s <= 1 / per_s
    limiter.take(100.0 + refused.value.retry_after_s + 1e-6, why="cut")


def test_a_refused_read_costs_nothing():
    limiter = ReadLimiter(2)
    _taken(limiter, 100.0, 2)
    for _ in range(50):
        with pytest.raises(Rejected):
            limiter.take(100.0, why="cut")
    limiter.take(100.5 + 1e-6, why="cut")
