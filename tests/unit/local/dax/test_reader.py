"""A connection's bytes are cut into the same requests however they come, at a cost in proportion to them."""

from __future__ import annotations

import pytest
from daxvalues import patient
from daxwire import Wire, schema
from hypothesis import given
from hypothesis import strategies as st

from mangacache.local.dax import requests
from mangacache.local.dax.cbor import blob, head, integer, text
from mangacache.local.dax.limits import Limits, Malformed
from mangacache.local.dax.reader import Prelude, Reader
from mangacache.local.dax.scanning import Scan

PRELUDE = bytes.fromhex("674a37796e653547 00 f6 a1 69557365724167656e74 6178 00")
GET = bytes.fromhex("01 1a 0fb0cc6a 4174 416b bf0300ff")


def conversation():
    """Return what the real client sends, and what it meant."""
    wire = Wire({"t": schema(pk="S"), "u": schema(pk="S", sk="N")})
    client = wire.client()
    wire.answer = lambda call: {"Responses": {}} if call.operation == "BatchGetItem" else {}
    item = {"pk": {"S": "k" * 3000}, "a": {"B": bytes(3000)}, "b": {"L": [{"NS": ["1", "2.5"]}, {"NULL": True}]}}
    client.endpoints()
    client.put_item(TableName="t", Item=item, ConditionExpression="attribute_not_exists(pk)")
    client.get_item(TableName="t", Key={"pk": {"S": "x"}}, ProjectionExpression="a, b[0]", ConsistentRead=True)
    keys = [{"pk": {"S": "x"}, "sk": {"N": str(number)}} for number in range(3)]
    client.batch_get_item(RequestItems={"t": {"Keys": [{"pk": {"S": "x"}}]}, "u": {"Keys": keys}})
    client.batch_write_item(
        RequestItems={"t": [{"PutRequest": {"Item": item}}], "u": [{"DeleteRequest": {"Key": keys[0]}}]}
    )
    client.transact_write_items(TransactItems=[{"Put": {"TableName": "t", "Item": item}}], ClientRequestToken="token")
    return bytes(wire.sent), wire.taken


SENT, TAKEN = conversation()


def taken_by(reader, pieces):
    taken = []
    for piece in pieces:
        reader.feed(piece)
        while (one := reader.next()) is not None:
            taken.append(one)
    return taken


def test_the_conversation_holds_what_it_should():
    kinds = [type(one).__name__ for one in TAKEN]
    assert kinds[:3] == ["Prelude", "AuthorizeConnection", "Endpoints"]
    assert {"DefineKeySchema", "DefineAttributeListId", "PutItem", "GetItem", "BatchGetItem", "BatchWriteItem"} <= {
        *kinds
    }
    assert TAKEN[0].headers["UserAgent"].startswith("DaxPythonClient")
    assert TAKEN[1].access_key == "AKID"


def test_one_byte_at_a_time_makes_the_same_requests():
    reader = Reader()
    assert taken_by(reader, [SENT[place : place + 1] for place in range(len(SENT))]) == TAKEN
    assert reader.buffered == 0


@patient
@given(st.lists(st.integers(1, 5000), max_size=30), st.randoms(use_true_random=False))
def test_any_pieces_make_the_same_requests(sizes, random):
    pieces, start = [], 0
    for size in sizes:
        pieces.append(SENT[start : start + size])
        start += size
    pieces.append(SENT[start:])
    reader = Reader()
    taken = []
    for piece in pieces:
        reader.feed(piece)
        while random.random() < 0.7 and (one := reader.next()) is not None:
            taken.append(one)
    taken += taken_by(reader, [b""])
    assert taken == TAKEN
    assert reader.buffered == 0


def test_what_waits_is_told():
    reader = Reader()
    reader.feed(PRELUDE + GET[:-1])
    assert reader.buffered == len(PRELUDE + GET) - 1
    assert reader.next() == Prelude(None, {"UserAgent": "x"})
    assert reader.next() is None
    assert reader.buffered == len(GET) - 1
    reader.feed(GET[-1:] + GET + GET[:3])
    assert isinstance(reader.next(), requests.GetItem)
    reader.feed(GET[3:])
    assert isinstance(reader.next(), requests.GetItem)
    assert reader.next() == requests.GetItem("t", b"k", requests.Options(consumed_capacity="NONE"))
    assert reader.next() is None
    assert reader.buffered == 0


def test_each_byte_is_read_a_bounded_number_of_times(monkeypatch):
    """A request of many small items, one byte at a time: the work is in proportion, not in proportion to the square."""
    steps = 0
    item = Scan._item

    def counted(scan, data):
        nonlocal steps
        steps += 1
        return item(scan, data)

    monkeypatch.setattr(Scan, "_item", counted)
    request = b"\x01" + integer(-1230579644) + head(4, 2000) + b"\x61\x61" * 2000
    reader = Reader()
    taken = taken_by(reader, [PRELUDE, *(request[place : place + 1] for place in range(len(request)))])
    assert taken[1] == requests.DefineAttributeListId(("a",) * 2000)
    assert steps <= 3 * len(request)


def test_bytes_that_wait_for_earlier_requests_are_not_copied_over_and_over():
    """A server that is busy goes on taking bytes in: they are put behind what waits, not copied with it."""
    reader = Reader()
    reader.feed(PRELUDE + GET)
    assert isinstance(reader.next(), Prelude)
    held = reader._data
    for _ in range(3):
        reader.feed(GET)
        assert reader._data is held
    assert len(taken_by(reader, [b""])) == 4


