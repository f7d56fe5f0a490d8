"""The requests as they are on the wire: keys, items and expressions are still bytes."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The options of a request, each None where it was not given; expressions and keys as bytes."""

    projection: bytes | None = None
    consistent_read: bool | None = None
    consumed_capacity: Literal["NONE", "TOTAL", "INDEXES"] | None = None
    condition: bytes | None = None
    collection_metrics: Literal["NONE", "SIZE"] | None = None
    return_values: Literal["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"] | None = None
    update: bytes | None = None
    start_key: bytes | None = None
    filter: bytes | None = None
    index: str | None = None
    limit: int | None = None
    forward: bool | None = None
    select: Literal["ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "COUNT", "SPECIFIC_ATTRIBUTES"] | None = None
    segment: int | None = None
    total_segments: int | None = None
    token: str | None = None


NO_OPTIONS: Final = Options()


class AuthorizeConnection(msgspec.Struct, frozen=True):
    """Who asks; there is no reply to it, a refusal is the reply to the request that follows."""

    access_key: str
    signature: str
    string_to_sign: bytes
    session_token: str | None
    user_agent: str | None


class Endpoints(msgspec.Struct, frozen=True):
    """Which nodes there are."""


class DefineKeySchema(msgspec.Struct, frozen=True):
    """What the keys of a table are."""

    table: str


class DefineAttributeListId(msgspec.Struct, frozen=True):
    """Which id a list of attribute names has."""

    names: tuple[str, ...]


class DefineAttributeList(msgspec.Struct, frozen=True):
    """Which attribute names a list's id stands for."""

    id: int


class GetItem(msgspec.Struct, frozen=True):
    """GetItem."""

    table: str
    key: bytes
    options: Options


class PutItem(msgspec.Struct, frozen=True):
    """PutItem."""

    table: str
    key: bytes
    values: bytes
    options: Options


class DeleteItem(msgspec.Struct, frozen=True):
    """DeleteItem."""

    table: str
    key: bytes
    options: Options


class UpdateItem(msgspec.Struct, frozen=True):
    """UpdateItem."""

    table: str
    key: bytes
    options: Options


class Query(msgspec.Struct, frozen=True):
    """Query."""

    table: str
    key_condition: bytes | None
    options: Options


class Scan(msgspec.Struct, frozen=True):
    """Scan."""

    table: str
    options: Options


class TableGets(msgspec.Struct, frozen=True):
    """What BatchGetItem wants of one table."""

    consistent_read: bool
    projection: bytes | None
    keys: tuple[bytes, ...]


class BatchGetItem(msgspec.Struct, frozen=True):
    """BatchGetItem."""

    tables: dict[str, TableGets]
    options: Options


class BatchWriteItem(msgspec.Struct, frozen=True):
    """BatchWriteItem: keys with their values, None to delete."""

    tables: dict[str, tuple[tuple[bytes, bytes | None], ...]]
    options: Options


class TransactGet(msgspec.Struct, frozen=True):
    """One of the reads of a transaction."""

    table: str
    key: bytes
    projection: bytes | None


class TransactGetItems(msgspec.Struct, frozen=True):
    """TransactGetItems."""

    gets: tuple[TransactGet, ...]
    options: Options


class TransactWrite(msgspec.Struct, frozen=True):
    """One of the writes of a transaction."""

    operation: Literal["Put", "Delete", "Update", "ConditionCheck"]
    table: str
    key: bytes
    values: bytes | None
    returns_old: bool
    condition: bytes | None
    update: bytes | None


class TransactWriteItems(msgspec.Struct, frozen=True):
    """TransactWriteItems."""

    writes: tuple[TransactWrite, ...]
    options: Options


DataRequest: TypeAlias = (
    GetItem
    | PutItem
    | DeleteItem
    | UpdateItem
    | Query
    | Scan
    | BatchGetItem
    | BatchWriteItem
    | TransactGetItems
    | TransactWriteItems
)
"""A request for data: `calls.call_of` makes a call of boto's out of it."""
Request: TypeAlias = (
    AuthorizeConnection | Endpoints | DefineKeySchema | DefineAttributeListId | DefineAttributeList | DataRequest
)


def tables_of(request: DataRequest) -> tuple[str, ...]:
    """Return the tables whose key schemas must be known before the request can be understood."""
    if isinstance(request, BatchGetItem | BatchWriteItem):
        return tuple(request.tables)
    if isinstance(request, TransactGetItems):
        return tuple(dict.fromkeys(get.table for get in request.gets))
    if isinstance(request, TransactWriteItems):
        return tuple(dict.fromkeys(write.table for write in request.writes))
    return (request.table,)
