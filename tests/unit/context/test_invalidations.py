"""The queue of invalidations: bounded, the newest of a session wins, nothing is forgotten that is still owed."""

from __future__ import annotations

from mangacache import Version
from mangacache.context.invalidations import Invalidations

V1, V2, V3 = (Version(1, number, 1) for number in (1, 2, 3))


def _queue(limit=2):
    return Invalidations(limit=limit, deadline_s=3.0)


def test_nothing_owed_is_nothing_due():
    queue = _queue()
    assert (len(queue), queue.due_at_s, list(queue.owed()), queue.overflowed) == (0, None, [], False)


def test_what_a_session_owes_is_the_join_of_its_versions():
    queue = _queue()
    queue.owe("a", Version(1, 5, 1), now_s=10.0)
    queue.owe("a", Version(1, 4, 2), now_s=11.0)
    assert list(queue.owed()) == [("a", Version(1, 5, 2))]
    queue.owe("a", Version(2, 1, 1), now_s=12.0)
    queue.owe("a", Version(1, 9, 9), now_s=13.0)
    assert list(queue.owed()) == [("a", Version(2, 1, 1))], "the higher incarnation counts whole"


def test_the_oldest_debt_is_paid_first_and_sets_the_deadline():
    queue = _queue()
    queue.owe("a", V1, now_s=10.0)
    queue.owe("b", V1, now_s=11.0)
    queue.owe("a", V2, now_s=12.0)
    assert [session_id for session_id, _ in queue.owed()] == ["a", "b"]
    assert queue.due_at_s == 13.0, "a debt that grows is as old as before"
    queue.paid("a", V2)
    assert queue.due_at_s == 14.0


def test_a_debt_that_grew_while_it_was_being_paid_stays():
    queue = _queue()
    queue.owe("a", V1, now_s=10.0)
    queue.owe("a", V2, now_s=10.1)
    queue.paid("a", V1)
    assert list(queue.owed()) == [("a", V2)]
    queue.paid("a", V3)
    assert len(queue) == 0
    queue.paid("a", V3)  # nothing is owed any more, and that is no mistake


def test_more_than_can_be_remembered_is_due_at_once_and_a_known_session_still_has_room():
    queue = _queue(limit=2)
    for at, session_id in enumerate("abc"):
        queue.owe(session_id, V1, now_s=10.0 + at)
    assert queue.overflowed
    assert (len(queue), queue.due_at_s) == (3, 12.0)
    queue.owe("a", V2, now_s=13.0)
    assert dict(queue.owed()) == {"a": V2, "b": V1}
    for session_id in "ab":
        queue.paid(session_id, V2)
    assert (len(queue), queue.due_at_s) == (1, 12.0), "what was not remembered is still owed"


def test_a_raise_of_the_epoch_pays_what_was_owed_before_it_was_sent():
    queue = _queue()
    queue.owe("a", V1, now_s=10.0)
    queue.owe("b", V1, now_s=10.0)
    queue.owe("b", V2, now_s=12.0)  # while the raise was under way
    queue.raised(before_s=11.0)
    assert list(queue.owed()) == [("b", V2)]
    queue.owe("a", V3, now_s=11.0)
    queue.raised(before_s=12.5)
    assert len(queue) == 0


def test_a_debt_that_grew_during_a_raise_is_not_due_for_another_one_at_once():
    """Each raise makes every worker wait: a session that is written all the time must not cause one after the other."""
    queue = _queue()
    queue.owe("a", V1, now_s=10.0)
    queue.owe("a", V2, now_s=13.5)
    queue.owe("b", V1, now_s=13.6)
    queue.raised(before_s=13.25)
    assert queue.due_at_s == 16.25
    queue.paid("a", V2)
    assert queue.due_at_s == 16.6


def test_what_is_owed_in_the_very_moment_of_the_raise_stays():
    queue = _queue()
    queue.owe("a", V1, now_s=11.0)
    queue.raised(before_s=11.0)
    assert list(queue.owed()) == [("a", V1)]


def test_an_overflow_is_paid_by_a_raise_unless_it_went_on():
    queue = _queue(limit=1)
    queue.owe("a", V1, now_s=10.0)
    queue.owe("b", V1, now_s=10.5)
    queue.owe("c", V1, now_s=12.0)
    queue.raised(before_s=11.0)
    assert queue.overflowed
    assert queue.due_at_s == 10.5
    queue.raised(before_s=13.0)
    assert not queue.overflowed
    assert len(queue) == 0


def test_room_that_has_come_free_is_used():
    queue = _queue(limit=1)
    queue.owe("a", V1, now_s=10.0)
    queue.paid("a", V1)
    queue.owe("b", V1, now_s=11.0)
    assert not queue.overflowed
