"""Items keep their values and types on their way through the wire, and what is no item is malformed."""

from __future__ import annotations

import pytest
from amazondax.AttributeValueDecoder import _decode_attribute_value
from amazondax.AttributeValueEncoder import encode_attribute_value
from amazondax.DaxCborDecoder import DaxCborDecoder
from daxvalues import attributes, patient, same, values
from daxwire import Lists, schema
from hypothesis import given

from mangacache.errors import Invalid
from mangacache.local.dax.cursor import Budget, Cursor
from mangacache.local.dax.items import decode_values, encode_updated, encode_values, read_named
from mangacache.local.dax.limits import Limits, Malformed
from mangacache.local.dax.values import encode_value, read_value


def client_reads(octets):
    left = [bytes(octets)]

    def more(buffer, _):
        data = left.pop() if left else b""
        buffer += data
        return len(data)

    return _decode_attribute_value(DaxCborDecoder(more))


@patient
@given(values)
def test_the_real_clients_values_are_read(value):
    cursor = Cursor(bytes(encode_attribute_value(value)))
    assert same(read_value(cursor)) == same(value)
    assert cursor.ended


@patient
@given(values)
def test_the_real_client_reads_the_values_that_are_written(value):
    assert same(client_reads(encode_value(value))) == same(value)


@patient
@given(attributes)
def test_an_item_is_its_list_and_its_values_without_the_key(others):
    lists = Lists()
    keys = schema(pk="S", sk="N")
    item = {**others, "pk": {"S": "x"}, "sk": {"N": "1"}}
    octets = encode_values(item, keys, lists.id_of)
    expected = {name: value for name, value in item.items() if name not in keys.names}
    assert same(decode_values(octets, lists.names.__getitem__)) == same(expected)
    assert all(list(names) == sorted(names) for names in lists.ids)


def test_an_item_of_its_key_alone_has_the_list_that_is_never_asked_for():
    asked = []
    octets = encode_values({"pk": {"S": "x"}}, schema(pk="S"), asked.append)
    assert octets == b"\x01"
    assert decode_values(octets, asked.append) == {}
    assert asked == []


def test_what_an_update_changed_counts_in_the_list():
    lists = Lists()
    octets = encode_updated({"b": {"S": "y"}, "a": {"N": "1"}, "pk": {"S": "x"}}, schema(pk="S"), lists.id_of)
    assert octets == bytes.fromhex("1903e8a20001016179")
    assert lists.names[1000] == ("a", "b")


def test_pieces_of_open_length_are_put_together():
    octets = "bf 7f 6161 6162 ff 9f 5f 4101 4102 ff 01 ff ff"
    assert read_value(Cursor(bytes.fromhex(octets))) == {"M": {"ab": {"L": [{"B": b"\x01\x02"}, {"N": "1"}]}}}


def test_what_looks_up_a_lists_names_may_raise_what_it_likes():
    with pytest.raises(KeyError):
        decode_values(b"\x05\x01", {}.__getitem__)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "item is due"),
        ("19", "head"),
        ("6161", "whole number"),
        ("02", "0 values for the 2 names of list 2"),
        ("0201", "1 values for the 2 names of list 2"),
        ("02010203", "left over"),
        ("0102", "left over after the 0 values"),
        ("0201ff", "value is due"),
        ("0201e0", "value is due"),
        ("0201f800", "value is due"),
        ("02011c", "begins no item"),
        ("0201615a5a", "left over"),
        ("020162ff5a", "not UTF-8"),
        ("020163615a", "within a string"),
        ("0201810a0b", "left over"),
        ("0201820a", "item is due"),
        ("0201a1010a", "text is due"),
        ("0201c06161", "tag 0"),
        ("0201d90cf9810a", "text is due"),
        ("0201d90cfa816161", "number"),
        ("0201d90cfb816161", "byte string is due"),
        ("0201d90cfc01", "tag 3324"),
        ("02017f6161", "item is due"),
        ("02017f4161ff", "piece of text"),
        ("02017f7f6161ffff", "piece of text"),
        ("02019b7fffffffffffffff", "elements"),
        ("02015b7fffffffffffffff", "string_bytes"),
        ("0201c25881" + "01" * 129, "number_bytes"),
        ("0201" + "81" * 65 + "01", "depth"),
        ("0201" + "9f" * 65 + "01", "depth"),
        ("0201" + "a16161" * 65 + "01", "depth"),
    ],
)
def test_what_is_no_item_is_malformed_and_says_why(octets, reason):
    with pytest.raises(Malformed, match=reason):
        decode_values(bytes.fromhex(octets), {2: ("a", "b")}.__getitem__)


def test_each_limit_is_a_parameter():
    ten = bytes.fromhex("8a") + b"\x01" * 10
    assert len(read_value(Cursor(ten, Limits(elements=10)))["L"]) == 10
    with pytest.raises(Malformed, match="more than 9 elements"):
        read_value(Cursor(ten, Limits(elements=9)))
    with pytest.raises(Malformed, match="more than 1 deep"):
        read_value(Cursor(bytes.fromhex("818101"), Limits(depth=1)))
    with pytest.raises(Malformed, match="more than 3"):
        read_value(Cursor(bytes.fromhex("6461616161"), Limits(string_bytes=3)))
    with pytest.raises(Malformed, match="more than 3"):
        read_value(Cursor(bytes.fromhex("7f62616162616161ff"), Limits(string_bytes=3)))
    with pytest.raises(Malformed, match="more than 3"):
        read_value(Cursor(bytes.fromhex("c24401020304"), Limits(number_bytes=3)))


def test_elements_are_counted_over_all_items_of_one_request():
    limits = Limits(elements=5)
    budget = Budget(limits)
    three = bytes.fromhex("83010101")
    read_value(Cursor(three, limits, budget))
    with pytest.raises(Malformed, match="more than 5 elements"):
        read_value(Cursor(three, limits, budget))


def test_a_map_of_names_is_read():
    assert read_named(Cursor(bytes.fromhex("bf616101616202ff"))) == {"a": {"N": "1"}, "b": {"N": "2"}}


@pytest.mark.parametrize("value", [{}, {"S": "a", "N": "1"}, {"X": 1}, {"S": 1}, {"N": "x"}, {"N": 1}, {"L": [{}]}])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(Invalid):
        encode_value(value)
