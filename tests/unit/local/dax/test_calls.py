"""Each request of the real client becomes the call of boto's that its caller meant, in whatever pieces it comes."""

from __future__ import annotations

import pytest
from daxtrees import meaning
from daxvalues import KEY_SCHEMAS, attributes, brief, conditions, keys, paths, patient, placeholders, spelled, updates
from daxwire import Wire, schema
from hypothesis import given
from hypothesis import strategies as st

from mangacache.local.dax import requests
from mangacache.local.dax.calls import call_of
from mangacache.local.dax.limits import Limits, Malformed
from mangacache.local.dax.requests import Options, tables_of

TABLE = "shop.t-1_e"
PROJECTIONS = st.lists(paths, min_size=1, max_size=4).map(", ".join)
PIECES = st.lists(st.integers(1, 300), max_size=20)
CAPACITY = st.sampled_from(["TOTAL", "INDEXES"])
METRICS = st.just("SIZE")


def optional(**strategies):
    return st.fixed_dictionaries({}, optional=strategies)


def with_placeholders(parameters):
    """Return parameters of a call with the placeholders that their expressions use."""
    written = " ".join(value for name, value in parameters.items() if name.endswith("Expression"))
    return parameters | placeholders(written)


def asked(wire, operation, parameters):
    """Return the call that comes out when the real client is asked."""
    wire.answer = lambda _: {"Responses": [], "Count": 0, "ScannedCount": 0} if "Get" not in operation else {}
    getattr(wire.client(), operation)(**parameters)
    return wire.calls[-1]


def wire_of(kinds, pieces=()):
    return Wire({TABLE: schema(**dict(zip(("pk", "sk"), kinds, strict=False)))}, lambda _: pieces)


@pytest.mark.parametrize("kinds", KEY_SCHEMAS)
@brief
@given(data=st.data())
def test_get_item(kinds, data):
    parameters = {"TableName": TABLE, "Key": data.draw(keys(kinds))} | data.draw(
        optional(ConsistentRead=st.just(True), ReturnConsumedCapacity=CAPACITY, ProjectionExpression=PROJECTIONS)
    )
    parameters = with_placeholders(parameters)
    call = asked(wire_of(kinds, data.draw(PIECES)), "get_item", parameters)
    assert call.operation == "GetItem"
    assert meaning(call.parameters) == meaning(parameters)


@pytest.mark.parametrize("kinds", ["S", "SN", "NB"])
@brief
@given(data=st.data())
def test_put_item(kinds, data):
    item = data.draw(attributes) | data.draw(keys(kinds))
    parameters = {"TableName": TABLE, "Item": item} | data.draw(
        optional(
            ConditionExpression=conditions,
            ReturnValues=st.just("ALL_OLD"),
            ReturnConsumedCapacity=CAPACITY,
            ReturnItemCollectionMetrics=METRICS,
        )
    )
    parameters = with_placeholders(parameters)
    call = asked(wire_of(kinds, data.draw(PIECES)), "put_item", parameters)
    assert call.operation == "PutItem"
    assert meaning(call.parameters) == meaning(parameters)


