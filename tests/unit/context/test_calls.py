"""The scripts' arguments and replies: what is sent of a context, and how a reply joins what is known."""

from __future__ import annotations

import msgspec
import pytest

from mangacache import Settings, Summary, Turn, Version
from mangacache.context.calls import Calls, Committed, committed, got
from mangacache.context.codec import GAP, Unreadable, encode_head, encode_turn
from mangacache.context.messages import Busy, Held
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot

CALLS = Calls(Settings(table_name="t-1", key_prefix="mc:", context_ttl_s=300, context_max_age_s=3600))
NOTHING = [-1, -1, -1]


def _turns(first, last):
    return tuple(Turn(number, f"t{number}", "user", f"{number}", "") for number in range(first, last + 1))


def _snapshot(last, *, first=1, revision=1, incarnation=1):
    meta = MetaRecord(incarnation=incarnation, revision=revision, status=f"r{revision}")
    return Snapshot(meta=meta, version=Version(incarnation, last, revision), turns=_turns(first, last))


def _slots(first, last):
    return [encode_turn(turn) for turn in _turns(first, last)]


# Keys


@pytest.mark.parametrize(
    ("session_id", "escaped"),
    [
        ("s-1", "s-1"),
        ("{a}", "%7Ba%7D"),
        ("a}b", "a%7Db"),
        ("a\nb", "a%0Ab"),
        ("a b", "a%20b"),
        ("a:context:2", "a%3Acontext%3A2"),
        ("a%7Bb", "a%257Bb"),
        ("a/b*?[c]", "a%2Fb%2A%3F%5Bc%5D"),
        ("漫画", "%E6%BC%AB%E7%94%BB"),
        ("👩‍🚀", "%F0%9F%91%A9%E2%80%8D%F0%9F%9A%80"),
        ("\x00", "%00"),
    ],
)
def test_an_id_stands_in_the_key_so_that_it_can_neither_break_it_nor_choose_another_slot(session_id, escaped):
    key = CALLS.key(session_id, 3)
    assert key == f"mc:session:{{{escaped}}}:context:3"
    assert (key.count("{"), key.count("}")) == (1, 1)
    assert key.isascii()
    assert key.isprintable()


def test_an_epoch_has_keys_of_its_own():
    assert CALLS.key("s", 1) != CALLS.key("s", 2)


# GET's arguments


def test_get_says_what_the_answer_must_reach_and_what_need_not_be_sent():
    arguments = CALLS.get("token", least=Version(1, 5, 2), have=_snapshot(4))
    assert arguments == ["token", 2_000, 300_000, 3_600_000, 32, 1, 5, 2, 1, 4, 1]


def test_who_holds_nothing_or_a_foreign_session_is_sent_all():
    foreign = msgspec.structs.replace(_snapshot(4), foreign=True)
    for have in (None, foreign):
        assert CALLS.get("token", least=Version(), have=have)[-3:] == NOTHING


# COMMIT's arguments


def test_a_commit_carries_the_new_turns_alone():
    arguments = CALLS.commit(_snapshot(40, first=9), _snapshot(41, first=10))
    assert arguments == [300_000, 32, 1, 41, 1, b"", 41, *_slots(41, 41)]


def test_turns_learned_at_a_collision_travel_in_the_same_commit():
    arguments = CALLS.commit(_snapshot(3), _snapshot(6))
    assert arguments[6:] == [4, *_slots(4, 6)]


def test_a_change_of_meta_carries_the_head_and_no_turns():
    after = msgspec.structs.replace(_snapshot(3, revision=2), summary=Summary(2, "short", ""))
    arguments = CALLS.commit(_snapshot(3), after)
    assert arguments == [300_000, 32, 1, 3, 2, encode_head(after), 4]


def test_the_first_commit_of_a_life_carries_all_of_it():
    after = _snapshot(2)
    for base in (None, Snapshot(), _snapshot(7, incarnation=0)):
        assert CALLS.commit(base, after) == [300_000, 32, 1, 2, 1, encode_head(after), 1, *_slots(1, 2)]


