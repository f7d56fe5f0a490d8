"""Every operation through the real client: what it writes is what the engine has, what it reads is what is there."""

from __future__ import annotations

from decimal import Context, Decimal
from uuid import uuid4

import pytest
from daxes import SCHEMAS, plain, refused

EXACT = Context(prec=60)
KEYS = {
    "s": [{"pk": {"S": "käse"}}, {"pk": {"S": "a" * 2048}}],
    "n": [{"pk": {"N": "7"}}, {"pk": {"N": "-1.5"}}, {"pk": {"N": "1E+70"}}],
    "b": [{"pk": {"B": b"\x00\xff"}}, {"pk": {"B": b"a"}}],
    "ss": [{"pk": {"S": "p"}, "sk": {"S": "a#1"}}, {"pk": {"S": "日本"}, "sk": {"S": "𝄞"}}],
    "sn": [{"pk": {"S": "p"}, "sk": {"N": number}} for number in ("0", "1", "-1", "123456", "-0.001", "9.9E+100")],
    "nn": [{"pk": {"N": "1"}, "sk": {"N": "2"}}, {"pk": {"N": "-10"}, "sk": {"N": "1E-50"}}],
    "bb": [{"pk": {"B": b"\x01"}, "sk": {"B": b"\x00"}}, {"pk": {"B": b"pk"}, "sk": {"B": bytes(range(256))}}],
}
VALUES = {
    "text": {"S": "Straße 日本 𝄞"},
    "an empty text": {"S": ""},
    "a long text": {"S": "x" * 100_000},
    "a number": {"N": "42"},
    "a negative number": {"N": "-7"},
    "a fraction": {"N": "0.000123"},
    "a large number": {"N": "123456789012345678901234567890"},
    "a number of 38 digits": {"N": "12345678901234567890.123456789012345678"},
    "a huge number": {"N": "9.9E+125"},
    "a tiny number": {"N": "1E-130"},
    "bytes": {"B": bytes(range(256))},
    "no bytes": {"B": b""},
    "true": {"BOOL": True},
    "false": {"BOOL": False},
    "null": {"NULL": True},
    "a list": {"L": [{"S": "a"}, {"N": "1"}, {"L": []}, {"NULL": True}]},
    "an empty list": {"L": []},
    "a map": {"M": {"b": {"N": "2"}, "a": {"M": {"x.y": {"BOOL": False}}}}},
    "an empty map": {"M": {}},
    "a set of texts": {"SS": ["a", "b"]},
    "a set of numbers": {"NS": ["1", "2.5", "-3"]},
    "a set of bytes": {"BS": [b"a", b"\x00"]},
    "nesting": {"L": [{"M": {"l": {"L": [{"M": {"deep": {"SS": ["z"]}}}]}}}]},
}


def number(value):
    return {"N": str(value)}


def text(value):
    return {"S": value}


def alike(value):
    """Return a value such that equal ones are equal, however sets are ordered and numbers are spelled."""
    ((kind, inner),) = value.items()
    if kind == "N":
        return kind, EXACT.normalize(Decimal(inner))
    if kind in ("SS", "BS"):
        return kind, sorted(inner)
    if kind == "NS":
        return kind, sorted(EXACT.normalize(Decimal(each)) for each in inner)
    if kind == "L":
        return kind, [alike(part) for part in inner]
    if kind == "M":
        return kind, {name: alike(part) for name, part in inner.items()}
    return kind, inner


def all_alike(item):
    return {name: alike(value) for name, value in item.items()}


# Keys.


