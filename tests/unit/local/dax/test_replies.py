"""The real client reads from each reply the very answer that was given."""

from __future__ import annotations

import pytest
from daxvalues import KEY_SCHEMAS, attributes, brief, keys, patient, placeholders, same, spelled, values
from daxwire import ENDPOINT, Wire, schema
from hypothesis import given
from hypothesis import strategies as st

from mangacache.errors import Invalid
from mangacache.local.dax.calls import Call
from mangacache.local.dax.replies import reply_to_call

TABLE = "t"
KEY = {"pk": {"S": "k"}}
CAPACITY = {
    "TableName": TABLE,
    "CapacityUnits": 2.5,
    "Table": {"CapacityUnits": 0.5},
    "GlobalSecondaryIndexes": {"by": {"CapacityUnits": 2.0}},
    "LocalSecondaryIndexes": {"at": {"CapacityUnits": 1.0}, "of": {"CapacityUnits": 3.0}},
}
capacities = st.sampled_from(
    [
        {"TableName": TABLE, "CapacityUnits": 0.5},
        {"TableName": TABLE, "CapacityUnits": 1.0, "Table": {"CapacityUnits": 1.0}},
        CAPACITY,
    ]
)
METRICS = {"ItemCollectionKey": {"pk": {"S": "k"}}, "SizeEstimateRangeGB": [0.0, 1.0]}


def wire_of(kinds="S", answer=None):
    wire = Wire({TABLE: schema(**dict(zip(("pk", "sk"), kinds, strict=False)))})
    wire.answer = lambda _: answer
    return wire


def answered(answer, operation, kinds="S", **parameters):
    """Return what the real client makes of the reply."""
    return getattr(wire_of(kinds, answer).client(), operation)(**parameters)


def optional(**strategies):
    return st.fixed_dictionaries({}, optional=strategies)


@pytest.mark.parametrize("kinds", KEY_SCHEMAS)
@brief
@given(data=st.data())
def test_a_whole_item(kinds, data):
    key = data.draw(keys(kinds))
    answer = {"Item": data.draw(attributes) | key} | data.draw(optional(ConsumedCapacity=capacities))
    read = answered(answer, "get_item", kinds, TableName=TABLE, Key=key, ReturnConsumedCapacity="INDEXES")
    assert same(read) == same(answer)


def test_no_item():
    assert answered({}, "get_item", TableName=TABLE, Key=KEY) == {}
    answer = {"ConsumedCapacity": CAPACITY}
    assert answered(answer, "get_item", TableName=TABLE, Key=KEY, ReturnConsumedCapacity="TOTAL") == answer


def test_an_item_of_its_key_alone():
    assert answered({"Item": KEY}, "get_item", TableName=TABLE, Key=KEY) == {"Item": KEY}


STORED = KEY | {
    "l": {"L": [{"S": "0"}, {"M": {"x.y": {"N": "1"}, "z": {"NULL": True}}}, {"L": [{"S": "2"}]}]},
    "m": {"M": {"in": {"BS": [b"a"]}}},
}


@pytest.mark.parametrize(
    ("projection", "selected"),
    [
        ("pk", KEY),
        ("l[1].#dots, m", {"l": {"L": [{"M": {"x.y": {"N": "1"}}}]}, "m": STORED["m"]}),
        ("l[2][0], l[0]", {"l": {"L": [{"S": "0"}, {"L": [{"S": "2"}]}]}}),
        ("l[1].z, none, l[7]", {"l": {"L": [{"M": {"z": {"NULL": True}}}]}}),
        ("none", {}),
    ],
)
def test_a_projected_item_is_taken_from_the_whole_one(projection, selected):
    """Indexes count in the stored list; in the answer the list has only what was asked for, as DynamoDB's has."""
    names = {"ExpressionAttributeNames": {"#dots": "x.y"}} if "#dots" in projection else {}
    asked = {"ProjectionExpression": projection} | names
    assert answered({"Item": STORED}, "get_item", TableName=TABLE, Key=KEY, **asked) == {"Item": selected}
    found = {"Items": [STORED, KEY], "Count": 2, "ScannedCount": 2}
    items = answered(found, "scan", TableName=TABLE, **asked)["Items"]
    assert items == [selected, KEY if projection == "pk" else {}]