def test_a_turn_that_was_stored_already_is_observed():
    same = _snapshot(3)
    assert CALLS.commit(same, same) == CALLS.observe(same.version) == [300_000, 32, 1, 3, 1, b"", 4]


def test_a_delete_tells_the_next_life_and_its_tombstone():
    dead = Snapshot(meta=MetaRecord(incarnation=2, status="deleted"), version=Version(2, 0, 0))
    assert CALLS.commit(_snapshot(3), dead) == [300_000, 32, 2, 0, 0, encode_head(dead), 1]


def test_where_a_turn_in_between_is_unknown_none_is_sent_and_nothing_is_guessed():
    gone = msgspec.structs.replace(_snapshot(6), turns=(*_turns(1, 4), *_turns(6, 6)))
    assert CALLS.commit(_snapshot(3), gone)[6:] == [7]
    far = msgspec.structs.replace(_snapshot(513), turns=_turns(1, 3))
    assert CALLS.commit(_snapshot(2), far)[6:] == [514]


def test_a_session_without_meta_sends_no_head():
    orphaned = msgspec.structs.replace(_snapshot(3, revision=0), meta=None)
    assert CALLS.commit(None, orphaned)[5] == b""


@pytest.mark.parametrize("last", [40, 400])
@pytest.mark.parametrize("content", ["", "Do you have volume 41? " * 20])
def test_a_commit_is_the_turn_and_a_little_however_many_turns_are_stored(last, content):
    turn = Turn(last, "m-1234567890", "user", content, "2026-11-01T12:00:00.000Z", {}, 1_800_000_000)
    base = _snapshot(last - 1, first=last - 32)
    key = CALLS.key("session-1234567890", 1)
    sent = [key, *CALLS.commit(base, base.grown([turn]))]
    size = sum(len(part if isinstance(part, bytes) else str(part)) for part in sent)
    assert size - len(encode_turn(turn)) < 110


# FILL's arguments


def test_a_fill_carries_head_and_ring():
    snapshot = _snapshot(5, first=3)
    assert CALLS.fill("token", snapshot) == [300_000, 32, 1, 5, 1, encode_head(snapshot), 3, "token", *_slots(3, 5)]


def test_a_fill_of_nothing_says_that_there_is_nothing():
    assert CALLS.fill("token", Snapshot()) == [300_000, 32, 0, 0, 0, encode_head(Snapshot()), 1, "token"]


def test_a_fill_keeps_the_places_of_turns_that_are_gone():
    snapshot = msgspec.structs.replace(_snapshot(5), turns=(*_turns(3, 3), *_turns(5, 5)))
    assert CALLS.fill("token", snapshot)[6:] == [3, "token", *_slots(3, 3), GAP, *_slots(5, 5)]


# GET's replies


def test_a_lease_is_no_content():
    assert got([b"lease"], None) is None


def test_busy_says_how_long_at_most():
    assert got([b"busy", 1_250], None) == Busy(1.25)


def test_the_same_is_what_was_held_when_it_was_asked():
    have = _snapshot(4)
    held = got([b"same", 2_500, 1, 4, 1], have)
    assert held == Held(have, 2.5)
    assert held.snapshot is have
    with pytest.raises(AssertionError):
        got([b"same", 0, 1, 4, 1], None)


def test_a_hit_is_the_whole_context_for_who_had_nothing():
    snapshot = msgspec.structs.replace(_snapshot(5, first=3), summary=Summary(2, "short", "", 9))
    held = got([b"hit", 0, 1, 5, 1, 3, encode_head(snapshot), _slots(3, 5)], None)
    assert held == Held(snapshot, 0.0)


def test_new_turns_join_those_that_are_held():
    held = got([b"hit", 0, 1, 6, 1, 4, None, _slots(4, 6)], _snapshot(3))
    assert held.snapshot == _snapshot(6)