@pytest.mark.parametrize(("schema", "key"), [(schema, key) for schema, keys in KEYS.items() for key in keys])
def test_an_item_is_put_got_updated_queried_and_deleted_by_a_key_of_each_schema(wire, schema, key):
    table = wire.tables[schema]
    wire.client.put_item(TableName=table, Item={**key, "a": text("x")})
    stored = wire.direct.get_item(TableName=table, Key=key)["Item"]
    assert all_alike(stored) == all_alike({**key, "a": text("x")})
    assert wire.client.get_item(TableName=table, Key=key)["Item"] == {**key, "a": text("x")}
    strong = wire.client.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
    assert strong == {**key, "a": text("x")}
    wire.client.update_item(
        TableName=table, Key=key, UpdateExpression="SET a = :a", ExpressionAttributeValues={":a": text("y")}
    )
    assert wire.direct.get_item(TableName=table, Key=key)["Item"]["a"] == text("y")
    assert wire.client.get_item(TableName=table, Key=key)["Item"]["a"] == text("y")
    conditions = " AND ".join(f"{name} = :{name}" for name in key)
    values = {f":{name}": value for name, value in key.items()}
    found = wire.client.query(
        TableName=table, KeyConditionExpression=conditions, ExpressionAttributeValues=values, ConsistentRead=True
    )
    assert [all_alike(item) for item in found["Items"]] == [all_alike({**key, "a": text("y")})]
    wire.client.delete_item(TableName=table, Key=key)
    assert "Item" not in wire.direct.get_item(TableName=table, Key=key)
    assert "Item" not in wire.client.get_item(TableName=table, Key=key)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_batches_and_transactions_take_keys_of_each_schema(wire, schema):
    table, keys = wire.tables[schema], KEYS[schema]
    puts = [{"PutRequest": {"Item": {**key, "n": number(place)}}} for place, key in enumerate(keys)]
    assert plain(wire.client.batch_write_item(RequestItems={table: puts}))["UnprocessedItems"] == {}
    wanted = [all_alike({**key, "n": number(place)}) for place, key in enumerate(keys)]
    for _ in range(2):
        found = wire.client.batch_get_item(RequestItems={table: {"Keys": keys}})["Responses"][table]
        assert sorted(map(str, map(all_alike, found))) == sorted(map(str, wanted))
    got = wire.client.transact_get_items(TransactItems=[{"Get": {"TableName": table, "Key": key}} for key in keys])
    assert [all_alike(response["Item"]) for response in got["Responses"]] == wanted
    wire.client.transact_write_items(TransactItems=[{"Delete": {"TableName": table, "Key": key}} for key in keys])
    assert wire.direct.scan(TableName=table)["Count"] == 0
    assert [wire.client.get_item(TableName=table, Key=key).get("Item") for key in keys] == [None] * len(keys)


# Values.


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_value_of_each_type_comes_back_as_it_was_from_the_cache_and_from_the_engine(wire, value):
    key = wire.key()
    wire.put(key, v=value, w=text("after"))
    by_cache, by_engine = wire.get(key), wire.get(key, ConsistentRead=True)
    stored = wire.get(key, by=wire.direct)
    assert (
        all_alike(by_cache)
        == all_alike(by_engine)
        == all_alike(stored)
        == all_alike({**key, "v": value, "w": text("after")})
    )


def test_an_item_of_its_key_alone_has_no_attributes(wire):
    key = wire.key()
    wire.put(key)
    assert wire.get(key) == wire.get(key, ConsistentRead=True) == wire.get(key, by=wire.direct) == key


def test_an_item_may_have_very_many_attributes_of_odd_names(wire):
    key = wire.key()
    odd = ["", " ", "a.b", "a[0]", "SELECT", "#x", ":y", "naïve", "𝄞"][1:]
    attributes = {name: text(name) for name in odd} | {f"a{place}": number(place) for place in range(500)}
    wire.put(key, **attributes)
    assert wire.get(key) == wire.get(key, by=wire.direct) == key | attributes


# Return values.


@pytest.mark.parametrize(
    ("returns", "shown"),
    [
        ("NONE", None),
        ("ALL_OLD", {"n": {"M": {"x": number(1), "y": number(5)}}, "k": text("k")}),
        ("ALL_NEW", {"n": {"M": {"x": number(2), "y": number(5)}}, "k": text("k"), "z": number(3)}),
        ("UPDATED_OLD", {"n": {"M": {"x": number(1)}}}),
        ("UPDATED_NEW", {"n": {"M": {"x": number(2)}}, "z": number(3)}),
    ],
)
def test_an_update_returns_what_was_asked_for(wire, returns, shown):
    key = wire.key()
    wire.put(key, n={"M": {"x": number(1), "y": number(5)}}, k=text("k"))
    answer = wire.client.update_item(
        TableName=wire.indexed,
        Key=key,
        UpdateExpression="SET n.x = :x, z = :z",
        ExpressionAttributeValues={":x": number(2), ":z": number(3)},
        ReturnValues=returns,
    )
    whole = key if returns.startswith("ALL") else {}
    assert plain(answer) == ({} if shown is None else {"Attributes": whole | shown})


