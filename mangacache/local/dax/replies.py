"""Answers as boto's low-level client has them, to the bytes of a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.local.dax.capacities import (
    encode_capacity,
    encode_capacity_of_transaction,
    encode_metrics,
    encode_metrics_by_table,
)
from mangacache.local.dax.cbor import ARRAY, EMPTY_ARRAY, MAP, NULL, array, blob, head, integer, text
from mangacache.local.dax.items import encode_named, encode_updated, encode_values
from mangacache.local.dax.keys import encode_key
from mangacache.local.dax.projections import project
from mangacache.local.dax.values import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mangacache.local.dax.calls import Call, SchemaOf
    from mangacache.local.dax.items import IdOf
    from mangacache.local.dax.keys import KeySchema
    from mangacache.local.dax.projections import Path

_ITEM: Final = 0
_CAPACITY: Final = 1
_ATTRIBUTES: Final = 2
_METRICS: Final = 3
_ITEMS: Final = 7
_COUNT: Final = 8
_LAST_KEY: Final = 9
_SCANNED: Final = 10
"""The fields of a reply."""
_LEADER: Final = 1
_REPLICA: Final = 2


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A node as a client is told of it.

    Attributes:
        node: its number.
        hostname: its name.
        address: 4 or 16 bytes that the client can reach it by.
        port: of it.
        leader: whether it takes the writes; one of them must.
        zone: it is in.
        leader_session: changes when another node leads.
    """

    node: int
    hostname: str
    address: bytes
    port: int
    leader: bool
    zone: str = "local"
    leader_session: int = 0


def reply_to_call(call: Call, answer: Mapping[str, Any], schema_of: SchemaOf, id_of: IdOf) -> bytes:
    """Return the reply to a request for data.

    Args:
        call: that was made for it.
        answer: to it. Items must be WHOLE where the call has projections with indexes of lists; `UPDATED_OLD` and
            `UPDATED_NEW` are as DynamoDB gives them.
        schema_of: see `calls.call_of`.
        id_of: see `items.IdOf`.

    Raises:
        Invalid: the answer holds what DynamoDB never answers.
    """
    return EMPTY_ARRAY + _BODIES[call.operation](_Writing(call, answer, schema_of, id_of))


class _Writing:
    """A reply while it is written."""

    def __init__(self, call: Call, answer: Mapping[str, Any], schema_of: SchemaOf, id_of: IdOf) -> None:
        self.call = call
        self.answer = answer
        self.schema_of = schema_of
        self.id_of = id_of

    def fields(self, *own: tuple[int, bytes]) -> bytes:
        """Write a map of fields: the operation's own, and those of what it consumed; null where there is none."""
        fields = [integer(number) + value for number, value in own]
        if (capacity := self.answer.get("ConsumedCapacity")) is not None:
            fields.append(integer(_CAPACITY) + encode_capacity(capacity))
        if metrics := self.answer.get("ItemCollectionMetrics"):
            fields.append(integer(_METRICS) + encode_metrics(metrics))
        return head(MAP, len(fields)) + b"".join(fields) if fields else NULL

    def item(self, item: Mapping[str, Any], table: str, place: str | int) -> bytes:
        """Write an item that the caller knows the key of: projected, or its values."""
        paths = self.call.projections.get(place)
        if paths is not None:
            return _projected(item, paths)
        return blob(encode_values(item, self.schema_of(table), self.id_of))

    def keyed(self, item: Mapping[str, Any], table: str) -> bytes:
        """Write an item with its key before it."""
        schema = self.schema_of(table)
        return blob(encode_key(item, schema)) + blob(encode_values(item, schema, self.id_of))

    def capacities(self, encode: Callable[[Mapping[str, Any]], bytes] = encode_capacity) -> bytes:
        """Write what several tables consumed."""
        return array([encode(capacity) for capacity in self.answer.get("ConsumedCapacity") or ()])

    def metrics(self) -> bytes:
        """Write the metrics of several tables."""
        return encode_metrics_by_table(self.answer.get("ItemCollectionMetrics") or {})


def _projected(item: Mapping[str, Any], paths: Sequence[Path]) -> bytes:
    selected = project(item, paths)
    return head(MAP, len(selected)) + b"".join(
        [integer(place) + encode_value(value) for place, value in selected.items()]
    )


def _got(writing: _Writing) -> bytes:
    item = writing.answer.get("Item")
    if item is None:
        return writing.fields()
    return writing.fields((_ITEM, writing.item(item, writing.call.parameters["TableName"], 0)))


def _written(writing: _Writing) -> bytes:
    attributes = writing.answer.get("Attributes")
    if attributes is None:
        return writing.fields()
    updated = writing.call.parameters.get("ReturnValues", "").startswith("UPDATED_")
    encode = encode_updated if updated else encode_values
    schema = writing.schema_of(writing.call.parameters["TableName"])
    return writing.fields((_ATTRIBUTES, blob(encode(attributes, schema, writing.id_of))))


