"""What DAX does with what it is asked, sentence by sentence; and that without its caches it is DynamoDB."""

from __future__ import annotations

import asyncio
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from amazondax import DaxError as RealErrors
from botocore.exceptions import ClientError, ParamValidationError

from mangacache.clock import SystemClock
from mangacache.errors import Invalid
from mangacache.testing import MemoryDax, MemoryDynamoDB
from mangacache.testing.dax import DaxOptions, codes, errors
from mangacache.testing.dax import cluster as cluster_module
from mangacache.testing.dax import node as node_module
from mangacache.testing.dax import writing as writing_module
from mangacache.testing.dax.cluster import Cluster
from mangacache.testing.dax.requests import of_whole_attributes
from mangacache.testing.dax.serving import Serving
from mangacache.testing.dax.tables import Tables

KEY_TYPES = {"t": {"PK": "S", "SK": "S"}, "numbers": {"PK": "S", "SK": "N"}, "bytes": {"PK": "B"}}
EMPTY = 0


class Ticking(SystemClock):
    """A clock that stands still until it is set; sleeps move it on and end at once."""

    def __init__(self):
        self.now_s = 1_000.0

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        self.now_s += seconds
        await asyncio.sleep(0)


class World:
    """A cluster in front of a table, both in memory, under one clock."""

    def __init__(self, **options):
        self.clock = Ticking()
        self.database = MemoryDynamoDB(clock=self.clock)
        for table, types in KEY_TYPES.items():
            self.database.call("CreateTable", description(table, types))
        self.dax = MemoryDax(self.database, clock=self.clock, random=random.Random(1), **options)
        self.client = self.dax.client()
        self.direct = self.database.client()

    @property
    def items(self):
        return self.dax.counters().items

    @property
    def queries(self):
        return self.dax.counters().queries

    def asked(self, operation):
        return self.dax.counters().passed_on[operation]

    async def put(self, sk="1", *, client=None, **attributes):
        await (client or self.client).put_item(TableName="t", Item=item(sk, **attributes))

    async def get(self, sk="1", *, client=None, **parameters):
        answer = await (client or self.client).get_item(TableName="t", Key=item(sk), **parameters)
        return answer.get("Item")