@pytest.mark.parametrize("method", ["put_item", "delete_item"])
@pytest.mark.parametrize("returns", ["NONE", "ALL_OLD"])
def test_a_put_and_a_delete_return_the_old_item_if_asked(wire, method, returns):
    key = wire.key()
    old = wire.put(key, a=text("old"))
    what = {"Item": {**key, "a": text("new")}} if method == "put_item" else {"Key": key}
    answer = getattr(wire.client, method)(TableName=wire.indexed, ReturnValues=returns, **what)
    assert plain(answer) == ({"Attributes": old} if returns == "ALL_OLD" else {})


@pytest.mark.parametrize(
    ("expression", "values", "left"),
    [
        ("SET a = a + :one", {":one": number(1)}, {"a": number(2)}),
        ("SET a = a - :one", {":one": number(1)}, {"a": number(0)}),
        ("SET a = if_not_exists(missing, :one)", {":one": number(9)}, {"a": number(9)}),
        ("SET l = list_append(l, :l)", {":l": {"L": [text("c")]}}, {"l": {"L": [text("a"), text("b"), text("c")]}}),
        ("SET l[0] = :v", {":v": text("z")}, {"l": {"L": [text("z"), text("b")]}}),
        ("SET m.q = :v, a = :v", {":v": number(3)}, {"m": {"M": {"q": number(3)}}, "a": number(3)}),
        ("REMOVE a, l[0]", {}, {"a": None, "l": {"L": [text("b")]}}),
        ("ADD a :one", {":one": number(5)}, {"a": number(6)}),
        ("ADD s :s", {":s": {"SS": ["y"]}}, {"s": {"SS": ["x", "y"]}}),
        ("DELETE s :s", {":s": {"SS": ["x"]}}, {"s": None}),
        (
            "SET a = :v REMOVE l ADD c :one",
            {":v": text("t"), ":one": number(1)},
            {"a": text("t"), "l": None, "c": number(1)},
        ),
    ],
)
def test_an_update_does_what_its_expression_says(wire, expression, values, left):
    key = wire.key()
    before = {"a": number(1), "l": {"L": [text("a"), text("b")]}, "m": {"M": {}}, "s": {"SS": ["x"]}}
    wire.put(key, **before)
    given = {"ExpressionAttributeValues": values} if values else {}
    wire.client.update_item(TableName=wire.indexed, Key=key, UpdateExpression=expression, **given)
    expected = {name: value for name, value in (key | before | left).items() if value is not None}
    assert all_alike(wire.get(key)) == all_alike(wire.get(key, by=wire.direct)) == all_alike(expected)


# Conditions.

HOLD = [
    "attribute_exists(a)",
    "attribute_not_exists(missing)",
    "attribute_type(a, :type)",
    "begins_with(t, :be)",
    "contains(t, :mid)",
    "contains(s, :x)",
    "size(t) = :six",
    "a = :one",
    "a <> :six",
    "a < :six",
    "a <= :one",
    "a > :zero",
    "a >= :one",
    "a BETWEEN :zero AND :six",
    "a IN (:zero, :one, :six)",
    "NOT a = :six",
    "(a = :six OR a = :one) AND NOT (t = :x)",
    "#m.#n[1].#k = :one",
]
WORDS = {
    ":type": text("N"),
    ":be": text("be"),
    ":mid": text("gin"),
    ":x": text("x"),
    ":zero": number(0),
    ":one": number(1),
    ":six": number(6),
}


