"""The decision behind a read through Redis, driven by hand through every outcome."""

from __future__ import annotations

import msgspec
import pytest

from mangacache import Rejected, Transient, Version
from mangacache.context.messages import (
    Admit,
    Away,
    Busy,
    Fill,
    Filled,
    Get,
    Held,
    Lease,
    Observe,
    Overtaken,
    Pause,
    Reading,
    Release,
    Restart,
    Spoilt,
    Told,
)
from mangacache.context.reading import read, read_strongly
from mangacache.store.effects import Load
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot

LIVE = Snapshot(meta=MetaRecord(incarnation=1, revision=1, expires_at=2_000), version=Version(1, 3, 1))
FOREIGN = Snapshot(meta=MetaRecord(), version=Version(), foreign=True)
LEAST = Version(1, 2, 1)
LEASE = Lease("token", 7)
GET = Get(LEAST, None)


def _read(*outcomes, now_s=1_000.0, steps=None):
    """Drive a read; return the effects it asked for, and its result."""
    steps = steps if steps is not None else read(least=LEAST, have=None, now_s=now_s)
    effects = [next(steps)]
    for outcome in outcomes:
        try:
            effects.append(steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome))
        except StopIteration as end:
            return effects, end.value
    return effects, None


def test_what_redis_holds_is_the_answer_and_dynamodb_is_not_asked():
    effects, found = _read(Held(LIVE, 12.5))
    assert effects == [GET]
    assert found == Reading(LIVE, "redis", strong=False, age_s=12.5, degraded=False)


def test_redis_is_told_what_is_known_and_what_the_answer_must_reach():
    (effect,), _ = _read(steps=read(least=Version(1, 5, 2), have=LIVE, now_s=0))
    assert (effect.least, effect.have) == (Version(1, 5, 2), LIVE)


@pytest.mark.parametrize(("now_s", "expired"), [(1_999.9, False), (2_000.0, True)])
def test_a_session_that_has_expired_is_not_answered_from_redis(now_s, expired):
    """META's copy may be older than META's last touch, so DynamoDB says whether it lives."""
    effects, found = _read(Held(LIVE, 0.0), LIVE, Told(), now_s=now_s)
    assert found.strong is expired
    assert effects == ([GET, Load(), Observe(LIVE.version)] if expired else [GET])


def test_a_tombstone_in_redis_is_an_answer():
    gone = Snapshot(meta=MetaRecord(incarnation=2, expires_at=1), version=Version(2, 0, 0))
    assert _read(Held(gone, 0.0))[1].source == "redis"


def test_a_miss_reads_strongly_under_the_lease_and_fills():
    effects, found = _read(LEASE, LIVE, Filled())
    assert effects == [GET, Load(), Fill(LEASE, LIVE)]
    assert (found.snapshot, found.source, found.strong, found.degraded) == (LIVE, "dynamodb", True, False)


def test_a_fill_that_was_overtaken_is_an_answer_because_redis_has_taken_it_for_an_observe():
    effects, found = _read(LEASE, LIVE, Overtaken())
    assert effects[-1] == Fill(LEASE, LIVE)
    assert (found.snapshot, found.degraded) == (LIVE, False)


def test_a_fill_whose_epoch_has_passed_begins_again_with_its_get():
    """What was read under the old epoch was told to nobody under the new one."""
    effects, found = _read(LEASE, LIVE, Restart(), LEASE, LIVE, Filled())
    assert effects == [GET, Load(), Fill(LEASE, LIVE)] * 2
    assert found.strong


@pytest.mark.parametrize(("told", "degraded"), [(Told(), False), (Away("cut"), True)])
def test_a_fill_of_unknown_outcome_is_said_again_as_an_observe(told, degraded):
    effects, found = _read(LEASE, LIVE, Away("lost"), told)
    assert effects[2:] == [Fill(LEASE, LIVE), Observe(LIVE.version)]
    assert (found.strong, found.degraded) == (True, degraded)


