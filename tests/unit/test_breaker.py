"""The breaker: refuses at once while a service fails, and lets single calls find out when it is back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache import Invalid
from mangacache.breaker import Breaker, BreakerRules, Phase
from mangacache.clock import SystemClock


class StillClock(SystemClock):
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now_s = 100.0

    def monotonic_s(self):
        return self.now_s


class Die:
    """A generator that throws what it is told to."""

    def __init__(self, value=0.0):
        self.value = value

    def random(self):
        return self.value


RULES = BreakerRules(failures=3, share=0.5, window_s=10.0, open_s=1.0, open_cap_s=8.0, probe_s=5.0)


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def breaker(clock):
    return Breaker(RULES, clock=clock, random=Die(0.0))


def _fail(breaker, times=1, **how):
    for _ in range(times):
        breaker.failed(breaker.admit(), **how)


def _succeed(breaker, times=1):
    for _ in range(times):
        breaker.succeeded(breaker.admit())


def _open(breaker):
    _fail(breaker, RULES.failures)
    assert breaker.admit() is None


def test_it_refuses_after_as_many_failures_as_its_rules_say(breaker):
    _fail(breaker, 2)
    assert breaker.admit() is not None
    _fail(breaker)
    assert breaker.admit() is None
    assert breaker.state.phase is Phase.OPEN


def test_a_failure_may_weigh_as_much_as_several(breaker):
    _fail(breaker, weight=3)
    assert breaker.admit() is None


def test_few_failures_among_many_calls_do_not_open_it(breaker):
    _succeed(breaker, 20)
    _fail(breaker, 10)
    assert breaker.admit() is not None
    _fail(breaker, 10)
    assert breaker.admit() is None


def test_failures_of_another_window_do_not_count(breaker, clock):
    _fail(breaker, 2)
    clock.now_s += RULES.window_s
    _fail(breaker, 2)
    assert breaker.admit() is not None


def test_it_lets_one_probe_through_when_the_opening_is_over_and_its_success_closes_it(breaker, clock):
    _open(breaker)
    assert breaker.wait_s() == 0.5
    clock.now_s += 0.5
    assert breaker.wait_s() == 0
    probe = breaker.admit()
    assert breaker.state.phase is Phase.HALF_OPEN
    assert breaker.admit() is None
    breaker.succeeded(probe)
    assert breaker.state.phase is Phase.CLOSED
    assert breaker.wait_s() == 0
    _fail(breaker, 2)
    assert breaker.admit() is not None


@pytest.mark.parametrize(("jitter", "least_s"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.999)])
def test_openings_last_from_half_of_it_to_all_of_it_by_chance(clock, jitter, least_s):
    breaker = Breaker(RULES, clock=clock, random=Die(jitter))
    _open(breaker)
    assert breaker.wait_s() == pytest.approx(least_s, abs=0.001)


def test_each_opening_in_a_row_lasts_twice_as_long_up_to_the_cap(breaker, clock):
    _open(breaker)
    waits_s = []
    for _ in range(6):
        waits_s.append(breaker.wait_s())
        clock.now_s += breaker.wait_s()
        _fail(breaker)
    assert waits_s == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_call_that_goes_well_after_the_probe_makes_the_next_opening_short_again(breaker, clock):
    _open(breaker)
    clock.now_s += breaker.wait_s()
    _succeed(breaker)
    _open(breaker)
    assert breaker.wait_s() == 1.0  # the probe alone was no proof
    clock.now_s += breaker.wait_s()
    _succeed(breaker, 2)
    _open(breaker)
    assert breaker.wait_s() == 0.5


def test_a_probe_whose_caller_left_gives_its_place_to_the_next(breaker, clock):
    _open(breaker)
    clock.now_s += 1
    breaker.gave_up(breaker.admit())
    assert breaker.admit() is not None


def test_a_caller_who_leaves_while_it_is_closed_counts_for_nothing(breaker):
    _fail(breaker, 2)
    breaker.gave_up(breaker.admit())
    assert breaker.state.failures == 2
    assert breaker.admit() is not None


def test_a_probe_of_which_nothing_is_heard_is_given_up_and_its_late_verdict_passed_over(breaker, clock):
    _open(breaker)
    clock.now_s += 1
    lost = breaker.admit()
    clock.now_s += RULES.probe_s - 0.1
    assert breaker.admit() is None
    clock.now_s += 0.1
    probe = breaker.admit()
    assert probe is not None
    breaker.succeeded(lost)
    assert breaker.state.phase is Phase.HALF_OPEN
    breaker.succeeded(probe)
    assert breaker.state.phase is Phase.CLOSED


def test_verdicts_on_calls_from_before_a_change_of_phase_say_nothing(breaker, clock):
    early = [breaker.admit() for _ in range(8)]
    for permit in early[:4]:
        breaker.failed(permit)
    opened = breaker.state
    breaker.succeeded(early[4])
    breaker.failed(early[5])
    assert breaker.state == opened
    clock.now_s += 1
    _succeed(breaker)
    breaker.failed(early[6], weight=9)
    breaker.gave_up(early[7])
    assert breaker.state.phase is Phase.CLOSED


def test_each_change_of_phase_is_told_once_and_nothing_else_is(clock):
    told = []
    breaker = Breaker(RULES, clock=clock, random=Die(), changed=lambda state: told.append(state.phase))
    _succeed(breaker, 3)
    _fail(breaker, 3)
    clock.now_s += 1
    _fail(breaker)
    clock.now_s += 2
    _succeed(breaker)
    assert told == [Phase.OPEN, Phase.HALF_OPEN, Phase.OPEN, Phase.HALF_OPEN, Phase.CLOSED]


def test_it_shows_where_it_stands(breaker):
    _open(breaker)
    assert repr(breaker) == "<Breaker open, 3 failures of 3, waits 0.5 s>"


@pytest.mark.parametrize(
    "rules",
    [
        {"failures": 0},
        {"share": 1.5},
        {"share": -0.1},
        {"window_s": 0},
        {"open_s": 0},
        {"probe_s": 0},
        {"open_s": 2.0, "open_cap_s": 1.0},
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules):
    with pytest.raises(Invalid):
        BreakerRules(**rules)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.just(0)),
        st.tuples(st.sampled_from(["succeeded", "failed", "gave_up"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.floats(0, 12)),
    ),
    max_size=60,
)


@given(EVENTS, st.floats(0, 0.999))
def test_whatever_happens_one_probe_at_a_time_is_out_and_no_refusal_outlasts_the_cap_or_the_probe(events, jitter):
    clock = StillClock()
    breaker = Breaker(RULES, clock=clock, random=Die(jitter))
    permits, probes = [], []
    for event, value in events:
        if event == "admit":
            closed = breaker.state.phase is Phase.CLOSED
            permit = breaker.admit()
            if permit is None:
                continue
            permits.append(permit)
            if not closed:
                assert all(clock.now_s - sent_s >= RULES.probe_s for sent_s, _ in probes)
                probes.append((clock.now_s, permit))
        elif event == "wait":
            clock.now_s += value
        elif permits:
            permit = permits.pop(value % len(permits))
            probes = [probe for probe in probes if probe[1] != permit]
            getattr(breaker, event)(permit)
        assert 0 <= breaker.wait_s() <= max(RULES.open_cap_s, RULES.probe_s)
    clock.now_s += max(RULES.open_cap_s, RULES.probe_s)
    assert breaker.admit() is not None
