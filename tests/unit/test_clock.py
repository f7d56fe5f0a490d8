"""Clocks, identifiers and stamps."""

from __future__ import annotations

import random
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache.clock import AcceleratedClock, SystemClock, random_id, system_random, timestamp


class Machine:
    """The machine's two clocks, set by hand."""

    def __init__(self):
        self.wall_s, self.monotonic_s = 1_700_000_000.0, 50.0

    def passes(self, seconds):
        self.wall_s += seconds
        self.monotonic_s += seconds


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr("mangacache.clock.time.time", lambda: made.wall_s)
    monkeypatch.setattr("mangacache.clock.time.monotonic", lambda: made.monotonic_s)
    return made


def test_sessions_age_faster_while_deadlines_stay_as_they_are(machine):
    clock = AcceleratedClock(60.0)
    time_s, age_s, monotonic_s = clock.time_s(), clock.age_s(), clock.monotonic_s()
    machine.passes(5)
    assert clock.time_s() - time_s == pytest.approx(300, abs=1e-3)
    assert clock.age_s() - age_s == pytest.approx(300, abs=1e-3)
    assert clock.monotonic_s() - monotonic_s == pytest.approx(5, abs=1e-3)


def test_it_begins_at_the_true_time(machine):
    assert AcceleratedClock(60.0).time_s() == pytest.approx(machine.wall_s, abs=1e-3)


def test_processes_that_share_an_origin_agree_whenever_they_began(machine):
    origin_s = machine.wall_s
    early = AcceleratedClock(60.0, origin_s=origin_s)
    machine.passes(7)
    late = AcceleratedClock(60.0, origin_s=origin_s)
    machine.passes(3)
    assert early.time_s() == pytest.approx(late.time_s(), abs=1e-3)
    assert late.time_s() == pytest.approx(origin_s + 600, abs=1e-3)


def test_a_step_of_the_wall_clock_moves_no_accelerated_clock(machine):
    clock = AcceleratedClock(60.0)
    before = clock.time_s()
    machine.wall_s -= 86_400
    assert clock.time_s() == pytest.approx(before, abs=1e-3)


async def test_its_sleeps_and_timeouts_are_the_machines_own():
    clock = AcceleratedClock(10_000.0)
    began = time.monotonic()
    await clock.sleep(0.01)
    assert time.monotonic() - began >= 0.009
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.01):
            await SystemClock().sleep(3600)
    async with clock.timeout(None):
        pass


def test_the_age_of_the_system_clock_never_goes_back(machine):
    clock = SystemClock()
    age_s = clock.age_s()
    machine.wall_s -= 86_400
    assert clock.age_s() == age_s
    assert clock.time_s() == machine.wall_s


def test_a_random_id_has_32_digits_of_its_generators_own():
    assert random_id(random.Random(7)) == random_id(random.Random(7))
    ids = {random_id(system_random()) for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {32}


class Zero:
    def random(self):
        return 0.0

    def getrandbits(self, _):
        return 0


def test_a_random_id_keeps_its_leading_zeros():
    assert random_id(Zero()) == "0" * 32


@given(st.integers(0, 250_000_000_000))
def test_stamps_are_of_one_width_sort_as_time_does_and_can_be_read_back(ms):
    one, next_one = timestamp(ms / 1000), timestamp((ms + 2) / 1000)
    assert len(one) == 24
    assert one.endswith("Z")
    assert one < next_one
    assert datetime.fromisoformat(one).timestamp() == pytest.approx(ms / 1000, abs=0.001_001)