def description(table, types):
    index = {
        "IndexName": "by_colour",
        "KeySchema": [{"AttributeName": "colour", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    keys = [{"AttributeName": name, "KeyType": kind} for name, kind in zip(types, ("HASH", "RANGE"), strict=False)]
    indexed = {"colour": "S"} if table == "t" else {}
    attributes = [{"AttributeName": name, "AttributeType": kind} for name, kind in (types | indexed).items()]
    made = {"TableName": table, "KeySchema": keys, "AttributeDefinitions": attributes}
    return {**made, "BillingMode": "PAY_PER_REQUEST", **({"GlobalSecondaryIndexes": [index]} if indexed else {})}


def item(sk, **attributes):
    return {"PK": {"S": "p"}, "SK": {"S": sk}, **attributes}


def text(value):
    return {"S": value}


QUERY = {
    "TableName": "t",
    "KeyConditionExpression": "PK = :p",
    "ExpressionAttributeValues": {":p": {"S": "p"}},
}


def keys_of(answer):
    return [found["SK"]["S"] for found in answer["Items"]]


async def refused(call):
    with pytest.raises(ClientError) as raised:
        await call
    return raised.value


# The four scenarios of the caches.


async def test_a_miss_asks_dynamodb_and_keeps_the_answer():
    world = World()
    await world.put(client=world.direct, a=text("x"))
    assert await world.get() == item("1", a=text("x"))
    assert (world.items.misses, world.items.hits, world.asked("GetItem")) == (1, 0, 1)


async def test_a_hit_asks_dynamodb_nothing():
    world = World()
    await world.put(client=world.direct, a=text("x"))
    first = await world.get()
    before = world.database.requests.copy()
    assert await world.get() == first
    assert world.database.requests == before
    assert (world.items.misses, world.items.hits) == (1, 1)


async def test_a_write_goes_through_to_dynamodb_and_into_the_item_cache():
    world = World()
    await world.put(a=text("x"))
    assert await world.get(client=world.direct) == item("1", a=text("x"))
    assert await world.get() == item("1", a=text("x"))
    assert world.asked("GetItem") == 0


async def test_a_query_after_a_write_still_gives_the_old_answer_until_its_ttl():
    world = World()
    await world.put("1")
    assert keys_of(await world.client.query(**QUERY)) == ["1"]
    await world.put("2")
    assert keys_of(await world.client.query(**QUERY)) == ["1"]
    world.clock.now_s += 299.9
    assert keys_of(await world.client.query(**QUERY)) == ["1"]
    world.clock.now_s += 0.1
    assert keys_of(await world.client.query(**QUERY)) == ["1", "2"]
    assert (world.queries.hits, world.queries.misses, world.queries.expired) == (2, 2, 1)


# Items.


async def test_an_item_expires_after_its_ttl_counted_from_when_it_was_stored_and_not_from_the_last_read():
    world = World(item_ttl_s=10)
    await world.put(a=text("old"))
    await world.put(client=world.direct, a=text("new"))
    world.clock.now_s += 9.9
    assert (await world.get())["a"] == text("old")
    world.clock.now_s += 0.1
    assert (await world.get())["a"] == text("new")
    assert (world.items.expired, world.items.hits, world.items.misses) == (1, 1, 1)


async def test_an_infinite_ttl_never_ends():
    world = World(item_ttl_s=math.inf)
    await world.put(a=text("old"))
    await world.put(client=world.direct, a=text("new"))
    world.clock.now_s += 1e9
    assert (await world.get())["a"] == text("old")


async def test_a_write_that_bypasses_dax_is_not_seen_until_the_next_write_through_it():
    world = World()
    await world.put(a=text("1"))
    await world.put(client=world.direct, a=text("2"))
    assert (await world.get())["a"] == text("1")
    await world.put(a=text("3"))
    assert (await world.get())["a"] == text("3")


async def test_a_consistent_get_uses_no_entry_and_leaves_none():
    world = World()
    await world.put(a=text("old"))
    await world.put(client=world.direct, a=text("new"))
    assert (await world.get(ConsistentRead=True))["a"] == text("new")
    assert (await world.get())["a"] == text("old")
    await world.put("2", client=world.direct)
    assert await world.get("2", ConsistentRead=True)
    assert world.items.misses == 0
    await world.get("2")
    assert world.items.misses == 1


async def test_an_absent_item_leaves_an_entry_that_says_so():
    world = World()
    assert await world.get() is None
    await world.put(client=world.direct)
    assert await world.get() is None
    assert (world.items.negative_hits, world.items.hits, world.asked("GetItem")) == (1, 1, 1)
    world.clock.now_s += 300
    assert await world.get() == item("1")


@pytest.mark.parametrize(
    ("method", "parameters", "found"),
    [
        ("put_item", {"Item": item("1", a=text("x"))}, item("1", a=text("x"))),
        ("update_item", {"Key": item("1"), "UpdateExpression": "REMOVE a"}, item("1")),
        ("delete_item", {"Key": item("1")}, item("1", by=text("another"))),
    ],
)
async def test_any_write_through_dax_ends_an_entry_that_says_absent(method, parameters, found):
    world = World()
    assert await world.get() is None
    await getattr(world.client, method)(TableName="t", **parameters)
    if method == "delete_item":
        await world.put(client=world.direct, by=text("another"))
    assert await world.get() == found


async def test_a_projected_get_fills_the_cache_with_the_whole_item_and_is_answered_from_it():
    world = World()
    stored = item("1", a=text("x"), tags={"L": [text("0"), text("1"), text("2")]})
    await world.direct.put_item(TableName="t", Item=stored)
    assert await world.get(ProjectionExpression="tags[2], a") == {"tags": {"L": [text("2")]}, "a": text("x")}
    assert await world.get() == stored
    assert await world.get(ProjectionExpression="tags[1]") == {"tags": {"L": [text("1")]}}
    assert await world.get(ProjectionExpression="nothing") == {}
    assert world.asked("GetItem") == 1


async def test_a_hit_is_refused_where_dynamodb_would_refuse_it():
    world = World()
    await world.put()
    await world.get()
    for wrong in (
        {"ProjectionExpression": "a,"},
        {"ProjectionExpression": "#a"},
        {"ExpressionAttributeNames": {"#a": "a"}},
        {"ProjectionExpression": "a, a.b"},
        {"Nonsense": 1},
    ):
        error = await refused(world.get(**wrong))
        assert error.response["Error"]["Code"] == "ValidationException"
    assert world.items.hits == 1


async def test_numeric_keys_that_are_equal_are_one_entry_and_keep_the_caller_s_spelling():
    world = World()

    def key(number):
        return {"PK": text("p"), "SK": {"N": number}}

    await world.client.put_item(TableName="numbers", Item=key("1") | {"a": text("old")})
    for spelling in ("1.0", "1e0", "01", "1"):
        found = await world.client.get_item(TableName="numbers", Key=key(spelling))
        assert found["Item"] == key(spelling) | {"a": text("old")}
    await world.client.put_item(TableName="numbers", Item=key("1.00") | {"a": text("new")})
    for spelling in ("1", "1.0"):
        found = await world.client.get_item(TableName="numbers", Key=key(spelling))
        assert found["Item"]["a"] == text("new")
    assert world.asked("GetItem") == 0


async def test_what_dax_gives_can_be_changed_without_changing_what_it_keeps():
    world = World()
    mine = item("1", m={"M": {"a": text("x")}})
    await world.client.put_item(TableName="t", Item=mine)
    mine["m"]["M"]["a"] = text("y")
    for _ in range(3):
        (queried,) = (await world.client.query(**QUERY))["Items"]
        (batched,) = (await world.client.batch_get_item(RequestItems={"t": {"Keys": [item("1")]}}))["Responses"]["t"]
        got = await world.get()
        for found in (queried, batched, got):
            assert found == item("1", m={"M": {"a": text("x")}})
            found["m"]["M"].clear()
            found["PK"]["S"] = "other"


# Batches of reads.


async def test_a_batch_asks_dynamodb_only_for_what_no_entry_answers():
    world = World()
    for sk in "123":
        await world.put(sk, client=world.direct, a=text(sk))
    await world.get("1")
    await world.get("9")
    asked = {"t": {"Keys": [item(sk) for sk in "9321"], "ProjectionExpression": "a"}}
    for _ in range(2):
        answer = await world.client.batch_get_item(RequestItems=asked)
        assert answer == {"Responses": {"t": [{"a": text(sk)} for sk in "321"]}, "UnprocessedKeys": {}}
    assert world.asked("BatchGetItem") == 1
    assert (world.items.misses, world.items.hits, world.items.negative_hits) == (4, 6, 2)
    assert await world.get("2") == item("2", a=text("2"))


async def test_a_batch_keeps_what_was_absent_too():
    world = World()
    await world.client.batch_get_item(RequestItems={"t": {"Keys": [item("1")]}})
    await world.put(client=world.direct)
    assert await world.get() is None


async def test_a_table_read_consistently_in_a_batch_passes_both_ways():
    world = World()
    await world.put(a=text("old"))
    await world.put(client=world.direct, a=text("new"))
    asked = {"t": {"Keys": [item("1")], "ConsistentRead": True}}
    assert (await world.client.batch_get_item(RequestItems=asked))["Responses"]["t"][0]["a"] == text("new")
    assert (await world.get())["a"] == text("old")


async def test_keys_that_dynamodb_left_unprocessed_are_given_back_and_leave_no_entry():
    world = World()
    big = {"S": "x" * 399_000}
    for number in range(50):
        await world.direct.put_item(TableName="t", Item=item(str(number), big=big))
    asked = {"t": {"Keys": [item(str(number)) for number in range(50)]}}
    answer = await world.client.batch_get_item(RequestItems=asked)
    left = answer["UnprocessedKeys"]["t"]["Keys"]
    assert len(answer["Responses"]["t"]) + len(left) == 50
    assert left == asked["t"]["Keys"][-len(left) :]
    for key in left:
        assert (await world.get(key["SK"]["S"]))["big"] == big
    assert world.items.negative_hits == 0


# Queries and scans.


@pytest.mark.parametrize(
    "change",
    [
        {"Limit": 1},
        {"ScanIndexForward": True},
        {"ExpressionAttributeValues": {":p": {"S": "q"}}},
        {"FilterExpression": "attribute_exists(a)"},
        {"IndexName": "by_colour", "KeyConditionExpression": "colour = :p"},
        {"Select": "COUNT"},
        {"ExclusiveStartKey": item("0")},
    ],
)
async def test_a_query_is_answered_from_the_cache_only_when_every_parameter_is_the_same(change):
    world = World()
    await world.client.query(**QUERY)
    await world.client.query(**{**QUERY, **change})
    assert (world.queries.hits, world.queries.misses) == (0, 2)
    again = dict(reversed({**QUERY, **change}.items()))
    await world.client.query(**again)
    assert (world.queries.hits, world.queries.misses) == (1, 2)


async def test_true_and_one_are_different_parameters_of_a_query():
    world = World()
    for forward in (True, 1):
        await world.client.query(**QUERY, ScanIndexForward=forward)
    assert (world.queries.hits, world.queries.misses) == (0, 2)


async def test_a_consistent_query_and_scan_pass_both_ways():
    world = World()
    consistent = QUERY | {"ConsistentRead": True}
    for _ in range(2):
        await world.client.query(**consistent)
        await world.client.scan(TableName="t", ConsistentRead=True)
    assert (world.asked("Query"), world.asked("Scan"), world.queries.misses, world.queries.hits) == (2, 2, 0, 0)


async def test_an_empty_answer_of_a_query_stays_until_its_ttl():
    world = World(query_ttl_s=20)
    assert (await world.client.query(**QUERY))["Count"] == 0
    await world.put()
    assert (await world.client.query(**QUERY))["Count"] == 0
    assert (world.queries.negative_hits, world.queries.hits) == (1, 1)
    world.clock.now_s += 20
    assert (await world.client.query(**QUERY))["Count"] == 1


async def test_queries_and_scans_fill_no_items_and_items_answer_no_queries():
    world = World()
    await world.put(client=world.direct)
    await world.client.query(**QUERY)
    await world.client.scan(TableName="t")
    await world.get()
    assert (world.items.misses, world.items.hits) == (1, 0)
    assert (world.queries.misses, world.queries.hits) == (2, 0)


async def test_an_index_is_read_through_the_query_cache_alone():
    world = World()
    await world.put(client=world.direct, colour=text("red"))
    ask = {
        "TableName": "t",
        "IndexName": "by_colour",
        "KeyConditionExpression": "colour = :c",
        "ExpressionAttributeValues": {":c": text("red")},
    }
    for _ in range(2):
        assert (await world.client.query(**ask))["Count"] == 1
    assert (world.queries.hits, world.items.misses, world.items.hits) == (1, 0, 0)


# Writes.


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("put_item", {"Item": item("1", a=text("new"))}),
        ("delete_item", {"Key": item("1")}),
        (
            "update_item",
            {
                "Key": item("1"),
                "UpdateExpression": "SET a = :a",
                "ExpressionAttributeValues": {":a": text("new")},
            },
        ),
    ],
)
async def test_a_write_whose_condition_fails_is_raised_and_leaves_the_cache_alone(method, parameters):
    world = World()
    await world.put(a=text("kept"))
    await world.put(client=world.direct, a=text("hidden"))
    call = getattr(world.client, method)
    error = await refused(
        call(
            TableName="t",
            ConditionExpression="attribute_not_exists(PK)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **parameters,
        )
    )
    assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert "Item" not in error.response
    assert (await world.get())["a"] == text("kept")
    assert world.asked("GetItem") == 0


async def test_a_throttled_write_leaves_the_cache_alone_and_is_not_done():
    world = World()
    await world.put(a=text("kept"))
    world.dax.faults.throttle()
    error = await refused(world.put(a=text("new")))
    assert (error.code, error.codes, error.throttle) == ("ThrottlingException", [4, 37, 38, 39, 50], True)
    assert (await world.get())["a"] == (await world.get(client=world.direct))["a"] == text("kept")


async def test_a_write_that_dynamodb_throttles_leaves_the_cache_alone():
    world = World()
    await world.put(a=text("kept"))

    class Throttling:
        def call(self, operation, _parameters):
            detail = {"Code": "ProvisionedThroughputExceededException", "Message": "slow down"}
            raise ClientError({"Error": detail, "ResponseMetadata": {"HTTPStatusCode": 400}}, operation)

    world.dax._driver._backend = Throttling()
    error = await refused(world.put(a=text("new")))
    assert (error.code, error.codes) == ("ProvisionedThroughputExceededException", [4, 37, 38, 39, 40])
    assert (await world.get())["a"] == text("kept")


UPDATE = {"UpdateExpression": "SET n.x = :x", "ExpressionAttributeValues": {":x": {"N": "2"}}}


@pytest.mark.parametrize(
    ("returns", "shown"),
    [
        ({}, None),
        ({"ReturnValues": "NONE"}, None),
        ({"ReturnValues": "UPDATED_NEW"}, {"n": {"M": {"x": {"N": "2"}}}}),
        ({"ReturnValues": "UPDATED_OLD"}, {"n": {"M": {"x": {"N": "1"}}}}),
        ({"ReturnValues": "ALL_NEW"}, item("1", n={"M": {"x": {"N": "2"}, "y": {"N": "5"}}})),
        ({"ReturnValues": "ALL_OLD"}, item("1", n={"M": {"x": {"N": "1"}, "y": {"N": "5"}}})),
    ],
)
async def test_an_update_shows_what_was_asked_for_and_the_next_get_shows_the_new_item(returns, shown):
    world = World()
    await world.put(n={"M": {"x": {"N": "1"}, "y": {"N": "5"}}})
    answer = await world.client.update_item(TableName="t", Key=item("1"), **UPDATE, **returns)
    assert answer == ({} if shown is None else {"Attributes": shown})
    if shown is not None:
        answer["Attributes"].clear()
    assert await world.get() == item("1", n={"M": {"x": {"N": "2"}, "y": {"N": "5"}}})
    wants_another = returns.get("ReturnValues") in ("ALL_OLD", "UPDATED_OLD", "UPDATED_NEW")
    assert world.asked("GetItem") == wants_another


async def test_a_delete_is_seen_at_once():
    world = World()
    await world.put()
    await world.client.delete_item(TableName="t", Key=item("1"))
    assert await world.get() is None


async def test_a_batch_of_writes_goes_through_item_by_item():
    world = World()
    await world.put("1")
    requests = [
        {"DeleteRequest": {"Key": item("1")}},
        {"PutRequest": {"Item": item("2", n={"N": "1.50"})}},
    ]
    assert await world.client.batch_write_item(RequestItems={"t": requests}) == {"UnprocessedItems": {}}
    assert await world.get("2") == item("2", n={"N": "1.5"})
    assert world.asked("GetItem") == 0
    assert await world.get("1") is None


async def test_what_a_batch_of_writes_left_undone_changes_no_entry():
    world = World()
    await world.put("1", a=text("kept"))
    left = {"PutRequest": {"Item": item("1", a=text("new"))}}
    done = {"PutRequest": {"Item": item("2", a=text("new"))}}

    class Busy:
        def call(self, operation, parameters):
            assert (operation, parameters) == ("BatchWriteItem", {"RequestItems": {"t": [left, done]}})
            return {"UnprocessedItems": {"t": [left]}}

    world.dax._driver._backend = Busy()
    answer = await world.client.batch_write_item(RequestItems={"t": [left, done]})
    assert answer == {"UnprocessedItems": {"t": [left]}}
    assert (await world.get("1"))["a"] == text("kept")
    assert (await world.get("2"))["a"] == text("new")


# Transactions.


def transaction(sk, value):
    return {"TransactItems": [{"Put": {"TableName": "t", "Item": item(sk, a=text(value))}}]}


async def test_a_transaction_is_passed_on_and_its_items_are_read_back_into_the_cache():
    world = World()
    await world.put("1", a=text("old"))
    asked = transaction("1", "new")
    asked["TransactItems"].append({"Delete": {"TableName": "t", "Key": item("2")}})
    assert await world.client.transact_write_items(**asked) == {}
    assert world.asked("TransactGetItems") == 1
    assert (await world.get("1"))["a"] == text("new")
    assert await world.get("2") is None
    assert (world.asked("TransactGetItems"), world.asked("GetItem"), world.items.negative_hits) == (1, 0, 1)


async def test_until_a_transaction_is_read_back_its_items_are_as_old_as_the_cache():
    world = World(replication_lag_s=1)
    await world.put(a=text("old"))
    await world.client.transact_write_items(**transaction("1", "new"))
    assert (await world.get())["a"] == text("old")
    world.clock.now_s += 1
    assert (await world.get())["a"] == text("new")


async def test_items_of_a_transaction_that_cannot_be_read_back_are_forgotten():
    world = World()
    await world.put(a=text("old"))
    call = world.database.call

    def without_transact_gets(operation, parameters):
        if operation == "TransactGetItems":
            raise ConnectionResetError
        return call(operation, parameters)

    world.database.call = without_transact_gets
    await world.client.transact_write_items(**transaction("1", "new"))
    assert (await world.get())["a"] == text("new")
    assert world.asked("GetItem") == 1


async def test_a_cancelled_transaction_gives_its_reasons_in_dax_s_flat_form_and_leaves_the_cache_alone():
    world = World()
    await world.put(a=text("old"))
    asked = transaction("2", "x")
    condition = {"ConditionExpression": "attribute_not_exists(PK)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    asked["TransactItems"].append({"Delete": {"TableName": "t", "Key": item("1"), **condition}})
    error = await refused(world.client.transact_write_items(**asked))
    assert (error.code, error.codes) == ("TransactionCanceledException", [4, 37, 38, 39, 58])
    assert error.cancellation_reasons == [
        *("None", None, None),
        *("ConditionalCheckFailed", "The conditional request failed", item("1", a=text("old"))),
    ]
    assert (await world.get())["a"] == text("old")
    assert world.asked("TransactGetItems") == 0


async def test_transactional_reads_pass_both_ways():
    world = World()
    await world.put(a=text("old"))
    await world.put(client=world.direct, a=text("new"))
    asked = [{"Get": {"TableName": "t", "Key": item(sk)}} for sk in "12"]
    answer = await world.client.transact_get_items(TransactItems=asked)
    assert answer == {"Responses": [{"Item": item("1", a=text("new"))}, {}]}
    assert (await world.get())["a"] == text("old")
    await world.get("2")
    assert world.items.misses == 1


# Memory.


async def test_the_least_recently_used_item_makes_room():
    world = World(item_bytes=1_000)
    for sk in "123":
        await world.put(sk, pad=text("x" * 200))
    await world.get("1")
    await world.put("4", pad=text("x" * 200))
    for sk in "134":
        await world.get(sk)
    assert (world.items.evictions, world.asked("GetItem")) == (1, 0)
    await world.get("2")
    assert world.asked("GetItem") == 1


async def test_entries_that_say_absent_take_memory_too():
    world = World(item_bytes=1_000)
    for number in range(100):
        await world.get(str(number))
    assert world.items.evictions > 80


async def test_an_item_larger_than_the_cache_drives_nothing_out_and_leaves_no_old_entry():
    world = World(item_bytes=1_000)
    await world.put("1", a=text("x"))
    await world.put("2", a=text("x"))
    await world.put("2", a=text("x" * 2_000))
    assert (await world.get("2"))["a"] == text("x" * 2_000)
    await world.get("1")
    assert (world.items.evictions, world.asked("GetItem")) == (0, 1)


async def test_the_two_caches_have_memory_of_their_own():
    world = World(query_bytes=1_000)
    await world.put(pad=text("x" * 300))
    for limit in range(1, 9):
        await world.client.query(**QUERY, Limit=limit)
    await world.get()
    assert (world.queries.evictions, world.items.evictions, world.items.hits) == (7, 0, 1)


# Nodes.


async def test_a_write_reaches_the_replicas_after_the_lag_and_two_nodes_differ_meanwhile():
    world = World(nodes=3, replication_lag_s=1)
    await world.put(a=text("old"))
    world.clock.now_s += 1
    nodes = [world.dax.client(node=number) for number in range(3)]
    await world.put(a=text("new"))
    assert [(await world.get(client=node))["a"]["S"] for node in nodes] == ["new", "old", "old"]
    world.clock.now_s += 1
    assert [(await world.get(client=node))["a"]["S"] for node in nodes] == ["new", "new", "new"]
    assert world.asked("GetItem") == 0


async def test_a_delete_reaches_the_replicas_after_the_lag():
    world = World(nodes=2, replication_lag_s=1)
    replica = world.dax.client(node=1)
    await world.put()
    world.clock.now_s += 1
    await world.client.delete_item(TableName="t", Key=item("1"))
    assert await world.get(client=replica) == item("1")
    world.clock.now_s += 1
    assert await world.get(client=replica) is None


async def test_a_lag_that_is_changed_holds_for_what_is_on_its_way_and_changes_keep_their_order():
    world = World(nodes=2, replication_lag_s=math.inf)
    replica = world.dax.client(node=1)
    await world.put(a=text("1"))
    await world.put(a=text("2"))
    assert (await world.get(client=replica))["a"] == text("2"), "a miss reads DynamoDB"
    await world.put(a=text("3"))
    assert (await world.get(client=replica))["a"] == text("2")
    world.dax.replication_lag_s = 0
    assert (await world.get(client=replica))["a"] == text("3")


async def test_a_lag_without_end_keeps_so_many_changes_and_no_more(monkeypatch):
    monkeypatch.setattr(cluster_module, "MOST_COPIES", 10)
    world = World(nodes=2, replication_lag_s=math.inf)
    for number in range(25):
        await world.put(str(number))
    assert len(world.dax._cluster._copies) == 10
    replica = world.dax.client(node=1)
    for number in range(15):
        assert await world.get(str(number), client=replica) is not None
    assert world.asked("GetItem") == 0, "the oldest have arrived"


async def test_transactions_that_wait_for_a_lag_without_end_are_so_many_and_no_more(monkeypatch):
    monkeypatch.setattr(writing_module, "MOST_UNREAD", 3)
    world = World(replication_lag_s=math.inf)
    for number in range(8):
        await world.client.transact_write_items(**transaction(str(number), "x"))
    assert world.asked("TransactGetItems") == 5


async def test_of_writes_that_overtake_reads_so_many_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr(node_module, "MOST_WRITTEN", 3)
    world = World(overtaken_fills=False)
    for number in (1, 2, 3, 1, 4):
        await world.put(str(number))
    (node,) = world.dax._cluster.nodes
    assert [key.key[-1] for key in node.written] == ["3", "1", "4"]


async def test_what_a_miss_read_reaches_the_other_nodes_too():
    world = World(nodes=2, replication_lag_s=1)
    await world.put(client=world.direct)
    await world.get(client=world.dax.client(node=1))
    world.clock.now_s += 1
    await world.get(client=world.dax.client(node=0))
    assert (world.asked("GetItem"), world.items.hits) == (1, 1)


async def test_a_query_s_answer_stays_on_the_node_that_asked():
    world = World(nodes=2)
    await world.dax.client(node=0).query(**QUERY)
    await world.put()
    assert (await world.dax.client(node=0).query(**QUERY))["Count"] == 0
    assert (await world.dax.client(node=1).query(**QUERY))["Count"] == 1


async def test_a_copy_is_young_again_where_it_arrives():
    world = World(nodes=2, replication_lag_s=5, item_ttl_s=10)
    await world.put(a=text("old"))
    world.clock.now_s += 5
    replica = world.dax.client(node=1)
    await world.get(client=replica)
    await world.put(client=world.direct, a=text("new"))
    world.clock.now_s += 9
    assert (await world.get(client=replica))["a"] == text("old")
    world.clock.now_s += 1
    assert (await world.get(client=replica))["a"] == text("new")


async def test_reads_go_to_all_nodes_and_writes_to_the_leader():
    world = World(nodes=3)
    await world.put()
    for _ in range(60):
        await world.get()
    hits = [world.dax.counters(node=number).items.hits for number in range(3)]
    assert all(hits)
    assert sum(hits) == world.items.hits == 60


@pytest.mark.parametrize(("keeps", "seen"), [(True, "old"), (False, "new")])
async def test_what_a_read_heard_after_a_write_overtook_it_is_kept_or_dropped(keeps, seen):
    world = World(overtaken_fills=keeps)
    await world.put(client=world.direct, a=text("old"))
    read = world.dax._serving.serve(world.dax._cluster.nodes[0], "GetItem", {"TableName": "t", "Key": item("1")})
    answer = world.database.call(*next(read))
    ask = read.send(answer)
    assert ask.operation == "GetItem"
    answer = world.database.call(*ask)
    await world.put(a=text("new"))
    with pytest.raises(StopIteration):
        read.send(answer)
    assert (await world.get())["a"] == text(seen)


# Answers for a server that projects them itself.


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        ({"Limit": 1}, {"Limit": 1}),
        (
            {"ProjectionExpression": "l[1], a, l[0].b"},
            {"ProjectionExpression": "#whole0, #whole1", "ExpressionAttributeNames": {"#whole0": "l", "#whole1": "a"}},
        ),
        (
            {
                "ProjectionExpression": "#p0.b",
                "FilterExpression": "#n1 = :v",
                "ExpressionAttributeNames": {"#p0": "size", "#n1": "name", "#n10": "unused"},
            },
            {
                "ProjectionExpression": "#whole0",
                "FilterExpression": "#n1 = :v",
                "ExpressionAttributeNames": {"#n1": "name", "#whole0": "size"},
            },
        ),
    ],
)
def test_a_request_for_parts_becomes_one_for_whole_attributes(asked, whole):
    assert of_whole_attributes(asked) == whole


