"""What AWS's guide says of DAX, sentence by sentence, as the real client sees it; and what the counters say of it."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest
from daxes import MovableClock, Wire, direct_client, emulated, node_client, plain, real_client, refused

TTL_S = 300.0


def text(value):
    return {"S": value}


def number(value):
    return {"N": str(value)}


@pytest.fixture
def special(dynoxide):
    """Opens an emulator of other options than the shared one's, with a client of its own."""
    with ExitStack() as stack:

        def opened(**options):
            clock = MovableClock()
            direct = stack.enter_context(direct_client(dynoxide))
            emulator = stack.enter_context(emulated(dynoxide, clock=clock, **options))
            client = stack.enter_context(real_client(emulator.endpoint))
            made = Wire(emulator, client, direct, clock)
            made.nodes = [stack.enter_context(node_client(endpoint)) for endpoint in emulator.endpoints]
            return made

        yield opened


def a_query(wire, pk, **parameters):
    return {
        "TableName": wire.indexed,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": pk},
        **parameters,
    }


# 1. The item cache.


def test_a_get_asks_dynamodb_once_and_is_answered_from_the_cache_thereafter(wire):
    key = wire.key()
    item = wire.put(key, by=wire.direct, a=text("x"))
    assert wire.counted(lambda: wire.get(key)) == {"items.misses": 1, "passed_on.GetItem": 1}
    assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1}
    assert wire.get(key) == item


def test_a_batch_is_as_many_gets_and_asks_dynamodb_for_the_missing_ones_only(wire):
    keys = [wire.key() for _ in range(3)]
    for key in keys[:2]:
        wire.put(key, by=wire.direct)
    wire.get(keys[0])

    def batch():
        wire.client.batch_get_item(RequestItems={wire.indexed: {"Keys": keys}})

    assert wire.counted(batch) == {"items.hits": 1, "items.misses": 2, "passed_on.BatchGetItem": 1}
    assert wire.counted(batch) == {"items.hits": 3, "items.negative_hits": 1}
    assert wire.counted(lambda: wire.get(keys[1])) == {"items.hits": 1}


# 2. Time to live.


def test_an_item_is_served_for_its_ttl_from_when_it_was_stored_and_no_longer(wire):
    key = wire.key()
    wire.put(key, a=text("old"))
    wire.put(key, by=wire.direct, a=text("new"))
    wire.clock.moved_s += TTL_S / 2
    assert wire.get(key)["a"] == text("old")
    wire.clock.moved_s += TTL_S / 2
    counted = wire.counted(lambda: wire.get(key))
    assert counted == {"items.misses": 1, "items.expired": 1, "passed_on.GetItem": 1}
    assert wire.get(key)["a"] == text("new")


def test_both_ttls_can_be_set_and_0_is_for_ever(special):
    wire = special(item_ttl_s=10.0, query_ttl_s=0.0)
    key = wire.key()
    query = a_query(wire, key["pk"])
    wire.get(key)
    wire.client.query(**query)
    wire.put(key, by=wire.direct)
    wire.clock.moved_s += 10.0
    assert wire.get(key) == key
    wire.clock.moved_s += 1e9
    assert wire.client.query(**query)["Count"] == 0


# 4. Consistent reads.


def test_a_consistent_get_uses_no_entry_and_leaves_none(wire):
    key = wire.key()
    wire.put(key, a=text("old"))
    wire.put(key, by=wire.direct, a=text("new"))
    assert wire.get(key, ConsistentRead=True)["a"] == text("new")
    assert wire.get(key)["a"] == text("old")
    other = wire.key()
    assert wire.counted(lambda: wire.get(other, ConsistentRead=True)) == {"passed_on.GetItem": 1}
    assert wire.counted(lambda: wire.get(other)) == {"items.misses": 1, "passed_on.GetItem": 1}