@patient
@given(data=st.data())
def test_update_item(data):
    parameters = {"TableName": TABLE, "Key": data.draw(keys("SS"))} | data.draw(
        optional(
            UpdateExpression=updates(),
            ConditionExpression=conditions,
            ReturnValues=st.sampled_from(["ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]),
            ReturnItemCollectionMetrics=METRICS,
        )
    )
    parameters = with_placeholders(parameters)
    call = asked(wire_of("SS", data.draw(PIECES)), "update_item", parameters)
    assert call.operation == "UpdateItem"
    assert meaning(call.parameters) == meaning(parameters)


@brief
@given(data=st.data())
def test_delete_item(data):
    parameters = {"TableName": TABLE, "Key": data.draw(keys("BN"))} | data.draw(
        optional(ConditionExpression=conditions, ReturnValues=st.just("ALL_OLD"), ReturnConsumedCapacity=CAPACITY)
    )
    parameters = with_placeholders(parameters)
    call = asked(wire_of("BN", data.draw(PIECES)), "delete_item", parameters)
    assert call.operation == "DeleteItem"
    assert meaning(call.parameters) == meaning(parameters)


def many(**others):
    return optional(
        ConsistentRead=st.just(True),
        FilterExpression=conditions,
        Limit=st.integers(1, 10**6),
        ProjectionExpression=PROJECTIONS,
        ReturnConsumedCapacity=CAPACITY,
        Select=st.sampled_from(["ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "COUNT", "SPECIFIC_ATTRIBUTES"]),
        **others,
    )


@patient
@given(data=st.data())
def test_query(data):
    parameters = {"TableName": TABLE, "KeyConditionExpression": data.draw(conditions)} | data.draw(
        many(ScanIndexForward=st.just(False), ExclusiveStartKey=keys("SN"))
    )
    parameters = with_placeholders(parameters)
    call = asked(wire_of("SN", data.draw(PIECES)), "query", parameters)
    assert call.operation == "Query"
    assert meaning(call.parameters) == meaning(parameters)


@brief
@given(data=st.data())
def test_scan(data):
    parameters = {"TableName": TABLE} | data.draw(
        many(ExclusiveStartKey=keys("SN"), Segment=st.integers(0, 3), TotalSegments=st.integers(4, 9))
    )
    parameters = with_placeholders(parameters)
    call = asked(wire_of("SN", data.draw(PIECES)), "scan", parameters)
    assert call.operation == "Scan"
    assert meaning(call.parameters) == meaning(parameters)


@brief
@given(data=st.data())
@pytest.mark.parametrize("operation", ["query", "scan"])
def test_a_page_of_an_index_begins_after_any_attributes(operation, data):
    start = data.draw(keys("SN")) | {"by": {"S": "x"}, "at": {"N": "1.5"}}
    parameters = {"TableName": TABLE, "IndexName": "by-é", "ExclusiveStartKey": start}
    if operation == "query":
        parameters |= {"KeyConditionExpression": "by = :s"} | placeholders(":s")
    call = asked(wire_of("SN"), operation, parameters)
    assert meaning(call.parameters) == meaning(parameters)


@brief
@given(data=st.data())
def test_batch_get_item(data):
    """The client takes the same key in two tables for a key given twice."""
    several = data.draw(st.lists(keys("S"), min_size=2, max_size=6, unique_by=spelled))
    wanted = {}
    for table, keys_ in (("one", several[::2]), ("two", several[1::2])):
        entry = {"Keys": keys_} | data.draw(optional(ConsistentRead=st.just(True), ProjectionExpression=PROJECTIONS))
        wanted[table] = with_placeholders(entry)
    wire = Wire({table: schema(pk="S") for table in wanted}, lambda _: data.draw(PIECES))
    parameters = {"RequestItems": wanted, "ReturnConsumedCapacity": "TOTAL"}
    call = asked(wire, "batch_get_item", parameters)
    assert call.operation == "BatchGetItem"
    assert meaning(call.parameters) == meaning(parameters)


@brief
@given(data=st.data())
def test_batch_write_item(data):
    wanted = {}
    for table in ("one", "two"):
        several = data.draw(st.lists(keys("S"), min_size=1, max_size=3, unique_by=spelled))
        wanted[table] = [
            {"PutRequest": {"Item": data.draw(attributes) | key}}
            if data.draw(st.booleans())
            else {"DeleteRequest": {"Key": key}}
            for key in several
        ]
    wire = Wire({table: schema(pk="S") for table in wanted}, lambda _: data.draw(PIECES))
    expected = meaning({"RequestItems": wanted, "ReturnItemCollectionMetrics": "SIZE"})
    call = asked(wire, "batch_write_item", {"RequestItems": wanted, "ReturnItemCollectionMetrics": "SIZE"})
    assert call.operation == "BatchWriteItem"
    assert meaning(call.parameters) == expected


@brief
@given(data=st.data())
def test_transact_get_items(data):
    several = data.draw(st.lists(keys("SN"), min_size=1, max_size=4, unique_by=lambda key: key["pk"]["S"]))
    gets = [
        {
            "Get": with_placeholders(
                {"TableName": TABLE, "Key": key} | data.draw(optional(ProjectionExpression=PROJECTIONS))
            )
        }
        for key in several
    ]
    wire = wire_of("SN", data.draw(PIECES))
    wire.answer = lambda _: {"Responses": [{} for _ in several]}
    parameters = {"TransactItems": gets, "ReturnConsumedCapacity": "INDEXES"}
    wire.client().transact_get_items(**parameters)
    assert wire.calls[-1].operation == "TransactGetItems"
    assert meaning(wire.calls[-1].parameters) == meaning(parameters)


@st.composite
def transact_writes(draw):
    several = draw(st.lists(keys("SN"), min_size=1, max_size=4, unique_by=lambda key: key["pk"]["S"]))
    writes = []
    for key in several:
        operation = draw(st.sampled_from(["Put", "Update", "Delete", "ConditionCheck"]))
        entry = {"TableName": TABLE}
        entry |= {"Item": draw(attributes) | key} if operation == "Put" else {"Key": key}
        if operation == "Update":
            entry["UpdateExpression"] = draw(updates())
        entry |= draw(optional(ConditionExpression=conditions, ReturnValuesOnConditionCheckFailure=st.just("ALL_OLD")))
        writes.append({operation: with_placeholders(entry)})
    return writes


@brief
@given(transact_writes(), PIECES)
def test_transact_write_items(writes, pieces):
    parameters = {"TransactItems": writes, "ClientRequestToken": "t-1", "ReturnConsumedCapacity": "TOTAL"}
    call = asked(wire_of("SN", pieces), "transact_write_items", parameters)
    assert call.operation == "TransactWriteItems"
    assert meaning(call.parameters) == meaning(parameters)


def test_what_dynamodb_takes_anyway_is_left_out():
    """So that a request is the same to the query cache, whether a client says it or not."""
    wire = wire_of("S")
    parameters = {"TableName": TABLE, "KeyConditionExpression": "pk = :s"} | placeholders(":s")
    plain = asked(wire, "query", parameters)
    said = {"ConsistentRead": False, "ScanIndexForward": True, "ReturnConsumedCapacity": "NONE"}
    assert asked(wire, "query", parameters | said).parameters == plain.parameters
    put = {"TableName": TABLE, "Item": {"pk": {"S": "x"}}}
    said = {"ReturnValues": "NONE", "ReturnItemCollectionMetrics": "NONE"}
    assert asked(wire, "put_item", put | said).parameters == put


@pytest.mark.parametrize("operation", ["get_item", "query"])
def test_whole_items_are_read_without_the_projection_and_its_names(operation):
    parameters = {"TableName": TABLE, "ProjectionExpression": "#a[1].plain, #dots"}
    names = {"#n0": "plain"}
    if operation == "get_item":
        parameters |= {"Key": {"pk": {"S": "x"}}}
        expected = {"TableName": TABLE, "Key": {"pk": {"S": "x"}}}
    else:
        parameters |= {"KeyConditionExpression": "plain = :s", "Select": "SPECIFIC_ATTRIBUTES"}
        condition = {"KeyConditionExpression": "#n0 = :v0", "ExpressionAttributeNames": names}
        expected = {"TableName": TABLE, "ExpressionAttributeValues": {":v0": {"S": "text"}}} | condition
    call = asked(wire_of("S"), operation, with_placeholders(parameters))
    assert call.projections == {0: (("a", 1, "plain"), ("a.b.c",))}
    assert call.whole() == expected
    assert "ProjectionExpression" in call.parameters


def test_a_call_without_projections_is_whole_as_it_is():
    call = asked(wire_of("S"), "get_item", {"TableName": TABLE, "Key": {"pk": {"S": "x"}}})
    assert call.whole() is call.parameters


def test_whole_items_of_a_batch_and_of_a_transaction():
    key = {"pk": {"S": "x"}}
    wire = wire_of("S")
    entry = with_placeholders({"Keys": [key], "ConsistentRead": True, "ProjectionExpression": "#a"})
    call = asked(wire, "batch_get_item", {"RequestItems": {TABLE: entry}})
    assert call.projections == {TABLE: (("a",),)}
    assert call.whole() == {"RequestItems": {TABLE: {"Keys": [key], "ConsistentRead": True}}}
    gets = [
        {"Get": {"TableName": TABLE, "Key": {"pk": {"S": "y"}}}},
        {"Get": with_placeholders({"TableName": TABLE, "Key": key, "ProjectionExpression": "#a"})},
    ]
    wire.answer = lambda _: {"Responses": [{}, {}]}
    wire.client().transact_get_items(TransactItems=gets)
    assert wire.calls[-1].projections == {1: (("a",),)}
    assert wire.calls[-1].whole() == {"TransactItems": [gets[0], {"Get": {"TableName": TABLE, "Key": key}}]}


def test_the_tables_whose_keys_are_needed_are_told():
    write = requests.TransactWrite("Put", "b", b"", b"", False, None, None)
    assert tables_of(requests.Scan("t", Options())) == ("t",)
    assert tables_of(requests.BatchWriteItem({"b": (), "a": ()}, Options())) == ("b", "a")
    assert tables_of(requests.TransactWriteItems((write, write), Options())) == ("b",)
    gets = tuple(requests.TransactGet(table, b"", None) for table in "bab")
    assert tables_of(requests.TransactGetItems(gets, Options())) == ("b", "a")


KEYS = schema(pk="S")
PUT_OF_NOTHING = requests.TransactWrite("Put", "t", b"x", None, False, None, None)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (requests.GetItem("t", b"\xff", Options()), "UTF-8"),
        (requests.GetItem("t", b"x", Options(projection=b"\x00")), "list is due"),
        (requests.GetItem("t", b"x", Options(start_key=b"x")), "Query and Scan only"),
        (requests.PutItem("t", b"x", b"", Options()), "item is due"),
        (requests.PutItem("t", b"x", b"\x01", Options(condition=b"a = b")), "list is due|begins|whole number"),
        (requests.UpdateItem("t", b"x", Options(update=b"\x80")), "compiled expression"),
        (requests.Query("t", b"", Options()), "item is due"),
        (requests.Query("t", None, Options(index="i", start_key=b"x")), "map is due"),
        (requests.Query("t", None, Options(index="i", start_key=b"\xa0\x00")), "left over"),
        (requests.Scan("t", Options(start_key=b"\xff")), "UTF-8"),
        (
            requests.TransactWriteItems(
                (requests.TransactWrite("Put", "t", b"x", None, False, None, None),), Options()
            ),
            "no values",
        ),
    ],
)
def test_a_request_whose_bytes_are_no_key_item_or_expression_is_malformed(request_, reason):
    with pytest.raises(Malformed, match=reason):
        call_of(request_, lambda _: KEYS, {}.__getitem__)


def test_all_items_of_a_request_share_its_limit_of_elements():
    values = b"\x02\x83\x01\x02\x03"
    writes = tuple((bytes([97 + number]), values) for number in range(4))
    request = requests.BatchWriteItem({"t": writes}, Options())
    names = {2: ("a",)}.__getitem__
    assert len(call_of(request, lambda _: KEYS, names, Limits(elements=12)).parameters["RequestItems"]["t"]) == 4
    with pytest.raises(Malformed, match="more than 11 elements"):
        call_of(request, lambda _: KEYS, names, Limits(elements=11))
