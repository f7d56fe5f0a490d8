"""Keys are bytes as the real client writes them, and equal keys are equal bytes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from amazondax.AttributeValueEncoder import encode_key as client_encode_key
from daxvalues import KEY_SCHEMAS, brief, keys, patient, same
from hypothesis import given
from hypothesis import strategies as st

from mangacache.errors import Invalid
from mangacache.local.dax.keys import KeyAttribute, KeySchema, decode_key, encode_key
from mangacache.local.dax.limits import Malformed


def schema_of(kinds):
    return KeySchema(tuple(KeyAttribute(name, kind) for name, kind in zip(("pk", "sk"), kinds, strict=False)))


def client_bytes(key, kinds):
    described = [
        {"AttributeName": name, "AttributeType": kind} for name, kind in zip(("pk", "sk"), kinds, strict=False)
    ]
    return bytes(client_encode_key(key, described))


@pytest.mark.parametrize("kinds", KEY_SCHEMAS)
@brief
@given(data=st.data())
def test_the_real_clients_keys_are_read(kinds, data):
    key = data.draw(keys(kinds))
    assert same(decode_key(client_bytes(key, kinds), schema_of(kinds))) == same(key)


@pytest.mark.parametrize("kinds", KEY_SCHEMAS)
@brief
@given(data=st.data())
def test_keys_written_are_read_again(kinds, data):
    key = data.draw(keys(kinds))
    assert same(decode_key(encode_key(key, schema_of(kinds)), schema_of(kinds))) == same(key)


@pytest.mark.parametrize("kinds", ["S", "B", "SS", "SB", "BS", "BB"])
@brief
@given(data=st.data())
def test_keys_without_numbers_are_written_as_the_real_client_does(kinds, data):
    key = data.draw(keys(kinds))
    assert encode_key(key, schema_of(kinds)) == client_bytes(key, kinds)


@pytest.mark.parametrize("kinds", ["N", "SN", "NS", "NN"])
def test_spellings_of_one_number_are_one_key(kinds):
    schema = schema_of(kinds)
    one = {"S": "x"}
    written = {
        encode_key(
            {name: {"N": text} if kind == "N" else one for name, kind in zip(("pk", "sk"), kinds, strict=False)}, schema
        )
        for text in ("100", "1e2", "100.0", "1E+2", "+100", "0100.00")
    }
    assert len(written) == 1
    read = decode_key(written.pop(), schema)
    assert {value["N"] for value in read.values() if "N" in value} == {"100"}


@patient
@given(keys("NN"), keys("NN"))
def test_keys_of_unlike_numbers_are_unlike(one, other):
    equal = all(Decimal(one[name]["N"]) == Decimal(other[name]["N"]) for name in ("pk", "sk"))
    assert (encode_key(one, schema_of("NN")) == encode_key(other, schema_of("NN"))) is equal


def test_a_text_before_a_text_has_its_length_and_the_other_none():
    assert encode_key({"pk": {"S": "u"}, "sk": {"S": "a#1"}}, schema_of("SS")).hex() == "6175612331"


def test_a_key_is_taken_out_of_a_whole_item():
    item = {"other": {"S": "x"}, "sk": {"N": "7"}, "pk": {"B": b"\x01"}}
    assert encode_key(item, schema_of("BN")) == bytes.fromhex("4101") + bytes.fromhex("c1b20000")


@pytest.mark.parametrize(
    ("octets", "kinds"),
    [
        ("ff", "S"),  # no UTF-8
        ("0101", "N"),
        ("61", "N"),
        ("", "N"),
        ("01", "SS"),
        ("", "SS"),
        ("4161", "SS"),
        ("6161", "BS"),
        ("6161", "SN"),
        ("6161ff", "SS"),
        ("616100", "SN"),
    ],
)
def test_what_is_no_key_of_the_schema_is_malformed(octets, kinds):
    with pytest.raises(Malformed):
        decode_key(bytes.fromhex(octets), schema_of(kinds))


@pytest.mark.parametrize("key", [{}, {"pk": {"N": "1"}}, {"pk": {"S": 1}}, {"pk": {}}])
def test_a_key_without_its_attribute_is_refused(key):
    with pytest.raises(Invalid, match="'pk'"):
        encode_key(key, schema_of("S"))


def test_the_schema_is_taken_from_a_description():
    description = {
        "AttributeDefinitions": [
            {"AttributeName": "other", "AttributeType": "B"},
            {"AttributeName": "r", "AttributeType": "N"},
            {"AttributeName": "h", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "r", "KeyType": "RANGE"}, {"AttributeName": "h", "KeyType": "HASH"}],
    }
    schema = KeySchema.of_table(description)
    assert schema.attributes == (KeyAttribute("h", "S"), KeyAttribute("r", "N"))
    assert schema.names == ("h", "r")
