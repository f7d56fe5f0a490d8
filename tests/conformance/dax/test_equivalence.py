"""With its caches off, the emulator answers whatever it is asked as the engine behind it does; errors too.

The same requests, made at random, go through the real client to one table and through the engine's own client to
another. FAULT_OPERATIONS asks for a fifth of that many, where that is more than the usual two thousand and some.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from decimal import Context, Decimal

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from daxes import SCHEMAS, Wire, direct_client, emulated, real_client

from mangacache.testing.dynamodb.errors import Refusal
from mangacache.testing.dynamodb.expressions import parse_projection

SEEDS = 4
REQUESTS = max(550, int(os.environ.get("FAULT_OPERATIONS", "0")) // 5 // SEEDS)
EXACT = Context(prec=60)


@pytest.fixture(scope="module")
def wire(dynoxide):
    """Like the shared one, of caches without memory; `wire.tables` and `wire.twins` are the tables to be the same."""
    with (
        direct_client(dynoxide) as direct,
        emulated(dynoxide, item_bytes=0, query_bytes=0, nodes=2) as emulator,
        real_client(emulator.endpoint) as client,
    ):
        made = Wire(emulator, client, direct, None)
        made.twins = Wire(emulator, client, direct, None).tables
        yield made


# Requests.

TEXTS = ["", "a", "ab", "b#1", "käse", "日本", "𝄞"]
NUMBERS = ["0", "1", "-1", "2", "1.5", "100", "1E+20", "-0.001", "12345678901234567890.5"]
BLOBS = [b"", b"a", b"\x00\xff", b"ab"]
NAMES = ["a", "b", "size", "x.y", "l", "m", "s", "n"]


def a_value(rng, depth=0):
    kind = rng.choice(["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS"] + ["L", "M"] * (depth < 3))
    return {
        "S": lambda: {"S": rng.choice(TEXTS)},
        "N": lambda: {"N": rng.choice(NUMBERS)},
        "B": lambda: {"B": rng.choice(BLOBS)},
        "BOOL": lambda: {"BOOL": rng.random() < 0.5},
        "NULL": lambda: {"NULL": True},
        "SS": lambda: {"SS": rng.sample(TEXTS, rng.randint(1, 3))},
        "NS": lambda: {"NS": rng.sample(NUMBERS, rng.randint(1, 3))},
        "BS": lambda: {"BS": rng.sample(BLOBS, rng.randint(1, 3))},
        "L": lambda: {"L": [a_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]},
        "M": lambda: {"M": {name: a_value(rng, depth + 1) for name in rng.sample(NAMES, rng.randint(0, 3))}},
    }[kind]()


def a_key(rng, schema):
    values = {"S": ["a", "b#1", "käse"], "N": ["0", "1", "-1.5", "100"], "B": [b"a", b"\x00\xff"]}
    return {name: {kind: rng.choice(values[kind])} for name, kind in SCHEMAS[schema].items()}


def an_item(rng, schema):
    attributes = {name: a_value(rng) for name in rng.sample(NAMES, rng.randint(0, 5))}
    # Numbers, lists and maps where expressions look for them, most of the time.
    attributes |= {"n": {"N": rng.choice(NUMBERS)}} if rng.random() < 0.6 else {}
    attributes |= {"l": {"L": [a_value(rng, 1) for _ in range(rng.randint(0, 4))]}} if rng.random() < 0.6 else {}
    attributes |= {"m": {"M": {"a": a_value(rng, 1), "size": a_value(rng, 1)}}} if rng.random() < 0.6 else {}
    if schema == "ss" and rng.random() < 0.5:
        attributes |= {"colour": {"S": rng.choice("ab")}, "size": {"N": rng.choice("123")}}
    elif schema == "ss":
        attributes.pop("size", None)
    return attributes | a_key(rng, schema)


class Expressions:
    """The expressions of one request, and their placeholders."""

    def __init__(self, rng):
        self.rng = rng
        self.names = {}
        self.values = {}

    def path(self):
        rng = self.rng
        text = self.name(rng.choice(NAMES))
        while rng.random() < 0.35:
            text += (
                f"[{rng.randint(0, 3)}]" if rng.random() < 0.5 else f".{self.name(rng.choice(['a', 'size', 'x.y']))}"
            )
        return text

    def name(self, name):
        if name in ("a", "b", "m", "s") and self.rng.random() < 0.5:
            return name
        short = f"#n{len(self.names)}"
        self.names[short] = name
        return short

    def value(self, value=None):
        short = f":v{len(self.values)}"
        self.values[short] = value if value is not None else a_value(self.rng, 2)
        return short

    def condition(self, depth=0):
        rng = self.rng
        if depth < 2 and rng.random() < 0.35:
            if rng.random() < 0.3:
                inner = self.condition(depth + 1)
                return f"NOT {inner}" if inner.startswith("(") else f"NOT ({inner})"
            return f"({self.condition(depth + 1)} {rng.choice(['AND', 'OR'])} {self.condition(depth + 1)})"
        return rng.choice(
            [
                lambda: f"attribute_exists({self.path()})",
                lambda: f"attribute_not_exists({self.path()})",
                lambda: f"attribute_type({self.path()}, {self.value({'S': rng.choice(['S', 'N', 'L', 'M', 'SS'])})})",
                lambda: f"begins_with({self.path()}, {self.value({'S': 'a'})})",
                lambda: f"contains({self.path()}, {self.value()})",
                lambda: f"size({self.path()}) {rng.choice(['=', '<', '>='])} {self.value({'N': '2'})}",
                lambda: f"{self.path()} {rng.choice(['=', '<>', '<', '<=', '>', '>='])} {self.value()}",
                lambda: f"{self.path()} = {self.path()}",
                lambda: f"{self.path()} BETWEEN {self.value({'N': '0'})} AND {self.value({'N': '5'})}",
                lambda: f"{self.path()} IN ({self.value()}, {self.value()})",
            ]
        )()

    def update(self):
        rng, clauses = self.rng, []
        if rng.random() < 0.7:
            clauses.append("SET " + ", ".join(self.assignment() for _ in range(rng.randint(1, 2))))
        if rng.random() < 0.3:
            clauses.append("REMOVE " + ", ".join(self.path() for _ in range(rng.randint(1, 2))))
        if rng.random() < 0.25:
            clauses.append(f"ADD {self.path()} {self.value(rng.choice([{'N': '1'}, {'SS': ['z']}]))}")
        if rng.random() < 0.2:
            clauses.append(f"DELETE {self.path()} {self.value({'SS': ['a']})}")
        rng.shuffle(clauses)
        return " ".join(clauses) or f"SET {self.assignment()}"

    def assignment(self):
        rng = self.rng
        return rng.choice(
            [
                lambda: f"{self.path()} = {self.value()}",
                lambda: f"{self.path()} = {self.path()}",
                lambda: f"{self.path()} = {self.path()} {rng.choice('+-')} {self.value({'N': '3'})}",
                lambda: f"{self.path()} = if_not_exists({self.path()}, {self.value()})",
                lambda: f"{self.path()} = list_append({self.path()}, {self.value({'L': [{'S': 'z'}]})})",
            ]
        )()

    def projection(self):
        """Return paths that do not contradict each other: the engine lets that pass in batches and transactions."""
        kept = []
        for _ in range(self.rng.randint(1, 3)):
            names, path = dict(self.names), self.path()
            try:
                parse_projection(", ".join([*kept, path]), tuple(self.names.items()))
            except Refusal:
                self.names = names
            else:
                kept.append(path)
        return ", ".join(kept)

    def placeholders(self):
        given = {"ExpressionAttributeNames": self.names, "ExpressionAttributeValues": self.values}
        return {name: value for name, value in given.items() if value}


def maybe(rng, share, **parameters):
    return parameters if rng.random() < share else {}


def a_request(rng, tables):
    """Return a method, and what makes its parameters for the tables of either side."""
    schema = rng.choice(["ss", "ss", "ss", *tables])
    method = rng.choice(
        ["put_item"] * 3
        + ["update_item"] * 3
        + ["get_item", "delete_item", "query", "scan"]
        + ["batch_get_item", "batch_write_item", "transact_get_items", "transact_write_items"]
    )
    return method, globals()[f"a_{method}"](rng, schema)


def a_get_item(rng, schema):
    use = Expressions(rng)
    projected = maybe(rng, 0.5, ProjectionExpression=use.projection())
    shown = use.placeholders() if projected else {}
    return {
        "TableName": schema,
        "Key": a_key(rng, schema),
        **maybe(rng, 0.4, ConsistentRead=True),
        **projected,
        **shown,
    }


def guarded(rng, use):
    guard = maybe(rng, 0.5, ConditionExpression=None)
    return {name: use.condition() for name in guard}


def a_put_item(rng, schema):
    use = Expressions(rng)
    returns = maybe(rng, 0.5, ReturnValues=rng.choice(["NONE", "ALL_OLD", "ALL_OLD", "ALL_NEW"]))
    item = an_item(rng, schema)
    return {"TableName": schema, "Item": item, **guarded(rng, use), **returns, **use.placeholders()}


def a_delete_item(rng, schema):
    use = Expressions(rng)
    returns = maybe(rng, 0.5, ReturnValues=rng.choice(["NONE", "ALL_OLD"]))
    return {"TableName": schema, "Key": a_key(rng, schema), **guarded(rng, use), **returns, **use.placeholders()}


RETURNS = ["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]


def an_update(rng, schema):
    use = Expressions(rng)
    update = maybe(rng, 0.95, UpdateExpression=use.update())
    if not update:
        use = Expressions(rng)
    return {"TableName": schema, "Key": a_key(rng, schema), **update, **guarded(rng, use), **use.placeholders()}


def a_update_item(rng, schema):
    return {**an_update(rng, schema), **maybe(rng, 0.8, ReturnValues=rng.choice(RETURNS))}


def a_query(rng, schema):
    use = Expressions(rng)
    key, index = a_key(rng, schema), {}
    names = list(key)
    if schema == "ss" and rng.random() < 0.3:
        key, index = {"colour": {"S": "a"}, "size": {"N": "2"}}, {"IndexName": "by_colour"}
        names = ["colour", "size"]
    condition = f"{use.name(names[0])} = {use.value(key[names[0]])}"
    if len(names) > 1 and rng.random() < 0.6:
        second, value = use.name(names[1]), key[names[1]]
        condition += (
            " AND "
            + rng.choice(
                [
                    lambda: f"{second} {rng.choice(['=', '<', '<=', '>', '>='])} {use.value(value)}",
                    lambda: f"{second} BETWEEN {use.value(value)} AND {use.value(value)}",
                    lambda: f"begins_with({second}, {use.value(value)})",
                ]
            )()
        )
    order = maybe(rng, 0.4, ScanIndexForward=rng.random() < 0.5)
    return {"TableName": schema, "KeyConditionExpression": condition, **index, **order, **narrowed(rng, use)}


def narrowed(rng, use):
    chosen = maybe(rng, 0.4, FilterExpression=None)
    chosen = {name: use.condition() for name in chosen}
    if rng.random() < 0.3:
        chosen["ProjectionExpression"] = use.projection()
    elif rng.random() < 0.3:
        chosen["Select"] = rng.choice(["COUNT", "ALL_ATTRIBUTES"])
    return {**chosen, **maybe(rng, 0.4, Limit=rng.randint(1, 4)), **use.placeholders()}


def a_scan(rng, schema):
    index = maybe(rng, 0.2, IndexName="by_colour") if schema == "ss" else {}
    consistent = {} if index else maybe(rng, 0.5, ConsistentRead=True)
    return {"TableName": schema, **index, **consistent, **narrowed(rng, Expressions(rng))}


def some_keys(rng, schema, most, *, twice=0.1):
    """Return keys, at times one of them twice; not where bytes are, for which the DAX client has no words then."""
    keys = [a_key(rng, schema) for _ in range(rng.randint(1, most))]
    if rng.random() < twice and "b" not in schema:
        return keys
    return [key for place, key in enumerate(keys) if key not in keys[:place]]


def a_batch_get_item(rng, schema):
    use = Expressions(rng)
    projected = maybe(rng, 0.4, ProjectionExpression=use.projection())
    wanted = {"Keys": some_keys(rng, schema, 6), **projected, **(use.placeholders() if projected else {})}
    return {"RequestItems": {schema: {**wanted, **maybe(rng, 0.4, ConsistentRead=True)}}}


def a_batch_write_item(rng, schema):
    requests = [
        {"DeleteRequest": {"Key": key}}
        if rng.random() < 0.4
        else {"PutRequest": {"Item": {**an_item(rng, schema), **key}}}
        for key in some_keys(rng, schema, 6, twice=0)
    ]
    return {"RequestItems": {schema: requests}}


def a_transact_get_items(rng, schema):
    gets = []
    for key in some_keys(rng, schema, 4):
        use = Expressions(rng)
        projected = maybe(rng, 0.4, ProjectionExpression=use.projection())
        gets.append(
            {"Get": {"TableName": schema, "Key": key, **projected, **(use.placeholders() if projected else {})}}
        )
    return {"TransactItems": gets}


def a_transact_write_items(rng, schema):
    writes = []
    for key in some_keys(rng, schema, 4):
        use = Expressions(rng)
        kind = rng.choice(["Put", "Update", "Delete", "ConditionCheck"])
        old = maybe(rng, 0.5, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        if kind == "Put":
            write = {"TableName": schema, "Item": {**an_item(rng, schema), **key}, **guarded(rng, use)}
        elif kind == "Update":
            writes.append({kind: {**an_update(rng, schema), "Key": key, **old}})
            continue
        else:
            guard = {"ConditionExpression": use.condition()} if kind == "ConditionCheck" else guarded(rng, use)
            write = {"TableName": schema, "Key": key, **guard}
        writes.append({kind: {**write, **old, **use.placeholders()}})
    return {"TransactItems": writes}


# Answers.


def renamed(parameters, tables):
    """Return parameters with the names of schemas replaced by those of tables."""
    if "RequestItems" in parameters:
        return {"RequestItems": {tables[schema]: wanted for schema, wanted in parameters["RequestItems"].items()}}
    if "TransactItems" in parameters:
        named = [{kind: renamed(part, tables) for kind, part in entry.items()} for entry in parameters["TransactItems"]]
        return {"TransactItems": named}
    return {**parameters, "TableName": tables[parameters["TableName"]]}


def alike(value):
    """Return an answer such that equal ones are equal, however sets are ordered and numbers are spelled."""
    if isinstance(value, dict):
        if len(value) == 1:
            ((kind, inner),) = value.items()
            if kind == "N" and isinstance(inner, str):
                return {"N": EXACT.normalize(Decimal(inner))}
            if kind == "NS":
                return {"NS": sorted(EXACT.normalize(Decimal(each)) for each in inner)}
            if kind in ("SS", "BS"):
                return {kind: sorted(inner)}
        return {name: alike(value[name]) for name in sorted(value) if name != "ResponseMetadata"}
    return [alike(part) for part in value] if isinstance(value, list) else value


def outcome(client, method, parameters, tables):
    """Return an answer, or a refusal's code and reasons."""
    try:
        # The DAX client writes into what it is given.
        answer = getattr(client, method)(**copy.deepcopy(renamed(parameters, tables)))
    except ParamValidationError:
        return "ValidationException", None
    except ClientError as error:
        if hasattr(error, "cancellation_reasons"):
            codes = (error.cancellation_reasons or [])[::3] or None
        else:
            codes = [reason["Code"] for reason in error.response.get("CancellationReasons", [])] or None
        return error.response["Error"]["Code"], codes
    answer = alike(answer)
    if method == "batch_get_item":  # in whatever order
        by_schema = {schema: table for schema, table in tables.items() if table in answer["Responses"]}
        answer["Responses"] = {
            schema: sorted(map(repr_of, answer["Responses"][table])) for schema, table in by_schema.items()
        }
    if method == "transact_get_items":
        answer["Responses"] = [
            shown(response.get("Item"), projected="ProjectionExpression" in get["Get"])
            for get, response in zip(parameters["TransactItems"], answer["Responses"], strict=True)
        ]
    return answer


