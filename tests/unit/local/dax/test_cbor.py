"""CBOR is RFC 8949's, to the byte, in both directions."""

from __future__ import annotations

import pytest
from amazondax.CborEncoder import CborEncoder
from daxvalues import patient
from hypothesis import given
from hypothesis import strategies as st

from mangacache.local.dax import cbor
from mangacache.local.dax.cursor import Cursor, Truncated
from mangacache.local.dax.limits import Limits, Malformed

POWERS = [sign << power for power in (0, 8, 16, 31, 32, 63, 64, 65, 72, 100) for sign in (1, -1)]
EDGES = [power + step for power in POWERS for step in (-1, 0, 1)]


@pytest.mark.parametrize("number", [*EDGES, 23, 24, -24, -25])
def test_a_whole_number_is_written_as_the_real_client_does_and_read_again(number):
    octets = cbor.integer(number)
    assert octets == CborEncoder().append_int(number).as_bytes()
    cursor = Cursor(octets)
    assert cursor.integer() == number
    assert cursor.ended


@patient
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.binary(max_size=400))
def test_texts_and_byte_strings_are_read_as_they_were_written(text, octets):
    cursor = Cursor(cbor.text(text) + cbor.blob(octets))
    assert (cursor.text(), cursor.blob()) == (text, octets)
    assert cursor.ended


@pytest.mark.parametrize("length", [23, 24, 255, 256, 65_535, 65_536])
def test_a_length_takes_as_many_bytes_as_it_needs(length):
    octets = cbor.blob(bytes(length))
    assert octets == bytes(CborEncoder().append_binary(bytes(length)).as_bytes())
    assert len(Cursor(octets).blob()) == length


@pytest.mark.parametrize(
    ("octets", "number"),
    [
        ("f90000", 0.0),
        ("f93c00", 1.0),
        ("f97bff", 65504.0),
        ("f90001", 5.960464477539063e-08),
        ("f9c400", -4.0),
        ("fa47c35000", 100000.0),
        ("fb3ff199999999999a", 1.1),
        ("fbc010666666666666", -4.1),
    ],
)
def test_floating_numbers_of_each_size_are_read(octets, number):
    assert Cursor(bytes.fromhex(octets)).floating() == number
    assert Cursor(cbor.double(number)).floating() == number


def test_a_head_holds_no_more_than_64_bits():
    assert cbor.head(cbor.ARRAY, 2**64 - 1) == bytes.fromhex("9bffffffffffffffff")
    with pytest.raises(ValueError, match="below"):
        cbor.head(cbor.ARRAY, 2**64)


SKIPPED = """
    00 3903e7 4161 6161 5f41614162ff 7fff 80 9f01ff a10102 bf0102ff c4820102 d90cf9816161
    f4 f6 f7 f820 f93c00 fa47c35000 fb3ff199999999999a 829f80ffa1a0a0 c1c1c101
""".split()  # noqa: SIM905 - more readable than quotes


@pytest.mark.parametrize("octets", SKIPPED)
def test_an_item_of_any_kind_is_passed_over(octets):
    whole = bytes.fromhex(octets)
    cursor = Cursor(whole + b"\x18\x2a")
    cursor.skip()
    assert cursor.integer() == 42
    for end in range(len(whole)):
        with pytest.raises(Truncated):
            Cursor(whole[:end]).skip()


@pytest.mark.parametrize("octets", ["ff", "1c", "3f", "df", "81ff", "5f6161ff", "5f5f4161ffff", "fc", "fe", "5d"])
def test_what_is_no_item_is_not_passed_over(octets):
    with pytest.raises(Malformed) as caught:
        Cursor(bytes.fromhex(octets)).skip()
    assert not isinstance(caught.value, Truncated)


@pytest.mark.parametrize(
    ("octets", "limits", "named"),
    [
        ("6461616161", Limits(string_bytes=3), "string_bytes"),
        ("848001" + "0101", Limits(elements=3), "elements"),
        ("a40101010101010101", Limits(elements=3), "elements"),
        ("81818101", Limits(depth=2), "depth"),
    ],
)
def test_limits_hold_for_what_is_passed_over(octets, limits, named):
    with pytest.raises(Malformed, match=named):
        Cursor(bytes.fromhex(octets), limits).skip()