def whole_serving(call):
    """Return what serves one request on one node with whole items, and what was asked of DynamoDB by `call`."""
    clock, asked = Ticking(), []
    cluster = Cluster(DaxOptions(), clock=clock, random=random.Random(1))
    serving = Serving(cluster, Tables(clock), clock, whole=True)

    def serve(operation, **parameters):
        steps = serving.steps(cluster.nodes[0], operation, parameters)
        try:
            ask = next(steps)
            while True:
                asked.append(ask)
                ask = steps.send(call(ask.operation, ask.parameters))
        except StopIteration as end:
            return end.value

    return serve, asked


@pytest.mark.parametrize("consistent", [False, True])
def test_whole_items_are_answered_where_parts_were_asked_for(consistent):
    world = World()
    serve, _ = whole_serving(world.database.call)
    stored = item("1", l={"L": [text("0"), text("1")]})
    world.database.call("PutItem", {"TableName": "t", "Item": stored})
    parts = {"ProjectionExpression": "l[1]", "ConsistentRead": consistent}
    seen = stored if not consistent else {"l": stored["l"]}
    assert serve("GetItem", TableName="t", Key=item("1"), **parts)["Item"] == seen
    asked = {"t": {"Keys": [item("1")], **parts}}
    assert serve("BatchGetItem", RequestItems=asked)["Responses"] == {"t": [seen]}
    assert serve("Query", **QUERY, **parts)["Items"] == [{"l": stored["l"]}]
    gets = [{"Get": {"TableName": "t", "Key": item("1"), "ProjectionExpression": "l[1]"}}]
    assert serve("TransactGetItems", TransactItems=gets)["Responses"] == [{"Item": {"l": stored["l"]}}]


