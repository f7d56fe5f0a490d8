"""Keys as bytes, by the key schema of their table.

A hash key alone is its bytes, a number as CBOR. Before a range key the hash key is CBOR, and the range key its bytes up
to the end, a number in the form that sorts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

import msgspec

from mangacache.errors import Invalid
from mangacache.local.dax.cbor import blob, text
from mangacache.local.dax.cursor import Cursor, decoded
from mangacache.local.dax.decimals import (
    canonical,
    decode_sortable,
    encode_canonical,
    encode_sortable,
    number_of,
    read_number,
)
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

KeyType: TypeAlias = Literal["S", "N", "B"]
Item: TypeAlias = dict[str, dict[str, Any]]
"""Attributes by name, each typed as boto's low-level client has it: `{"S": "text"}`."""


class KeyAttribute(msgspec.Struct, frozen=True):
    """An attribute of a key: its name and its type."""

    name: str
    type: KeyType


class KeySchema(msgspec.Struct, frozen=True):
    """The keys of a table: the hash key, and the range key where there is one."""

    attributes: tuple[KeyAttribute, ...]

    @classmethod
    def of_table(cls, description: Mapping[str, Any]) -> Self:
        """Return the schema that `DescribeTable` gives under `Table`."""
        types = {entry["AttributeName"]: entry["AttributeType"] for entry in description["AttributeDefinitions"]}
        keys = {entry["KeyType"]: entry["AttributeName"] for entry in description["KeySchema"]}
        return cls(tuple(KeyAttribute(keys[kind], types[keys[kind]]) for kind in ("HASH", "RANGE") if kind in keys))

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes' names, hash first."""
        return tuple([attribute.name for attribute in self.attributes])


def decode_key(data: bytes, schema: KeySchema, limits: Limits = DEFAULT_LIMITS) -> Item:
    """Return the key attributes that `data` holds, numbers spelled as they came.

    Raises:
        Malformed: it is no key of such a table.
    """
    first = schema.attributes[0]
    if len(schema.attributes) == 1:
        return {first.name: {first.type: _decode_alone(data, first.type, limits)}}
    second = schema.attributes[1]
    cursor = Cursor(data, limits)
    leading: str | bytes
    if first.type == "S":
        leading = cursor.text()
    elif first.type == "B":
        leading = cursor.blob()
    else:
        leading = read_number(cursor)
    rest = data[cursor.position :]
    trailing = str(decode_sortable(rest, limits.number_bytes)) if second.type == "N" else _octets(rest, second.type)
    return {first.name: {first.type: leading}, second.name: {second.type: trailing}}


def _decode_alone(data: bytes, kind: KeyType, limits: Limits) -> str | bytes:
    if kind != "N":
        return _octets(data, kind)
    cursor = Cursor(data, limits)
    number = read_number(cursor)
    cursor.finish("a hash key")
    return number


def _octets(data: bytes, kind: KeyType) -> str | bytes:
    return decoded(data) if kind == "S" else data


def encode_key(item: Mapping[str, Mapping[str, Any]], schema: KeySchema) -> bytes:
    """Return the key of an item, or of a key, as bytes; equal keys give equal bytes, however their numbers are spelled.

    So they may be a cache's key.

    Raises:
        Invalid: a key attribute is missing, or of another type.
    """
    first = schema.attributes[0]
    leading = _value_of(item, first)
    if len(schema.attributes) == 1:
        return encode_canonical(cast("str", leading)) if first.type == "N" else _raw(leading)
    second = schema.attributes[1]
    trailing = _value_of(item, second)
    end = encode_sortable(canonical(number_of(cast("str", trailing)))) if second.type == "N" else _raw(trailing)
    if first.type == "N":
        return encode_canonical(cast("str", leading)) + end
    return (text(leading) if isinstance(leading, str) else blob(leading)) + end


def _value_of(item: Mapping[str, Mapping[str, Any]], attribute: KeyAttribute) -> str | bytes:
    """Return the value of a key attribute, of its type."""
    value = item.get(attribute.name, {}).get(attribute.type)
    if attribute.type == "B" and isinstance(value, bytes | bytearray):
        return bytes(value)
    if attribute.type == "B" or not isinstance(value, str):
        raise Invalid(f"the key attribute {attribute.name!r} is missing or not of the type {attribute.type}")
    return value


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
