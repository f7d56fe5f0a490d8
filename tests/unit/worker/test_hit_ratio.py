"""The alarm on the hit ratio: when it goes on, when off again, and when there is too little to say."""

from __future__ import annotations

import math

import pytest

from mangacache.worker.hit_ratio import HitRatio


class Counters:
    """Counters that only grow, looked at second by second."""

    def __init__(self, **options):
        self.ratio = HitRatio(**({"least": 0.8, "window_s": 10.0, "reads": 100} | options))
        self.now_s = self.hits = self.reads = 0
        self.changes = []

    def pass_s(self, seconds, *, hits=0, misses=0):
        """So many hits and misses in each second."""
        for _ in range(seconds):
            self.now_s += 1
            self.hits += hits
            self.reads += hits + misses
            if self.ratio.look(self.now_s, hits=self.hits, reads=self.reads):
                self.changes.append((self.now_s, self.ratio.low))


def test_it_goes_on_below_the_least_share_and_not_at_it():
    counters = Counters()
    counters.pass_s(60, hits=80, misses=20)
    assert counters.changes == []
    counters.pass_s(10, hits=79, misses=21)
    assert counters.changes == [(61, True)]


def test_it_goes_off_a_good_way_above_only():
    counters = Counters()
    counters.pass_s(20, hits=50, misses=50)
    counters.pass_s(60, hits=84, misses=16)
    assert counters.ratio.low
    counters.pass_s(60, hits=86, misses=14)
    assert not counters.ratio.low
    assert len(counters.changes) == 2


def test_a_share_that_swings_around_the_mark_rings_once():
    counters = Counters()
    for _ in range(20):
        counters.pass_s(15, hits=78, misses=22)
        counters.pass_s(15, hits=82, misses=18)
    assert counters.changes == [(1, True)]


def test_few_contexts_say_nothing():
    counters = Counters()
    counters.pass_s(60, misses=9)
    assert counters.changes == []
    assert counters.ratio.ratio == 0.0


def test_it_goes_off_when_nearly_nobody_asks_any_more():
    counters = Counters()
    counters.pass_s(20, misses=50)
    counters.pass_s(60, misses=6)
    assert counters.ratio.low, "60 of 100: fewer than it takes to go on, and not few enough to go off"
    counters.pass_s(60, misses=4)
    assert not counters.ratio.low


def test_what_is_older_than_the_window_does_not_count():
    counters = Counters()
    counters.pass_s(100, hits=100)
    counters.pass_s(10, misses=100)
    assert counters.ratio.ratio == pytest.approx(0.0, abs=0.15)
    counters.pass_s(11, hits=100)
    assert counters.ratio.ratio == 1.0


def test_what_was_counted_before_the_first_look_counts():
    ratio = HitRatio(least=0.8, window_s=10.0, reads=100)
    assert ratio.look(5.0, hits=10.0, reads=200.0)
    assert (ratio.low, ratio.ratio, ratio.seen) == (True, 0.05, 200.0)


def test_where_nothing_was_asked_there_is_no_share():
    counters = Counters()
    counters.pass_s(3)
    assert math.isnan(counters.ratio.ratio)
    assert not counters.ratio.low


def test_a_least_share_of_0_never_rings():
    counters = Counters(least=0.0)
    counters.pass_s(30, misses=1000)
    assert counters.changes == []


def test_a_day_of_looks_is_kept_in_a_bounded_number_of_samples():
    counters = Counters(window_s=300.0)
    counters.pass_s(20_000, hits=1)
    assert len(counters.ratio._samples) <= 62
