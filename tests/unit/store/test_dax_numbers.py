"""Which numbers may be asked for in DAX: those that have been used, and no others."""

from __future__ import annotations

import msgspec
import pytest

from mangacache.model import WINDOW, Turn, Version
from mangacache.store.dax.pages import numbers_of_page
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot
from mangacache.store.windows import NEWEST, numbers_below

META = MetaRecord(incarnation=2, revision=3, last_number=60)


def _place(number, incarnation=2):
    return f"{incarnation:04}-{number:010}"


@pytest.mark.parametrize(
    ("cursor", "numbers"),
    [
        ({"before": _place(31)}, range(20, 31)),
        ({"before": _place(11)}, range(1, 11)),
        ({"before": _place(5)}, range(1, 5)),
        ({"before": _place(61)}, range(50, 61)),
        ({"after": _place(30)}, range(31, 42)),
        ({"after": ""}, range(1, 12)),
        ({"after": _place(49)}, range(50, 61)),
    ],
)
def test_a_page_has_the_numbers_beside_its_cursor_and_one_more(cursor, numbers):
    asked = numbers_of_page(META, before=cursor.get("before"), after=cursor.get("after"), limit=10)
    assert asked == numbers


@pytest.mark.parametrize(
    ("cursor", "why"),
    [
        ({}, "the newest number is not known"),
        ({"before": _place(1)}, "there is nothing before the first"),
        ({"before": _place(62)}, "61 need not have been used, and DAX would keep that it has not"),
        ({"after": _place(50)}, "the same, forwards"),
        ({"before": _place(31, incarnation=1)}, "another life's"),
        ({"before": "2024-03-01"}, "a foreign writer's"),
    ],
)
def test_where_a_number_may_not_have_been_used_a_query_is_asked(cursor, why):
    assert numbers_of_page(META, before=cursor.get("before"), after=cursor.get("after"), limit=10) is None, why


@pytest.mark.parametrize(
    "changes", [None, {"incarnation": None}, {"revision": 0}, {"adopting": "copying"}, {"adopting": "deleting"}]
)
def test_a_session_that_is_not_plainly_ours_and_alive_is_asked_for_by_a_query(changes):
    meta = None if changes is None else msgspec.structs.replace(META, **changes)
    assert numbers_of_page(meta, before=_place(31), after=None, limit=10) is None


def _snapshot(numbers, last=None):
    turns = tuple(Turn(number, f"t{number}", "user", "x", "") for number in numbers)
    return Snapshot(meta=META, version=Version(2, last or numbers[-1], 3), turns=turns)


@pytest.mark.parametrize(
    ("last", "below"),
    [
        (100, range(69, 93)),
        (40, range(9, 33)),
        (33, range(2, 26)),
        (32, range(1, 25)),
        (9, range(1, 2)),
        (8, range(1, 1)),
    ],
)
def test_a_window_lacks_the_numbers_below_its_newest(last, below):
    assert numbers_below(_snapshot(range(last - NEWEST + 1, last + 1)), NEWEST) == below
    assert len(below) <= WINDOW - NEWEST


def test_where_fewer_turns_came_than_were_asked_for_nothing_is_missing():
    assert len(numbers_below(_snapshot(range(1, 6)), 5)) == 0
    assert len(numbers_below(Snapshot(), 0)) == 0


@pytest.mark.parametrize(
    "snapshot",
    [
        _snapshot([91, 92, 93, 95, 96, 97, 98, 99]),
        _snapshot(range(95, 101)),
        _snapshot(range(93, 101), last=612),
        Snapshot(meta=META, version=Version(2, 0, 0)),
    ],
    ids=["a hole", "seals or another life's among them", "numbers that have gone", "nothing of this life"],
)
def test_what_cannot_be_told_from_the_newest_is_left_to_the_whole_query(snapshot):
    assert numbers_below(snapshot, NEWEST) is None
