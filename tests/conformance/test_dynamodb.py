"""The in-memory double beside a real engine: the same requests, the same answers, the same refusals."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aioboto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from mangacache.testing import MemoryDynamoDB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = {
    "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK", "customer", "seen")
    ],
    "BillingMode": "PAY_PER_REQUEST",
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by_customer",
            "KeySchema": [
                {"AttributeName": "customer", "KeyType": "HASH"},
                {"AttributeName": "seen", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["n"]},
        }
    ],
}


X = {"ExpressionAttributeValues": {":x": {"S": "y"}}}
ONE = {"ExpressionAttributeValues": {":x": {"N": "1"}}}
P = {"ExpressionAttributeValues": {":p": {"S": "1"}}}
PAB = {"ExpressionAttributeValues": {":p": {"S": "1"}, ":a": {"S": "a"}, ":b": {"S": "b"}}}
UNUSED = {
    "ExpressionAttributeNames": {"#n": "n"},
    "ExpressionAttributeValues": {":x": {"N": "1"}, ":y": {"N": "2"}},
}


class Both:
    """A client of the double and one of a real engine, asked the same; their answers must be equal."""

    def __init__(self, double: Any, real: Any) -> None:
        self._clients = (double, real)
        self.table = f"t-{uuid4().hex[:12]}"
        self.asked: list[str] = []

    async def ask(self, method: str, **parameters: Any) -> Any:
        """Return the answer of both, or the code of both's refusal."""
        if method not in ("batch_get_item", "batch_write_item", "transact_write_items", "transact_get_items"):
            parameters["TableName"] = self.table
        self.asked.append(f"{method}({parameters})")
        double, real = [await _outcome(client, method, parameters) for client in self._clients]
        assert double == real, "\n".join(["asked in turn:", *self.asked[-12:], f"double: {double}", f"real:   {real}"])
        return double


async def _outcome(client: Any, method: str, parameters: dict[str, Any]) -> Any:
    try:
        answer = await getattr(client, method)(**parameters)
    except ClientError as error:
        response = error.response
        detail = {name: response[name] for name in ("Item", "CancellationReasons") if name in response}
        for reason in detail.get("CancellationReasons", ()):
            reason.pop("Message", None)
            if not reason.get("Item"):
                reason.pop("Item", None)  # an engine may say `{}` where nothing stood
        if not detail.get("Item"):
            detail.pop("Item", None)
        return response["Error"]["Code"], _plain(detail)
    except ParamValidationError:
        return "ParamValidationError", {}
    # Where the bytes end a page, engines count the item that did not fit or count it not.
    cut = {"ResponseMetadata", *(["ScannedCount"] if "LastEvaluatedKey" in answer else [])}
    return {name: _plain(value) for name, value in answer.items() if name not in cut}