def test_a_batch_of_writes_is_done_to_its_end_and_no_longer_than_it_may_take():
    world = World()
    put = {"PutRequest": {"Item": item("1", a=text("x"))}}
    left = [3, 1_000]

    def busy(operation, parameters):
        if operation != "BatchWriteItem":
            return world.database.call(operation, parameters)
        left[0] -= 1
        return {"UnprocessedItems": parameters["RequestItems"] if left[0] else {}}

    serve, asked = whole_serving(busy)
    for last, times in (({}, 3), ({"t": [put]}, 9)):
        asked.clear()
        assert serve("BatchWriteItem", RequestItems={"t": [put]}) == {"UnprocessedItems": last}
        assert [ask.operation for ask in asked if ask.operation != "DescribeTable"] == ["BatchWriteItem"] * times
        left.pop(0)


def test_what_was_consumed_is_passed_on_from_dynamodb_and_not_kept():
    world = World()
    consumed = {"TableName": "t", "CapacityUnits": 0.5}

    def reporting(operation, parameters):
        wanted = parameters.pop("ReturnConsumedCapacity", None)
        answer = world.database.call(operation, parameters)
        return answer | ({"ConsumedCapacity": consumed} if wanted else {})

    serve, asked = whole_serving(reporting)
    for request in (
        ("GetItem", {"TableName": "t", "Key": item("1")}),
        ("BatchGetItem", {"RequestItems": {"t": {"Keys": [item("2")]}}}),
        ("Query", QUERY),
    ):
        report = {"ReturnConsumedCapacity": "TOTAL"}
        assert serve(request[0], **request[1], **report)["ConsumedCapacity"] == consumed
        asked.clear()
        assert "ConsumedCapacity" not in serve(request[0], **request[1], **report)
        assert asked == []