def shown(item, *, projected):
    """Return an item of a transactional read; of a projected one the engine gives the key unasked, or nothing."""
    if not projected:
        return item
    return {name: part for name, part in (item or {}).items() if name not in ("pk", "sk")}


def repr_of(item):
    """Return what items are put in order by; what `alike` gives has its names in order."""
    return repr(item)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_asked_is_answered_as_the_engine_answers_it(wire, seed):
    rng = random.Random(seed)
    outcomes = Counter()
    for _ in range(REQUESTS):
        method, parameters = a_request(rng, wire.tables)
        ours = outcome(wire.client, method, parameters, wire.tables)
        theirs = outcome(wire.direct, method, parameters, wire.twins)
        assert ours == theirs, (method, parameters)
        outcomes[method, isinstance(ours, tuple)] += 1
    refused = sum(count for (_, wrong), count in outcomes.items() if wrong)
    assert REQUESTS * 0.1 < refused < REQUESTS * 0.7, outcomes
    assert len({method for method, wrong in outcomes if not wrong}) == 10, "each operation was answered"
    for table, twin in zip(wire.tables.values(), wire.twins.values(), strict=True):
        left, right = (wire.direct.scan(TableName=each, ConsistentRead=True)["Items"] for each in (table, twin))
        assert sorted(map(repr_of, map(alike, left))) == sorted(map(repr_of, map(alike, right)))
