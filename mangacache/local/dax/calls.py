"""A request for data to the call of boto's low-level client that means the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from mangacache.local.dax.cursor import Budget, Cursor
from mangacache.local.dax.expressions import Placeholders, condition_text, update_text
from mangacache.local.dax.items import read_named, read_values
from mangacache.local.dax.keys import KeySchema, decode_key
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits, Malformed
from mangacache.local.dax.projections import Path, read_projection
from mangacache.local.dax.requests import (
    BatchGetItem,
    BatchWriteItem,
    DeleteItem,
    GetItem,
    PutItem,
    Query,
    Scan,
    TransactGetItems,
    TransactWriteItems,
    UpdateItem,
)

if TYPE_CHECKING:
    from mangacache.local.dax.items import NamesOf
    from mangacache.local.dax.keys import Item
    from mangacache.local.dax.requests import DataRequest, Options, TransactWrite

SchemaOf: TypeAlias = Callable[[str], KeySchema]
"""Gives the key schema of a table of `tables_of`; what it raises goes through."""
Parameters: TypeAlias = dict[str, Any]
Projections: TypeAlias = dict[str | int, tuple[Path, ...]]

_PLAIN: Final = (
    ("consistent_read", "ConsistentRead", False),
    ("consumed_capacity", "ReturnConsumedCapacity", "NONE"),
    ("collection_metrics", "ReturnItemCollectionMetrics", "NONE"),
    ("return_values", "ReturnValues", "NONE"),
    ("index", "IndexName", None),
    ("limit", "Limit", None),
    ("forward", "ScanIndexForward", True),
    ("select", "Select", None),
    ("segment", "Segment", None),
    ("total_segments", "TotalSegments", None),
    ("token", "ClientRequestToken", None),
)
"""Options that go into the call as they are, but for what DynamoDB takes anyway."""
_PROJECTED: Final = "#p"


class Call(msgspec.Struct, frozen=True):
    """A call of boto's low-level client.

    Attributes:
        operation: as DynamoDB has it, `GetItem`.
        parameters: of the call, complete but for what is as DynamoDB takes it anyway. Placeholders are the server's
            own: `#n0` and `:v0` of conditions and updates, `#p0` of projections.
        projections: the paths of each projection, the ordinals of the reply being their places: by table in
            BatchGetItem, by position in TransactGetItems, else under 0. What is not here is not projected.
    """

    operation: str
    parameters: Parameters
    projections: Projections

    def whole(self) -> Parameters:
        """Return the parameters that read whole items: without projections, and what only they need.

        A reply is projected out of the whole item, because DynamoDB's own projection renumbers lists.
        """
        if not self.projections:
            return self.parameters
        if self.operation == "BatchGetItem":
            tables = self.parameters["RequestItems"]
            return {**self.parameters, "RequestItems": {table: _whole(wanted) for table, wanted in tables.items()}}
        if self.operation == "TransactGetItems":
            gets = self.parameters["TransactItems"]
            return {**self.parameters, "TransactItems": [{"Get": _whole(entry["Get"])} for entry in gets]}
        return _whole(self.parameters)


def _whole(parameters: Parameters) -> Parameters:
    whole = {name: value for name, value in parameters.items() if name != "ProjectionExpression"}
    if whole.get("Select") == "SPECIFIC_ATTRIBUTES":
        del whole["Select"]
    names = whole.pop("ExpressionAttributeNames", {})
    kept = {placeholder: name for placeholder, name in names.items() if not placeholder.startswith(_PROJECTED)}
    if kept:
        whole["ExpressionAttributeNames"] = kept
    return whole


def call_of(request: DataRequest, schema_of: SchemaOf, names_of: NamesOf, limits: Limits = DEFAULT_LIMITS) -> Call:
    """Return the call that a request means.

    Raises:
        Malformed: its keys, items or expressions are no such.
    """
    return _Making(schema_of, names_of, limits).call(request)


class _Expressions:
    """The expressions of one set of placeholders, while parameters are made of them."""

    def __init__(self, limits: Limits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self._used = Placeholders()
        self._projected = Placeholders(_PROJECTED[1:])

    def condition(self, parameters: Parameters, name: str, data: bytes | None) -> None:
        if data is not None:
            parameters[name] = condition_text(data, self._used, self._limits, self._budget)

    def update(self, parameters: Parameters, data: bytes | None) -> None:
        if data is not None:
            parameters["UpdateExpression"] = update_text(data, self._used, self._limits, self._budget)

    def projection(
        self, parameters: Parameters, data: bytes | None, projections: Projections, place: str | int = 0
    ) -> None:
        if data is not None:
            paths = projections[place] = read_projection(Cursor(data, self._limits, self._budget))
            parameters["ProjectionExpression"] = ", ".join(map(self._projected.path, paths))

    def placeholders(self, parameters: Parameters) -> None:
        names = self._used.names | self._projected.names
        if names:
            parameters["ExpressionAttributeNames"] = names
        if self._used.values:
            parameters["ExpressionAttributeValues"] = self._used.values


class _Making:
    """A call while it is made; its parts share one budget of elements."""

    def __init__(self, schema_of: SchemaOf, names_of: NamesOf, limits: Limits) -> None:
        self._schema_of = schema_of
        self._names_of = names_of
        self._limits = limits
        self._budget = Budget(limits)

    def call(self, request: DataRequest) -> Call:
        operation = type(request).__name__
        projections: Projections = {}
        match request:
            case GetItem() | DeleteItem() | UpdateItem():
                parameters: Parameters = {"TableName": request.table, "Key": self._key(request.table, request.key)}
            case PutItem():
                parameters = {
                    "TableName": request.table,
                    "Item": self._item(request.table, request.key, request.values),
                }
            case Query() | Scan():
                parameters = {"TableName": request.table}
            case BatchGetItem():
                parameters = {"RequestItems": self._batch_gets(request, projections)}
            case BatchWriteItem():
                parameters = {"RequestItems": self._batch_writes(request)}
            case TransactGetItems():
                parameters = {"TransactItems": self._transact_gets(request, projections)}
            case TransactWriteItems():
                parameters = {"TransactItems": [self._transact_write(write) for write in request.writes]}
        self._options(parameters, request, projections)
        return Call(operation, parameters, projections)

    def _key(self, table: str, key: bytes) -> Item:
        return decode_key(key, self._schema_of(table), self._limits)

    def _item(self, table: str, key: bytes, values: bytes) -> Item:
        cursor = Cursor(values, self._limits, self._budget)
        return self._key(table, key) | read_values(cursor, self._names_of)

    def _options(self, parameters: Parameters, request: DataRequest, projections: Projections) -> None:
        options = request.options
        for field, name, default in _PLAIN:
            value = getattr(options, field)
            if value is not None and value != default:
                parameters[name] = value
        if options.start_key is not None:
            parameters["ExclusiveStartKey"] = self._start_key(request, options.start_key)
        key_condition = request.key_condition if isinstance(request, Query) else None
        if key_condition is None and not _expressed(options):
            return
        expressions = _Expressions(self._limits, self._budget)
        expressions.condition(parameters, "KeyConditionExpression", key_condition)
        expressions.condition(parameters, "ConditionExpression", options.condition)
        expressions.condition(parameters, "FilterExpression", options.filter)
        expressions.update(parameters, options.update)
        expressions.projection(parameters, options.projection, projections)
        expressions.placeholders(parameters)

    def _start_key(self, request: DataRequest, key: bytes) -> Item:
        if not isinstance(request, Query | Scan):
            raise Malformed("ExclusiveStartKey is an option of Query and Scan only")
        if request.options.index is None:
            return self._key(request.table, key)
        cursor = Cursor(key, self._limits, self._budget)
        item = read_named(cursor)
        cursor.finish("ExclusiveStartKey")
        return item

    def _batch_gets(self, request: BatchGetItem, projections: Projections) -> Parameters:
        tables: Parameters = {}
        for table, wanted in request.tables.items():
            entry: Parameters = {"Keys": [self._key(table, key) for key in wanted.keys]}
            if wanted.consistent_read:
                entry["ConsistentRead"] = True
            expressions = _Expressions(self._limits, self._budget)
            expressions.projection(entry, wanted.projection, projections, table)
            expressions.placeholders(entry)
            tables[table] = entry
        return tables

    def _batch_writes(self, request: BatchWriteItem) -> Parameters:
        return {
            table: [
                {"DeleteRequest": {"Key": self._key(table, key)}}
                if values is None
                else {"PutRequest": {"Item": self._item(table, key, values)}}
                for key, values in writes
            ]
            for table, writes in request.tables.items()
        }

    def _transact_gets(self, request: TransactGetItems, projections: Projections) -> list[Parameters]:
        gets: list[Parameters] = []
        for place, get in enumerate(request.gets):
            entry: Parameters = {"TableName": get.table, "Key": self._key(get.table, get.key)}
            expressions = _Expressions(self._limits, self._budget)
            expressions.projection(entry, get.projection, projections, place)
            expressions.placeholders(entry)
            gets.append({"Get": entry})
        return gets

    def _transact_write(self, write: TransactWrite) -> Parameters:
        entry: Parameters = {"TableName": write.table}
        if write.operation == "Put":
            if write.values is None:
                raise Malformed("a Put of a transaction has no values")
            entry["Item"] = self._item(write.table, write.key, write.values)
        else:
            entry["Key"] = self._key(write.table, write.key)
        expressions = _Expressions(self._limits, self._budget)
        expressions.condition(entry, "ConditionExpression", write.condition)
        expressions.update(entry, write.update)
        expressions.placeholders(entry)
        if write.returns_old:
            entry["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return {write.operation: entry}


def _expressed(options: Options) -> bool:
    return not (options.condition is options.filter is options.update is options.projection is None)
