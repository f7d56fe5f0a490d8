"""Parameters and answers are DynamoDB's JSON, to the byte and to the type; refusals say what they say to botocore."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache.errors import Invalid
from mangacache.store.direct.answers import Answer
from mangacache.store.direct.wire import OPERATIONS, failure
from mangacache.store.transport import Unanswered

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(10**20), 10**20).map(str)
leaves = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda text: {"N": text}),
    st.binary(max_size=9).map(lambda octets: {"B": octets}),
    st.booleans().map(lambda yes: {"BOOL": yes}),
    st.just({"NULL": True}),
    st.lists(texts, min_size=1, max_size=3).map(lambda several: {"SS": several}),
    st.lists(numbers, min_size=1, max_size=3).map(lambda several: {"NS": several}),
    st.lists(st.binary(max_size=4), min_size=1, max_size=3).map(lambda several: {"BS": several}),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda several: {"L": several}),
        st.dictionaries(texts, inner, max_size=3).map(lambda named: {"M": named}),
    ),
    max_leaves=8,
)
names = texts | st.sampled_from(["B", "BS", "M", "Item", "S"])  # attributes may be called as types are
items = st.dictionaries(names, values, max_size=4)


def _in_json(value):
    """Return a value as JSON has it, by a walk of our own."""
    if isinstance(value, dict):
        return {name: _in_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_json(inner) for inner in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _answer(body, status=200, **headers):
    return Answer(
        status=status, headers={name.encode(): value for name, value in headers.items()}, body=body, keep=True
    )


def _answered(operation, value):
    return OPERATIONS[operation].answer(_answer(json.dumps(_in_json(value)).encode()))


def _same(left, right):
    """Equal, and of the same types all the way down."""
    assert left == right
    assert repr(left) == repr(right)


@given(items)
def test_what_is_sent_is_json_with_bytes_in_base64(item):
    parameters = {"TableName": "t", "Item": item, "Limit": 3, "ConsistentRead": True}
    assert json.loads(OPERATIONS["PutItem"].body(parameters)) == _in_json(parameters)


@given(items)
def test_an_item_comes_back_as_it_is_with_bytes_as_bytes(item):
    _same(_answered("GetItem", {"Item": item}), {"Item": item})
    for operation in ("PutItem", "UpdateItem", "DeleteItem"):
        _same(_answered(operation, {"Attributes": item}), {"Attributes": item})
    page = {"Items": [item, item], "Count": 2, "ScannedCount": 9, "LastEvaluatedKey": item}
    _same(_answered("Query", page), page)


@given(items)
def test_batches_come_back_as_they_are(item):
    got = {"Responses": {"t": [item]}, "UnprocessedKeys": {"u": {"Keys": [item], "ConsistentRead": True}}}
    _same(_answered("BatchGetItem", got), got)
    written = {"UnprocessedItems": {"t": [{"PutRequest": {"Item": item}}, {"DeleteRequest": {"Key": item}}]}}
    _same(_answered("BatchWriteItem", written), written)


def test_capacity_and_metrics_come_back_as_they_are():
    capacity = {"TableName": "t", "CapacityUnits": 1.5, "GlobalSecondaryIndexes": {"i": {"CapacityUnits": 2}}}
    metrics = {"ItemCollectionKey": {"PK": {"B": b"x"}}, "SizeEstimateRangeGB": [0.0, 1.0]}
    one = {"ConsumedCapacity": capacity, "ItemCollectionMetrics": metrics}
    several = {"ConsumedCapacity": [capacity], "ItemCollectionMetrics": {"t": [metrics]}}
    _same(_answered("UpdateItem", one), one)
    _same(_answered("TransactWriteItems", several), several)
    _same(_answered("BatchWriteItem", several), several)


def test_what_nobody_reads_is_left_out():
    assert _answered("GetItem", {"Item": {"a": {"S": "x"}}, "New": {"anything": [1]}}) == {"Item": {"a": {"S": "x"}}}
    assert _answered("GetItem", {}) == {}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"nothing", b"{", b"{} {}"),
        *(b'{"Item": {"a": {"S": 1}}}', b'{"Item": {"a": {"S": "\xff"}}}', b'{"Item": {"a": {"B": "not base64!"}}}'),
        b'{"Item":{"a":' + b'{"L":[' * 100_000,
    ],
)
def test_an_answer_of_200_that_cannot_be_read_is_none(body):
    with pytest.raises(Unanswered, match="the answer to GetItem cannot be read") as raised:
        OPERATIONS["GetItem"].answer(_answer(body))
    assert raised.value.sent


def test_what_could_not_be_read_is_not_quoted():
    with pytest.raises(Unanswered) as raised:
        OPERATIONS["GetItem"].answer(_answer(b'{"Item": {"content": {"S": ["a secret"]}}}'))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("value", [{"a": object()}, {"a": {"S": "\ud800"}}, {1.5j: 1}])
def test_what_json_cannot_hold_is_refused_before_it_is_sent(value):
    with pytest.raises(Invalid, match="PutItem was refused by the client"):
        OPERATIONS["PutItem"].body({"Item": value})


@pytest.mark.parametrize("status", [200, 400])
def test_a_checksum_is_that_of_the_body_or_the_answer_counts_as_none(status):
    body = b'{"Item":{}}'
    right = str(zlib.crc32(body)).encode()
    read = OPERATIONS["GetItem"].answer if status == 200 else failure
    for expected in (right, None):
        headers = {} if expected is None else {"x-amz-crc32": expected}
        read(_answer(body, status, **headers))
    for wrong in (b"0", b"", b"x", right + b"1", b"0" + right):
        with pytest.raises(Unanswered, match="checksum"):
            read(_answer(body, status, **{"x-amz-crc32": wrong}))


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"__type":"com.amazonaws.dynamodb.v20120810#SomeException","message":"said"}', "SomeException", "said"),
        (b'{"__type":"com.amazon.coral.service#SomeException:http://x#y","Message":"said"}', "SomeException", "said"),
        (b'{"__type":"SomeException"}', "SomeException", ""),
        (b'{"message":null,"Message":"said"}', "418", "said"),
        (b"", "418", ""),
        (b"<html>a proxy</html>", "418", "<html>a proxy</html>"),
        (b"\xff" * 1000, "418", "\ufffd" * 200),
    ],
)
def test_a_refusal_says_its_code_and_message_whoever_wrote_it(body, code, message):
    failed = failure(_answer(body, 418))
    assert (failed.code, failed.message, failed.status) == (code, message, 418)
    assert (failed.item, failed.reasons) == ({}, ())


def test_a_refusal_brings_the_items_that_stood_there():
    item, typed = {"blob": {"B": "AP8="}}, {"blob": {"B": b"\x00\xff"}}
    body = json.dumps({"__type": "x#ConditionalCheckFailedException", "Item": item}).encode()
    assert failure(_answer(body, 400)).item == typed
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Message": "m", "Item": item}, {"Code": None}, {}]
    body = json.dumps({"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}).encode()
    assert failure(_answer(body, 400)).reasons == (
        ("None", None),
        ("ConditionalCheckFailed", typed),
        (None, None),
        (None, None),
    )
