"""Items without their names: the id of a list of attribute names, then the values in its order.

A key's attributes are not among them: they travel as the key, or the client puts in those it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mangacache.local.dax.cbor import MAP, head, integer, text
from mangacache.local.dax.cursor import Cursor
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits, Malformed
from mangacache.local.dax.values import encode_value, read_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.local.dax.keys import Item, KeySchema

NamesOf: TypeAlias = Callable[[int], Sequence[str]]
"""Gives the names of a list's id; what it raises for an id nobody gave out goes through to the caller."""
IdOf: TypeAlias = Callable[[tuple[str, ...]], int]
"""Gives the id of a list of names, sorted by code point, never empty (the empty list is 1 for ever)."""

EMPTY_LIST: Final = 1
"""The id of the list of no names, which no client ever asks for."""


def decode_values(data: bytes, names_of: NamesOf, limits: Limits = DEFAULT_LIMITS) -> Item:
    """Return the attributes, without the key's, that `data` holds.

    Raises:
        Malformed: it is no such item, or has another number of values than the list has names.
    """
    return read_values(Cursor(data, limits), names_of)


def read_values(cursor: Cursor, names_of: NamesOf) -> Item:
    """Do as `decode_values`, from a cursor on the bytes."""
    list_id = cursor.integer()
    names = names_of(list_id) if list_id != EMPTY_LIST else ()
    item: Item = {}
    for name in names:
        if cursor.ended:
            raise Malformed(f"an item has {len(item)} values for the {len(names)} names of list {list_id}")
        item[name] = read_value(cursor)
    cursor.finish(f"the {len(names)} values of an item of list {list_id}")
    return item


def encode_values(item: Mapping[str, Mapping[str, Any]], schema: KeySchema, id_of: IdOf) -> bytes:
    """Return the attributes of an item without its key's.

    Raises:
        Invalid: a value is none of DynamoDB's.
    """
    names = _names(item, schema)
    return _id(names, id_of) + b"".join([encode_value(item[name]) for name in names])


def encode_updated(item: Mapping[str, Mapping[str, Any]], schema: KeySchema, id_of: IdOf) -> bytes:
    """Return what an update changed: a list's id, then a map from places in the list to values.

    Raises:
        Invalid: a value is none of DynamoDB's.
    """
    names = _names(item, schema)
    members = [integer(place) + encode_value(item[name]) for place, name in enumerate(names)]
    return _id(names, id_of) + head(MAP, len(names)) + b"".join(members)


def _names(item: Mapping[str, Any], schema: KeySchema) -> tuple[str, ...]:
    keys = schema.names
    return tuple(sorted([name for name in item if name not in keys]))


def _id(names: tuple[str, ...], id_of: IdOf) -> bytes:
    return integer(id_of(names) if names else EMPTY_LIST)


def read_named(cursor: Cursor) -> Item:
    """Read a map from names to values, which an index's keys are, where a page of it ended.

    Raises:
        Malformed: it is none.
    """
    item: Item = {}
    for _ in cursor.pairs():
        name = cursor.text()
        item[name] = read_value(cursor)
    return item


def encode_named(item: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return a map from names to values.

    Raises:
        Invalid: a value is none of DynamoDB's.
    """
    return head(MAP, len(item)) + b"".join([text(name) + encode_value(value) for name, value in item.items()])
