"""The double itself: its operations, each done at once, and the client that calls them as coroutines."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self

import botocore.session

from mangacache.clock import SystemClock
from mangacache.testing.dynamodb import reads
from mangacache.testing.dynamodb.errors import Refusal, invalid, mistyped, no_such_table, raised
from mangacache.testing.dynamodb.paths import project
from mangacache.testing.dynamodb.request import Request
from mangacache.testing.dynamodb.table import Table, in_use
from mangacache.testing.dynamodb.values import Item, copy_item, item_size, normalise_item
from mangacache.testing.dynamodb.writes import PREPARE, prepare_delete, prepare_put, prepare_update

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from botocore.model import OperationModel

    from mangacache.clock import Clock
    from mangacache.testing.dynamodb.writes import Prepared, Write

Parameters = dict[str, Any]
Answer = dict[str, Any]

PAGE_BYTES: Final = 1_048_576
_MAX_TRANSACTION: Final = 100
_MAX_TRANSACTION_BYTES: Final = 4 * 1_048_576
_MAX_BATCH_WRITE: Final = 25
_MAX_BATCH_GET: Final = 100
_MAX_BATCH_GET_BYTES: Final = 16 * 1_048_576
_TOKEN_VALID_S: Final = 600.0
_MAX_TOKEN: Final = 36
_METHODS: Final[dict[str, str]] = {
    "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in operation)[1:]: operation
    for operation in (
        *("CreateTable", "DeleteTable", "DescribeTable", "ListTables", "UpdateTable"),
        *("DescribeContinuousBackups", "DescribeTimeToLive", "UpdateContinuousBackups", "UpdateTimeToLive"),
        *("DeleteItem", "GetItem", "PutItem", "UpdateItem", "BatchGetItem", "BatchWriteItem"),
        *("Query", "Scan", "TransactGetItems", "TransactWriteItems"),
    )
}
"""A client's methods and their operations; the double's own method has an underscore before the same name."""
_HANDLERS: Final = {operation: f"_{method}" for method, operation in _METHODS.items()}


class MemoryDynamoDB:
    """DynamoDB in memory, for tests: the same answers and refusals, no server.

    Every operation is atomic at one moment between two turns of the event loop, so that callers interleave as they do
    with a server. What is not modelled raises `NotImplementedError`. Not for several threads.

    Args:
        page_bytes: bytes a Query or Scan reads before it ends its page; make it small to test paging.
        index_lag_s: how long a write takes to reach the secondary indexes, by `clock`.
        clock: what time is read from.

    Attributes:
        requests: how often each operation (`PutItem`, ...) was asked for, refused ones included.
        clock: as given.
    """

    def __init__(self, *, page_bytes: int = PAGE_BYTES, index_lag_s: float = 0.0, clock: Clock | None = None) -> None:
        self.requests: Counter[str] = Counter()
        self._page_bytes = page_bytes
        self._index_lag_s = index_lag_s
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._tables: dict[str, Table] = {}
        self._tokens: dict[str, tuple[float, str]] = {}

    def client(self) -> MemoryClient:
        """Return a client with the coroutine methods of aioboto3's (`put_item`, `query`, ...)."""
        return MemoryClient(self)

    def expire(self, now_s: float | None = None) -> int:
        """Delete every item whose ttl has passed, as DynamoDB does some time after it.

        Args:
            now_s: the wall clock's time in seconds since 1970; the clock's by default.

        Returns:
            How many items were deleted.
        """
        limit_s = self.clock.time_s() if now_s is None else now_s
        doomed = [
            (table, table.schema.of_item(item))
            for table in self._tables.values()
            if table.ttl_attribute is not None
            for _, item, _ in table.items.scan()
            if "N" in (ttl := item.get(table.ttl_attribute, {})) and float(ttl["N"]) <= limit_s
        ]
        for table, key in doomed:
            table.write(key, None, self.clock.monotonic_s())
        return len(doomed)

    def call(self, operation: str, parameters: Parameters) -> Answer:
        """Do one operation now.

        Raises:
            ClientError: refused by the service.
            ParamValidationError: refused by the client before it would be sent.
            NotImplementedError: this double does not model it.
        """
        self.requests[operation] += 1
        if operation not in _HANDLERS:
            raise NotImplementedError(f"MemoryDynamoDB does not model {operation}")
        _check_names(operation, parameters)
        now_s = self.clock.monotonic_s()
        for table in self._tables.values():
            table.settle(now_s)
        try:
            answer: Answer = getattr(self, _HANDLERS[operation])(parameters)
        except Refusal as refusal:
            raise raised(refusal, operation) from refusal
        return {**answer, "ResponseMetadata": {"HTTPStatusCode": 200, "RetryAttempts": 0}}

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            raise no_such_table()
        return self._tables[name]

    # Tables.

    def _create_table(self, parameters: Parameters) -> Answer:
        name = parameters["TableName"]
        if name in self._tables:
            raise in_use(name)
        table = self._tables[name] = Table(parameters, index_lag_s=self._index_lag_s)
        return {"TableDescription": table.describe()}

    def _described_table(self, parameters: Parameters) -> Table:
        name = parameters["TableName"]
        if name not in self._tables:
            raise Refusal("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")
        return self._tables[name]

    def _describe_table(self, parameters: Parameters) -> Answer:
        return {"Table": self._described_table(parameters).describe()}

    def _list_tables(self, parameters: Parameters) -> Answer:
        start = parameters.get("ExclusiveStartTableName", "")
        limit = parameters.get("Limit", 100)
        names = sorted(name for name in self._tables if name > start)
        if len(names) > limit:
            return {"TableNames": names[:limit], "LastEvaluatedTableName": names[limit - 1]}
        return {"TableNames": names}

    def _delete_table(self, parameters: Parameters) -> Answer:
        table = self._described_table(parameters)
        del self._tables[table.name]
        return {"TableDescription": {**table.describe(), "TableStatus": "DELETING"}}

    def _update_table(self, parameters: Parameters) -> Answer:
        table = self._described_table(parameters)
        table.define(parameters.get("AttributeDefinitions", ()))
        for change in parameters.get("GlobalSecondaryIndexUpdates", ()):
            if "Create" in change:
                table.add_index(change["Create"])
            elif "Delete" in change:
                table.remove_index(change["Delete"]["IndexName"])
        return {"TableDescription": table.describe()}

    def _update_time_to_live(self, parameters: Parameters) -> Answer:
        table = self._described_table(parameters)
        specification = parameters["TimeToLiveSpecification"]
        if specification["Enabled"] == (table.ttl_attribute is not None):
            raise invalid(f"TimeToLive is already {'enabled' if specification['Enabled'] else 'disabled'}")
        table.ttl_attribute = specification["AttributeName"] if specification["Enabled"] else None
        return {"TimeToLiveSpecification": dict(specification)}

    def _describe_time_to_live(self, parameters: Parameters) -> Answer:
        attribute = self._described_table(parameters).ttl_attribute
        if attribute is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": attribute}}

    def _update_continuous_backups(self, parameters: Parameters) -> Answer:
        table = self._described_table(parameters)
        table.recovery = parameters["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        return self._describe_continuous_backups({"TableName": table.name})

    def _describe_continuous_backups(self, parameters: Parameters) -> Answer:
        status = "ENABLED" if self._described_table(parameters).recovery else "DISABLED"
        described = {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
        }
        return {"ContinuousBackupsDescription": described}

    # Single items.

    def _get_item(self, parameters: Parameters) -> Answer:
        item = self._read(parameters)
        return {} if item is None else {"Item": item}

    def _read(self, parameters: Mapping[str, Any]) -> Item | None:
        table = self._table(parameters["TableName"])
        key = table.schema.of_key(normalise_item(parameters["Key"]))
        request = Request(parameters)
        projection = request.projection()
        request.finish()
        item = table.get(key)
        if item is None:
            return None
        return copy_item(item) if projection is None else project(item, projection.tree)

    def _put_item(self, parameters: Parameters) -> Answer:
        return self._write(prepare_put, parameters)

    def _update_item(self, parameters: Parameters) -> Answer:
        return self._write(prepare_update, parameters)

    def _delete_item(self, parameters: Parameters) -> Answer:
        return self._write(prepare_delete, parameters)

    def _write(self, prepare: Callable[[Table, Parameters], Prepared], parameters: Parameters) -> Answer:
        write = prepare(self._table(parameters["TableName"]), parameters)()
        answer = write.answer(parameters.get("ReturnValues", "NONE"))
        write.done(self.clock.monotonic_s())
        return answer

    # Many items.

    def _query(self, parameters: Parameters) -> Answer:
        return reads.query(self._table(parameters["TableName"]), parameters, self._page_bytes)

    def _scan(self, parameters: Parameters) -> Answer:
        return reads.scan(self._table(parameters["TableName"]), parameters, self._page_bytes)

    def _batch_get_item(self, parameters: Parameters) -> Answer:
        asked = [(name, wanted, key) for name, wanted in parameters["RequestItems"].items() for key in wanted["Keys"]]
        _check_number("RequestItems", len(asked), _MAX_BATCH_GET, "Too many items requested for BatchGetItem")
        places = {(name, self._table(name).schema.of_key(normalise_item(key))) for name, _, key in asked}
        if len(places) != len(asked):
            raise invalid("Provided list of item keys contains duplicates")
        responses: dict[str, list[Item]] = {name: [] for name in parameters["RequestItems"]}
        left: dict[str, Any] = {}
        total = 0
        for name, wanted, key in asked:
            item = self._read({**wanted, "TableName": name, "Key": key})
            total += item_size(item or {})
            if total > _MAX_BATCH_GET_BYTES:
                left.setdefault(name, {**wanted, "Keys": []})["Keys"].append(key)
            elif item is not None:
                responses[name].append(item)
        return {"Responses": responses, "UnprocessedKeys": left}

    def _batch_write_item(self, parameters: Parameters) -> Answer:
        asked = [
            (self._table(name), request)
            for name, requests in parameters["RequestItems"].items()
            for request in requests
        ]
        _check_number("RequestItems", len(asked), _MAX_BATCH_WRITE, "Too many items requested for BatchWriteItem")
        writes = [
            (
                prepare_put(table, request["PutRequest"])
                if "PutRequest" in request
                else prepare_delete(table, request["DeleteRequest"])
            )()
            for table, request in asked
        ]
        if len({(write.table.name, write.key) for write in writes}) != len(writes):
            raise invalid("Provided list of item keys contains duplicates")
        for write in writes:
            write.done(self.clock.monotonic_s())
        return {"UnprocessedItems": {}}

    def _transact_get_items(self, parameters: Parameters) -> Answer:
        asked = parameters["TransactItems"]
        _check_number("transactItems", len(asked), _MAX_TRANSACTION)
        items = [self._read(entry["Get"]) for entry in asked]
        return {"Responses": [{} if item is None else {"Item": item} for item in items]}

    def _transact_write_items(self, parameters: Parameters) -> Answer:
        asked = parameters["TransactItems"]
        _check_number("transactItems", len(asked), _MAX_TRANSACTION)
        token = parameters.get("ClientRequestToken")
        now_s = self.clock.monotonic_s()
        if token is not None:
            if not 1 <= len(token) <= _MAX_TOKEN:
                raise invalid(f"Value at 'clientRequestToken' must have length 1 to {_MAX_TOKEN}")
            if self._done_before(token, repr(asked), now_s):
                return {}
        self._check_distinct(asked)
        prepared = [
            PREPARE[kind](self._table(operation["TableName"]), operation)
            for entry in asked
            for kind, operation in entry.items()
        ]
        writes, reasons = _worked_out(prepared)
        if len(writes) < len(asked):
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            raise Refusal("TransactionCanceledException", message, CancellationReasons=reasons)
        if sum(item_size(write.new or {}) for write in writes) > _MAX_TRANSACTION_BYTES:
            raise invalid("Collection size of items in the transaction has exceeded 4 MB")
        for write in writes:
            write.done(now_s)
        if token is not None:
            self._tokens[token] = (now_s, repr(asked))
        return {}

    def _check_distinct(self, asked: list[dict[str, Any]]) -> None:
        keys = set()
        for entry in asked:
            if len(entry) != 1:
                raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
            for operation in entry.values():
                schema = self._table(operation["TableName"]).schema
                given = normalise_item(operation.get("Key") or operation.get("Item") or {})
                keys.add((operation["TableName"], schema.of_item(given)))
        if len(keys) != len(asked):
            raise invalid("Transaction request cannot include multiple operations on one item")

    def _done_before(self, token: str, asked: str, now_s: float) -> bool:
        while self._tokens:  # in the order of their transactions: a look at all of them each time is quadratic
            oldest = next(iter(self._tokens))
            if self._tokens[oldest][0] + _TOKEN_VALID_S >= now_s:
                break
            del self._tokens[oldest]
        if token in self._tokens and self._tokens[token][0] + _TOKEN_VALID_S < now_s:  # the clock was set back between
            del self._tokens[token]
        if token not in self._tokens:
            return False
        if self._tokens[token][1] != asked:
            raise Refusal(
                "IdempotentParameterMismatchException",
                "The request uses the same client token as a previous, but non-identical request.",
            )
        return True


def _worked_out(prepared: Sequence[Prepared]) -> tuple[list[Write], list[dict[str, Any]]]:
    """Return the writes of a transaction that would go through, and for each operation the reason it would not."""
    writes: list[Write] = []
    reasons: list[dict[str, Any]] = []
    for work_out in prepared:
        try:
            writes.append(work_out())
            reasons.append({"Code": "None"})
        except Refusal as refusal:
            code = {"ConditionalCheckFailedException": "ConditionalCheckFailed"}.get(refusal.code, "ValidationError")
            reasons.append({"Code": code, "Message": refusal.message, **refusal.fields})
    return writes, reasons


def _check_number(parameter: str, number: int, limit: int, message: str | None = None) -> None:
    if not 1 <= number <= limit:
        raise invalid(message or f"Value at '{parameter}' must have length 1 to {limit}, not {number}")


@cache
def _operation_model(operation: str) -> OperationModel:
    return botocore.session.get_session().get_service_model("dynamodb").operation_model(operation)


@cache
def _parameter_names(operation: str) -> tuple[frozenset[str], frozenset[str]]:
    shape = _operation_model(operation).input_shape
    if shape is None:
        return frozenset(), frozenset()
    return frozenset(shape.members), frozenset(shape.required_members)


def _check_names(operation: str, parameters: Mapping[str, Any]) -> None:
    """Refuse unknown and missing parameters, as the client does by the service's own description."""
    known, required = _parameter_names(operation)
    for name in parameters:
        if name not in known:
            raise mistyped(f'Unknown parameter in input: "{name}", must be one of: {", ".join(sorted(known))}')
    for name in required:
        if name not in parameters:
            raise mistyped(f'Missing required parameter in input: "{name}"')


class MemoryClient:
    """A low-level client of the double: `await client.put_item(TableName=..., Item=...)` and the like."""

    def __init__(self, database: MemoryDynamoDB) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Answer]]:
        operation = _METHODS.get(name)
        if operation is None:
            raise AttributeError(f"MemoryDynamoDB's client has no {name!r}; it has: {', '.join(sorted(_METHODS))}")

        async def call(**parameters: Any) -> Answer:
            # A request takes its way, and so does the answer: others run in between.
            await self._database.clock.sleep(0)
            answer = self._database.call(operation, parameters)
            await self._database.clock.sleep(0)
            return answer

        call.__name__ = name
        return call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
