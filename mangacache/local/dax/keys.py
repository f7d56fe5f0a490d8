"""Keys as bytes, by the key schema of their table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import msgspec

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
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes' names, hash first."""
        raise NotImplementedError


def decode_key(data: bytes, schema: KeySchema, limits: Limits = DEFAULT_LIMITS) -> Item:
    """Return the key attributes that `data` holds, numbers spelled as they came.

    Raises:
        Malformed: it is no key of such a table.
    """
    raise NotImplementedError


def encode_key(item: Mapping[str, Mapping[str, Any]], schema: KeySchema) -> bytes:
    """Return the key of an item, or of a key, as bytes; equal keys give equal bytes, however their numbers are spelled.

    So they may be a cache's key.

    Raises:
        Invalid: a key attribute is missing, or of another type.
    """
    raise NotImplementedError
