"""What DAX knows of tables: their keys, and with them whether a request is right in itself."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mangacache.testing.dynamodb import MemoryDynamoDB
from mangacache.testing.dynamodb.table import Key, KeySchema
from mangacache.testing.dynamodb.values import Item, normalise_item

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mangacache.clock import Clock

SCHEMA_VALID_S: Final = 60.0


class ItemKey(NamedTuple):
    """What the item cache knows an item by.

    Its parts are compared as DynamoDB compares them, so that the numbers 1, 1.0 and 1e0 are one key: a cache keyed by
    the spelling would keep an old entry under the other one.
    """

    table: str
    key: Key


class Tables:
    """The key schemas of the tables asked for so far.

    A read that is answered from a cache is never seen by DynamoDB, yet is refused as if it were: it is tried on an
    empty table with the same keys first.

    Args:
        clock: what time is read from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._empty = MemoryDynamoDB(clock=clock)
        self._schemas: dict[str, KeySchema] = {}
        self._learnt_s: dict[str, float] = {}

    def unknown(self, names: Iterable[object]) -> list[str]:
        """Return which tables' keys have to be asked for: not known, or from a minute ago."""
        oldest_s = self._clock.monotonic_s() - SCHEMA_VALID_S
        return [name for name in names if isinstance(name, str) and self._learnt_s.get(name, -inf) <= oldest_s]

    def learn(self, described: Mapping[str, Any]) -> None:
        """Take in what DescribeTable says of a table."""
        name = described["TableName"]
        types = {entry["AttributeName"]: entry["AttributeType"] for entry in described["AttributeDefinitions"]}
        schema = KeySchema(described["KeySchema"], types)
        self._learnt_s[name] = self._clock.monotonic_s()
        known = self._schemas.get(name)
        if known is not None and (known.names, known.types) == (schema.names, schema.types):
            return
        if known is not None:
            self._empty.call("DeleteTable", {"TableName": name})
        self._schemas[name] = schema
        definitions = [{"AttributeName": key, "AttributeType": types[key]} for key in schema.names]
        self._empty.call(
            "CreateTable",
            {"TableName": name, "KeySchema": described["KeySchema"], "AttributeDefinitions": definitions},
        )

    def check(self, operation: str, parameters: dict[str, Any]) -> None:
        """Refuse a read that DynamoDB would refuse.

        Raises:
            ClientError: by the service.
            ParamValidationError: by the client.
            NotImplementedError: `MemoryDynamoDB` does not model it.
        """
        self._empty.call(
            operation, {name: value for name, value in parameters.items() if name != "ReturnConsumedCapacity"}
        )

    def key_types(self, table: str) -> Mapping[str, str] | None:
        """Return the key attributes of a table and their types, hash first; None where it is not known."""
        schema = self._schemas.get(table)
        return None if schema is None else schema.types

    def key_attributes(self, table: str, attributes: Mapping[str, Any]) -> Item:
        """Return the key attributes of a key or a whole item, spelled as they are there."""
        return {name: dict(attributes[name]) for name in self._schemas[table].names}

    def key_of(self, table: str, attributes: Mapping[str, Any]) -> ItemKey:
        """Return the key of a key or a whole item that has been checked."""
        key = self.key_attributes(table, attributes)
        return ItemKey(table, self._schemas[table].of_key(normalise_item(key)))