def test_an_item_that_only_dynamodb_understands_is_written_and_its_entry_dropped():
    described = {"Table": description("t", KEY_TYPES["t"])}
    serve, asked = whole_serving(lambda operation, _: described if operation == "DescribeTable" else {})
    odd = item("1", v={"NEW": "kind"})
    assert serve("PutItem", TableName="t", Item=odd) == {}
    assert serve("GetItem", TableName="t", Key=item("1")) == {}
    assert [ask.operation for ask in asked] == ["DescribeTable", "PutItem", "GetItem"]


# Faults.


async def test_a_killed_node_refuses_until_it_is_missed_and_another_leads():
    world = World(nodes=2, route_check_s=5)
    await world.put(a=text("x"))
    world.dax.faults.kill(0)
    with pytest.raises(ConnectionRefusedError):
        await world.put(a=text("y"))
    world.clock.now_s += 5
    await world.put(a=text("y"))
    assert world.dax.leader == 1
    for _ in range(20):
        assert (await world.get())["a"] == text("y")
    assert world.dax.counters(node=0).items.hits == 0
    world.dax.faults.restart(0)
    assert world.dax.leader == 1
    await world.get(client=world.dax.client(node=0))
    assert world.dax.counters(node=0).items.misses == 1, "its cache was in memory"


