"""How DAX refuses: the exceptions that the Python client makes of the codes on its wire.

The shapes are those of `amazon-dax-client`'s `DaxServiceError` and `DaxClientError`, which are botocore's
`ClientError` with more attributes; a caller that catches `ClientError` and looks at `code` cannot tell the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from mangacache.testing.dax.codes import NOT_RETRYABLE, UNREACHABLE, codes_of, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RETRYABLE_CODES: Final = frozenset({"InternalServerErrorException", "TransactionCanceledException"})
_RETRYABLE_STATUSES: Final = frozenset({408, 429, 500, 503})
_THROTTLES: Final = frozenset(
    {"ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException"}
    | {"RequestLimitExceededException"}
)
_BAD_REQUEST: Final = 400
_TIMEOUT: Final = 408
_SERVER_ERROR: Final = 500


class DaxError(ClientError):  # type: ignore[misc] # botocore ships no types
    """What DAX or its client raises.

    Attributes:
        code: the error's code; set also where `response["Error"]` has none.
        codes: DAX's own path of numbers, None where the client itself refused.
        http_status: as DAX reports it, or None.
    """

    def __init__(
        self, operation: str, message: str, *, code: str | None, codes: Sequence[int] | None, http_status: int | None
    ) -> None:
        response: Any = {"Error": {"Message": message}}
        if code is not None:
            response["Error"] = {"Code": code, "Message": message}
        if http_status is not None:
            response["ResponseMetadata"] = {"HTTPStatusCode": http_status}
        super().__init__(response, operation)
        self.code = code
        self.codes = codes
        self.http_status = http_status
        self.auth_error = False
        self.wait_for_recovery_before_retry = False

    @property
    def retryable(self) -> bool:
        """Whether the client sends the request again: also after a failed condition, and also a write."""
        return (
            bool(self.codes and self.codes[0] != NOT_RETRYABLE)
            or self.code in _RETRYABLE_CODES
            or self.http_status in _RETRYABLE_STATUSES
        )

    @property
    def throttle(self) -> bool:
        """Whether the client pauses before it sends the request again."""
        return self.code in _THROTTLES


class DaxServiceError(DaxError):
    """DAX, or DynamoDB behind it, refused; or the connection ended before the reply.

    Attributes:
        cancellation_reasons: of a cancelled transaction: code, message and item of each operation, in one flat list.
    """

    def __init__(
        self,
        operation: str,
        message: str,
        *,
        code: str | None,
        codes: Sequence[int],
        http_status: int,
        cancellation_reasons: list[Any] | None = None,
    ) -> None:
        super().__init__(operation, message, code=code, codes=codes, http_status=http_status)
        self.cancellation_reasons = cancellation_reasons


class DaxClientError(DaxError):
    """The client refused before anything was sent."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__("", message, code=code, codes=None, http_status=None)


def refused(operation: str, error: ClientError) -> DaxServiceError:
    """Return DynamoDB's refusal as it comes through DAX: without the item of a failed condition, which has no place."""
    detail: Mapping[str, Any] = error.response.get("Error", {})
    code = name_of(str(detail.get("Code", "")))
    reasons: Any = error.response.get("CancellationReasons")
    return DaxServiceError(
        operation,
        str(detail.get("Message", "")),
        code=code,
        codes=list(codes_of(code)),
        http_status=error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _BAD_REQUEST),
        cancellation_reasons=None if reasons is None else _flat(reasons),
    )


def _flat(reasons: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [reason.get(name) for reason in reasons for name in ("Code", "Message", "Item")]


def throttled(operation: str) -> DaxServiceError:
    """Return a refusal for load; nothing was done."""
    code = "ThrottlingException"
    codes = list(codes_of(code))
    return DaxServiceError(operation, "Rate exceeded", code=code, codes=codes, http_status=_BAD_REQUEST)


def unreachable(operation: str, cause: BaseException) -> DaxServiceError:
    """Return the error of a node that has no answer from DynamoDB; a write may or may not be done."""
    message = f"DynamoDB did not answer: {type(cause).__name__}: {cause}"
    code = "InternalServerErrorException"
    return DaxServiceError(operation, message, code=code, codes=list(UNREACHABLE), http_status=_SERVER_ERROR)


def end_of_stream(operation: str) -> DaxServiceError:
    """Return the error of a connection that ended before the reply: it has no `Code` in its response."""
    error = DaxServiceError(operation, "remote socket is closed", code=None, codes=(), http_status=_TIMEOUT)
    error.code = "ConnectionException"
    error.wait_for_recovery_before_retry = True
    return error


def malformed(report: str) -> DaxClientError:
    """Return the refusal of a request of the wrong form."""
    return DaxClientError(report, code="ValidationException")


def no_route() -> DaxClientError:
    """Return the error of a client that knows no node that lives."""
    return DaxClientError("No cluster endpoints available", code="NoRouteException")