def used(condition):
    names = {"#m": "m.m", "#n": "size", "#k": "k"}
    words = condition.replace("(", " ").replace(")", " ").replace(",", " ").split()
    given = {"ExpressionAttributeValues": {word: WORDS[word] for word in words if word in WORDS}}
    given = {name: value for name, value in given.items() if value}
    return given | ({"ExpressionAttributeNames": names} if "#" in condition else {})


@pytest.mark.parametrize("condition", HOLD)
def test_a_condition_is_what_the_engine_makes_of_it(wire, condition):
    key = wire.key()
    item = {
        "a": number(1),
        "t": text("begins"),
        "s": {"SS": ["x", "y"]},
        "m.m": {"M": {"size": {"L": [text("0"), {"M": {"k": number(1)}}]}}},
    }
    wire.put(key, **item)
    given = used(condition)
    wire.client.put_item(TableName=wire.indexed, Item=key | item, ConditionExpression=condition, **given)
    with refused("ConditionalCheckFailedException"):
        wire.client.delete_item(TableName=wire.indexed, Key=key, ConditionExpression=f"NOT ({condition})", **given)
    assert wire.get(key, by=wire.direct) is not None
    wire.client.delete_item(TableName=wire.indexed, Key=key, ConditionExpression=condition, **given)
    assert wire.get(key, by=wire.direct) is None


# Projections.


@pytest.mark.parametrize("how", ["cached", "consistent", "batch", "consistent batch", "transaction", "query", "scan"])
@pytest.mark.parametrize(
    ("projection", "names", "shown"),
    [
        ("a", None, {"a": text("x")}),
        ("a, sk", None, {"a": text("x"), "sk": text("1")}),
        ("l[2]", None, {"l": {"L": [text("2")]}}),
        ("l[3], l[0]", None, {"l": {"L": [text("0"), {"M": {"k": text("deep"), "j": text("j")}}]}}),
        ("l[3].k, a", None, {"l": {"L": [{"M": {"k": text("deep")}}]}, "a": text("x")}),
        ("m.b, m.c", None, {"m": {"M": {"b": text("b")}}}),
        ("#d, #s", {"#d": "dotted.name", "#s": "size"}, {"dotted.name": text("d"), "size": number(4)}),
        ("missing, l[9]", None, {}),
    ],
)
def test_a_projection_is_taken_from_the_stored_document(wire, how, projection, names, shown):
    key = wire.key()
    wire.put(
        key,
        a=text("x"),
        l={"L": [text("0"), text("1"), text("2"), {"M": {"k": text("deep"), "j": text("j")}}]},
        m={"M": {"a": text("a"), "b": text("b")}},
        **{"dotted.name": text("d"), "size": number(4)},
    )
    asked = {"ProjectionExpression": projection, **({"ExpressionAttributeNames": names} if names else {})}
    table = wire.indexed
    by_key = {
        "TableName": table,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": key["pk"]},
    }
    ways = {
        "cached": lambda: wire.get(key, **asked),
        "consistent": lambda: wire.get(key, ConsistentRead=True, **asked),
        "batch": lambda: wire.client.batch_get_item(RequestItems={table: {"Keys": [key], **asked}})["Responses"][table],
        "consistent batch": lambda: wire.client.batch_get_item(
            RequestItems={table: {"Keys": [key], "ConsistentRead": True, **asked}}
        )["Responses"][table],
        "transaction": lambda: wire.client.transact_get_items(
            TransactItems=[{"Get": {"TableName": table, "Key": key, **asked}}]
        )["Responses"],
        "query": lambda: wire.client.query(**by_key, **asked)["Items"],
        "scan": lambda: wire.client.scan(
            TableName=table, FilterExpression="pk = :p", ExpressionAttributeValues={":p": key["pk"]}, **asked
        )["Items"],
    }
    for _ in range(2):
        found = ways[how]()
        if isinstance(found, list):
            (found,) = found
        assert found.get("Item", found) == shown


# Queries and scans.