async def test_without_any_node_the_client_has_no_route():
    world = World(nodes=2)
    world.dax.faults.kill(0)
    world.dax.faults.kill(1)
    world.clock.now_s += 5
    error = await refused(world.get())
    assert (error.code, error.codes) == ("NoRouteException", None)
    assert error.response["Error"]["Code"] == "NoRouteException"
    world.dax.faults.heal()
    assert await world.get() is None


async def test_what_a_killed_leader_had_not_sent_never_arrives():
    world = World(nodes=2, replication_lag_s=1)
    await world.put(a=text("old"))
    world.clock.now_s += 1
    await world.put(a=text("new"))
    world.dax.faults.kill(0)
    world.clock.now_s += 5
    assert (await world.get())["a"] == text("old")
    assert (await world.get(ConsistentRead=True))["a"] == text("new")


async def test_a_node_killed_while_dynamodb_works_leaves_the_write_done_and_the_caller_without_a_reply():
    world = World()
    call = world.database.call

    def killing(operation, parameters):
        answer = call(operation, parameters)
        if operation == "PutItem":
            world.dax.faults.kill(0)
        return answer

    world.database.call = killing
    error = await refused(world.put())
    assert (error.code, error.http_status) == ("ConnectionException", 408)
    assert await world.get(client=world.direct) == item("1")


async def test_what_was_on_its_way_to_a_killed_node_does_not_reach_the_one_that_is_started_in_its_place():
    world = World(nodes=2, replication_lag_s=1)
    await world.put(a=text("x"))
    world.dax.faults.kill(1)
    world.dax.faults.restart(1)
    world.clock.now_s += 1
    await world.get(client=world.dax.client(node=1))
    assert world.dax.counters(node=1).items.misses == 1


async def test_a_node_that_is_started_again_has_forgotten_its_queries():
    world = World()
    await world.client.query(**QUERY)
    world.dax.faults.kill(0)
    world.dax.faults.restart(0)
    await world.client.query(**QUERY)
    assert (world.queries.hits, world.queries.misses) == (0, 2)


async def test_what_a_node_read_before_it_was_killed_is_not_in_the_cache_of_the_one_started_in_its_place():
    world = World()
    await world.put(client=world.direct)
    call = world.database.call

    def killing(operation, parameters):
        answer = call(operation, parameters)
        if operation == "GetItem":
            world.dax.faults.kill(0)
            world.dax.faults.restart(0)
        return answer

    world.database.call = killing
    assert (await refused(world.get())).code == "ConnectionException"
    world.database.call = call
    assert await world.get() == item("1")
    assert (world.items.hits, world.items.misses) == (0, 2)


async def test_a_node_killed_while_it_holds_a_reply_back_never_gives_it():
    world = World()
    sleep = world.clock.sleep

    async def killing(seconds):
        if seconds == 2:
            world.dax.faults.kill(0)
        await sleep(seconds)

    world.clock.sleep = killing
    world.dax.faults.slow(2)
    assert (await refused(world.put())).code == "ConnectionException"
    assert await world.get(client=world.direct) == item("1")


async def test_a_lost_reply_leaves_the_write_done_and_an_error_without_a_code():
    world = World()
    world.dax.faults.lose_replies(operation="PutItem")
    await world.get("9")
    error = await refused(world.put(a=text("x")))
    assert (error.code, error.codes, error.http_status) == ("ConnectionException", (), 408)
    assert "Code" not in error.response["Error"]
    assert error.wait_for_recovery_before_retry
    assert (await world.get())["a"] == text("x")
    assert world.asked("GetItem") == 1
    await world.put(a=text("y"))


async def test_a_client_with_retries_does_a_write_again_when_its_reply_was_lost():
    world = World()
    world.dax.faults.lose_replies(2)
    add = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    await world.dax.client(retries=2).update_item(TableName="t", Key=item("1"), **add)
    assert (await world.get())["n"] == {"N": "3"}


async def test_a_client_with_retries_repeats_a_failed_condition_at_once_and_a_throttled_request_after_a_pause():
    world = World()
    await world.put()
    client = world.dax.client(retries=2)
    before = world.clock.now_s
    await refused(client.put_item(TableName="t", Item=item("1"), ConditionExpression="attribute_not_exists(PK)"))
    assert (world.asked("PutItem"), world.clock.now_s) == (4, before)
    world.dax.faults.throttle(2)
    await world.get(client=client)
    assert 0.21 <= world.clock.now_s - before <= 0.42


async def test_a_slow_node_holds_back_its_replies_and_a_stopped_one_times_out_with_the_work_done():
    world = World(nodes=2)
    start = world.clock.now_s
    world.dax.faults.slow(2, node=0)
    await world.put()
    assert world.clock.now_s - start == 2
    await world.get(client=world.dax.client(node=1))
    assert world.clock.now_s - start == 2
    world.dax.faults.slow(math.inf)
    with pytest.raises(TimeoutError):
        await world.put(client=world.dax.client(read_timeout_s=30), a=text("x"))
    assert world.clock.now_s - start == 32
    world.dax.faults.heal()
    assert (await world.get())["a"] == text("x")


async def test_a_write_ends_in_the_cache_also_when_its_caller_is_cancelled():
    world = World()
    await world.put(a=text("old"))
    done = asyncio.Event()
    call = world.database.call

    def telling(operation, parameters):
        answer = call(operation, parameters)
        done.set()
        return answer

    world.database.call = telling
    writing = asyncio.ensure_future(world.put(a=text("new")))
    await done.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await world.dax._driver._served.settle()
    assert (await world.get())["a"] == text("new")


async def test_a_dynamodb_that_cannot_be_reached_is_an_internal_error():
    world = World()

    class Away:
        def call(self, *_):
            raise ConnectionRefusedError("away")

    world.dax._driver._backend = Away()
    error = await refused(world.get())
    assert (error.code, error.codes, error.http_status) == ("InternalServerErrorException", [3, 37, 54], 500)
    assert isinstance(error.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("given", "code", "codes", "asked"),
    [
        ("InternalServerError", "InternalServerErrorException", [4, 37, 38, 39, 47], 3),
        ("RequestLimitExceeded", "RequestLimitExceededException", [4, 37, 38, 39, 61], 3),
        ("AccessDeniedException", "AccessDeniedException", [4, 37, 38, 42], 3),
        ("ReplicatedWriteConflictException", "ReplicatedWriteConflictException", [3, 37, 38, 39], 1),
    ],
)
async def test_an_error_of_dynamodb_comes_through_under_dax_s_name_and_decides_whether_it_is_sent_again(
    given, code, codes, asked
):
    world = World()

    class Refusing:
        def call(self, operation, _parameters):
            raise ClientError({"Error": {"Code": given, "Message": "m"}}, operation)

    world.dax._driver._backend = Refusing()
    error = await refused(world.dax.client(retries=2).scan(TableName="t"))
    assert (error.code, error.codes, world.asked("Scan")) == (code, codes, asked)


