"""A table and its indexes: items by key, in order, and the limits on them."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mangacache.testing.dynamodb.errors import Refusal, invalid, invalid_values, unsupported
from mangacache.testing.dynamodb.values import MAX_ITEM_BYTES, ORDERED_TYPES, Item, Scalar, item_size, scalar, type_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Key: TypeAlias = tuple[Scalar, ...]
"""The values of a table's keys, partition key first."""
Place: TypeAlias = tuple[Scalar, ...]
"""Where an item stands in its partition: the sort key; in an index the table's key after it, to tell equals apart."""

_MAX_HASH_BYTES: Final = 2048
_MOST_UTF8_BYTES: Final = 4
_MAX_RANGE_BYTES: Final = 1024


class KeySchema:
    """The key attributes of a table or index and their types."""

    def __init__(self, elements: Sequence[Mapping[str, str]], types: Mapping[str, str]) -> None:
        by_kind = {element["KeyType"]: element["AttributeName"] for element in elements}
        if len(by_kind) != len(elements) or "HASH" not in by_kind:
            raise invalid("Invalid KeySchema: a HASH key and at most one RANGE key are needed")
        self.names: tuple[str, ...] = tuple(by_kind[kind] for kind in ("HASH", "RANGE") if kind in by_kind)
        missing = [name for name in self.names if name not in types]
        if missing:
            raise invalid_values(
                "Some index key attributes are not defined in AttributeDefinitions. "
                f"Keys: [{', '.join(missing)}], AttributeDefinitions: [{', '.join(types)}]"
            )
        self.types: dict[str, str] = {name: types[name] for name in self.names}

    def of_item(self, item: Item) -> Key:
        """Return the key of a whole item."""
        for name in self.names:
            if name not in item:
                raise invalid_values(f"Missing the key {name} in the item")
            if type_of(item[name]) != self.types[name]:
                raise invalid_values(
                    f"Type mismatch for key {name} expected: {self.types[name]} actual: {type_of(item[name])}"
                )
        return self._checked(item)

    def of_key(self, key: Item) -> Key:
        """Return the key given as `Key` in a request."""
        if set(key) != set(self.names) or any(type_of(key[name]) != self.types[name] for name in self.names):
            raise invalid("The provided key element does not match the schema")
        return self._checked(key)

    def _checked(self, item: Item) -> Key:
        key = tuple(scalar(item[name]) for name in self.names)
        for name, value, limit, kind in zip(
            self.names, key, (_MAX_HASH_BYTES, _MAX_RANGE_BYTES), ("hash", "range"), strict=False
        ):
            if type(value) is str and 0 < len(value) <= limit // _MOST_UTF8_BYTES:
                continue
            size = len(value.encode() if isinstance(value, str) else value) if isinstance(value, (str, bytes)) else 1
            if not size:
                what = "string" if isinstance(value, str) else "binary"
                raise invalid(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot "
                    f"contain an empty {what} value. Key: {name}"
                )
            if size > limit:
                longest = "2048 bytes" if kind == "hash" else "1024 bytes"
                raise invalid_values(f"Size of {kind}key has exceeded the maximum size limit of{longest}")
        return key


