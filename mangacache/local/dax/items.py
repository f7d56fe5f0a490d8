"""Items without their names: the id of a list of attribute names, then the values in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.local.dax.keys import Item, KeySchema

NamesOf: TypeAlias = Callable[[int], Sequence[str]]
"""Gives the names of a list's id; what it raises for an id nobody gave out goes through to the caller."""
IdOf: TypeAlias = Callable[[tuple[str, ...]], int]
"""Gives the id of a list of names, sorted by code point, never empty (the empty list is 1 for ever)."""


def decode_values(data: bytes, names_of: NamesOf, limits: Limits = DEFAULT_LIMITS) -> Item:
    """Return the attributes, without the key's, that `data` holds.

    Raises:
        Malformed: it is no such item, or has another number of values than the list has names.
    """
    raise NotImplementedError


def encode_values(item: Mapping[str, Mapping[str, Any]], schema: KeySchema, id_of: IdOf) -> bytes:
    """Return the attributes of an item without its key's."""
    raise NotImplementedError
