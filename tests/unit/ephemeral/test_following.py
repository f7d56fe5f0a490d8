"""What the notices of a session amount to, whatever comes twice, late, out of order or not at all."""

from __future__ import annotations

import itertools
import random

import pytest

from mangacache import Version
from mangacache.ephemeral.events import Follower
from mangacache.redis.notices import CLOSED, DELETED, OWED, Notice, decode_notice, notice_tail, whole_notice


def notice(i, t, r, turns=0, mark=""):
    return Notice("s", Version(i, t, r), turns, mark)


def told(follower, *notices):
    """Return the events in short: kind, and the number of a turn or the version."""
    events = [event for one in notices for event in follower.take(one)]
    return [(event.kind, event.number if event.kind == "turn" else str(event.version)) for event in events]


BEGUN = notice(1, 1, 1, 1)


def test_the_first_append_of_a_session_is_its_turn_and_its_meta():
    assert told(Follower("s"), BEGUN) == [("turn", 1), ("meta", "1.1.1")]
    assert told(Follower("s", Version()), BEGUN) == [("turn", 1), ("meta", "1.1.1")]


def test_each_event_has_a_version_from_which_on_it_is_seen_and_they_grow():
    events = list(Follower("s", Version(1, 3, 1)).take(notice(1, 6, 2, 3)))
    assert [(event.kind, str(event.version)) for event in events] == [
        ("turn", "1.4.1"), ("turn", "1.5.1"), ("turn", "1.6.1"), ("meta", "1.6.2"),
    ]  # fmt: skip


def test_whoever_begins_in_the_middle_is_told_what_each_write_made_and_not_what_was_before():
    assert told(Follower("s"), notice(1, 7, 3, 1), notice(1, 7, 4)) == [("turn", 7), ("meta", "1.7.4")]
    assert told(Follower("s"), notice(1, 7, 3)) == [("meta", "1.7.3")]


def test_what_comes_twice_or_late_is_told_once():
    follower = Follower("s", Version())
    assert told(follower, BEGUN, BEGUN) == [("turn", 1), ("meta", "1.1.1")]
    assert told(follower, notice(1, 3, 1, 2), notice(1, 2, 1, 1)) == [("turn", 2), ("turn", 3)]
    assert told(follower, notice(1, 3, 2), notice(1, 3, 1), notice(1, 3, 2)) == [("meta", "1.3.2")]
    assert told(follower, notice(1, 4, 1, 1), notice(1, 3, 2), notice(1, 4, 2, 1)) == [("turn", 4)], "two wrote at once"


@pytest.mark.parametrize(
    ("missed", "after"),
    [
        (notice(1, 5, 1, 1), [("gap", "1.4.1"), ("turn", 5)]),
        (notice(1, 3, 3), [("gap", "1.3.2"), ("meta", "1.3.3")]),
        (notice(1, 9, 4, 1, CLOSED), [("gap", "1.8.3"), ("turn", 9), ("closed", "1.9.4")]),
        (notice(2, 1, 1, 1), [("gap", "2.0.0"), ("turn", 1), ("meta", "2.1.1")]),
        (notice(3, 0, 0, 0, DELETED), [("gap", "3.0.0"), ("deleted", "3.0.0")]),
    ],
    ids=str,
)
def test_where_something_is_missing_a_gap_comes_first(missed, after):
    assert told(Follower("s", Version(1, 3, 1)), missed) == after


def test_a_change_of_meta_that_follows_a_turn_that_was_missed_shows_it():
    assert told(Follower("s", Version(1, 3, 1)), notice(1, 4, 2)) == [("gap", "1.4.1"), ("meta", "1.4.2")]


def test_closing_and_deleting_are_told_as_that():
    follower = Follower("s", Version(1, 3, 1))
    assert told(follower, notice(1, 3, 2, 0, CLOSED)) == [("closed", "1.3.2")]
    assert told(follower, notice(2, 0, 0, 0, DELETED), notice(2, 0, 0, 0, DELETED)) == [("deleted", "2.0.0")]
    assert told(follower, notice(1, 4, 2, 1)) == [], "a late one of the life before"
    assert told(follower, notice(2, 1, 1, 1)) == [("turn", 1), ("meta", "2.1.1")]


