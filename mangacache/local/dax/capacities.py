"""What a request consumed and how large item collections are, as replies tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.local.dax.cbor import MAP, NULL, array, blob, double, head, integer, text
from mangacache.local.dax.values import encode_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FIELDS: Final = {
    "CapacityUnits": 1,
    "ReadCapacityUnits": 2,
    "WriteCapacityUnits": 3,
    "TableName": 4,
    "Table": 5,
    "GlobalSecondaryIndexes": 6,
    "LocalSecondaryIndexes": 7,
}
_INDEXES: Final = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")


def encode_capacity(capacity: Mapping[str, Any]) -> bytes:
    """Return a ConsumedCapacity as all but transactions have it: a byte string of items one after another."""
    table: Mapping[str, Any] | None = capacity.get("Table")
    parts = [
        text(capacity.get("TableName", "")),
        double(float(capacity.get("CapacityUnits", 0))),
        NULL if table is None else double(float(table["CapacityUnits"])),
        *[_units_of(capacity.get(indexes)) for indexes in _INDEXES],
    ]
    return blob(b"".join(parts))


def _units_of(indexes: Mapping[str, Any] | None) -> bytes:
    if indexes is None:
        return NULL
    return _map([(text(name), double(float(index["CapacityUnits"]))) for name, index in indexes.items()])


def encode_capacity_of_transaction(capacity: Mapping[str, Any]) -> bytes:
    """Return a ConsumedCapacity as transactions have it: a map of numbered fields."""
    return _map([(integer(_FIELDS[name]), _field(name, value)) for name, value in capacity.items() if name in _FIELDS])


def _field(name: str, value: Any) -> bytes:
    if name == "TableName":
        return text(value)
    if name == "Table":
        return encode_capacity_of_transaction(value)
    if name in _INDEXES:
        return _map([(text(index), encode_capacity_of_transaction(consumed)) for index, consumed in value.items()])
    return double(float(value))


def encode_metrics(metrics: Mapping[str, Any]) -> bytes:
    """Return an ItemCollectionMetrics: a byte string of the hash key's value and the bounds of the size."""
    key: Mapping[str, Any] = metrics["ItemCollectionKey"]
    (value,) = key.values()
    lower, upper = metrics["SizeEstimateRangeGB"]
    return blob(encode_value(value) + double(float(lower)) + double(float(upper)))


def encode_metrics_by_table(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Return the ItemCollectionMetrics of several tables."""
    return _map([(text(table), array([*map(encode_metrics, several)])) for table, several in metrics.items()])


def _map(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return head(MAP, len(pairs)) + b"".join([name + value for name, value in pairs])
