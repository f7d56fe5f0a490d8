"""What the in-memory double of DynamoDB has of its own, and where it is stricter than the local engines."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from mangatest import SetClock

from mangacache.testing import MemoryDynamoDB

TABLE = {
    "TableName": "t",
    "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK", "customer")],
    "BillingMode": "PAY_PER_REQUEST",
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by_customer",
            "KeySchema": [{"AttributeName": "customer", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}


def item(sk, **attributes):
    return {"PK": {"S": "p"}, "SK": {"S": sk}, **attributes}


async def database(**options):
    made = MemoryDynamoDB(**options)
    await made.client().create_table(**TABLE)
    return made, made.client()


async def refused(call):
    with pytest.raises(ClientError) as error:
        await call
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


async def test_an_index_follows_its_table_after_the_lag():
    clock = SetClock()
    clock.monotonic_s = lambda: clock.age_offset_s  # type: ignore[method-assign]
    _, client = await database(index_lag_s=2, clock=clock)
    await client.put_item(TableName="t", Item=item("1", customer={"S": "c"}))
    ask = {
        "TableName": "t",
        "IndexName": "by_customer",
        "KeyConditionExpression": "customer = :c",
        "ExpressionAttributeValues": {":c": {"S": "c"}},
    }
    assert (await client.query(**ask))["Items"] == []
    clock.age_offset_s = 2
    assert (await client.query(**ask))["Items"] == [item("1", customer={"S": "c"})]
    await client.delete_item(TableName="t", Key=item("1"))
    assert (await client.query(**ask))["Count"] == 1
    clock.age_offset_s = 4
    assert (await client.query(**ask))["Count"] == 0


async def test_expired_items_stay_until_expire_is_called():
    made, client = await database()
    for sk, ttl in (("old", "100"), ("new", "300")):
        await client.put_item(TableName="t", Item=item(sk, ttl={"N": ttl}))
    assert made.expire(200) == 0
    await client.update_time_to_live(TableName="t", TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"})
    assert made.expire(200) == 1
    assert [found["SK"]["S"] for found in (await client.scan(TableName="t"))["Items"]] == ["new"]


async def test_requests_are_counted_and_pages_end_at_their_bytes():
    made, client = await database(page_bytes=100)
    for sk in "abc":
        await client.put_item(TableName="t", Item=item(sk, pad={"S": "x" * 60}))
    page = await client.scan(TableName="t")
    assert len(page["Items"]) == 1
    rest = await client.scan(TableName="t", ExclusiveStartKey=page["LastEvaluatedKey"])
    assert [found["SK"]["S"] for found in rest["Items"]] == ["b"]
    assert made.requests == {"CreateTable": 1, "PutItem": 3, "Scan": 2}


async def test_what_comes_out_can_be_changed_without_changing_the_table():
    _, client = await database()
    mine = item("1", tags={"SS": ["b", "a"]}, map={"M": {"n": {"N": "1"}}})
    await client.put_item(TableName="t", Item=mine)
    mine["map"]["M"]["n"]["N"] = "2"
    for _ in range(2):
        found = (await client.get_item(TableName="t", Key=item("1")))["Item"]
        assert found["map"] == {"M": {"n": {"N": "1"}}}
        found["tags"]["SS"].append("c")
        found["map"]["M"].clear()


async def test_an_update_that_makes_an_item_has_no_old_one_to_give():
    _, client = await database()
    answer = await client.update_item(
        TableName="t",
        Key=item("1"),
        UpdateExpression="SET a = :a",
        ExpressionAttributeValues={":a": {"S": "x"}},
        ReturnValues="ALL_OLD",
    )
    assert "Attributes" not in answer


async def test_elements_beyond_a_list_s_end_are_appended_in_the_order_of_their_indexes():
    _, client = await database()
    await client.put_item(TableName="t", Item=item("1", d={"L": [{"N": "0"}]}))
    answer = await client.update_item(
        TableName="t",
        Key=item("1"),
        UpdateExpression="SET d[9] = :b, d[8] = :a",
        ExpressionAttributeValues={":a": {"N": "8"}, ":b": {"N": "9"}},
        ReturnValues="ALL_NEW",
    )
    assert answer["Attributes"]["d"] == {"L": [{"N": "0"}, {"N": "8"}, {"N": "9"}]}


async def test_the_indexes_of_a_removal_are_those_before_it():
    _, client = await database()
    await client.put_item(TableName="t", Item=item("1", d={"L": [{"N": str(n)} for n in range(4)]}))
    await client.update_item(TableName="t", Key=item("1"), UpdateExpression="REMOVE d[0], d[2]")
    found = await client.get_item(TableName="t", Key=item("1"))
    assert found["Item"]["d"] == {"L": [{"N": "1"}, {"N": "3"}]}


async def test_redundant_parentheses_are_refused():
    _, client = await database()
    call = client.put_item(TableName="t", Item=item("1"), ConditionExpression="((a = b))")
    assert "redundant parentheses" in (await refused(call))[1]


@pytest.mark.parametrize("update", ["SET m.x = :a", "SET d[0] = :a", "ADD m.x :a", "REMOVE m.x"])
async def test_a_nested_path_without_its_parent_is_refused(update):
    _, client = await database()
    values = {"ExpressionAttributeValues": {":a": {"N": "1"}}} if ":a" in update else {}
    call = client.update_item(TableName="t", Key=item("1"), UpdateExpression=update, **values)
    code, message = await refused(call)
    assert code == "ValidationException"
    assert "document path" in message


async def test_a_key_condition_with_a_value_of_another_type_is_refused():
    _, client = await database()
    call = client.query(TableName="t", KeyConditionExpression="PK = :p", ExpressionAttributeValues={":p": {"N": "1"}})
    assert (await refused(call))[0] == "ValidationException"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("put_item", {"Item": item("1"), "Nonsense": 1}),
        ("put_item", {}),
        ("put_item", {"Item": item("1", a={"X": "1"})}),
        ("put_item", {"Item": item("1", a={"S": 1})}),
        ("put_item", {"Item": item("1", a={"N": 1})}),
        ("put_item", {"Item": item("1"), "ConditionExpression": 5}),
        ("query", {"Limit": 0, "KeyConditionExpression": "PK = :p", "ExpressionAttributeValues": {":p": {"S": "p"}}}),
    ],
)
async def test_what_the_client_would_not_send_is_refused_as_the_client_does(method, parameters):
    _, client = await database()
    with pytest.raises(ParamValidationError):
        await getattr(client, method)(TableName="t", **parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"Expected": {}},
        {"ReturnConsumedCapacity": "TOTAL"},
        {"ReturnItemCollectionMetrics": "SIZE"},
    ],
)
async def test_what_is_not_modelled_says_so(parameters):
    _, client = await database()
    with pytest.raises(NotImplementedError, match="MemoryDynamoDB"):
        await client.put_item(TableName="t", Item=item("1"), **parameters)


async def test_an_unknown_method_is_an_attribute_error_that_names_the_known_ones():
    _, client = await database()
    with pytest.raises(AttributeError, match="put_item"):
        client.export_table_to_point_in_time()


async def test_a_table_is_described_changed_and_deleted():
    _, client = await database()
    assert await refused(client.create_table(**TABLE)) == ("ResourceInUseException", "Table already exists: t")
    await client.update_table(TableName="t", GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by_customer"}}])
    described = (await client.describe_table(TableName="t"))["Table"]
    assert "GlobalSecondaryIndexes" not in described
    assert {entry["AttributeName"] for entry in described["AttributeDefinitions"]} == {"PK", "SK"}
    await client.put_item(TableName="t", Item=item("1", customer={"S": "c"}))
    await client.update_table(
        TableName="t",
        AttributeDefinitions=TABLE["AttributeDefinitions"],
        GlobalSecondaryIndexUpdates=[{"Create": TABLE["GlobalSecondaryIndexes"][0]}],
    )
    found = await client.scan(TableName="t", IndexName="by_customer")
    assert found["Items"] == [item("1", customer={"S": "c"})]
    assert (await client.list_tables())["TableNames"] == ["t"]
    await client.delete_table(TableName="t")
    assert (await refused(client.describe_table(TableName="t")))[0] == "ResourceNotFoundException"


async def test_batches_answer_each_key_once_and_refuse_repeats():
    _, client = await database()
    puts = [{"PutRequest": {"Item": item(sk)}} for sk in "ab"]
    await client.batch_write_item(RequestItems={"t": puts})
    keys = {"t": {"Keys": [item("a"), item("b"), item("none")]}}
    assert (await client.batch_get_item(RequestItems=keys))["Responses"] == {"t": [item("a"), item("b")]}
    twice = {"t": {"Keys": [item("a"), item("a")]}}
    assert (await refused(client.batch_get_item(RequestItems=twice)))[0] == "ValidationException"
    assert (await refused(client.batch_write_item(RequestItems={"t": [puts[0]] * 26})))[0] == "ValidationException"