def test_a_consistent_query_scan_and_batch_pass_both_ways(wire):
    key = wire.key()
    wire.put(key, a=text("old"))
    query = a_query(wire, key["pk"])
    wire.client.query(**query)
    wire.put(key, by=wire.direct, a=text("new"))
    consistent = {"ConsistentRead": True}

    def all_three():
        assert wire.client.query(**query, **consistent)["Items"][0]["a"] == text("new")
        asked = {wire.indexed: {"Keys": [key], **consistent}}
        assert wire.client.batch_get_item(RequestItems=asked)["Responses"][wire.indexed][0]["a"] == text("new")
        wire.client.scan(TableName=wire.indexed, Limit=1, **consistent)

    for _ in range(2):
        counted = wire.counted(all_three)
        assert counted == {"passed_on.Query": 1, "passed_on.BatchGetItem": 1, "passed_on.Scan": 1}
    assert wire.client.query(**query)["Items"][0]["a"] == wire.get(key)["a"] == text("old")


# 5. What is not there.


def test_an_absent_item_leaves_an_entry_until_its_ttl(wire):
    key = wire.key()
    assert wire.get(key) is None
    wire.put(key, by=wire.direct)
    assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1, "items.negative_hits": 1}
    assert wire.get(key) is None
    wire.clock.moved_s += TTL_S
    assert wire.get(key) == key


@pytest.mark.parametrize("method", ["put_item", "update_item", "delete_item", "batch_write_item"])
def test_a_write_through_dax_ends_an_entry_that_says_absent(wire, method):
    key = wire.key()
    assert wire.get(key) is None
    what = {
        "put_item": {"TableName": wire.indexed, "Item": key},
        "update_item": {"TableName": wire.indexed, "Key": key},
        "delete_item": {"TableName": wire.indexed, "Key": key},
        "batch_write_item": {"RequestItems": {wire.indexed: [{"PutRequest": {"Item": key}}]}},
    }[method]
    getattr(wire.client, method)(**what)
    if method == "delete_item":
        wire.put(key, by=wire.direct)
    assert wire.get(key) == key


def test_an_empty_answer_of_a_query_stays_until_its_ttl(wire):
    key = wire.key()
    query = a_query(wire, key["pk"])
    assert wire.client.query(**query)["Count"] == 0
    wire.put(key)
    assert wire.counted(lambda: wire.client.query(**query)) == {"queries.hits": 1, "queries.negative_hits": 1}
    wire.clock.moved_s += TTL_S
    assert wire.client.query(**query)["Count"] == 1


# 6. and 7. Writes.


@pytest.mark.parametrize("method", ["put_item", "update_item", "batch_write_item"])
def test_a_write_is_in_dynamodb_and_in_the_cache(wire, method):
    key = wire.key()
    item = {**key, "a": text("x")}
    what = {
        "put_item": {"TableName": wire.indexed, "Item": item},
        "update_item": {
            "TableName": wire.indexed,
            "Key": key,
            "UpdateExpression": "SET a = :a",
            "ExpressionAttributeValues": {":a": text("x")},
        },
        "batch_write_item": {"RequestItems": {wire.indexed: [{"PutRequest": {"Item": item}}]}},
    }[method]
    getattr(wire.client, method)(**what)
    assert wire.get(key, by=wire.direct) == item
    assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1}
    assert wire.get(key) == item


def test_a_delete_is_in_dynamodb_and_ends_the_entry(wire):
    key = wire.key()
    wire.put(key)
    wire.client.delete_item(TableName=wire.indexed, Key=key)
    assert wire.get(key, by=wire.direct) is None
    assert wire.counted(lambda: wire.get(key)) == {"items.misses": 1, "passed_on.GetItem": 1}


@pytest.mark.parametrize("method", ["put_item", "update_item", "delete_item"])
def test_a_write_whose_condition_fails_is_raised_and_changes_no_entry(wire, method):
    key = wire.key()
    wire.put(key, a=text("kept"))
    wire.put(key, by=wire.direct, a=text("hidden"))
    what = {"Item": {**key, "a": text("new")}} if method == "put_item" else {"Key": key}
    with refused("ConditionalCheckFailedException"):
        getattr(wire.client, method)(TableName=wire.indexed, ConditionExpression="attribute_not_exists(pk)", **what)
    assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1}
    assert wire.get(key)["a"] == text("kept")