async def test_a_table_that_does_not_exist_is_refused_as_such():
    world = World()
    for call in (
        world.client.get_item(TableName="none", Key=item("1")),
        world.client.put_item(TableName="none", Item=item("1")),
        world.client.query(**{**QUERY, "TableName": "none"}),
        world.client.batch_get_item(RequestItems={"none": {"Keys": [item("1")]}}),
    ):
        error = await refused(call)
        assert (error.code, error.codes) == ("ResourceNotFoundException", [4, 37, 38, 39, 41])


async def test_a_request_of_the_wrong_form_is_the_client_s_own_refusal_and_no_foreign_exception():
    world = World()
    for call in (world.client.get_item(TableName="t"), world.client.put_item(TableName="t", Item={"PK": {"S": 1}})):
        error = await refused(call)
        assert (error.code, error.codes, error.retryable) == ("ValidationException", None, False)


def test_errors_have_the_shape_of_the_real_client_s():
    def shape(error):
        names = ("code", "codes", "http_status", "auth_error", "wait_for_recovery_before_retry", "response")
        return {name: getattr(error, name) for name in names} | {"text": str(error)}

    for code, last in codes.LAST.items():
        detail = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
        ours = errors.refused("GetItem", ClientError(detail, "GetItem"))
        theirs = RealErrors.DaxServiceError("GetItem", "m", [4, 37, 38, 39, last], None, code, 400)
        assert shape(ours) == shape(theirs)
        assert ours.retryable == bool(RealErrors.is_retryable(theirs))
        assert ours.throttle == RealErrors.is_retryable_with_backoff(theirs)
    ours, theirs = errors.end_of_stream("Query"), RealErrors.DaxServiceError.from_no_more_data_exception("Query", None)
    assert shape(ours) == shape(theirs)
    assert ours.retryable == bool(RealErrors.is_retryable(theirs))
    ours = errors.unreachable("Query", ConnectionError("x"))
    message = "DynamoDB did not answer: ConnectionError: x"
    theirs = RealErrors.DaxServiceError("Query", message, [3, 37, 54], None, "any", 500)
    assert shape(ours) == shape(theirs)
    assert ours.retryable == bool(RealErrors.is_retryable(theirs))


# Faces.


async def test_the_client_s_methods_are_dax_s_and_tables_are_no_affair_of_its():
    world = World()
    for client in (world.client, world.dax.sync_client()):
        with pytest.raises(NotImplementedError, match="tables"):
            client.create_table(TableName="x")
        with pytest.raises(AttributeError, match="get_item"):
            client.execute_statement(Statement="SELECT")


@pytest.mark.parametrize(
    "options",
    [{"nodes": 0}, {"item_ttl_s": 0}, {"query_ttl_s": -1}, {"item_bytes": -1}, {"replication_lag_s": -0.1}],
)
def test_a_cluster_that_cannot_be_is_refused(options):
    with pytest.raises(Invalid, match=next(iter(options)).split("_")[0].rstrip("s")):
        MemoryDax(MemoryDynamoDB(), **options)


def test_a_fault_for_a_node_that_is_not_there_is_refused():
    with pytest.raises(Invalid, match="no node 3"):
        World(nodes=3).dax.faults.kill(3)


def test_the_client_of_plain_calls_gives_the_same_answers_and_errors():
    world = World()
    with world.dax.sync_client() as client:
        client.put_item(TableName="t", Item=item("1", a=text("x")))
        assert client.get_item(TableName="t", Key=item("1")) == {"Item": item("1", a=text("x"))}
        assert keys_of(client.query(**QUERY)) == ["1"]
        with pytest.raises(ClientError) as error:
            client.put_item(TableName="t", Item=item("1"), ConditionExpression="attribute_not_exists(PK)")
        assert error.value.code == "ConditionalCheckFailedException"
    assert (world.items.hits, world.queries.misses) == (1, 1)


def test_threads_may_share_a_client_of_plain_calls():
    world = World(nodes=3)
    client = world.dax.sync_client()
    add = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    call, inside = world.database.call, []

    def watched(operation, parameters):
        inside.append(operation)
        time.sleep(0)
        assert len(inside) == 1, "two threads are in the database at once"
        answer = call(operation, parameters)
        inside.pop()
        return answer

    world.database.call = watched

    def work(number):
        client.update_item(TableName="t", Key=item(str(number % 3)), **add)
        return client.get_item(TableName="t", Key=item(str(number % 3)), ConsistentRead=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(300)))
    counts = [client.get_item(TableName="t", Key=item(sk), ConsistentRead=True)["Item"]["n"]["N"] for sk in "012"]
    assert counts == ["100", "100", "100"]


def test_healing_frees_a_thread_that_waits_for_a_slow_reply():
    world = World()
    world.dax.faults.slow(1e6)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.dax.sync_client(read_timeout_s=1e7).put_item, TableName="t", Item=item("1"))
        while not world.database.requests["PutItem"]:
            time.sleep(0)
        while not waiting.done():
            world.dax.faults.heal()
        assert waiting.result() == {}


async def test_threads_can_have_their_requests_done_on_an_event_loop_beside_coroutines():
    world = World()
    backend = world.database.client()
    dax = MemoryDax(backend, clock=world.clock)
    client = dax.sync_client(loop=asyncio.get_running_loop())
    await asyncio.to_thread(client.put_item, TableName="t", Item=item("1"))
    assert await dax.client().get_item(TableName="t", Key=item("1")) == {"Item": item("1")}
    with pytest.raises(Invalid, match="loop"):
        await asyncio.to_thread(partial(dax.sync_client().get_item, TableName="t", Key=item("2")))


# Without caches DAX is DynamoDB; with them, and all writes through it, no read of an item is old.

ATTRIBUTES = ("a", "b", "m")
PATHS = ("a", "b", "m.x", "m.l[1]", "m.l[0].y", "#n", "SK")


def a_value(rng, depth=0):
    kinds = ["S", "N", "B", "BOOL", "NULL", "SS", "NS"] + (["M", "L"] * 2 if depth < 2 else [])
    kind = rng.choice(kinds)
    if kind == "M":
        return {"M": {name: a_value(rng, depth + 1) for name in rng.sample("xyl", rng.randint(0, 3))}}
    if kind == "L":
        return {"L": [a_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]}
    plain = {"S": "s", "B": b"b", "BOOL": True, "NULL": True, "SS": ["u", "v"], "NS": ["1", "2"]}
    return {kind: plain.get(kind) or rng.choice(["0", "1", "-2.5"])}