def test_a_foreign_session_is_answered_as_it_is_and_its_lease_given_back():
    effects, found = _read(LEASE, FOREIGN, None)
    assert effects == [GET, Load(), Release(LEASE)]
    assert (found.snapshot, found.source) == (FOREIGN, "dynamodb")


def test_a_failed_load_gives_the_lease_back_before_the_failure_goes_on():
    steps = read(least=LEAST, have=None, now_s=0)
    assert next(steps) == GET
    assert steps.send(LEASE) == Load()
    assert steps.throw(Transient("down")) == Release(LEASE)
    with pytest.raises(Transient, match="down"):
        steps.send(None)


def test_while_another_fills_the_question_is_asked_again_after_pauses_that_grow_to_a_bound():
    effects, found = _read(*[Busy(2.0), True] * 7, Held(LIVE, 0.0))
    assert [effect.seconds for effect in effects if isinstance(effect, Pause)] == [
        0.02,
        0.04,
        0.08,
        0.16,
        0.2,
        0.2,
        0.2,
    ]
    assert [effect for effect in effects if not isinstance(effect, Pause)] == [GET] * 8
    assert found.source == "redis", "what the filler read is never taken over, Redis is asked"


def test_nobody_waits_longer_than_the_lease_lasts():
    effects, _ = _read(Busy(0.005))
    assert effects[-1] == Pause(0.006)


def test_a_waiter_whose_deadline_is_near_reads_strongly():
    effects, found = _read(Busy(2.0), False, LIVE, Told())
    assert effects == [GET, Pause(0.02), Load(), Observe(LIVE.version)]
    assert found.strong


def test_the_lease_may_come_to_a_waiter():
    effects, found = _read(Busy(0.01), True, LEASE, LIVE, Filled())
    assert effects[-1] == Fill(LEASE, LIVE)
    assert found.strong


def test_what_cannot_be_read_in_redis_is_read_strongly_and_said():
    effects, found = _read(Spoilt(), LIVE, Told())
    assert effects == [GET, Load(), Observe(LIVE.version)]
    assert (found.strong, found.degraded) == (True, False)


@pytest.mark.parametrize(("told", "degraded"), [(Told(), False), (Away("still"), True)])
def test_without_redis_the_limiter_is_asked_before_dynamodb(told, degraded):
    effects, found = _read(Away("cut"), None, LIVE, told)
    assert effects == [GET, Admit("cut"), Load(), Observe(LIVE.version)]
    assert found.degraded is degraded


def test_a_read_that_the_limiter_refuses_reads_nothing():
    steps = read(least=LEAST, have=None, now_s=0)
    next(steps)
    assert steps.send(Away("cut")) == Admit("cut")
    with pytest.raises(Rejected):
        steps.throw(Rejected("too many"))


@pytest.mark.parametrize(("told", "degraded"), [(Told(), False), (Away("cut"), True)])
def test_a_strong_read_is_said_before_it_is_returned(told, degraded):
    effects, found = _read(LIVE, told, steps=read_strongly())
    assert effects == [Load(), Observe(LIVE.version)]
    assert (found.snapshot, found.strong, found.degraded) == (LIVE, True, degraded)


def test_a_failed_strong_read_says_nothing():
    steps = read_strongly()
    next(steps)
    with pytest.raises(Transient):
        steps.throw(Transient("down"))


def test_an_outcome_that_no_get_has_is_a_mistake_and_not_a_miss():
    with pytest.raises(AssertionError):
        _read(Told())


def test_effects_are_told_from_each_other_by_all_they_hold():
    """The comparisons above rest on it."""
    assert Fill(LEASE, LIVE) != Fill(msgspec.structs.replace(LEASE, epoch=8), LIVE)
    assert Observe(Version(1, 3, 1)) != Observe(Version(1, 3, 2))
