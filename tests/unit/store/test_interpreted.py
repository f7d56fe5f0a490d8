"""META and the turns are read beside each other: what does not fit is read again, META first."""

from __future__ import annotations

import pytest

from mangacache.model import Version
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Reread, interpreted

ITEMS = [{"PK": {"S": "SESSION#s"}, "SK": {"S": f"TURN#0001-{number:010d}"}} for number in (40, 39)]


def _meta(last_number):
    return MetaRecord(incarnation=1, revision=3, last_number=last_number)


@pytest.mark.parametrize("items", [ITEMS, []], ids=["turns", "none"])
def test_a_meta_that_names_a_later_turn_than_was_read_beside_it_is_read_again(items):
    """The turn was stored between the two reads; taken for expired and gone, its number would be jumped over."""
    with pytest.raises(Reread):
        interpreted(_meta(41), items, in_order=False)


def test_read_after_meta_the_turns_are_what_is_left():
    assert interpreted(_meta(41), ITEMS, in_order=True).version == Version(1, 40, 3)


def test_turns_beyond_what_meta_names_fit_it():
    assert interpreted(_meta(8), ITEMS, in_order=False).version == Version(1, 40, 3)