@pytest.fixture(scope="module")
def page(wire):
    """The keys of ten items of one partition, of two colours, in order."""
    pk = wire.new()
    keys = [wire.key(f"{place:02}", pk=pk) for place in range(10)]
    for place, key in enumerate(keys):
        wire.put(key, colour=text(f"{pk}-{'red' if place % 2 else 'blue'}"), size=number(100 - place), a=text("x" * 50))
    return keys


def of_partition(wire, page, **parameters):
    return {
        "TableName": wire.indexed,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": page[0]["pk"]},
        **parameters,
    }


def sks(answer):
    return [item["sk"]["S"] for item in answer["Items"]]


ALL = [f"{place:02}" for place in range(10)]


@pytest.mark.parametrize(
    ("parameters", "values", "found"),
    [
        ({}, {}, ALL),
        ({"ScanIndexForward": False}, {}, ALL[::-1]),
        ({"Limit": 3}, {}, ALL[:3]),
        ({"ScanIndexForward": False, "Limit": 2}, {}, ["09", "08"]),
        ({"KeyConditionExpression": "pk = :p AND sk > :s"}, {":s": text("07")}, ["08", "09"]),
        ({"KeyConditionExpression": "pk = :p AND begins_with(sk, :s)"}, {":s": text("0")}, ALL),
        (
            {"KeyConditionExpression": "pk = :p AND sk BETWEEN :s AND :t"},
            {":s": text("03"), ":t": text("04")},
            ["03", "04"],
        ),
        ({"FilterExpression": "#s < :n", "ExpressionAttributeNames": {"#s": "size"}}, {":n": number(93)}, ["08", "09"]),
        ({"ConsistentRead": True}, {}, ALL),
        ({"IndexName": "by_size"}, {}, ALL[::-1]),
        (
            {
                "IndexName": "by_size",
                "KeyConditionExpression": "pk = :p AND #s >= :n",
                "ExpressionAttributeNames": {"#s": "size"},
            },
            {":n": number(98)},
            ["02", "01", "00"],
        ),
    ],
)
def test_a_query_finds_what_the_engine_finds(wire, page, parameters, values, found):
    asked = of_partition(wire, page, **parameters)
    asked["ExpressionAttributeValues"] = asked["ExpressionAttributeValues"] | values
    first, second, direct = wire.client.query(**asked), wire.client.query(**asked), wire.direct.query(**asked)
    assert sks(first) == found
    assert first == second == plain(direct)


def test_an_index_of_its_own_keys_is_queried_and_paged(wire, page):
    pk = page[0]["pk"]["S"]
    asked = {
        "TableName": wire.indexed,
        "IndexName": "by_colour",
        "KeyConditionExpression": "colour = :c",
        "ExpressionAttributeValues": {":c": text(f"{pk}-red")},
        "Limit": 2,
    }
    found, start = [], {}
    while True:
        answer = wire.client.query(**asked, **start)
        assert answer == plain(wire.direct.query(**asked, **start))
        found += sks(answer)
        if "LastEvaluatedKey" not in answer:
            break
        assert set(answer["LastEvaluatedKey"]) == {"pk", "sk", "colour", "size"}
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert found == ["09", "07", "05", "03", "01"]


@pytest.mark.parametrize("limit", [1, 3, 10, 11])
def test_a_query_and_a_scan_are_paged_to_the_end(wire, page, limit):
    for method, asked in (
        (wire.client.query, of_partition(wire, page)),
        (
            wire.client.scan,
            {
                "TableName": wire.indexed,
                "FilterExpression": "pk = :p",
                "ExpressionAttributeValues": {":p": page[0]["pk"]},
                "ConsistentRead": True,
            },
        ),
    ):
        found, start, pages = [], {}, 0
        while True:
            answer = method(**asked, Limit=limit, **start)
            found += sks(answer)
            pages += 1
            if "LastEvaluatedKey" not in answer:
                break
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        assert found == ALL
        assert pages >= 10 / limit