@pytest.mark.parametrize(
    ("operation", "returned"),
    [("put_item", "ALL_OLD"), ("delete_item", "ALL_OLD"), ("update_item", "ALL_NEW"), ("update_item", "ALL_OLD")],
)
@brief
@given(data=st.data())
def test_a_writes_attributes(operation, returned, data):
    key = data.draw(keys("SN"))
    answer = {"Attributes": data.draw(attributes) | key} | data.draw(
        optional(
            ConsumedCapacity=capacities,
            ItemCollectionMetrics=st.just({**METRICS, "ItemCollectionKey": {"pk": key["pk"]}}),
        )
    )
    parameters = {"Item": key} if operation == "put_item" else {"Key": key}
    read = answered(
        answer, operation, "SN", TableName=TABLE, ReturnValues=returned, ReturnConsumedCapacity="TOTAL", **parameters
    )
    assert same(read) == same(answer)


@pytest.mark.parametrize("operation", ["put_item", "delete_item", "update_item"])
def test_a_write_that_returns_nothing(operation):
    parameters = {"Item": KEY} if operation == "put_item" else {"Key": KEY}
    assert answered({}, operation, TableName=TABLE, ReturnValues="ALL_OLD", **parameters) == {}


@pytest.mark.parametrize("returned", ["UPDATED_NEW", "UPDATED_OLD"])
@brief
@given(changed=st.dictionaries(st.sampled_from(["a", "b", "é", "x.y"]), values, min_size=1))
def test_what_an_update_changed(returned, changed):
    read = answered({"Attributes": changed}, "update_item", TableName=TABLE, Key=KEY, ReturnValues=returned)
    assert same(read) == same({"Attributes": changed})


@pytest.mark.parametrize("kinds", KEY_SCHEMAS)
@brief
@given(data=st.data())
def test_a_page_of_items(kinds, data):
    items = [data.draw(attributes) | key for key in data.draw(st.lists(keys(kinds), max_size=3))]
    answer = {"Items": items, "Count": len(items), "ScannedCount": len(items) + 500} | data.draw(
        optional(ConsumedCapacity=capacities, LastEvaluatedKey=keys(kinds))
    )
    read = answered(answer, "scan", kinds, TableName=TABLE, ReturnConsumedCapacity="TOTAL")
    assert same(read) == same(answer)


@brief
@given(data=st.data())
def test_a_page_of_an_index_ends_with_the_keys_of_both(data):
    last = data.draw(keys("SN")) | {"by": data.draw(values)}
    answer = {"Items": [], "Count": 0, "ScannedCount": 3, "LastEvaluatedKey": last}
    asked = {"IndexName": "i", "KeyConditionExpression": "by = :s"} | placeholders(":s")
    assert same(answered(answer, "query", "SN", TableName=TABLE, **asked)) == same(answer)


def test_a_count_has_no_items():
    answer = {"Count": 3, "ScannedCount": 70_000}
    assert answered(answer, "scan", TableName=TABLE, Select="COUNT") == answer
    assert answered(answer | {"Items": [KEY]}, "scan", TableName=TABLE, Select="COUNT") == answer


@patient
@given(data=st.data())
def test_a_batch_of_items(data):
    several = data.draw(st.lists(keys("SB"), min_size=2, max_size=4, unique_by=spelled))
    items = [data.draw(attributes) | key for key in several[1:]]
    answer = {"Responses": {TABLE: items}, "UnprocessedKeys": {TABLE: {"Keys": several[:1]}}}
    read = answered(answer, "batch_get_item", "SB", RequestItems={TABLE: {"Keys": several}})
    assert same(read) == same(answer)


def test_a_batch_of_projected_items_and_of_none():
    wire = Wire({name: schema(pk="S") for name in "tuv"})
    wire.answer = lambda _: {
        "Responses": {"t": [STORED, KEY], "u": [], "v": [STORED]},
        "UnprocessedKeys": {},
        "ConsumedCapacity": [{"TableName": name, "CapacityUnits": 0.5} for name in "tuv"],
    }
    wanted = {name: {"Keys": [{"pk": {"S": name}}]} for name in "tuv"}
    wanted["t"]["ProjectionExpression"] = "l[2], pk"
    read = wire.client().batch_get_item(RequestItems=wanted, ReturnConsumedCapacity="TOTAL")
    assert read["Responses"] == {"t": [KEY | {"l": {"L": [STORED["l"]["L"][2]]}}, KEY], "u": [], "v": [STORED]}
    assert read["UnprocessedKeys"] == {}
    assert read["ConsumedCapacity"] == wire.answer(None)["ConsumedCapacity"]


