"""Free attributes on their way to DynamoDB's typed values and back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from boto3.dynamodb.types import Binary
from hypothesis import given
from hypothesis import strategies as st

from mangacache import Corrupt, Invalid
from mangacache.store.items import META_NAMES, TURN_NAMES
from mangacache.store.values import MAX_DEPTH, copied, from_typed, size_of, to_typed, typed_attributes

texts = st.text(st.characters(codec="utf-8"), max_size=20)
wholes = st.integers(-(10**38) + 1, 10**38 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9)
binaries = st.binary(max_size=20)
sets = st.one_of(*(st.sets(members, min_size=1, max_size=5) for members in (texts, wholes, decimals, binaries)))
leaves = st.one_of(st.none(), st.booleans(), wholes, decimals, texts, binaries, sets)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def kinds(value):
    """Return a value's types, all the way down: True == 1 and 2 == Decimal(2), so equality alone hides a change."""
    if isinstance(value, dict):
        return {name: kinds(member) for name, member in value.items()}
    if isinstance(value, list):
        return [kinds(member) for member in value]
    if isinstance(value, set):
        return {(type(member), member) for member in value}
    return type(value)


@given(values)
def test_a_value_comes_back_equal_and_after_that_in_the_same_form(value):
    once = from_typed(to_typed(value))
    assert once == value
    again = from_typed(to_typed(once))
    assert again == once
    assert kinds(again) == kinds(once)


@pytest.mark.parametrize(
    ("value", "typed", "back"),
    [
        (None, {"NULL": True}, None),
        (True, {"BOOL": True}, True),
        (0, {"N": "0"}, 0),
        (-7, {"N": "-7"}, -7),
        (Decimal("6.80"), {"N": "6.80"}, Decimal("6.8")),
        (Decimal("2.0"), {"N": "2.0"}, 2),
        (Decimal("1E+2"), {"N": "1E+2"}, 100),
        (10**38 - 1, {"N": "9" * 38}, 10**38 - 1),
        (Decimal("1E-130"), {"N": "1E-130"}, Decimal("1E-130")),
        ("", {"S": ""}, ""),
        ("ベルセルク 🗡", {"S": "ベルセルク 🗡"}, "ベルセルク 🗡"),
        (b"\x00\xff", {"B": b"\x00\xff"}, b"\x00\xff"),
        (bytearray(b"ab"), {"B": b"ab"}, b"ab"),
        (memoryview(b"ab"), {"B": b"ab"}, b"ab"),
        ((1, "a"), {"L": [{"N": "1"}, {"S": "a"}]}, [1, "a"]),
        ({"a": {"b": [None]}}, {"M": {"a": {"M": {"b": {"L": [{"NULL": True}]}}}}}, {"a": {"b": [None]}}),
        ({"b", "a"}, {"SS": ["a", "b"]}, {"a", "b"}),
        (frozenset({2, Decimal("1.5")}), {"NS": ["1.5", "2"]}, {2, Decimal("1.5")}),
        ({b"b", b"a"}, {"BS": [b"a", b"b"]}, {b"a", b"b"}),
    ],
)
def test_each_type_has_one_form_in_the_table_and_one_when_it_is_read(value, typed, back):
    assert to_typed(value) == typed
    assert from_typed(typed) == back
    assert kinds(from_typed(typed)) == kinds(back)
    assert repr(from_typed(typed)) == repr(back) or isinstance(back, set), "6.80 and 6.8 are equal, and not the same"


def test_the_binary_of_boto3_is_read_as_bytes_and_not_as_its_repr():
    assert from_typed({"B": Binary(b"\x00\xff")}) == b"\x00\xff"
    assert type(from_typed({"B": Binary(b"a")})) is bytes
    assert from_typed({"BS": [Binary(b"a")]}) == {b"a"}
    assert from_typed({"M": {"deep": {"L": [{"B": Binary(b"a")}]}}}) == {"deep": [b"a"]}


def nested(depth):
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (0.1, r"attribute is a float, which DynamoDB rounds: pass Decimal\('0.1'\) or text"),
        (float("nan"), "is a float"),
        ([1, {"a": 2.5}], r"attribute\[1\].a is a float"),
        (Decimal("NaN"), "does not fit a DynamoDB number"),
        (Decimal("sNaN"), "does not fit a DynamoDB number"),
        (Decimal("Infinity"), "does not fit a DynamoDB number"),
        (Decimal("-Infinity"), "does not fit a DynamoDB number"),
        ({Decimal("Infinity"), 1}, "does not fit a DynamoDB number"),
        (10**38 + 1, "38 digits"),
        (Decimal("1E+126"), r"1E-130 to 1E\+126"),
        (Decimal("1E-131"), r"1E-130 to 1E\+126"),
        (Decimal("0." + "1" * 39), "38 digits"),
        (set(), "empty set"),
        ({"a", 1}, "mixed types"),
        ({True, 2}, "mixed types"),
        ({b"a", "a"}, "mixed types"),
        ({(1, 2)}, "mixed types"),
        ({1: "a"}, "a mapping's keys must be text, 1 is not"),
        ("a\ud800", "lone surrogate at position 1"),
        ({"\udfff": 1}, "lone surrogate at position 0"),
        ({"a\ud800"}, "lone surrogate"),
        (object(), "attribute is a object: pass text, numbers"),
        (1j, "attribute is a complex"),
        (nested(MAX_DEPTH + 1), "nested deeper than 32 levels"),
    ],
)
def test_what_dynamodb_cannot_hold_is_refused_and_said_where_it_stands(value, complaint):
    with pytest.raises(Invalid, match=complaint):
        to_typed(value)


def test_a_value_may_be_nested_as_deep_as_dynamodb_allows():
    assert from_typed(to_typed(nested(MAX_DEPTH))) == nested(MAX_DEPTH)


@pytest.mark.parametrize(
    "typed", [{}, {"X": 1}, {"S": "a", "N": "1"}, {"N": "seven"}, {"M": {"a": {"N": "x"}}}, {"L": 7}, {"NS": ["x"]}]
)
def test_a_stored_value_that_is_none_is_corrupt(typed):
    with pytest.raises(Corrupt):
        from_typed(typed)


@pytest.mark.parametrize("name", ["", "x" * 256, 7, None])
def test_an_attributes_name_has_1_to_255_characters(name):
    with pytest.raises(Invalid, match="name must be text of 1 to 255 characters"):
        typed_attributes({name: 1}, frozenset())


@pytest.mark.parametrize("reserved", [TURN_NAMES, META_NAMES])
def test_the_names_of_the_layout_are_not_free(reserved):
    for name in reserved:
        with pytest.raises(Invalid, match=f"'{name}' is used by the table's layout"):
            typed_attributes({"free": 1, name: 1}, reserved)
    assert typed_attributes({"x" * 255: 1}, reserved) == {"x" * 255: {"N": "1"}}


def test_a_copy_shares_nothing_that_can_be_changed():
    original = {"list": [{"map": {"set": {1}}}], "text": "a"}
    copy = copied(original)
    copy["list"][0]["map"]["set"].add(2)
    copy["list"].append(1)
    assert original == {"list": [{"map": {"set": {1}}}], "text": "a"}


@given(st.dictionaries(texts.filter(bool), values, max_size=4))
def test_a_size_is_never_below_the_text_and_bytes_in_it(attributes):
    def least(value):
        if isinstance(value, dict):
            return sum(len(name.encode()) + least(member) for name, member in value.items())
        if isinstance(value, list | set):
            return sum(map(least, value))
        return len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0

    typed = {name: to_typed(value) for name, value in attributes.items()}
    assert size_of(typed) >= least(attributes)
