"""Refusals, to the bytes of a reply: the path of codes, the message, and what DynamoDB said beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.local.dax.cbor import NULL, array, blob, integer, text
from mangacache.local.dax.items import encode_values
from mangacache.testing.dax.codes import UNAUTHORIZED, UNREACHABLE, codes_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mangacache.local.dax.calls import Call, SchemaOf
    from mangacache.local.dax.items import IdOf

_BAD_REQUEST: Final = 400
_UNAUTHORIZED_STATUS: Final = 401
_SERVER_ERROR: Final = 500

Reason = tuple[str | None, str | None, bytes | None]
"""Why an operation of a transaction was cancelled: code, message, and the item's values as bytes."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal.

    Attributes:
        codes: DAX's path; its first number says whether it may be tried again.
        message: for people.
        code: DynamoDB's, as text, for what has no path of its own.
        status: of HTTP, as DynamoDB would give.
        request_id: where there is one.
        reasons: of a cancelled transaction, one for each operation.
    """

    codes: tuple[int, ...]
    message: str
    code: str | None = None
    status: int | None = None
    request_id: str | None = None
    reasons: tuple[Reason, ...] | None = None


def failure_of(
    code: str,
    message: str,
    *,
    status: int = _BAD_REQUEST,
    request_id: str | None = None,
    reasons: Sequence[Reason] | None = None,
) -> Failure:
    """Return the refusal that DynamoDB's error code stands for."""
    code = name_of(code)
    return Failure(
        codes=codes_of(code),
        message=message,
        code=code,
        status=status,
        request_id=request_id,
        reasons=None if reasons is None else tuple(reasons),
    )


def failure_of_response(response: Mapping[str, Any], call: Call, schema_of: SchemaOf, id_of: IdOf) -> Failure:
    """Return the refusal that botocore raised as a ClientError, of which `response` is the attribute.

    The item of a failed condition has no place in a reply, but for a transaction's.

    Args:
        response: with `Error`, and `CancellationReasons` of a cancelled transaction.
        call: that was refused: the tables of a transaction's items.
        schema_of: see `calls.call_of`.
        id_of: see `items.IdOf`.
    """
    error: Mapping[str, Any] = response.get("Error", {})
    metadata: Mapping[str, Any] = response.get("ResponseMetadata", {})
    reasons: Sequence[Mapping[str, Any]] | None = response.get("CancellationReasons")
    return failure_of(
        str(error.get("Code", "")),
        str(error.get("Message", "")),
        status=int(metadata.get("HTTPStatusCode", _BAD_REQUEST)),
        request_id=metadata.get("RequestId"),
        reasons=None if reasons is None else list(_reasons(reasons, call, schema_of, id_of)),
    )


def _reasons(reasons: Sequence[Mapping[str, Any]], call: Call, schema_of: SchemaOf, id_of: IdOf) -> Iterable[Reason]:
    tables = [
        operation["TableName"] for entry in call.parameters.get("TransactItems", ()) for operation in entry.values()
    ]
    for table, reason in zip(tables, reasons, strict=False):
        item = reason.get("Item")
        values = encode_values(item, schema_of(table), id_of) if item else None
        yield reason.get("Code"), reason.get("Message"), values


def unreachable(message: str) -> Failure:
    """Return the refusal of a server that has no answer from DynamoDB: a write may or may not be done."""
    return Failure(codes=UNREACHABLE, message=message, code="InternalServerErrorException", status=_SERVER_ERROR)


def unauthorized(message: str) -> Failure:
    """Return the refusal of a wrong or missing signature."""
    return Failure(codes=UNAUTHORIZED, message=message, code="UnrecognizedClientException", status=_UNAUTHORIZED_STATUS)


def reply_failure(failure: Failure) -> bytes:
    """Return a refusal as it is sent."""
    details = [
        _text_or_null(failure.request_id),
        _text_or_null(failure.code),
        NULL if failure.status is None else integer(failure.status),
    ]
    if failure.reasons is not None:
        details.append(array([part for reason in failure.reasons for part in _written(reason)]))
    return array([integer(code) for code in failure.codes]) + text(failure.message) + array(details)


def _written(reason: Reason) -> tuple[bytes, bytes, bytes]:
    code, message, values = reason
    return _text_or_null(code), _text_or_null(message), NULL if values is None else blob(values)


def _text_or_null(value: str | None) -> bytes:
    return NULL if value is None else text(value)