def test_no_more_than_the_window_is_kept():
    held = got([b"hit", 0, 1, 40, 1, 33, None, _slots(33, 40)], _snapshot(32))
    assert held.snapshot.turns == _turns(9, 40)


def test_a_change_of_meta_alone_leaves_the_turns():
    after = _snapshot(3, revision=2)
    held = got([b"hit", 0, 1, 3, 2, 4, encode_head(after), []], _snapshot(3))
    assert held.snapshot == after


def test_a_new_head_brings_its_summary_or_none():
    have = msgspec.structs.replace(_snapshot(3), summary=Summary(1, "old", ""))
    kept = got([b"hit", 0, 1, 4, 1, 4, None, _slots(4, 4)], have)
    assert kept.snapshot.summary == have.summary
    gone = got([b"hit", 0, 1, 3, 2, 4, encode_head(_snapshot(3, revision=2)), []], have)
    assert gone.snapshot.summary is None


def test_a_hit_that_begins_above_the_next_number_replaces_the_window():
    held = got([b"hit", 0, 1, 40, 1, 9, None, _slots(9, 40)], _snapshot(3))
    assert held.snapshot.turns == _turns(9, 40)
    assert got([b"hit", 0, 1, 9, 1, 5, None, _slots(5, 9)], _snapshot(3)).snapshot.turns == _turns(5, 9)


def test_a_hit_of_another_life_replaces_all_of_it():
    after = _snapshot(2, incarnation=2)
    held = got([b"hit", 0, 2, 2, 1, 1, encode_head(after), _slots(1, 2)], _snapshot(1))
    assert held.snapshot == after


def test_a_hit_joins_nothing_to_a_foreign_session():
    foreign = msgspec.structs.replace(_snapshot(0), foreign=True, turns=_turns(1, 1))
    after = _snapshot(2)
    held = got([b"hit", 0, 1, 2, 1, 1, encode_head(after), _slots(1, 2)], foreign)
    assert held.snapshot == after


def test_gaps_in_a_hit_are_turns_that_are_gone():
    held = got([b"hit", 0, 1, 6, 1, 4, None, [GAP, *_slots(5, 5), GAP]], _snapshot(3))
    assert [turn.number for turn in held.snapshot.turns] == [1, 2, 3, 5]
    assert held.snapshot.version.number == 6


@pytest.mark.parametrize(
    "reply",
    [
        [b"hit", 0, 1, 5, 1, 5, None, [None]],
        [b"hit", 0, 1, 5, 1, 5, None, [b"\x01\xff"]],
        [b"hit", 0, 1, 5, 1, 5, None, [encode_turn(_turns(4, 4)[0])]],
        [b"hit", 0, 1, 5, 2, 6, b"", []],
        [b"hit", 0, 1, 5, 2, 6, encode_head(_snapshot(5, revision=3)), []],
    ],
)
def test_what_cannot_be_read_in_a_hit_is_never_an_answer(reply):
    with pytest.raises(Unreadable) as unreadable:
        got(reply, _snapshot(4))
    assert unreadable.value.known_format


def test_a_hit_without_a_head_is_no_answer_for_who_has_none():
    with pytest.raises(Unreadable):
        got([b"hit", 0, 1, 2, 1, 1, None, _slots(1, 2)], None)


# COMMIT's replies


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ([b"written", 1, 5, 2], Committed("written", Version(1, 5, 2))),
        ([b"known", 1, 6, 2], Committed("known", Version(1, 6, 2))),
        ([b"known", 0, 0, 0], Committed("known", Version())),
        ([b"absent", -1, -1, -1], Committed("absent", None)),
        ([b"filling", -1, -1, -1], Committed("filling", None)),
        ([b"deleted", -1, -1, -1], Committed("deleted", None)),
    ],
)
def test_a_commits_reply_says_what_was_done_and_where_the_hash_is(reply, expected):
    assert committed(reply) == expected