@pytest.mark.parametrize("session", ["f6", "50" + "ab" * 16, "41ab", "6161", "40"])
def test_a_session_is_bytes_or_text_or_nothing(session):
    reader = Reader()
    reader.feed(bytes.fromhex(f"674a37796e653547 00 {session} a0 00"))
    assert isinstance(reader.next(), Prelude)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("474554202f", "text is due"),  # GET /
        ("160301", "text is due"),  # TLS
        ("674a37796e653548", "no client of DAX's"),
        ("674a37796e653547 01", "layering"),
        ("674a37796e653547 00 01", "byte string is due"),
        ("674a37796e653547 00 f6 a1 01", "text is due"),
        ("674a37796e653547 00 f6 a0 01", "mode"),
        ("1c", "text is due"),
        ("7bffffffffffffffff", "string_bytes"),
    ],
)
def test_another_protocol_is_told_at_once(octets, reason):
    whole = bytes.fromhex(octets)
    with pytest.raises(Malformed, match=reason):
        taken_by(Reader(), [whole])
    reader = Reader()
    with pytest.raises(Malformed):
        taken_by(reader, [whole[place : place + 1] for place in range(len(whole))] + [b"\0"] * 9)
    with pytest.raises(Malformed):
        reader.next()


def test_a_wrong_greeting_is_told_before_anything_follows():
    reader = Reader()
    greeting = text("SSH-2.0")
    assert taken_by(reader, [greeting[place : place + 1] for place in range(len(greeting) - 1)]) == []
    with pytest.raises(Malformed, match="no client of DAX's"):
        taken_by(reader, [greeting[-1:]])


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("02", "service"),
        ("6161", "whole number"),
        ("01 01", "no method 1"),
        ("01 1a2ecb30e7", "no method 785068263"),
        ("01 c2410b", "no method 11"),
        ("01 1a0fb0cc6a 01", "text is due"),
        ("01 1a0fb0cc6a 41ff", "not UTF-8"),
        ("01 1a0fb0cc6a 4174 6161", "byte string is due"),
        ("01 1a0fb0cc6a 4174 416b 01", "a map is due"),
        ("01 1a0fb0cc6a 4174 416b a1 1863 01", "no option 99"),
        ("01 1a0fb0cc6a 4174 416b a1 03 03", "ReturnConsumedCapacity is 3"),
        ("01 1a0fb0cc6a 4174 416b a1 02 02", "true or false"),
        ("01 1a0fb0cc6a 4174 416b a1 6161 01", "whole number"),
        ("01 1a0fb0cc6a 4174 416b a1 05 ff", "break"),
        ("01 1a0fb0cc6a 4174 416b bf 05 5f01ff ff", "no piece"),
        ("01 1a0fb0cc6a 4174 416b bf 05 1f ff", "begins no item"),
        ("01 1a0fb0cc6a 4174 416b bf 05 9bffffffffffffffff ff", "elements"),
        ("01 1a0fb0cc6a 4174 416b bf 05 " + "81" * 80 + "01 ff", "depth"),
        ("01 1a06ed585f a1 6174 83 40 f6 40 f6 40 f6", "no pairs"),
        ("01 3a29985cdb a1 6174 84 f4 f6 80 80 f6", "list of 3"),
        ("01 1a6f3d49db 81 4174 80 f6 f6", "1, 0, 1 elements"),
        ("01 3a4524c569 81 03 81 4174 81 416b f6 f6 f6 f6 f6 f6", "operation"),
        ("01 3a4524c569 81 02 80 81 416b f6 f6 f6 f6 f6 f6", "to have as many"),
        ("01 3a4524c569 81 02 81 4174 81 416b f6 f6 81 03 f6 f6 f6", "ConditionCheckFailure is 3"),
    ],
)
def test_what_is_no_request_is_malformed_and_says_why(octets, reason):
    whole = bytes.fromhex(octets)
    with pytest.raises(Malformed, match=reason):
        taken_by(Reader(), [PRELUDE, whole])
    with pytest.raises(Malformed):
        taken_by(Reader(), [PRELUDE, *(whole[place : place + 1] for place in range(len(whole))), *([b"\0"] * 9)])


def test_requests_before_the_malformed_bytes_are_given():
    reader = Reader()
    reader.feed(PRELUDE + GET + GET + b"\xff")
    assert [type(reader.next()).__name__ for _ in range(3)] == ["Prelude", "GetItem", "GetItem"]
    with pytest.raises(Malformed):
        reader.next()


@pytest.mark.parametrize("size", [1, 100])
def test_a_request_beyond_its_size_is_refused_before_it_is_whole(size):
    limits = Limits(request_bytes=1000)
    request = b"\x01" + integer(-1230579644) + b"\x9f" + text("a" * 9) * 200
    reader = Reader(limits)
    with pytest.raises(Malformed, match="request_bytes"):
        taken_by(reader, [PRELUDE, *(request[place : place + size] for place in range(0, len(request), size))])
    assert reader.buffered <= 1000 + size


def test_a_request_beyond_its_size_is_refused_though_it_is_whole():
    limits = Limits(request_bytes=100)
    with pytest.raises(Malformed, match="request_bytes"):
        taken_by(Reader(limits), [PRELUDE, GET[:6] + blob(b"t") + blob(b"k" * 101) + b"\xf6"])


def test_several_requests_in_one_piece_may_be_more_than_the_size_of_one():
    reader = Reader(Limits(request_bytes=60))
    assert len(taken_by(reader, [PRELUDE + GET * 100])) == 101


def test_the_last_of_two_conditions_counts():
    """The real client sends the text first, then what it compiled, under the same number."""
    wire = Wire({"t": schema(pk="S")})
    wire.client().delete_item(TableName="t", Key={"pk": {"S": "x"}}, ConditionExpression="attribute_exists(pk)")
    assert b"attribute_exists(pk)" in wire.sent
    assert wire.taken[-1].options.condition == bytes.fromhex("8301820b821262706b80")