def test_a_throttled_write_is_raised_not_done_and_changes_no_entry(wire):
    key = wire.key()
    wire.put(key, a=text("kept"))
    wire.emulator.throttle(operation="PutItem")
    with refused("ThrottlingException"):
        wire.put(key, a=text("new"))
    assert wire.get(key)["a"] == wire.get(key, by=wire.direct)["a"] == text("kept")


# 8. Writes past DAX.


def test_a_write_past_dax_is_not_seen_until_the_next_write_through_it(wire):
    key = wire.key()
    wire.put(key, a=text("1"))
    wire.put(key, by=wire.direct, a=text("2"))
    assert wire.get(key)["a"] == text("1")
    wire.put(key, a=text("3"))
    assert wire.get(key)["a"] == text("3")


# 9. The query cache.


def test_query_put_query_gives_the_old_answer_until_the_ttl(wire):
    pk = wire.new()
    query = a_query(wire, text(pk))
    wire.put(wire.key("1", pk=pk))
    assert wire.client.query(**query)["Count"] == 1
    wire.put(wire.key("2", pk=pk))
    assert wire.counted(lambda: wire.client.query(**query)) == {"queries.hits": 1}
    assert wire.client.query(**query)["Count"] == 1
    wire.clock.moved_s += TTL_S
    assert wire.client.query(**query)["Count"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"Limit": 1},
        {"ScanIndexForward": False},
        {"ProjectionExpression": "l[1]"},
        {"FilterExpression": "attribute_exists(a)"},
        {"IndexName": "by_size"},
        {"Select": "COUNT"},
        {"KeyConditionExpression": "pk = :p AND sk > :p"},
    ],
)
def test_a_query_is_kept_by_the_whole_request(wire, change):
    query = a_query(wire, text(wire.new()))
    wire.client.query(**query)
    assert wire.counted(lambda: wire.client.query(**{**query, **change})) == {"queries.misses": 1, "passed_on.Query": 1}
    assert wire.counted(lambda: wire.client.query(**{**query, **change}))["queries.hits"] == 1


def test_projections_of_different_elements_are_different_requests(wire):
    key = wire.key()
    wire.put(key, l={"L": [text("0"), text("1")]})
    query = a_query(wire, key["pk"])

    def elements(*places):
        for place in places:
            (found,) = wire.client.query(**query, ProjectionExpression=f"l[{place}]")["Items"]
            assert found == {"l": {"L": [text(place)]}}

    assert wire.counted(lambda: elements("0", "1")) == {"queries.misses": 2, "passed_on.Query": 2}
    assert wire.counted(lambda: elements("0", "1")) == {"queries.hits": 2}


def test_queries_and_scans_fill_no_items_and_items_answer_no_queries(wire):
    key = wire.key()
    wire.put(key, by=wire.direct)
    wire.client.query(**a_query(wire, key["pk"]))
    wire.client.scan(TableName=wire.indexed, FilterExpression="pk = :p", ExpressionAttributeValues={":p": key["pk"]})
    assert wire.counted(lambda: wire.get(key)) == {"items.misses": 1, "passed_on.GetItem": 1}
    query = a_query(wire, key["pk"], Limit=7)
    assert wire.counted(lambda: wire.client.query(**query)) == {"queries.misses": 1, "passed_on.Query": 1}


# 10. Memory.


def test_the_least_recently_used_item_makes_room_before_its_ttl(special):
    wire = special(item_bytes=1_000)
    keys = [wire.key() for _ in range(4)]
    for key in keys[:3]:
        wire.put(key, pad=text("x" * 200))
    wire.get(keys[0])
    assert wire.counted(lambda: wire.put(keys[3], pad=text("x" * 200)))["items.evictions"] == 1
    assert [wire.counted(lambda key=key: wire.get(key)) for key in (keys[0], keys[2], keys[3])] == [
        {"items.hits": 1}
    ] * 3
    assert wire.counted(lambda: wire.get(keys[1]))["passed_on.GetItem"] == 1