def _plain(value: Any) -> Any:
    """Return a value with its sets, which have no order, in order."""
    if isinstance(value, dict):
        return {name: sorted(inner) if name in ("SS", "NS", "BS") else _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture
async def both(dynoxide: str) -> AsyncIterator[Both]:
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    session = aioboto3.Session(region_name="us-east-1")
    async with session.client("dynamodb", endpoint_url=dynoxide, config=config) as real:
        made = Both(MemoryDynamoDB().client(), real)
        for client in made._clients:
            await client.create_table(TableName=made.table, **KEYS)
        yield made


def item(sk: str, **attributes: Any) -> dict[str, Any]:
    return {"PK": {"S": "p"}, "SK": {"S": sk}, **attributes}


def key(sk: str) -> dict[str, Any]:
    return {"PK": {"S": "p"}, "SK": {"S": sk}}


async def test_values_come_back_in_one_normal_form(both):
    values = {
        "text": {"S": "Übung 漫画 🍣"},
        "empty": {"S": ""},
        "blob": {"B": b"\x00\xff"},
        "yes": {"BOOL": True},
        "nothing": {"NULL": True},
        "list": {"L": [{"N": "1.50"}, {"S": "x"}, {"L": []}]},
        "map": {"M": {"a.b": {"N": "-0"}, "": {"S": "y"}}},
        "texts": {"SS": ["b", "a"]},
        "blobs": {"BS": [b"2", b"1"]},
    }
    await both.ask("put_item", Item=item("1", **values))
    await both.ask("get_item", Key=key("1"), ConsistentRead=True)
    for number in ("0", "-0", "007", "1.50", "1e3", "-2.5E-3", "0.000", "12345678901234567890123456789012345678"):
        await both.ask("put_item", Item=item("n", n={"N": number}))
        await both.ask("get_item", Key=key("n"))


@pytest.mark.parametrize(
    "bad",
    [
        {"n": {"N": "1e126"}},
        {"n": {"N": "one"}},
        {"n": {"N": ""}},
        {"n": {"N": "123456789012345678901234567890123456789"}},
        {"s": {"SS": []}},
        {"s": {"SS": ["a", "a"]}},
        {"s": {"NS": ["1", "1.0"]}},
        {"customer": {"S": ""}},
        {"customer": {"N": "1"}},
        {"big": {"S": "x" * 410_000}},
        {"PK": {"S": ""}},
        {"SK": {"N": "1"}},
        {"PK": {"S": "x" * 2049}},
        {"SK": {"S": "x" * 1025}},
    ],
    ids=lambda bad: f"{next(iter(bad))}={str(next(iter(bad.values())))[:30]}",
)
async def test_what_an_item_may_not_hold_is_refused(both, bad):
    code, _ = await both.ask("put_item", Item=item("1") | bad)
    assert code == "ValidationException"
    await both.ask("scan")


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("put_item", {"Item": {"PK": {"S": "p"}}}),
        ("get_item", {"Key": {"PK": {"S": "p"}}}),
        ("get_item", {"Key": {**key("1"), "more": {"S": "x"}}}),
        ("get_item", {"Key": {"PK": {"S": "p"}, "SK": {"N": "1"}}}),
        ("get_item", {"Key": key("1"), "ProjectionExpression": "ttl"}),
        ("get_item", {"Key": key("1"), "ProjectionExpression": "a, a"}),
        ("get_item", {"Key": key("1"), "ProjectionExpression": "a, a.b"}),
        ("get_item", {"Key": key("1"), "ProjectionExpression": "#a"}),
        ("get_item", {"Key": key("1"), "ProjectionExpression": "#a", "ExpressionAttributeNames": {"#b": "b"}}),
        ("get_item", {"Key": key("1"), "ExpressionAttributeNames": {"#b": "b"}}),
        ("put_item", {"Item": item("1"), "ConditionExpression": "a = :missing"}),
        ("put_item", {"Item": item("1"), "ConditionExpression": "a = "}),
        ("put_item", {"Item": item("1"), "ConditionExpression": ""}),
        ("put_item", {"Item": item("1"), "ConditionExpression": "attribute_exists(a, b)"}),
        ("put_item", {"Item": item("1"), "ConditionExpression": "nonsense(a)"}),
        ("put_item", {"Item": item("1"), "ConditionExpression": "(a = b"}),
        ("put_item", {"Item": item("1"), "ReturnValues": "ALL_NEW"}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET PK = :x", **X}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET a = :x, a = :x", **X}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET a.b = :x", **X}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET a = b"}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET a = :x SET b = :x", **X}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET n = n + :x", **ONE}),
        ("update_item", {"Key": key("1"), "UpdateExpression": "SET #n = :x", **UNUSED}),
        ("query", {"KeyConditionExpression": "SK = :s", "ExpressionAttributeValues": {":s": {"S": "1"}}}),
        ("query", {"KeyConditionExpression": "PK > :p", **P}),
        ("query", {"KeyConditionExpression": "PK = :p AND a = :p", **P}),
        ("query", {"KeyConditionExpression": "PK = :p AND SK BETWEEN :b AND :a", **PAB}),
        ("query", {"IndexName": "none", "KeyConditionExpression": "PK = :p", **P}),
        ("query", {"IndexName": "by_customer", "ConsistentRead": True, "KeyConditionExpression": "customer = :p", **P}),
        ("query", {"KeyConditionExpression": "PK = :p", **P, "Limit": 0}),
    ],
    ids=lambda value: str(value)[:100] if isinstance(value, dict) else value,
)
async def test_what_is_wrong_in_a_request_is_refused(both, method, parameters):
    await both.ask("put_item", Item=item("other"))
    outcome = await both.ask(method, **parameters)
    assert isinstance(outcome, tuple)
    await both.ask("scan")


