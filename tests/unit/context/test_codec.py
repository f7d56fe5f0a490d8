"""How a context stands in Redis: everything comes back as it was, and what is damaged or unknown is said to be."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mangacache import Summary, Turn, Version
from mangacache.context.codec import (
    FORMAT,
    GAP,
    Unreadable,
    decode_head,
    decode_turns,
    encode_head,
    encode_ring,
    encode_turn,
)
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot

ATTRIBUTES = {
    "price": Decimal("6.80"),
    "whole": Decimal("3.0"),
    "large": 10**37 + 1,
    "cover": b"\x00\xff",
    "tags": ["seinen", {"rating": Decimal("9.47"), "none": None, "deep": [[True, b""]]}],
    "empty": {"text": "", "list": [], "map": {}, "bytes": b""},
    "languages": {"ja", "de"},
    "ids": {1, Decimal("3.5")},
    "scans": {b"\x00", b""},
    "日本": "ベルセルク 🗡",
}
TURN = Turn(7, "m-7", "user", "Is Berserk 7 in stock? 👩‍🚀", "2026-11-01T12:00:00.000Z", ATTRIBUTES, 1_800_000_000)
META = MetaRecord(
    incarnation=2,
    revision=5,
    customer_id="c-1",
    status="escalated",
    created_at="2026-11-01T11:00:00.000Z",
    last_active_at="2026-11-01T12:00:00.000Z",
    last_number=6,
    summary_upto=4,
    change_id="0f",
    expires_at=1_800_086_400,
    unswept=True,
    attributes=ATTRIBUTES,
)
SUMMARY = Summary(4, "Wants Berserk.", "2026-11-01T11:30:00.000Z", 1_800_000_000)
VERSION = Version(2, 7, 5)

# What format 1 was when it was first written. A release that cannot read it empties every cache while it is rolled out.
GOLDEN_TURN = (
    "019707a36d2d37a475736572d9224973204265727365726b203720696e2073746f636b3f20f09f91a9e2808df09f9a80b832"
    "3032362d31312d30315431323a30303a30302e3030305ace6b49d20085a5707269636581a14ea4362e3830a7766f6c756d65"
    "7381a14ea23431a5636f76657281a142c40200ffa47461677381a14c9481a153a16181a44e554c4cc381a4424f4f4cc381a2"
    "535391a162a6e697a5e69cac81a153a3e38399"
)
GOLDEN_HEAD = (
    "01929c0205a3632d31a9657363616c61746564b8323032362d31312d30315431313a30303a30302e3030305ab8323032362d"
    "31312d30315431323a30303a30302e3030305a0604a23066ce6b4b2380c385a5707269636581a14ea4362e3830a7766f6c75"
    "6d657381a14ea23431a5636f76657281a142c40200ffa47461677381a14c9481a153a16181a44e554c4cc381a4424f4f4cc3"
    "81a2535391a162a6e697a5e69cac81a153a3e383999404ae57616e7473204265727365726b2eb8323032362d31312d303154"
    "31313a33303a30302e3030305ace6b49d200"
)
PLAIN = {"price": Decimal("6.80"), "volumes": 41, "cover": b"\x00\xff", "tags": ["a", None, True, {"b"}], "日本": "ベ"}


def _types(value):
    if isinstance(value, dict):
        return {name: _types(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_types(member) for member in value]
    if isinstance(value, set):
        return sorted(type(member).__name__ for member in value)
    return type(value)


def test_a_turn_comes_back_as_it_was_types_included():
    (turn,) = decode_turns(7, [encode_turn(TURN)])
    assert turn == msgspec.structs.replace(TURN, attributes={**ATTRIBUTES, "whole": 3})
    assert _types(turn.attributes) == _types({**ATTRIBUTES, "whole": 3})


def test_a_head_comes_back_as_it_was_but_for_what_is_outside_the_version():
    snapshot = Snapshot(meta=msgspec.structs.replace(META, fence=9), version=VERSION, summary=SUMMARY)
    meta, summary = decode_head(encode_head(snapshot), VERSION)
    assert meta == msgspec.structs.replace(META, attributes={**ATTRIBUTES, "whole": 3})
    assert summary == SUMMARY


@pytest.mark.parametrize("summary", [None, SUMMARY])
@pytest.mark.parametrize("meta", [None, MetaRecord(incarnation=2, revision=5)])
def test_a_head_may_lack_either_half(meta, summary):
    snapshot = Snapshot(meta=meta, version=VERSION, summary=summary)
    assert decode_head(encode_head(snapshot), VERSION) == (meta, summary)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.one_of(
    st.integers(-(10**37), 10**37),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1_000_000, max_value=1_000_000),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXT, NUMBERS, st.binary(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=10,
) | st.one_of(st.sets(TEXT, min_size=1), st.sets(NUMBERS, min_size=1), st.sets(st.binary(), min_size=1))


@settings(max_examples=200, deadline=None)
@given(attributes=st.dictionaries(TEXT.filter(bool), VALUES, max_size=4), content=TEXT, turn_id=TEXT)
def test_any_turn_comes_back_as_it_was(attributes, content, turn_id):
    turn = Turn(1, turn_id, "user", content, "", attributes, 0)
    (again,) = decode_turns(1, [encode_turn(turn)])
    assert again == turn
    assert encode_turn(again) == encode_turn(msgspec.structs.replace(turn, attributes=again.attributes))


def _turns(*numbers):
    return tuple(Turn(number, f"t{number}", "user", f"{number}", "") for number in numbers)


def test_a_ring_holds_the_turns_up_to_the_versions_number():
    first, ring = encode_ring(Snapshot(version=Version(1, 3, 1), turns=_turns(1, 2, 3)))
    assert (first, [turn.number for turn in decode_turns(first, ring)]) == (1, [1, 2, 3])


def test_an_empty_ring_begins_after_the_last_number():
    assert encode_ring(Snapshot(version=Version(1, 512, 1))) == (513, [])
    assert encode_ring(Snapshot()) == (1, [])


def test_turns_that_dynamodb_has_deleted_leave_gaps_in_a_ring_and_their_numbers_stay():
    snapshot = Snapshot(version=Version(1, 9, 1), turns=_turns(5, 7))
    first, ring = encode_ring(snapshot)
    assert first == 5
    assert [slot == GAP for slot in ring] == [False, True, False, True, True]
    assert decode_turns(first, ring) == snapshot.turns


def test_a_ring_is_never_longer_than_the_window_whatever_is_missing():
    first, ring = encode_ring(Snapshot(version=Version(1, 100, 1), turns=_turns(1, 68, 69, 100)))
    assert (first, len(ring)) == (69, 32)
    assert [turn.number for turn in decode_turns(first, ring)] == [69, 100]


def _damaged(value):
    """Return the bytes of a value, cut off at each place and with each byte changed."""
    yield from (value[:size] for size in range(1, len(value)))
    for place in range(1, len(value)):
        for byte in (0x00, 0x7F, 0xC1, 0xFF):
            yield value[:place] + bytes([byte]) + value[place + 1 :]


def test_a_damaged_turn_is_unreadable_or_a_turn_and_nothing_else_happens():
    refused = 0
    for bad in _damaged(encode_turn(TURN)):
        try:
            turns = decode_turns(7, [bad])
        except Unreadable as error:
            refused += error.known_format
        else:
            assert [turn.number for turn in turns] in ([7], [])
    assert refused > 300


def test_a_damaged_head_is_unreadable_or_a_head_and_nothing_else_happens():
    refused = 0
    for bad in _damaged(encode_head(Snapshot(meta=META, version=VERSION, summary=SUMMARY))):
        try:
            meta, _ = decode_head(bad, VERSION)
        except Unreadable as error:
            refused += error.known_format
        else:
            assert meta is None or (meta.incarnation, meta.revision) == (2, 5)
    assert refused > 300


@pytest.mark.parametrize("value", [b"\x02", b"\x02\x90", b"\x00abc", b"{}", b"\xff" * 9])
def test_an_unknown_format_is_said_to_be_unknown_so_that_it_is_left_alone(value):
    for decode in (lambda: decode_turns(1, [value]), lambda: decode_head(value, VERSION)):
        with pytest.raises(Unreadable, match="not known here") as unreadable:
            decode()
        assert not unreadable.value.known_format


def test_damage_that_nests_without_end_is_damage():
    body = msgspec.msgpack.decode(encode_turn(TURN)[1:])
    deep = msgspec.msgpack.encode([*body[:-1], {}])[:-1] + b"\x81\xa1a" + b"\x81\xa1L\x91" * 100_000 + b"\xc0"
    with pytest.raises(Unreadable) as unreadable:
        decode_turns(7, [FORMAT + deep])
    assert unreadable.value.known_format


@pytest.mark.parametrize("value", [None, b""])
def test_a_missing_part_is_damage(value):
    for decode in (lambda: decode_turns(1, [value]), lambda: decode_head(value, VERSION)):
        with pytest.raises(Unreadable) as unreadable:
            decode()
        assert unreadable.value.known_format


def test_a_turn_in_the_place_of_another_is_damage():
    with pytest.raises(Unreadable, match="turn 7 stands in the place of 8"):
        decode_turns(8, [encode_turn(TURN)])


@pytest.mark.parametrize("version", [Version(2, 7, 4), Version(1, 7, 5)])
def test_a_head_of_another_version_is_damage(version):
    with pytest.raises(Unreadable, match="another version"):
        decode_head(encode_head(Snapshot(meta=META, version=VERSION)), version)


def test_a_head_that_holds_nothing_where_one_must_stand_is_damage():
    with pytest.raises(Unreadable, match="META"):
        decode_head(FORMAT, VERSION)


def test_bytes_of_format_1_written_by_the_first_release_are_read_for_ever():
    (turn,) = decode_turns(7, [bytes.fromhex(GOLDEN_TURN)])
    assert turn == msgspec.structs.replace(TURN, attributes=PLAIN)
    meta, summary = decode_head(bytes.fromhex(GOLDEN_HEAD), VERSION)
    assert meta == msgspec.structs.replace(META, attributes=PLAIN)
    assert summary == SUMMARY
    assert decode_turns(1, [bytes.fromhex("01")]) == ()


def test_format_1_is_written_as_the_first_release_wrote_it():
    """Other bytes need another format: workers of the last release share the hash."""
    assert FORMAT == b"\x01"
    assert encode_turn(msgspec.structs.replace(TURN, attributes=PLAIN)).hex() == GOLDEN_TURN
    snapshot = Snapshot(meta=msgspec.structs.replace(META, attributes=PLAIN), version=VERSION, summary=SUMMARY)
    assert encode_head(snapshot).hex() == GOLDEN_HEAD


def test_a_turn_written_by_a_later_release_of_the_same_format_may_have_more_fields():
    body = msgspec.msgpack.decode(encode_turn(TURN)[1:])
    (turn,) = decode_turns(7, [FORMAT + msgspec.msgpack.encode([*body, "more"])])
    assert turn.turn_id == "m-7"