def test_the_two_caches_have_memory_of_their_own_and_entries_that_say_absent_take_some(special):
    wire = special(item_bytes=2_000, query_bytes=2_000)
    for _ in range(60):
        wire.get(wire.key())
    status = wire.emulator.status()
    assert status["items"]["evictions"] > 20
    assert status["queries"]["evictions"] == 0
    assert status["nodes"][0]["items"]["bytes"] <= 2_000
    for limit in range(1, 40):
        wire.client.query(**a_query(wire, text("nobody"), Limit=limit))
    assert wire.emulator.status()["queries"]["evictions"] > 10


def test_caches_of_no_memory_are_off(special):
    wire = special(item_bytes=0, query_bytes=0)
    key = wire.key()
    wire.put(key)
    for _ in range(2):
        assert wire.counted(lambda: wire.get(key))["passed_on.GetItem"] == 1
        counted = wire.counted(lambda: wire.client.query(**a_query(wire, key["pk"])))
        assert counted["passed_on.Query"] == 1


# 3. and 11. Nodes.


def test_a_write_reaches_the_replicas_after_the_lag_and_nodes_differ_meanwhile(special):
    lag_s = 100.0
    wire = special(nodes=3, replication_lag_s=lag_s)
    key = wire.key()

    def seen():
        return [wire.get(key, by=node)["a"]["S"] for node in wire.nodes]

    wire.put(key, a=text("1"))
    wire.clock.moved_s += lag_s
    wire.put(key, a=text("2"))
    assert seen() == ["2", "1", "1"]
    wire.clock.moved_s += lag_s
    assert seen() == ["2", "2", "2"]
    wire.emulator.lag(math.inf)
    wire.put(key, a=text("3"))
    wire.clock.moved_s += lag_s
    assert seen() == ["3", "2", "2"]
    wire.emulator.lag(0.0)
    assert seen() == ["3", "3", "3"]


def test_what_one_node_has_read_the_others_know_after_the_lag(special):
    wire = special(nodes=2)
    key = wire.key()
    wire.put(key, by=wire.direct)
    wire.get(key, by=wire.nodes[1])
    assert wire.counted(lambda: wire.get(key, by=wire.nodes[0])) == {"items.hits": 1}


def test_a_query_s_answer_stays_on_the_node_that_asked(special):
    wire = special(nodes=2)
    query = a_query(wire, text(wire.new()))
    wire.nodes[0].query(**query)
    assert wire.counted(lambda: wire.nodes[0].query(**query))["queries.hits"] == 1
    assert wire.counted(lambda: wire.nodes[1].query(**query)) == {"queries.misses": 1, "passed_on.Query": 1}


def test_the_client_finds_all_nodes_and_writes_to_the_one_that_leads(special):
    wire = special(nodes=3)
    keys = [wire.key() for _ in range(10)]
    for key in keys:
        wire.put(key)
    for _ in range(10):
        for key in keys:
            wire.get(key)
    nodes = wire.emulator.status()["nodes"]
    assert all(node["items"]["hits"] for node in nodes), "100 reads miss one of three nodes once in 10^17 runs"
    assert [node["connections"] > 0 for node in nodes] == [True] * 3


# 12. Transactions.


def test_a_transaction_is_passed_on_and_fills_the_cache_with_what_it_left(wire):
    key, gone = wire.key(), wire.key()
    wire.put(key, n=number(1))
    wire.put(gone)
    table = {"TableName": wire.indexed}
    update = {"Key": key, "UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": number(1)}}
    items = [{"Update": {**table, **update}}, {"Delete": {**table, "Key": gone}}]
    counted = wire.counted(lambda: wire.client.transact_write_items(TransactItems=items))
    assert counted == {"passed_on.TransactWriteItems": 1, "passed_on.TransactGetItems": 1}
    assert wire.counted(lambda: (wire.get(key), wire.get(gone))) == {"items.hits": 2, "items.negative_hits": 1}
    assert wire.get(key)["n"] == number(2)