async def test_pages_end_where_the_limit_or_the_bytes_end(both):
    for number in range(7):
        await both.ask("put_item", Item=item(str(number), pad={"B": bytes(300_000)}, n={"N": str(number)}))
    for backwards in (False, True):
        for limit in ({}, {"Limit": 2}, {"Limit": 7}):
            start: dict[str, Any] = {}
            pages = 0
            while True:
                page = await both.ask(
                    "query",
                    KeyConditionExpression="PK = :p AND SK >= :s",
                    FilterExpression="n <> :three",
                    ProjectionExpression="SK",
                    ExpressionAttributeValues={":p": {"S": "p"}, ":s": {"S": "1"}, ":three": {"N": "3"}},
                    ScanIndexForward=not backwards,
                    **limit,
                    **start,
                )
                pages += 1
                if "LastEvaluatedKey" not in page:
                    break
                start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
            assert pages >= 2


async def test_a_transaction_is_done_once_for_its_token_and_wholly_or_not_at_all(both):
    put = {"Put": {"TableName": both.table, "Item": item("1", n={"N": "1"})}}
    add = {
        "Update": {
            "TableName": both.table,
            "Key": key("2"),
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
    }
    for _ in range(3):
        await both.ask("transact_write_items", TransactItems=[put, add], ClientRequestToken="t-1")
    await both.ask("get_item", Key=key("2"))
    code, _ = await both.ask("transact_write_items", TransactItems=[add], ClientRequestToken="t-1")
    assert code == "IdempotentParameterMismatchException"
    free = {"ConditionExpression": "attribute_not_exists(PK)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    taken = {"Put": {"TableName": both.table, "Item": item("1"), **free}}
    code, detail = await both.ask("transact_write_items", TransactItems=[add, taken])
    assert [reason["Code"] for reason in detail["CancellationReasons"]] == ["None", "ConditionalCheckFailed"]
    await both.ask("get_item", Key=key("2"))
    await both.ask("transact_write_items", TransactItems=[add, add])
    await both.ask("transact_write_items", TransactItems=[put] * 101)
    check = {"ConditionCheck": {"TableName": both.table, "Key": key("1"), "ConditionExpression": "n = n"}}
    await both.ask("transact_write_items", TransactItems=[check, add])
    await both.ask(
        "transact_get_items", TransactItems=[{"Get": {"TableName": both.table, "Key": key(sk)}} for sk in "129"]
    )


async def test_nested_paths_are_written_where_their_parents_are(both):
    parts = {"m": {"M": {"x": {"N": "1"}}}, "d": {"L": [{"N": str(n)} for n in range(4)]}}
    await both.ask("put_item", Item=item("1", **parts))
    for update in (
        "SET m.x = :x",
        "SET m.y = m.x, d[1] = :x",
        "SET d[4] = :x",
        "REMOVE d[0], m.x",
        "REMOVE d[7], m.none",
        "SET d[0] = if_not_exists(m.none, :x)",
    ):
        values = {"ExpressionAttributeValues": {":x": {"S": update}}} if ":x" in update else {}
        await both.ask("update_item", Key=key("1"), UpdateExpression=update, ReturnValues="ALL_NEW", **values)


# The random walk.


def _value(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        [
            {"N": str(rng.randint(-3, 3))},
            {"N": rng.choice(["1.5", "1e2", "-0.25"])},
            {"S": rng.choice(["", "a", "ab", "b", "漫"])},
            {"B": rng.choice([b"a", b"ab"])},
            {"BOOL": rng.random() < 0.5},
            {"NULL": True},
            {"L": [{"N": str(rng.randint(0, 2))} for _ in range(rng.randint(0, 3))]},
            {"M": {rng.choice("xy"): {"N": str(rng.randint(0, 2))}}},
            {"SS": rng.sample(["a", "b", "c"], rng.randint(1, 3))},
            {"NS": rng.sample(["1", "2", "3"], rng.randint(1, 3))},
        ]
    )


def _path(rng: random.Random) -> str:
    return rng.choice(["a", "b", "c", "n", "a.x", "b[0]", "c.y", "a[1]"])


def _operand(rng: random.Random, values: dict[str, Any]) -> str:
    if rng.random() < 0.5:
        return _path(rng)
    name = f":v{len(values)}"
    values[name] = _value(rng)
    return name


def _condition(rng: random.Random, values: dict[str, Any], depth: int = 0) -> str:
    kind = rng.randint(0, 9 if depth < 2 else 6)
    path = _path(rng)
    if kind == 0:
        return rng.choice([f"attribute_exists({path})", f"attribute_not_exists({path})"])
    if kind in (1, 2, 3):
        return f"{path} {rng.choice(['=', '<>'])} {_operand(rng, values)}"
    name = f":v{len(values)}"
    if kind == 4:
        values[name] = rng.choice([{"N": "1"}, {"S": "a"}, {"B": b"a"}])
        return f"{path} {rng.choice(['<', '<=', '>', '>='])} {name}"
    if kind == 5:
        values[name] = {"S": rng.choice(["a", "ab"])}
        return f"{rng.choice(['begins_with', 'contains'])}({path}, {name})"
    if kind == 6:
        values[name] = {"S": rng.choice(["S", "N", "L", "M", "SS", "NULL"])}
        return f"attribute_type({path}, {name})"
    left, right = _condition(rng, values, depth + 1), _condition(rng, values, depth + 1)
    return rng.choice([f"NOT {left}", f"({left} AND {right})", f"{left} OR {right}"])


def _used(text: str, values: dict[str, Any]) -> dict[str, Any]:
    used = {name: value for name, value in values.items() if name in text.replace(")", " ").replace(",", " ").split()}
    return {"ExpressionAttributeValues": used} if used else {}


def _update(rng: random.Random, values: dict[str, Any]) -> str:
    # Engines differ on nested paths without a parent to look in: a test of their own goes to those that have one.
    paths = rng.sample(["a", "b", "c", "n"], 3)

    def named(value: dict[str, Any]) -> str:
        name = f":u{len(values)}"
        values[name] = value
        return name

    right = rng.choice(
        [
            lambda: named(_value(rng)),
            lambda: f"if_not_exists({rng.choice('abcn')}, {named(_value(rng))})",
            lambda: f"n {rng.choice('+-')} {named({'N': '2'})}",
            lambda: f"list_append({rng.choice('abc')}, {named({'L': [{'S': 'z'}]})})",
            lambda: rng.choice("abc"),
        ]
    )()
    clauses = [f"SET {paths[0]} = {right}"]
    if rng.random() < 0.4:
        clauses.append(f"REMOVE {paths[1]}")
    if rng.random() < 0.4:
        section = rng.choice(["ADD", "DELETE"])
        amount = {"SS": ["a", "z"]} if section == "DELETE" or rng.random() < 0.5 else {"N": "1"}
        clauses.append(f"{section} {paths[2]} {named(amount)}")
    rng.shuffle(clauses)
    return " ".join(clauses)


def _random_item(rng: random.Random) -> dict[str, Any]:
    attributes = {name: _value(rng) for name in rng.sample(["a", "b", "c", "d", "m", "n"], rng.randint(0, 4))}
    if rng.random() < 0.6:
        attributes |= {"customer": {"S": rng.choice("uv")}, "seen": {"S": rng.choice("123")}}
    return item(rng.choice("1234"), **attributes)


def _conditional(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.4:
        return {}
    values: dict[str, Any] = {}
    text = _condition(rng, values)
    back = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if rng.random() < 0.7 else {}
    return {"ConditionExpression": text, **_used(text, values), **back}


def _put(rng: random.Random) -> dict[str, Any]:
    return {"Item": _random_item(rng), **_conditional(rng)}


def _delete(rng: random.Random) -> dict[str, Any]:
    return {"Key": key(rng.choice("1234")), **_conditional(rng)}


def _change(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {}
    update = _update(rng, values)
    parameters = {"Key": key(rng.choice("1234")), "UpdateExpression": update}
    if rng.random() < 0.5:
        condition = parameters["ConditionExpression"] = _condition(rng, values)
        return parameters | _used(f"{update} {condition}".replace("(", " "), values)
    return parameters | _used(update.replace("(", " "), values)


async def _step(both: Both, rng: random.Random) -> None:
    kind = rng.choice(
        ["put", "put", "update", "update", "delete", "get", "query", "index", "scan", "transact", "batch"]
    )

    def returns(*allowed: str) -> dict[str, Any]:
        return {"ReturnValues": rng.choice(["NONE", *allowed])}

    if kind == "put":
        await both.ask("put_item", **_put(rng), **returns("ALL_OLD"))
    elif kind == "delete":
        await both.ask("delete_item", **_delete(rng), **returns("ALL_OLD"))
    elif kind == "update":
        await both.ask("update_item", **_change(rng), **returns("ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"))
    elif kind == "get":
        projection = {"ProjectionExpression": "a.x, b[0], SK"} if rng.random() < 0.4 else {}
        await both.ask("get_item", Key=key(rng.choice("1234")), **projection)
    elif kind == "scan":
        await both.ask("scan")
    elif kind == "query":
        values = {":p": {"S": "p"}, ":s": {"S": rng.choice("1234")}}
        relation = rng.choice(["SK > :s", "SK <= :s", "begins_with(SK, :s)", "SK BETWEEN :s AND :s"])
        text = _condition(rng, values)
        await both.ask(
            "query",
            KeyConditionExpression=f"PK = :p AND {relation}",
            FilterExpression=text,
            ScanIndexForward=rng.random() < 0.5,
            **_used(f"{relation} {text} :p :s".replace("(", " "), values),
            **({"Limit": rng.randint(1, 3)} if rng.random() < 0.5 else {}),
        )
    elif kind == "index":
        await both.ask(
            "query",
            IndexName="by_customer",
            KeyConditionExpression="customer = :c AND seen >= :s",
            ExpressionAttributeValues={":c": {"S": rng.choice("uv")}, ":s": {"S": rng.choice("123")}},
        )
    elif kind == "transact":
        makers = [("Put", _put), ("Update", _change), ("Delete", _delete)]
        chosen = [rng.choice(makers) for _ in range(rng.randint(1, 3))]
        operations = [{name: {"TableName": both.table, **make(rng)}} for name, make in chosen]
        await both.ask("transact_write_items", TransactItems=operations)
    else:
        requests = [{"PutRequest": {"Item": _random_item(rng)}}, {"DeleteRequest": {"Key": key(rng.choice("1234"))}}]
        await both.ask("batch_write_item", RequestItems={both.table: requests})


@pytest.mark.parametrize("seed", range(8))
async def test_a_random_walk_is_answered_alike(both, seed):
    rng = random.Random(seed)
    for _ in range(250):
        await _step(both, rng)
