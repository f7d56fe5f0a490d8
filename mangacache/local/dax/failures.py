"""Refusals, to the bytes of a reply: DAX's own path of codes, from which clients make their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mangacache.local.dax.calls import Call, SchemaOf
    from mangacache.local.dax.items import IdOf


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal.

    Attributes:
        codes: DAX's path; its first number says whether it may be tried again.
        message: for people.
        code: DynamoDB's, as text, for what has no path of its own.
        status: of HTTP, as DynamoDB would give.
        request_id: where there is one.
        reasons: of a cancelled transaction: code, message and the item as values bytes of each operation.
    """

    codes: tuple[int, ...]
    message: str
    code: str | None = None
    status: int | None = None
    request_id: str | None = None
    reasons: tuple[tuple[str | None, str | None, bytes | None], ...] | None = None


def failure_of(
    code: str,
    message: str,
    *,
    status: int = 400,
    request_id: str | None = None,
    reasons: Sequence[tuple[str | None, str | None, bytes | None]] | None = None,
) -> Failure:
    """Return the refusal that DynamoDB's error code stands for."""
    raise NotImplementedError


def failure_of_response(response: Mapping[str, Any], call: Call, schema_of: SchemaOf, id_of: IdOf) -> Failure:
    """Return the refusal that botocore raised as a ClientError, of which `response` is the attribute.

    Args:
        response: with `Error`, and `CancellationReasons` of a cancelled transaction.
        call: that was refused: the tables of a transaction's items.
        schema_of: see `calls.call_of`.
        id_of: see `items.IdOf`.
    """
    raise NotImplementedError


def unreachable(message: str) -> Failure:
    """Return the refusal of a server that has no answer from DynamoDB: a write may or may not be done."""
    raise NotImplementedError


def unauthorized(message: str) -> Failure:
    """Return the refusal of a wrong or missing signature."""
    raise NotImplementedError


def reply_failure(failure: Failure) -> bytes:
    """Return a refusal as it is sent."""
    raise NotImplementedError