class Partitions:
    """Items grouped by partition key and ordered by their place in it."""

    def __init__(self) -> None:
        self._places: dict[Scalar, list[Place]] = {}
        self._items: dict[tuple[Scalar, Place], tuple[Item, int]] = {}
        self._scan_order: list[Scalar] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def get(self, partition: Scalar, place: Place) -> Item | None:
        """Return an item, or None."""
        found = self._items.get((partition, place))
        return found[0] if found is not None else None

    def put(self, partition: Scalar, place: Place, item: Item) -> None:
        """Add or replace an item."""
        if (partition, place) not in self._items:
            if partition not in self._places:
                self._places[partition] = []
                self._scan_order = None
            insort(self._places[partition], place)
        self._items[partition, place] = item, item_size(item)

    def remove(self, partition: Scalar, place: Place) -> None:
        """Forget an item, if it is there."""
        if self._items.pop((partition, place), None) is None:
            return
        places = self._places[partition]
        del places[bisect_left(places, place)]
        if not places:
            del self._places[partition]
            self._scan_order = None

    def walk(
        self, partition: Scalar, *, after: Place | None = None, backwards: bool = False
    ) -> Iterator[tuple[Place, Item, int]]:
        """Yield a partition's items in order with their sizes, behind the place `after` where it is given."""
        places = self._places.get(partition, [])
        if backwards:
            end = len(places) if after is None else bisect_left(places, after)
            chosen = places[:end][::-1]
        else:
            chosen = places[0 if after is None else bisect_right(places, after) :]
        for place in chosen:
            yield place, *self._items[partition, place]

    def scan(self, after: tuple[Scalar, Place] | None = None) -> Iterator[tuple[Place, Item, int]]:
        """Yield all items, partitions in an order of no meaning that stays the same, as a hash's does."""
        if self._scan_order is None:
            self._scan_order = sorted(self._places, key=_scattered)
        start = 0
        if after is not None:
            start = bisect_left(self._scan_order, _scattered(after[0]), key=_scattered)
        for partition in self._scan_order[start:]:
            inside = after[1] if after is not None and partition == after[0] else None
            yield from self.walk(partition, after=inside)


def _scattered(partition: Scalar) -> bytes:
    return hashlib.blake2b(repr(partition).encode(), digest_size=16).digest()


@dataclass(slots=True)
class Index:
    """A global secondary index: a projected copy of the items that have its keys."""

    name: str
    schema: KeySchema
    projection: Mapping[str, Any]
    entries: Partitions = field(default_factory=Partitions)

    def projected(self, item: Item, table_keys: tuple[str, ...]) -> Item:
        """Return what of `item` the index holds."""
        kind = self.projection.get("ProjectionType")
        if kind == "ALL":
            return item
        names = {*table_keys, *self.schema.names}
        if kind == "INCLUDE":
            names.update(self.projection.get("NonKeyAttributes", ()))
        return {name: value for name, value in item.items() if name in names}

    def place(self, item: Item, key: Key) -> tuple[Scalar, Place] | None:
        """Return where the index holds `item`, or None where it lacks one of the index's keys."""
        if any(name not in item for name in self.schema.names):
            return None
        partition, *rest = (scalar(item[name]) for name in self.schema.names)
        return partition, (*rest, *key)