def _found(writing: _Writing) -> bytes:
    answer, table = writing.answer, writing.call.parameters["TableName"]
    fields: list[tuple[int, bytes]] = []
    if "Items" in answer and writing.call.parameters.get("Select") != "COUNT":
        paths = writing.call.projections.get(0)
        if paths is not None:
            items = [_projected(item, paths) for item in answer["Items"]]
        else:
            items = [b"\x82" + writing.keyed(item, table) for item in answer["Items"]]
        fields.append((_ITEMS, array(items)))
    fields.append((_COUNT, integer(answer["Count"])))
    fields.append((_SCANNED, integer(answer["ScannedCount"])))
    last = answer.get("LastEvaluatedKey")
    if last:
        indexed = "IndexName" in writing.call.parameters
        fields.append((_LAST_KEY, blob(encode_named(last) if indexed else encode_key(last, writing.schema_of(table)))))
    return writing.fields(*fields)


def _batch_got(writing: _Writing) -> bytes:
    responses: Mapping[str, Any] = writing.answer.get("Responses") or {}
    unprocessed: Mapping[str, Any] = writing.answer.get("UnprocessedKeys") or {}
    items = [text(table) + _batch_items(writing, table, several) for table, several in responses.items()]
    left = [
        text(table) + array([blob(encode_key(key, writing.schema_of(table))) for key in entry["Keys"]])
        for table, entry in unprocessed.items()
    ]
    maps = [head(MAP, len(pairs)) + b"".join(pairs) for pairs in (items, left)]
    return array(maps) + writing.capacities()


def _batch_items(writing: _Writing, table: str, items: Sequence[Mapping[str, Any]]) -> bytes:
    paths = writing.call.projections.get(table)
    if paths is not None:
        return array([_projected(item, paths) for item in items])
    return head(ARRAY, 2 * len(items)) + b"".join([writing.keyed(item, table) for item in items])


def _batch_written(writing: _Writing) -> bytes:
    unprocessed: Mapping[str, Any] = writing.answer.get("UnprocessedItems") or {}
    left = [
        text(table) + head(ARRAY, 2 * len(requests)) + b"".join([_unwritten(writing, table, one) for one in requests])
        for table, requests in unprocessed.items()
    ]
    return head(MAP, len(left)) + b"".join(left) + writing.capacities() + writing.metrics()


def _unwritten(writing: _Writing, table: str, request: Mapping[str, Any]) -> bytes:
    if "PutRequest" in request:
        return writing.keyed(request["PutRequest"]["Item"], table)
    return blob(encode_key(request["DeleteRequest"]["Key"], writing.schema_of(table))) + NULL


def _transact_got(writing: _Writing) -> bytes:
    tables = [entry["Get"]["TableName"] for entry in writing.call.parameters["TransactItems"]]
    items = [
        NULL if response.get("Item") is None else writing.item(response["Item"], table, place)
        for place, (table, response) in enumerate(zip(tables, writing.answer["Responses"], strict=True))
    ]
    return array([array(items), writing.capacities(encode_capacity_of_transaction)])


def _transact_written(writing: _Writing) -> bytes:
    return array([NULL, writing.capacities(encode_capacity_of_transaction), writing.metrics()])


_BODIES: Final[dict[str, Callable[[_Writing], bytes]]] = {
    "GetItem": _got,
    "PutItem": _written,
    "DeleteItem": _written,
    "UpdateItem": _written,
    "Query": _found,
    "Scan": _found,
    "BatchGetItem": _batch_got,
    "BatchWriteItem": _batch_written,
    "TransactGetItems": _transact_got,
    "TransactWriteItems": _transact_written,
}


def reply_endpoints(endpoints: Iterable[Endpoint]) -> bytes:
    """Return the reply to `Endpoints`."""
    return EMPTY_ARRAY + array([*map(_endpoint, endpoints)])


def _endpoint(endpoint: Endpoint) -> bytes:
    fields = (
        integer(endpoint.node),
        text(endpoint.hostname),
        blob(endpoint.address),
        integer(endpoint.port),
        integer(_LEADER if endpoint.leader else _REPLICA),
        text(endpoint.zone),
        integer(endpoint.leader_session),
    )
    return head(MAP, len(fields)) + b"".join([integer(number) + field for number, field in enumerate(fields)])


def reply_key_schema(schema: KeySchema) -> bytes:
    """Return the reply to `DefineKeySchema`."""
    pairs = [text(attribute.name) + text(attribute.type) for attribute in schema.attributes]
    return EMPTY_ARRAY + head(MAP, len(pairs)) + b"".join(pairs)


def reply_list_id(list_id: int) -> bytes:
    """Return the reply to `DefineAttributeListId`."""
    return EMPTY_ARRAY + integer(list_id)


def reply_list(names: Sequence[str]) -> bytes:
    """Return the reply to `DefineAttributeList`."""
    return EMPTY_ARRAY + array([*map(text, names)])