def test_a_delete_is_told_to_whoever_has_just_begun_to_listen():
    assert told(Follower("s"), notice(2, 0, 0, 0, DELETED)) == [("deleted", "2.0.0")]


def test_after_a_gap_that_was_told_already_the_next_notice_is_taken_as_it_comes():
    follower = Follower("s", Version(1, 3, 1))
    follower.interrupt()
    assert told(follower, notice(1, 9, 3, 1)) == [("turn", 9), ("meta", "1.9.3")]
    assert told(follower, notice(1, 11, 3, 1)) == [("gap", "1.a.3"), ("turn", 11)]


def test_what_is_told_late_as_a_version_alone_is_a_gap_once():
    follower = Follower("s", Version(1, 3, 1))
    assert told(follower, notice(1, 5, 1, 0, OWED), notice(1, 5, 1, 0, OWED)) == [("gap", "1.5.1")]
    assert told(follower, notice(1, 6, 1, 1)) == [("turn", 6)]
    assert told(Follower("s"), notice(1, 5, 1, 0, OWED)) == [("gap", "1.5.1")]


def test_after_a_token_what_it_holds_is_not_told_and_what_is_missing_after_it_shows():
    assert told(Follower("s", Version(1, 5, 2)), notice(1, 5, 2, 1), notice(1, 6, 2, 1)) == [("turn", 6)]
    assert told(Follower("s", Version(1, 5, 2)), notice(1, 7, 2, 1)) == [("gap", "1.6.2"), ("turn", 7)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_doubled_or_swapped_events_are_in_order_none_comes_twice_and_no_hole_goes_untold(seed):
    noise = random.Random(seed)
    sent, version = [], Version()
    for _ in range(200):
        if noise.random() < 0.6:
            turns = noise.randint(1, 3)
            version = Version(1, version.number + turns, max(version.revision, 1))
            sent.append(Notice("s", version, turns))
        elif version.number:
            version = Version(1, version.number, version.revision + 1)
            sent.append(Notice("s", version, 0))
    arrives = [one for one in sent for _ in range(noise.choice((0, 1, 1, 1, 1, 2)))]
    for at in range(len(arrives) - 1):
        if noise.random() < 0.1:
            arrives[at], arrives[at + 1] = arrives[at + 1], arrives[at]
    follower = Follower("s", Version())
    events = [event for one in arrives for event in follower.take(one)]
    for one, following in itertools.pairwise(events):
        assert following.version.covers(one.version), (one, following)
        if following.kind == "turn":
            assert following.version.number > one.version.number or one.kind == "gap"
    last = 0
    for at, event in enumerate(events):
        if event.kind == "turn":
            assert event.number > last
            assert event.number == last + 1 or "gap" in {before.kind for before in events[:at]}
            if event.number > last + 1:
                since = [before.kind for before in events[:at] if before.version.number >= last]
                assert "gap" in since, f"turn {last + 1} is missing, and nobody said so"
            last = event.number


def test_a_notice_is_read_as_it_was_written_whatever_the_id():
    for name in ("s", "a b c", "日本", "-", "%", " "):
        payload = whole_notice([b"1", b"41", b"2"], notice_tail(name, 3, CLOSED))
        assert decode_notice(payload) == Notice(name, Version(1, 41, 2), 3, CLOSED)
        assert decode_notice(whole_notice([b"1", b"41", b"2"], notice_tail(name, 0))).mark == ""


@pytest.mark.parametrize("payload", [b"", b"x", b"1 2 3 4 5", b"1 2 x 0  s", b"\xff\xfe 1 1 1 1 1", b"1 2 3  "])
def test_what_is_no_notice_is_passed_over(payload):
    assert decode_notice(payload) is None