class Table:
    """One table: its description, items and indexes.

    Args:
        parameters: of CreateTable.
        index_lag_s: how long a write takes to reach the indexes.
    """

    def __init__(self, parameters: Mapping[str, Any], *, index_lag_s: float) -> None:
        if parameters.get("LocalSecondaryIndexes"):
            raise unsupported("local secondary indexes")
        self.name: str = parameters["TableName"]
        self.definitions: list[dict[str, str]] = [dict(entry) for entry in parameters["AttributeDefinitions"]]
        self.key_schema: list[dict[str, str]] = [dict(element) for element in parameters["KeySchema"]]
        self.schema = KeySchema(self.key_schema, self._types())
        self.items = Partitions()
        self.indexes: dict[str, Index] = {}
        self.ttl_attribute: str | None = None
        self.recovery = False
        self._lag_s = index_lag_s
        self._pending: deque[tuple[float, Index, Key, Item | None, Item | None]] = deque()
        for definition in parameters.get("GlobalSecondaryIndexes", ()):
            self.add_index(definition)
        used = {*self.schema.names, *(name for index in self.indexes.values() for name in index.schema.names)}
        if used != {entry["AttributeName"] for entry in self.definitions}:
            raise invalid_values(
                "Number of attributes in KeySchema does not exactly match number of attributes defined in "
                "AttributeDefinitions"
            )

    def _types(self) -> dict[str, str]:
        return {entry["AttributeName"]: entry["AttributeType"] for entry in self.definitions}

    def define(self, definitions: Sequence[Mapping[str, str]]) -> None:
        """Take in the attribute definitions of UpdateTable."""
        known = self._types()
        self.definitions += [dict(entry) for entry in definitions if entry["AttributeName"] not in known]

    def add_index(self, definition: Mapping[str, Any]) -> None:
        """Make an index and fill it."""
        if definition["IndexName"] in self.indexes:
            raise invalid(f"Attempting to create an index which already exists: {definition['IndexName']}")
        index = Index(
            definition["IndexName"],
            KeySchema(definition["KeySchema"], self._types()),
            dict(definition.get("Projection", {})),
        )
        self.indexes[index.name] = index
        for _, item, _ in self.items.scan():
            self._reindex(index, self.schema.of_item(item), None, item)

    def remove_index(self, name: str) -> None:
        """Drop an index."""
        if name not in self.indexes:
            raise invalid(f"Requested resource not found: Index: {name} not found")
        del self.indexes[name]
        used = {*self.schema.names, *(key for index in self.indexes.values() for key in index.schema.names)}
        self.definitions = [entry for entry in self.definitions if entry["AttributeName"] in used]

    def describe(self) -> dict[str, Any]:
        """Return the table as DescribeTable tells it."""
        described: dict[str, Any] = {
            "TableName": self.name,
            "TableArn": f"arn:aws:dynamodb:us-east-1:000000000000:table/{self.name}",
            "TableStatus": "ACTIVE",
            "KeySchema": [dict(element) for element in self.key_schema],
            "AttributeDefinitions": [dict(entry) for entry in self.definitions],
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "ItemCount": len(self.items),
        }
        if self.indexes:
            described["GlobalSecondaryIndexes"] = [
                {
                    "IndexName": index.name,
                    "IndexStatus": "ACTIVE",
                    "KeySchema": [
                        {"AttributeName": name, "KeyType": kind}
                        for name, kind in zip(index.schema.names, ("HASH", "RANGE"), strict=False)
                    ],
                    "Projection": dict(index.projection),
                    "ItemCount": len(index.entries),
                }
                for index in self.indexes.values()
            ]
        return described

    def get(self, key: Key) -> Item | None:
        """Return the item of a key, or None."""
        return self.items.get(key[0], key[1:])

    def check(self, item: Item) -> Key:
        """Return the key of an item that is to be written.

        Raises:
            Refusal: keys missing, of the wrong type, empty or too long; or the item is over 400 KB.
        """
        key = self.schema.of_item(item)
        for index in self.indexes.values():
            self._check_index_keys(index, item)
        if item_size(item) > MAX_ITEM_BYTES:
            raise invalid("Item size has exceeded the maximum allowed size")
        return key

    @staticmethod
    def _check_index_keys(index: Index, item: Item) -> None:
        for name, wanted in index.schema.types.items():
            if name not in item:
                continue
            found = type_of(item[name])
            if found != wanted:
                raise invalid_values(
                    f"Type mismatch for Index Key {name} Expected: {wanted} Actual: {found} IndexName: {index.name}"
                )
            if found in ORDERED_TYPES and not item[name][found]:
                raise invalid(
                    "One or more parameter values are not valid. A value specified for a secondary index key is not "
                    "supported. The AttributeValue for a key attribute cannot contain an empty string value. "
                    f"IndexName: {index.name}, IndexKey: {name}"
                )

    def write(self, key: Key, item: Item | None, now_s: float) -> None:
        """Put the item of a key, or delete it with `None`; the indexes follow after their lag."""
        old = self.get(key)
        if item is None:
            self.items.remove(key[0], key[1:])
        else:
            self.items.put(key[0], key[1:], item)
        for index in self.indexes.values():
            self._pending.append((now_s + self._lag_s, index, key, old, item))
        self.settle(now_s)

    def settle(self, now_s: float) -> None:
        """Let the indexes take in what is due at `now_s`."""
        while self._pending and self._pending[0][0] <= now_s:
            _, index, key, old, new = self._pending.popleft()
            self._reindex(index, key, old, new)

    def _reindex(self, index: Index, key: Key, old: Item | None, new: Item | None) -> None:
        before = index.place(old, key) if old is not None else None
        after = index.place(new, key) if new is not None else None
        if before is not None and before != after:
            index.entries.remove(*before)
        if after is not None and new is not None:
            index.entries.put(*after, index.projected(new, self.schema.names))

    def index(self, name: str) -> Index:
        """Return an index by its name."""
        if name not in self.indexes:
            raise invalid(f"The table does not have the specified index: {name}")
        return self.indexes[name]


def in_use(name: str) -> Refusal:
    """Return the refusal of a second table of the same name."""
    return Refusal("ResourceInUseException", f"Table already exists: {name}")