@pytest.mark.parametrize("schema", ["n", "b", "sn", "nn", "bb"])
def test_a_scan_of_each_schema_is_paged_by_its_own_keys(wire, schema):
    table = wire.tables[schema]
    for key in KEYS[schema]:
        wire.client.put_item(TableName=table, Item=key)
    found, start = [], {}
    while True:
        answer = wire.client.scan(TableName=table, Limit=1, ConsistentRead=True, **start)
        found += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            break
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert sorted(map(str, map(all_alike, found))) == sorted(map(str, map(all_alike, KEYS[schema])))
    wire.client.batch_write_item(RequestItems={table: [{"DeleteRequest": {"Key": key}} for key in KEYS[schema]]})


def test_a_count_has_no_items(wire, page):
    answer = wire.client.query(**of_partition(wire, page, Select="COUNT", FilterExpression="attribute_exists(a)"))
    assert plain(answer) == {"Count": 10, "ScannedCount": 10}


def test_segments_of_a_scan_make_up_the_whole(wire, page):
    found = []
    for segment in range(3):
        asked = {"Segment": segment, "TotalSegments": 3, "FilterExpression": "pk = :p"}
        answer = wire.client.scan(TableName=wire.indexed, ExpressionAttributeValues={":p": page[0]["pk"]}, **asked)
        found += sks(answer)
    assert sorted(found) == ALL


def test_parameters_of_the_old_kind_are_understood(wire, page):
    answer = wire.client.query(
        TableName=wire.indexed,
        KeyConditions={
            "pk": {"ComparisonOperator": "EQ", "AttributeValueList": [page[0]["pk"]]},
            "sk": {"ComparisonOperator": "GT", "AttributeValueList": [text("06")]},
        },
        AttributesToGet=["sk", "size"],
    )
    assert answer["Items"] == [{"sk": text(f"0{n}"), "size": number(100 - n)} for n in (7, 8, 9)]


# Batches.


def test_a_batch_is_over_several_tables_and_leaves_out_what_is_not_there(wire):
    other, key, missing = wire.tables["s"], wire.key(), wire.key()
    wire.client.batch_write_item(
        RequestItems={
            wire.indexed: [{"PutRequest": {"Item": {**key, "a": text("x")}}}],
            other: [{"PutRequest": {"Item": {"pk": key["pk"], "b": text("y")}}}],
        }
    )
    asked = {wire.indexed: {"Keys": [key, missing]}, other: {"Keys": [{"pk": key["pk"]}], "ConsistentRead": True}}
    answer = wire.client.batch_get_item(RequestItems=asked)
    assert plain(answer) == {
        "Responses": {wire.indexed: [{**key, "a": text("x")}], other: [{"pk": key["pk"], "b": text("y")}]},
        "UnprocessedKeys": {},
    }


def test_a_batch_of_25_puts_and_deletes_is_done(wire):
    pk = wire.new()
    for kind in ("PutRequest", "DeleteRequest"):
        name = "Item" if kind == "PutRequest" else "Key"
        requests = [{kind: {name: wire.key(str(place), pk=pk)}} for place in range(25)]
        wire.client.batch_write_item(RequestItems={wire.indexed: requests})
        found = wire.direct.query(
            TableName=wire.indexed, KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": text(pk)}
        )
        assert found["Count"] == (25 if kind == "PutRequest" else 0)


# Transactions.


def test_a_transaction_of_each_kind_of_write_is_done(wire):
    pk = wire.new()
    put, gone, updated, checked = (wire.key(name, pk=pk) for name in ("put", "gone", "updated", "checked"))
    for key in (gone, updated, checked):
        wire.put(key, n=number(1))
    table = {"TableName": wire.indexed}
    wire.client.transact_write_items(
        TransactItems=[
            {"Put": {**table, "Item": {**put, "n": number(7)}, "ConditionExpression": "attribute_not_exists(pk)"}},
            {"Delete": {**table, "Key": gone}},
            {
                "Update": {
                    **table,
                    "Key": updated,
                    "UpdateExpression": "ADD n :one",
                    "ExpressionAttributeValues": {":one": number(1)},
                }
            },
            {"ConditionCheck": {**table, "Key": checked, "ConditionExpression": "attribute_exists(pk)"}},
        ]
    )
    for by in (wire.client, wire.direct):
        assert [(wire.get(key, by=by) or {}).get("n") for key in (put, gone, updated, checked)] == [
            number(7),
            None,
            number(2),
            number(1),
        ]