def test_a_batch_of_writes():
    """A Put left undone comes back without its key: the client does not put it in, so a server tries those again."""
    delete, put = {"DeleteRequest": {"Key": KEY}}, {"PutRequest": {"Item": {**KEY, "a": {"S": "x"}}}}
    answer = {
        "UnprocessedItems": {TABLE: [delete, put]},
        "ConsumedCapacity": [CAPACITY],
        "ItemCollectionMetrics": {TABLE: [METRICS, METRICS]},
    }
    asked = {TABLE: [delete, {"PutRequest": {"Item": {"pk": {"S": "other"}}}}]}
    read = answered(answer, "batch_write_item", RequestItems=asked, ReturnConsumedCapacity="INDEXES")
    left = read["UnprocessedItems"][TABLE]
    assert left[0] == delete
    assert left[1]["PutRequest"]["Item"].items() >= {"a": {"S": "x"}}.items()
    assert read["ConsumedCapacity"] == [CAPACITY]
    assert read["ItemCollectionMetrics"] == {TABLE: [METRICS, METRICS]}
    assert answered({"UnprocessedItems": {}}, "batch_write_item", RequestItems=asked) == {"UnprocessedItems": {}}


CAPACITY_OF_TRANSACTION = {
    "TableName": TABLE,
    "CapacityUnits": 4.0,
    "ReadCapacityUnits": 1.5,
    "WriteCapacityUnits": 2.5,
    "Table": {"ReadCapacityUnits": 1.5, "CapacityUnits": 4.0},
    "GlobalSecondaryIndexes": {"by": {"CapacityUnits": 2.0, "WriteCapacityUnits": 2.0}},
}


@patient
@given(data=st.data())
def test_the_reads_of_a_transaction(data):
    several = data.draw(st.lists(keys("SN"), min_size=2, max_size=4, unique_by=lambda key: key["pk"]["S"]))
    responses = [{"Item": data.draw(attributes) | key} for key in several[1:]] + [{}]
    answer = {"Responses": responses, "ConsumedCapacity": [CAPACITY_OF_TRANSACTION]}
    gets = [{"Get": {"TableName": TABLE, "Key": key}} for key in several[1:] + several[:1]]
    read = answered(answer, "transact_get_items", "SN", TransactItems=gets)
    assert same(read) == same(answer)


def test_a_projected_read_of_a_transaction():
    projected = {"TableName": TABLE, "Key": {"pk": {"S": "other"}}, "ProjectionExpression": "l[2]"}
    gets = [{"Get": {"TableName": TABLE, "Key": KEY}}, {"Get": projected}]
    read = answered({"Responses": [{"Item": STORED}, {"Item": STORED}]}, "transact_get_items", TransactItems=gets)
    assert read["Responses"] == [{"Item": STORED}, {"Item": {"l": {"L": [STORED["l"]["L"][2]]}}}]


def test_the_writes_of_a_transaction():
    answer = {"ConsumedCapacity": [CAPACITY_OF_TRANSACTION], "ItemCollectionMetrics": {TABLE: [METRICS]}}
    writes = [{"Delete": {"TableName": TABLE, "Key": KEY}}]
    assert answered(answer, "transact_write_items", TransactItems=writes, ClientRequestToken="t") == answer
    assert answered({}, "transact_write_items", TransactItems=writes, ClientRequestToken="t") == {}


def test_the_nodes_are_told():
    (endpoint,) = wire_of().client().endpoints()
    assert (endpoint["node"], endpoint["address"], endpoint["port"], endpoint["role"]) == (7, "127.0.0.1", 8111, 1)
    assert (endpoint["az"], endpoint["leader_session_id"], endpoint["hostname"]) == ("local", 0, ENDPOINT.hostname)


def test_a_reply_begins_with_no_error():
    call = Call("GetItem", {"TableName": TABLE}, {})
    assert reply_to_call(call, {}, {TABLE: schema(pk="S")}.__getitem__, len) == b"\x80\xf6"


def test_an_answer_that_dynamodb_never_gives_is_refused():
    call = Call("Scan", {"TableName": TABLE}, {})
    answer = {"Items": [{"a": {"S": "no key"}}], "Count": 1, "ScannedCount": 1}
    with pytest.raises(Invalid, match="'pk'"):
        reply_to_call(call, answer, {TABLE: schema(pk="S")}.__getitem__, len)
