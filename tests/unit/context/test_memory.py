"""What an actor remembers of a session: newer and older answers join, by rule R9."""

from __future__ import annotations

import msgspec
import pytest

from mangacache import Summary, Turn, Version
from mangacache.sessions.actor import Actor
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot


def _snapshot(number, revision=1, *, incarnation=1):
    turns = tuple(Turn(n, f"t{n}", "user", f"{n}", "") for n in range(1, number + 1))
    meta = MetaRecord(incarnation=incarnation, revision=revision, status=f"r{revision}")
    summary = Summary(1, f"at {revision}", "")
    return Snapshot(meta=meta, version=Version(incarnation, number, revision), turns=turns, summary=summary)


def _knowing(snapshot, *, at_s=10.0):
    actor = Actor("s")
    actor.learn(snapshot, strong=True, sent_at_s=at_s, now_s=at_s)
    return actor


@pytest.mark.parametrize("strong", [True, False])
@pytest.mark.parametrize("sent_at_s", [5.0, 15.0])
def test_a_newer_answer_is_what_is_known(strong, sent_at_s):
    actor = _knowing(_snapshot(2))
    assert actor.learn(_snapshot(3), strong=strong, sent_at_s=sent_at_s, now_s=16.0) == _snapshot(3)
    assert actor.grew_at_s == 16.0


@pytest.mark.parametrize(
    ("sent_at_s", "strong", "known"),
    [(10.5, True, 2), (10.0, True, 3), (9.5, True, 3), (10.5, False, 3), (9.5, False, 3)],
)
def test_an_older_answer_counts_only_when_read_strongly_after_memory_grew(sent_at_s, strong, known):
    """An answer that was sent in the very moment may have been read before it."""
    actor = _knowing(_snapshot(3))
    assert actor.learn(_snapshot(2), strong=strong, sent_at_s=sent_at_s, now_s=11.0) == _snapshot(known)


def test_answers_that_are_each_ahead_in_one_part_are_joined_part_by_part():
    actor = _knowing(_snapshot(3, 1))
    joined = actor.learn(_snapshot(2, 2), strong=False, sent_at_s=10.5, now_s=11.0)
    assert joined.version == Version(1, 3, 2)
    assert (joined.turns, joined.meta, joined.summary) == (
        _snapshot(3).turns,
        _snapshot(2, 2).meta,
        _snapshot(2, 2).summary,
    )


def test_a_later_life_counts_whole_and_an_earlier_one_not_at_all():
    actor = _knowing(_snapshot(3))
    assert actor.learn(_snapshot(1, incarnation=2), strong=False, sent_at_s=9.0, now_s=11.0).version.incarnation == 2
    assert actor.learn(_snapshot(9), strong=False, sent_at_s=12.0, now_s=13.0).version == Version(2, 1, 1)


def test_a_foreign_session_is_what_was_read_last():
    foreign = msgspec.structs.replace(_snapshot(3), foreign=True)
    actor = _knowing(foreign)
    assert actor.learn(_snapshot(1), strong=True, sent_at_s=9.0, now_s=11.0) == _snapshot(1)
    assert actor.learn(foreign, strong=True, sent_at_s=9.0, now_s=12.0) == foreign


def test_the_same_answer_again_is_no_growth():
    actor = _knowing(_snapshot(3))
    actor.learn(_snapshot(3), strong=True, sent_at_s=12.0, now_s=13.0)
    assert actor.grew_at_s == 10.0


def test_the_first_version_is_kept_for_as_long_as_somebody_may_have_waited_since():
    actor = Actor("s")
    actor.begin_activity()
    actor.learn(_snapshot(2), strong=True, sent_at_s=1.0, now_s=10.0)
    actor.learn(_snapshot(5), strong=True, sent_at_s=11.0, now_s=11.0)
    actor.forget()
    assert (actor.known, actor.validated_at_s, actor.window_at_s) == (None, float("-inf"), float("-inf"))
    actor.learn(_snapshot(6), strong=True, sent_at_s=12.0, now_s=12.0)
    assert actor.activity.first_version == Version(1, 2, 1)