def test_a_transaction_with_a_token_is_done_once(wire):
    key = wire.key()
    asked = {
        "TransactItems": [
            {
                "Update": {
                    "TableName": wire.indexed,
                    "Key": key,
                    "UpdateExpression": "ADD n :one",
                    "ExpressionAttributeValues": {":one": number(1)},
                }
            }
        ],
        "ClientRequestToken": uuid4().hex,
    }
    wire.client.transact_write_items(**asked)
    wire.client.transact_write_items(**asked)
    assert wire.get(key, by=wire.direct)["n"] == wire.get(key)["n"] == number(1)


def test_a_transactional_read_gives_nothing_for_what_is_not_there(wire):
    key = wire.key()
    wire.put(key, a=text("x"))
    gets = [{"Get": {"TableName": wire.indexed, "Key": each}} for each in (wire.key(), key)]
    assert plain(wire.client.transact_get_items(TransactItems=gets)) == {
        "Responses": [{}, {"Item": {**key, "a": text("x")}}]
    }


# What was consumed.


def test_consumed_capacity_is_dynamodb_s_and_none_for_what_a_cache_answered(wire):
    key = wire.key()
    asked = {"ReturnConsumedCapacity": "TOTAL"}
    put = wire.client.put_item(TableName=wire.indexed, Item={**key, "a": text("x")}, **asked)
    assert put["ConsumedCapacity"]["TableName"] == wire.indexed
    assert put["ConsumedCapacity"]["CapacityUnits"] >= 1
    assert "ConsumedCapacity" not in wire.client.get_item(TableName=wire.indexed, Key=key, **asked)
    strong = wire.client.get_item(TableName=wire.indexed, Key=key, ConsistentRead=True, **asked)
    assert strong["ConsumedCapacity"]["CapacityUnits"] == 1
    cold = wire.client.get_item(TableName=wire.indexed, Key=wire.key(), **asked)
    assert cold["ConsumedCapacity"]["CapacityUnits"] == 0.5
    query = {
        "TableName": wire.indexed,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": key["pk"]},
        **asked,
    }
    assert wire.client.query(**query)["ConsumedCapacity"]["CapacityUnits"] == 0.5
    assert "ConsumedCapacity" not in wire.client.query(**query)


def test_consumed_capacity_of_batches_and_transactions_is_told_by_table(wire):
    key = wire.key()
    asked = {"ReturnConsumedCapacity": "TOTAL"}
    put = {wire.indexed: [{"PutRequest": {"Item": key}}]}
    written = wire.client.batch_write_item(RequestItems=put, **asked)["ConsumedCapacity"]
    assert [each["TableName"] for each in written] == [wire.indexed]
    cached = wire.client.batch_get_item(RequestItems={wire.indexed: {"Keys": [key]}}, **asked)
    assert cached["ConsumedCapacity"] == [{"TableName": wire.indexed, "CapacityUnits": 0.0}]
    cold = wire.client.batch_get_item(RequestItems={wire.indexed: {"Keys": [wire.key()]}}, **asked)
    assert cold["ConsumedCapacity"][0]["CapacityUnits"] == 0.5
    gets = [{"Get": {"TableName": wire.indexed, "Key": key}}]
    transacted = wire.client.transact_get_items(TransactItems=gets, **asked)
    assert transacted["ConsumedCapacity"][0]["TableName"] == wire.indexed
    deletes = [{"Delete": {"TableName": wire.indexed, "Key": key}}]
    transacted = wire.client.transact_write_items(TransactItems=deletes, **asked)
    assert transacted["ConsumedCapacity"][0]["TableName"] == wire.indexed


# Refusals.


