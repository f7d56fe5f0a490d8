"""Both transports, asked the same on one engine: the same answers to the last type, the same refusals."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import uvloop

from mangacache import Settings
from mangacache.store import open_transport
from mangacache.store.direct import DirectTransport
from mangacache.store.direct.wire import OPERATIONS
from mangacache.store.transport import AioTransport, ConditionFailed, TransactionCanceled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SCHEMA = {
    "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
    "BillingMode": "PAY_PER_REQUEST",
}
STEPS = 150
NOT_THERE = "there-is-no-such-table"


class Pair:
    """The two transports, each with a table of its own, asked in turn.

    Attributes:
        asked: how often each operation was asked.
        refused: the kinds of refusals that came.
    """

    def __init__(self, transports: dict[str, Any]) -> None:
        self._transports = transports
        self.asked: dict[str, int] = {}
        self.refused: set[str] = set()

    async def ask(self, operation: str, parameters: Any) -> Any:
        """Ask both, `TABLE` standing for the table of each; return what both said."""
        self.asked[operation] = self.asked.get(operation, 0) + 1
        outcomes = []
        for table, transport in self._transports.items():
            said = await _said(transport, operation, _named(parameters, "TABLE", table))
            outcomes.append(_named(said, table, "TABLE"))
        direct, client = outcomes
        assert direct == client, (operation, parameters)
        # Sets are lists here, and in the engine's order: repr compares types as well, all the way down.
        assert _sorted(direct) == _sorted(client), (operation, parameters)
        if isinstance(direct, tuple):
            self.refused.add(direct[0])
        return direct


async def _said(transport: Any, operation: str, parameters: Any) -> Any:
    """Return an answer, or a refusal with all that it carries."""
    try:
        answer = await transport.request(operation, parameters)
    except ConditionFailed as failed:
        return "ConditionFailed", failed.item, failed.in_doubt
    except TransactionCanceled as canceled:
        return "TransactionCanceled", list(canceled.reasons), canceled.in_doubt
    except Exception as error:  # noqa: BLE001 - whatever it is, both must say it
        # The engine quotes a batch that it refuses, its items' attributes in any order.
        return type(error).__name__, str(error).partition(" Value '{")[0]
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def _named(value: Any, name: str, by: str) -> Any:
    """Return a value with a table's name put in the place of another, wherever it stands."""
    if isinstance(value, dict):
        return {_named(key, name, by): _named(inner, name, by) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_named(inner, name, by) for inner in value)
    return value.replace(name, by) if isinstance(value, str) else value


