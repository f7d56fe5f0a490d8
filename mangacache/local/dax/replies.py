"""Answers as boto's low-level client has them, to the bytes of a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mangacache.local.dax.calls import Call, SchemaOf
    from mangacache.local.dax.items import IdOf
    from mangacache.local.dax.keys import KeySchema


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
        answer: to it. Items must be WHOLE where the call has projections; `UPDATED_OLD` and `UPDATED_NEW` as DynamoDB
            gives them.
        schema_of: see `calls.call_of`.
        id_of: see `items.IdOf`.
    """
    raise NotImplementedError


def reply_endpoints(endpoints: Iterable[Endpoint]) -> bytes:
    """Return the reply to `Endpoints`."""
    raise NotImplementedError


def reply_key_schema(schema: KeySchema) -> bytes:
    """Return the reply to `DefineKeySchema`."""
    raise NotImplementedError


def reply_list_id(list_id: int) -> bytes:
    """Return the reply to `DefineAttributeListId`."""
    raise NotImplementedError


def reply_list(names: Sequence[str]) -> bytes:
    """Return the reply to `DefineAttributeList`."""
    raise NotImplementedError