def test_a_table_that_is_not_there_is_named(wire):
    with refused("ResourceNotFoundException") as raised:
        wire.client.get_item(TableName="no-such-table", Key={"pk": text("p")})
    assert "no-such-table" in str(raised.value)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("put_item", {"Item": {"sk": text("1")}}),
        ("put_item", {"Item": {"pk": number(1), "sk": text("1")}}),
        ("put_item", {"Item": {"pk": text(""), "sk": text("1")}}),
        ("put_item", {"Item": {"pk": text("p"), "sk": text("s"), "v": text("x" * 420_000)}}),
        ("get_item", {"Key": {"pk": text("p")}}),
        ("get_item", {"Key": {"pk": text("p"), "sk": text("")}}),
        ("get_item", {"Key": {"pk": text("p"), "sk": text("s")}, "ProjectionExpression": "a,"}),
        ("get_item", {"Key": {"pk": text("p"), "sk": text("s")}, "ProjectionExpression": "a, a.b"}),
        ("get_item", {"Key": {"pk": text("p"), "sk": text("s")}, "ProjectionExpression": "l[0], l.x"}),
        (
            "update_item",
            {
                "Key": {"pk": text("p"), "sk": text("s")},
                "UpdateExpression": "SET pk = :v",
                "ExpressionAttributeValues": {":v": text("q")},
            },
        ),
        (
            "update_item",
            {
                "Key": {"pk": text("p"), "sk": text("s")},
                "UpdateExpression": "SET missing.x = :v",
                "ExpressionAttributeValues": {":v": text("q")},
            },
        ),
        ("query", {"KeyConditionExpression": "sk = :v", "ExpressionAttributeValues": {":v": text("q")}}),
        (
            "query",
            {
                "KeyConditionExpression": "pk = :v",
                "IndexName": "no_such_index",
                "ExpressionAttributeValues": {":v": text("q")},
            },
        ),
        ("scan", {"Segment": 3, "TotalSegments": 2}),
        ("scan", {"Limit": 0}),
    ],
)
def test_what_cannot_be_meant_is_refused_and_the_client_goes_on(wire, method, parameters):
    with refused("ValidationException"):
        getattr(wire.client, method)(TableName=wire.indexed, **parameters)
    key = wire.key()
    wire.put(key)
    assert wire.get(key) == key


def test_a_batch_that_names_an_item_twice_is_refused(wire):
    key = wire.key()
    with refused("ValidationException"):
        wire.client.batch_get_item(RequestItems={wire.indexed: {"Keys": [key, key]}})
    with refused("ValidationException"):
        wire.client.batch_write_item(
            RequestItems={wire.indexed: [{"PutRequest": {"Item": key}}, {"DeleteRequest": {"Key": key}}]}
        )


def test_a_transaction_that_is_cancelled_gives_the_reason_of_each_part(wire):
    pk = wire.new()
    there, free = wire.key("there", pk=pk), wire.key("free", pk=pk)
    wire.put(there, a=text("old"))
    guard = {"ConditionExpression": "attribute_not_exists(pk)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    with refused("TransactionCanceledException") as raised:
        wire.client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": wire.indexed, "Item": free}},
                {"Put": {"TableName": wire.indexed, "Item": there, **guard}},
                {
                    "ConditionCheck": {
                        "TableName": wire.indexed,
                        "Key": wire.key(),
                        "ConditionExpression": "attribute_exists(pk)",
                    }
                },
            ]
        )
    reasons = raised.value.cancellation_reasons
    assert [reasons[place] for place in (0, 3, 6)] == ["None", "ConditionalCheckFailed", "ConditionalCheckFailed"]
    assert reasons[4] == "The conditional request failed"
    assert reasons[5] is not None
    assert raised.value.codes == [4, 37, 38, 39, 58]
    assert wire.get(free, by=wire.direct) is None


def test_a_transaction_repeated_with_other_content_is_refused(wire):
    token = uuid4().hex
    for key, code in ((wire.key(), None), (wire.key(), "IdempotentParameterMismatchException")):
        asked = {
            "TransactItems": [{"Put": {"TableName": wire.indexed, "Item": key}}],
            "ClientRequestToken": token,
        }
        if code is None:
            wire.client.transact_write_items(**asked)
        else:
            with refused(code):
                wire.client.transact_write_items(**asked)
