"""Numbers keep their spelling where it is to be kept, have one form where that is wanted, and sort as their bytes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from amazondax import LexDecimal
from amazondax.CborEncoder import DYNAMODB_CONTEXT
from daxvalues import numbers, patient
from hypothesis import given
from hypothesis import strategies as st

from mangacache.errors import Invalid
from mangacache.local.dax.cursor import Cursor
from mangacache.local.dax.decimals import (
    canonical,
    decode_sortable,
    encode_canonical,
    encode_number,
    encode_sortable,
    number_of,
    read_number,
)
from mangacache.local.dax.limits import Malformed

VECTORS = {
    "1": "c11c0000",
    "-1": "3ee3fff0",
    "1.0": "c11c0010",
    "1.5": "c1288010",
    "100": "c31c0020",
    "123456": "c621dd4008",
    "1E+70": "fe800000471c0000",
    "1E-100": "817fffff9d1c0000",
    "-1E-100": "7e80000062e3fff0",
    "0": "80",
}


@pytest.mark.parametrize(("text", "octets"), VECTORS.items())
def test_the_sortable_form_is_to_the_byte_what_the_protocol_has(text, octets):
    assert encode_sortable(Decimal(text)).hex() == octets
    assert str(decode_sortable(bytes.fromhex(octets), 128)) == text


@patient
@given(numbers)
def test_the_sortable_form_is_the_real_clients(text):
    number = DYNAMODB_CONTEXT.create_decimal(text)
    octets = encode_sortable(number)
    assert octets == bytes(LexDecimal.encode(number))
    if number:
        assert str(decode_sortable(octets, 128)) == str(LexDecimal.decode_all(octets))


@patient
@given(st.lists(numbers, min_size=2, max_size=8))
def test_sorted_bytes_are_sorted_numbers(spelled):
    several = [Decimal(text) for text in spelled]
    by_bytes = sorted(several, key=lambda number: encode_sortable(canonical(number)))
    assert by_bytes == sorted(several)


@patient
@given(numbers, st.integers(0, 12))
def test_spellings_of_one_number_have_one_canonical_form(text, zeros):
    number = Decimal(text)
    sign, digits, exponent = number.as_tuple()
    respelled = Decimal((sign, digits + (0,) * zeros, exponent - zeros))
    assert str(canonical(number)) == str(canonical(respelled))
    assert canonical(number) == number
    assert encode_canonical(text) == encode_canonical(str(respelled))


def test_a_whole_number_is_plain_in_its_canonical_form():
    assert str(canonical(Decimal("1E+2"))) == "100"
    assert str(canonical(Decimal("1E+37"))) == "1" + "0" * 37
    assert str(canonical(Decimal("1E+70"))) == "1E+70", "the real client reads no more than 38 digits"
    assert str(canonical(Decimal("-0.0"))) == "0"


@patient
@given(numbers)
def test_a_number_is_read_as_it_was_spelled(text):
    """Only what has no place on the wire changes: a sign of zero, a leading zero, the letter's case."""
    read = read_number(Cursor(encode_number(text)))
    assert Decimal(read) == Decimal(text)
    assert len(Decimal(read).as_tuple().digits) == len(Decimal(text).as_tuple().digits)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        ("17", "23"),
        ("3863", "-100"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("c249010000000000000000", "18446744073709551616"),
        ("c349010000000000000000", "-18446744073709551617"),
        ("c482200a", "1.0"),
        ("c4820201", "1E+2"),
        ("c48221c249010000000000000000", "184467440737095516.16"),
        ("f93e00", "1.5"),
        ("fa3fc00000", "1.5"),
        ("fb3ff8000000000000", "1.5"),
    ],
)
def test_each_form_of_a_number_is_read(octets, text):
    cursor = Cursor(bytes.fromhex(octets))
    assert read_number(cursor) == text
    assert cursor.ended


@pytest.mark.parametrize(
    "octets",
    ["f97c00", "f97e00", "c48101", "c4830101", "c101", "61 31", "c25881" + "ff" * 129, "c4821b00000000ffffffff01"],
)
def test_what_is_no_number_is_malformed(octets):
    with pytest.raises(Malformed):
        read_number(Cursor(bytes.fromhex(octets)))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "missing"),
        ("00", "missing"),
        ("ff", "missing"),
        ("8000", "left over"),
        ("c11c000000", "left over"),
        ("c11c", "no end"),
        ("c100c0", "last group"),
        ("c1", "no end"),
        ("fe8000", "header"),
        ("fe8fffffff1c0000", "magnitude"),
        ("816fffffff1c0000", "magnitude"),
        ("c1" + "1c" * 200, "number_bytes"),
    ],
)
def test_what_is_no_sortable_number_is_malformed(octets, reason):
    with pytest.raises(Malformed, match=reason):
        decode_sortable(bytes.fromhex(octets), 128)


@pytest.mark.parametrize("text", ["", "x", "1_000", "NaN", "Infinity", "0x1", "1e", "--1", "1" * 500, "\u0661"])
def test_what_spells_no_number_is_refused(text):
    with pytest.raises(Invalid):
        number_of(text)
    with pytest.raises(Invalid):
        encode_number(text)