def a_key(rng):
    kind = rng.randint(0, 30)
    if kind == 0:
        return {"PK": {"S": "p"}}
    if kind == 1:
        return {"PK": {"S": "p"}, "SK": {"N": "1"}}
    if kind == 2:
        return {"PK": {"S": "p"}, "SK": {"S": ""}}
    return {"PK": {"S": rng.choice("pq")}, "SK": {"S": rng.choice("123")}}


def an_item(rng):
    return a_key(rng) | {name: a_value(rng) for name in rng.sample(ATTRIBUTES, rng.randint(0, 3))}


def a_projection(rng):
    if rng.random() < 0.5:
        return {}
    chosen = ", ".join(rng.sample(PATHS, rng.randint(1, 3)))
    named = "#n" in chosen or rng.random() < 0.03
    return {"ProjectionExpression": chosen} | ({"ExpressionAttributeNames": {"#n": "b"}} if named else {})


def a_condition(rng):
    if rng.random() < 0.6:
        return {}
    text = rng.choice(["attribute_not_exists(PK)", "attribute_exists(a)", "size(b) > a", "a ="])
    return {"ConditionExpression": text, "ReturnValuesOnConditionCheckFailure": rng.choice(["NONE", "ALL_OLD"])}


def an_update(rng):
    update, values = rng.choice(
        [
            ("SET a = :v", {":v": a_value(rng)}),
            ("SET m.x = :v", {":v": a_value(rng)}),
            ("ADD a :v", {":v": {"N": "1"}}),
            ("REMOVE b, m.l[0]", {}),
            ("SET a = if_not_exists(b, :v) REMOVE m", {":v": a_value(rng)}),
            ("SET SK = :v", {":v": {"S": "x"}}),
        ]
    )
    given = {"ExpressionAttributeValues": values} if values else {}
    returns = rng.choice([{}, *({"ReturnValues": kind} for kind in RETURNS)])
    return {"Key": a_key(rng), "UpdateExpression": update, **given, **returns}


RETURNS = ("NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW", "NONSENSE")


def a_transaction(rng):
    makers = [
        ("Put", lambda: {"Item": an_item(rng), **a_condition(rng)}),
        ("Delete", lambda: {"Key": a_key(rng), **a_condition(rng)}),
        ("ConditionCheck", lambda: {"Key": a_key(rng), "ConditionExpression": "attribute_exists(PK)"}),
    ]
    chosen = [rng.choice(makers) for _ in range(rng.randint(1, 3))]
    return {"TransactItems": [{kind: {"TableName": "t", **make()}} for kind, make in chosen]}


def a_batch_of_writes(rng):
    puts = [{"PutRequest": {"Item": an_item(rng)}} for _ in range(rng.randint(0, 2))]
    return {"RequestItems": {"t": [*puts, {"DeleteRequest": {"Key": a_key(rng)}}]}}


def a_query(rng):
    values = {":p": {"S": rng.choice("pq")}}
    text = "PK = :p"
    if rng.random() < 0.5:
        text, values[":s"] = f"{text} AND SK {rng.choice(['<', '>=', '='])} :s", {"S": rng.choice("123")}
    some = {
        "Limit": rng.randint(1, 3),
        "ScanIndexForward": rng.random() < 0.5,
        "FilterExpression": "attribute_exists(a)",
        "ConsistentRead": True,
        "Select": rng.choice(["COUNT", "ALL_ATTRIBUTES"]),
        "Nonsense": 1,
    }
    chosen = {name: some[name] for name in some if rng.random() < (0.02 if name == "Nonsense" else 0.25)}
    return {"KeyConditionExpression": text, "ExpressionAttributeValues": values, **chosen}


def a_request(rng):
    """Return a method and parameters; most are right."""
    consistent = {"ConsistentRead": True} if rng.random() < 0.2 else {}
    table = {"TableName": "none" if rng.random() < 0.02 else "t"}
    returns = {"ReturnValues": "ALL_OLD"} if rng.random() < 0.3 else {}
    makers = {
        "get_item": lambda: {"Key": a_key(rng), **table, **consistent, **a_projection(rng)},
        "put_item": lambda: {"Item": an_item(rng), **table, **a_condition(rng), **returns},
        "delete_item": lambda: {"Key": a_key(rng), **table, **a_condition(rng), **returns},
        "update_item": lambda: {**an_update(rng), **table, **a_condition(rng)},
        "query": lambda: {**a_query(rng), **table},
        "scan": lambda: {**table, **consistent, **a_projection(rng)},
        "batch_get_item": lambda: {
            "RequestItems": {"t": {"Keys": [a_key(rng), a_key(rng)], **consistent, **a_projection(rng)}}
        },
        "batch_write_item": lambda: a_batch_of_writes(rng),
        "transact_get_items": lambda: {
            "TransactItems": [{"Get": {"Key": a_key(rng), **table, **a_projection(rng)}} for _ in range(2)]
        },
        "transact_write_items": lambda: a_transaction(rng),
    }
    method = rng.choice(list(makers))
    return method, makers[method]()


async def outcome(client, method, parameters):
    """Return an answer, or code and message of a refusal, both as DAX has them."""
    try:
        answer = await getattr(client, method)(**parameters)
    except ParamValidationError as error:
        return "ValidationException", str(error), None
    except ClientError as error:
        detail = error.response["Error"]
        reasons = error.response.get("CancellationReasons")
        if reasons is not None:
            reasons = [reason.get(name) for reason in reasons for name in ("Code", "Message", "Item")]
        return detail["Code"], detail["Message"], getattr(error, "cancellation_reasons", reasons)
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


@pytest.mark.parametrize("seed", range(10))
async def test_without_its_caches_dax_answers_every_request_as_dynamodb_does(seed):
    rng = random.Random(seed)
    world, alone = World(nodes=3, item_bytes=EMPTY, query_bytes=EMPTY), World()
    refusals = 0
    for _ in range(400):
        method, parameters = a_request(rng)
        ours = await outcome(world.client, method, parameters)
        theirs = await outcome(alone.direct, method, parameters)
        assert ours == theirs, (method, parameters)
        refusals += isinstance(ours, tuple)
    assert 40 < refusals < 300
    assert world.items.hits == world.queries.hits == 0


@pytest.mark.parametrize("seed", range(5))
async def test_items_are_never_old_when_every_write_goes_through_a_cluster_without_lag(seed):
    rng = random.Random(seed)
    world, alone = World(nodes=3, item_bytes=300), World()
    for _ in range(400):
        method, parameters = a_request(rng)
        ours = await outcome(world.client, method, parameters)
        theirs = await outcome(alone.direct, method, parameters)
        assert ours == theirs or method in ("query", "scan"), (method, parameters)
    assert world.items.hits > 20
    assert world.items.evictions > 20