def test_a_cancelled_transaction_changes_no_entry(wire):
    key, other = wire.key(), wire.key()
    wire.put(key, a=text("kept"))
    condition = {"ConditionExpression": "attribute_exists(pk)"}
    with refused("TransactionCanceledException"):
        wire.client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": wire.indexed, "Item": {**key, "a": text("new")}}},
                {"Delete": {"TableName": wire.indexed, "Key": other, **condition}},
            ]
        )
    assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1}
    assert wire.get(key)["a"] == wire.get(key, by=wire.direct)["a"] == text("kept")


def test_transactional_reads_use_no_entry_and_leave_none(wire):
    key, other = wire.key(), wire.key()
    wire.put(key, a=text("old"))
    wire.put(key, by=wire.direct, a=text("new"))
    gets = [{"Get": {"TableName": wire.indexed, "Key": each}} for each in (key, other)]
    answer = wire.client.transact_get_items(TransactItems=gets)
    assert plain(answer) == {"Responses": [{"Item": {**key, "a": text("new")}}, {}]}
    assert wire.get(key)["a"] == text("old")
    assert wire.counted(lambda: wire.get(other))["items.misses"] == 1


# What the documents leave open, and this emulator does.


def test_a_projected_get_keeps_the_whole_item_and_is_answered_from_it(wire):
    key = wire.key()
    item = wire.put(key, by=wire.direct, a=text("x"), l={"L": [text("0"), text("1")]})
    assert wire.get(key, ProjectionExpression="l[1]") == {"l": {"L": [text("1")]}}
    assert wire.counted(lambda: wire.get(key, ProjectionExpression="a")) == {"items.hits": 1}
    assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1}
    assert wire.get(key) == item


@pytest.mark.parametrize("returns", ["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"])
def test_an_update_keeps_the_new_item_or_where_another_was_wanted_none(wire, returns):
    key = wire.key()
    wire.put(key, n=number(1), other=text("kept"))
    wire.client.update_item(
        TableName=wire.indexed,
        Key=key,
        UpdateExpression="ADD n :one",
        ExpressionAttributeValues={":one": number(1)},
        ReturnValues=returns,
    )
    asked = wire.counted(lambda: wire.get(key)).get("passed_on.GetItem", 0)
    assert asked == (returns not in ("NONE", "ALL_NEW"))
    assert wire.get(key) == {**key, "n": number(2), "other": text("kept")}


def test_equal_numbers_are_one_entry_and_each_caller_keeps_its_spelling(wire):
    table, pk = wire.tables["sn"], text(wire.new())

    def key(spelling):
        return {"pk": pk, "sk": number(spelling)}

    wire.client.put_item(TableName=table, Item={**key("1"), "a": text("old")})
    for spelling in ("1.0", "1e0", "1.00", "1"):
        found = wire.client.get_item(TableName=table, Key=key(spelling))["Item"]
        assert found == {**key(spelling), "a": text("old")}
    wire.client.put_item(TableName=table, Item={**key("1.0"), "a": text("new")})
    assert wire.client.get_item(TableName=table, Key=key("1"))["Item"]["a"] == text("new")
    hits = wire.counted(lambda: [wire.client.get_item(TableName=table, Key=key(each)) for each in ("1", "1.00", "1e0")])
    assert hits == {"items.hits": 3}
    hash_only = wire.tables["n"]
    wire.client.put_item(TableName=hash_only, Item={"pk": number("500"), "a": text("x")})
    assert wire.client.get_item(TableName=hash_only, Key={"pk": number("5e2")})["Item"]["a"] == text("x")
    wire.client.delete_item(TableName=hash_only, Key={"pk": number("500.0")})
    assert "Item" not in wire.client.get_item(TableName=hash_only, Key={"pk": number("500")})