def _sorted(value: Any) -> str:
    """Return a value in words, types and all, its mappings in order."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {_sorted(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(_sorted, value))}]"
    return f"{type(value).__name__} {value!r}"


@pytest.fixture
async def pair(dynoxide: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        transports = {}
        for name, kind in (("direct", DirectTransport), ("aioboto3", AioTransport)):
            settings = Settings(dynamodb_endpoint=dynoxide, dynamodb_transport=name)
            transport = await stack.enter_async_context(open_transport(settings))
            assert isinstance(transport, kind)
            table = f"t-{name}-{uuid4().hex[:12]}"
            await transport.request("CreateTable", {"TableName": table, **SCHEMA})
            transports[table] = transport
        yield Pair(transports)


# Requests made at random: most are well-formed, some are not


def _value(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = rng.choice(["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", *(["L", "M"] if depth < 3 else [])])
    make = {
        "S": lambda: rng.choice(["", "a", 'quoted "\\ \n\t\x00\x7f', "漫画 🗡", "é" * 50, "</script>", "\u2028"]),
        "N": lambda: rng.choice(["0", "-7", "1.50", "1E+20", "-2.5e-3", "9" * 38, str(rng.getrandbits(60))]),
        "B": lambda: rng.randbytes(rng.choice([0, 1, 2, 3, 64, 1000])),
        "BOOL": lambda: rng.random() < 0.5,
        "NULL": lambda: True,
        "SS": lambda: rng.sample(["b", "a", "漫", "zz"], rng.randint(1, 4)),
        "NS": lambda: rng.sample(["10", "9", "-1", "2.5"], rng.randint(1, 4)),
        "BS": lambda: rng.sample([b"\xff", b"\x00", b"ab", b"b"], rng.randint(1, 4)),
        "L": lambda: [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))],
        "M": lambda: {rng.choice(["B", "x", "M", "é"]): _value(rng, depth + 1) for _ in range(rng.randint(0, 3))},
    }[kind]
    return {kind: make()}


def _key(rng: random.Random) -> dict[str, Any]:
    return {"PK": {"S": rng.choice(["p", "q"])}, "SK": {"S": rng.choice("12345")}}


def _item(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(["n", "a", "B", "BS", "Item", "attribute_not_exists", "Übung"], rng.randint(0, 5))
    return _key(rng) | {name: _value(rng) for name in names}


def _conditional(rng: random.Random) -> dict[str, Any]:
    condition = rng.choice(
        [None, "attribute_not_exists(PK)", "attribute_exists(PK)", "n = :n", "size(#B) > :n", "n = "]
    )
    if condition is None:
        return {}
    parts: dict[str, Any] = {"ConditionExpression": condition}
    if "#B" in condition:
        parts["ExpressionAttributeNames"] = {"#B": "B"}
    if ":n" in condition:
        parts["ExpressionAttributeValues"] = {":n": {"N": rng.choice("01")}}
    if rng.random() < 0.7:
        parts["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    return parts


def _capacity(rng: random.Random) -> dict[str, Any]:
    return {"ReturnConsumedCapacity": rng.choice(["TOTAL", "INDEXES", "NONE"])} if rng.random() < 0.3 else {}


def _returning(rng: random.Random, *more: str) -> dict[str, Any]:
    return {"ReturnValues": rng.choice(["NONE", "ALL_OLD", *more, "NONSENSE"])} if rng.random() < 0.7 else {}


def _put(rng: random.Random) -> dict[str, Any]:
    return {"TableName": "TABLE", "Item": _item(rng), **_conditional(rng)}


def _delete(rng: random.Random) -> dict[str, Any]:
    return {"TableName": "TABLE", "Key": _key(rng), **_conditional(rng)}


def _update(rng: random.Random) -> dict[str, Any]:
    expression, values = rng.choice(
        [
            ("SET a = :u", {":u": _value(rng)}),
            ("SET n = if_not_exists(n, :u) REMOVE a", {":u": {"N": "1"}}),
            ("ADD n :u", {":u": {"N": "2"}}),
            ("SET a = b", {}),
            ("SET", {}),
        ]
    )
    parts = {"TableName": "TABLE", "Key": _key(rng), "UpdateExpression": expression, **_conditional(rng)}
    values = {**values, **parts.get("ExpressionAttributeValues", {})}
    return parts | ({"ExpressionAttributeValues": values} if values else {})


def _query(rng: random.Random) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "TableName": "TABLE",
        "KeyConditionExpression": rng.choice(["PK = :p", "PK = :p AND SK BETWEEN :a AND :b", "PK > :p"]),
        "ScanIndexForward": rng.random() < 0.5,
        "ConsistentRead": rng.random() < 0.5,
    }
    values = {":p": {"S": rng.choice("pqr")}}
    if ":a" in parts["KeyConditionExpression"]:
        values |= {":a": {"S": "2"}, ":b": {"S": rng.choice("1345")}}
    if rng.random() < 0.4:
        parts["Limit"] = rng.choice([1, 2, 0])
    if rng.random() < 0.2:
        parts["ExclusiveStartKey"] = {"PK": values[":p"], "SK": {"S": "2"}}
    if rng.random() < 0.3:
        parts["ProjectionExpression"] = "SK, n"
    if rng.random() < 0.2:
        parts["Select"] = "COUNT"
    return parts | {"ExpressionAttributeValues": values}


def _distinct(rng: random.Random, count: int) -> list[dict[str, Any]]:
    keys = {str(key): key for key in (_key(rng) for _ in range(count))}
    return list(keys.values()) if rng.random() < 0.9 else [_key(rng) for _ in range(count)]


def _batch_get(rng: random.Random) -> dict[str, Any]:
    asked: dict[str, Any] = {"Keys": _distinct(rng, rng.randint(1, 6)), "ConsistentRead": True}
    if rng.random() < 0.3:
        asked |= {"ProjectionExpression": "#n, SK", "ExpressionAttributeNames": {"#n": "n"}}
    return {"RequestItems": {rng.choice(["TABLE"] * 9 + [NOT_THERE]): asked}}


def _batch_write(rng: random.Random) -> dict[str, Any]:
    writes = [
        {"DeleteRequest": {"Key": key}} if rng.random() < 0.4 else {"PutRequest": {"Item": _item(rng) | key}}
        for key in _distinct(rng, rng.choice([1, 3, 5, 26]))
    ]
    return {"RequestItems": {"TABLE": writes}}


def _transact(rng: random.Random) -> dict[str, Any]:
    makers = {"Put": _put, "Update": _update, "Delete": _delete}
    kinds = rng.choices(list(makers), k=rng.randint(1, 4))
    items = [{kind: makers[kind](rng)} for kind in kinds]
    token = rng.choice(["", f"TABLE-{rng.randrange(5)}"])  # one of few: tokens come again, with other contents
    return {"TransactItems": items, **({"ClientRequestToken": token} if token else {})}


def _request(rng: random.Random) -> tuple[str, dict[str, Any]]:
    operation = rng.choice(list(OPERATIONS))
    parameters = {
        "GetItem": lambda: {"TableName": "TABLE", "Key": _key(rng), "ConsistentRead": True},
        "PutItem": lambda: _put(rng) | _returning(rng),
        "UpdateItem": lambda: _update(rng) | _returning(rng, "ALL_NEW", "UPDATED_NEW", "UPDATED_OLD"),
        "DeleteItem": lambda: _delete(rng) | _returning(rng),
        "Query": lambda: _query(rng),
        "BatchGetItem": lambda: _batch_get(rng),
        "BatchWriteItem": lambda: _batch_write(rng),
        "TransactWriteItems": lambda: _transact(rng),
    }[operation]()
    spoilt = rng.random()
    if spoilt < 0.02 and "TableName" in parameters:
        parameters["TableName"] = NOT_THERE
    elif spoilt < 0.04 and "Key" in parameters:
        parameters["Key"] = {"PK": {"S": "p"}}
    return operation, parameters | _capacity(rng)


@pytest.mark.parametrize("seed", range(6))
async def test_requests_made_at_random_are_answered_alike(pair, seed):
    rng = random.Random(seed)
    for _ in range(STEPS):
        await pair.ask(*_request(rng))
    assert set(pair.asked) == set(OPERATIONS)
    assert {"ConditionFailed", "TransactionCanceled", "Invalid", "NotFound"} <= pair.refused


async def test_pages_are_read_alike_past_a_megabyte(pair):
    for number in range(5):
        item = {"PK": {"S": "p"}, "SK": {"S": str(number)}, "blob": {"B": bytes([number]) * 350_000}}
        await pair.ask("PutItem", {"TableName": "TABLE", "Item": item})
    query = {
        "TableName": "TABLE",
        "KeyConditionExpression": "PK = :p",
        "ExpressionAttributeValues": {":p": {"S": "p"}},
    }
    pages = [await pair.ask("Query", query)]
    while start := pages[-1].get("LastEvaluatedKey"):
        pages.append(await pair.ask("Query", query | {"ExclusiveStartKey": start}))
    assert len(pages) > 1
    assert [item["blob"]["B"][0] for page in pages for item in page["Items"]] == [0, 1, 2, 3, 4]
    keys = [{"PK": {"S": "p"}, "SK": {"S": str(number)}} for number in range(5)]
    got = await pair.ask("BatchGetItem", {"RequestItems": {"TABLE": {"Keys": keys}}})
    assert {len(item["blob"]["B"]) for item in got["Responses"]["TABLE"]} == {350_000}


async def test_what_is_rare_is_answered_alike(pair):
    for operation, parameters in (
        ("ListTables", {"Limit": 0}),
        ("TransactGetItems", {"TransactItems": [{"Get": {"TableName": "TABLE", "Key": {"PK": {"S": "p"}}}}]}),
        ("Scan", {"TableName": "TABLE"}),
    ):
        await pair.ask(operation, parameters)


def test_the_direct_transport_works_on_uvloop_as_on_asyncio(dynoxide):
    async def go() -> None:
        assert type(asyncio.get_running_loop()).__module__ == "uvloop"
        settings = Settings(dynamodb_endpoint=dynoxide, dynamodb_transport="direct")
        async with open_transport(settings) as transport:
            table = f"t-{uuid4().hex[:12]}"
            await transport.request("CreateTable", {"TableName": table, **SCHEMA})
            item = {"PK": {"S": "p"}, "SK": {"S": "1"}, "blob": {"B": b"\x00" * 200_000}}
            await transport.request("PutItem", {"TableName": table, "Item": item})
            read = {"TableName": table, "Key": {"PK": item["PK"], "SK": item["SK"]}}
            calls = [asyncio.create_task(transport.request("GetItem", read)) for _ in range(200)]
            await asyncio.sleep(0)
            for call in calls[::3]:
                call.cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            answers = [outcome for outcome in outcomes if not isinstance(outcome, asyncio.CancelledError)]
            assert answers == [{"Item": item}] * (200 - len(calls[::3]))

    uvloop.run(go())
