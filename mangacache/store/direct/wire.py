"""DynamoDB's JSON: parameters to bytes, answers to what aioboto3's low-level client would return.

msgspec writes bytes as base64, as the protocol has them, and by the types below reads them back as bytes, in one pass
and without a walk of ours. What the types do not name is not read.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict, cast

import msgspec

from mangacache.errors import Invalid
from mangacache.store.transport import Failure, Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.store.direct.answers import Answer

_SAID: Final = 200
_OK: Final = 200
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Value(TypedDict, total=False):
    """A typed value; each has one of these."""

    S: str
    N: str
    B: bytes
    BOOL: bool
    NULL: bool
    M: dict[str, Value]
    L: list[Value]
    SS: list[str]
    NS: list[str]
    BS: list[bytes]


Item: TypeAlias = dict[str, Value]
Capacity: TypeAlias = dict[str, Any]


class _Metrics(TypedDict, total=False):
    ItemCollectionKey: Item
    SizeEstimateRangeGB: list[Any]


class _Got(TypedDict, total=False):
    Item: Item
    ConsumedCapacity: Capacity


class _Written(TypedDict, total=False):
    Attributes: Item
    ConsumedCapacity: Capacity
    ItemCollectionMetrics: _Metrics


class _Queried(TypedDict, total=False):
    Items: list[Item]
    Count: int
    ScannedCount: int
    LastEvaluatedKey: Item
    ConsumedCapacity: Capacity


class _Keys(TypedDict, total=False):
    Keys: list[Item]
    AttributesToGet: list[str]
    ConsistentRead: bool
    ProjectionExpression: str
    ExpressionAttributeNames: dict[str, str]


class _BatchGot(TypedDict, total=False):
    Responses: dict[str, list[Item]]
    UnprocessedKeys: dict[str, _Keys]
    ConsumedCapacity: list[Capacity]


class _PutRequest(TypedDict, total=False):
    Item: Item


class _DeleteRequest(TypedDict, total=False):
    Key: Item


class _WriteRequest(TypedDict, total=False):
    PutRequest: _PutRequest
    DeleteRequest: _DeleteRequest


class _BatchWritten(TypedDict, total=False):
    UnprocessedItems: dict[str, list[_WriteRequest]]
    ItemCollectionMetrics: dict[str, list[_Metrics]]
    ConsumedCapacity: list[Capacity]


class _Transacted(TypedDict, total=False):
    ConsumedCapacity: list[Capacity]
    ItemCollectionMetrics: dict[str, list[_Metrics]]


class _Reason(TypedDict, total=False):
    Code: str | None
    Message: str | None
    Item: Item | None


class _Failed(msgspec.Struct):
    type_: str = msgspec.field(name="__type", default="")
    message: str | None = None
    other_message: str | None = msgspec.field(name="Message", default=None)
    item: Item | None = msgspec.field(name="Item", default=None)
    reasons: list[_Reason] | None = msgspec.field(name="CancellationReasons", default=None)


_encode: Final = msgspec.json.Encoder().encode
_decode_failed: Final = msgspec.json.Decoder(_Failed).decode


class Operation:
    """A kind of request.

    Attributes:
        name: as the Protocol of transports has it.
        target: as the wire has it.
    """

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self.target = f"DynamoDB_20120810.{name}".encode()
        self._decode = msgspec.json.Decoder(answer).decode

    def body(self, parameters: Mapping[str, Any]) -> bytes:
        """Return the parameters as they are sent.

        Raises:
            Invalid: they hold what JSON cannot.
        """
        try:
            return _encode(parameters)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise Invalid(f"{self.name} was refused by the client: {error}") from error

    def answer(self, answer: Answer) -> dict[str, Any]:
        """Return what an answer of status 200 says.

        Raises:
            Unanswered: its bytes have come to harm.
        """
        check_sum(answer)
        try:
            return cast("dict[str, Any]", self._decode(answer.body))
        except _UNREADABLE as error:
            raise Unanswered(f"the answer to {self.name} cannot be read: {error}") from error


OPERATIONS: Final = {
    name: Operation(name, answer)
    for name, answer in (
        ("GetItem", _Got),
        ("PutItem", _Written),
        ("UpdateItem", _Written),
        ("DeleteItem", _Written),
        ("Query", _Queried),
        ("BatchGetItem", _BatchGot),
        ("BatchWriteItem", _BatchWritten),
        ("TransactWriteItems", _Transacted),
    )
}


def check_sum(answer: Answer) -> None:
    """Check the sum that DynamoDB gives with an answer.

    Raises:
        Unanswered: it is not that of the body.
    """
    expected = answer.headers.get(b"x-amz-crc32")
    if expected is not None and expected != b"%d" % zlib.crc32(answer.body):
        raise Unanswered("the answer's checksum (x-amz-crc32) is not that of its body")


def failure(answer: Answer) -> Failure:
    """Return what an answer of another status says.

    Raises:
        Unanswered: its bytes have come to harm.
    """
    check_sum(answer)
    status = answer.status
    try:
        failed = _decode_failed(answer.body)
    except _UNREADABLE as error:
        if answer.body.lstrip().startswith(b"{"):  # a part of what the service says
            raise Unanswered(f"the refusal cannot be read: {error}") from error
        # a proxy's own words, in its own form
        return Failure(code=str(status), message=answer.body[:_SAID].decode(errors="replace"), status=status)
    return Failure(
        code=failed.type_.split(":", 1)[0].rpartition("#")[2] or str(status),
        message=failed.message or failed.other_message or "",
        status=status,
        item=failed.item or {},
        reasons=tuple((reason.get("Code"), reason.get("Item")) for reason in failed.reasons or ()),
    )
