"""A request for data to the call of boto's low-level client that means the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from mangacache.local.dax.keys import KeySchema
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits
from mangacache.local.dax.projections import Path

if TYPE_CHECKING:
    from mangacache.local.dax.items import NamesOf
    from mangacache.local.dax.requests import DataRequest

SchemaOf: TypeAlias = Callable[[str], KeySchema]
"""Gives the key schema of a table of `tables_of`; what it raises goes through."""


class Call(msgspec.Struct, frozen=True):
    """A call of boto's low-level client.

    Attributes:
        operation: as DynamoDB has it, `GetItem`.
        parameters: of the call, complete. Placeholders are the server's own: `#n0` and `:v0` of conditions and
            updates, `#p0` of projections.
        projections: the paths of each projection, the ordinals of the reply being their places: by table in
            BatchGetItem, by position in TransactGetItems, else under 0. What is not here is not projected.
    """

    operation: str
    parameters: dict[str, Any]
    projections: dict[str | int, tuple[Path, ...]]

    def whole(self) -> dict[str, Any]:
        """Return the parameters that read whole items: without projections, and what only they need.

        A reply is projected out of the whole item, because DynamoDB's own projection renumbers lists.
        """
        raise NotImplementedError


def call_of(request: DataRequest, schema_of: SchemaOf, names_of: NamesOf, limits: Limits = DEFAULT_LIMITS) -> Call:
    """Return the call that a request means.

    Raises:
        Malformed: its keys, items or expressions are no such.
    """
    raise NotImplementedError
