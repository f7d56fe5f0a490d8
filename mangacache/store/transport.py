"""The door to DynamoDB: one request out, one answer or one mapped failure back.

A `Transport` knows nothing of sessions and never tries again; `requests.py` does. The one here drives
aioboto3's low-level client; its in-memory stand-in and a faster one fit the same Protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from aiohttp import ClientConnectorError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from mangacache.errors import Invalid, MangaCacheError, NotFound
from mangacache.store.values import Typed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Transport(Protocol):
    """One request to DynamoDB."""

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request (`PutItem`, ...) and return its answer.

        Raises:
            ConditionFailed: the condition did not hold; definite.
            TransactionCanceled: a transaction did nothing; definite.
            Unanswered: no answer, or one that leaves the outcome open; may be tried again.
            Throttled: refused for load, nothing was done; may be tried again.
            MangaCacheError: refused for good, mapped.
        """


class ConditionFailed(Exception):
    """The condition of a write did not hold.

    Attributes:
        item: the item that stood there, empty where there was none.
        in_doubt: True where an earlier try of the same request had no answer: this one may have met its effect.
    """

    def __init__(self, item: Typed, *, in_doubt: bool = False) -> None:
        super().__init__("condition failed")
        self.item = item
        self.in_doubt = in_doubt


class TransactionCanceled(Exception):
    """A transaction was cancelled.

    Attributes:
        reasons: (code, item that stood there) for each operation, in order; the code is `None` for one that
            would have gone through.
        in_doubt: as in `ConditionFailed`.
    """

    def __init__(self, reasons: tuple[tuple[str, Typed], ...], *, in_doubt: bool = False) -> None:
        super().__init__(", ".join(code for code, _ in reasons))
        self.reasons = reasons
        self.in_doubt = in_doubt


class Unanswered(Exception):
    """The outcome is open: a time-out, a broken connection, a server error.

    Attributes:
        sent: False where the request certainly had no effect, as one that never reached the server.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Throttled(Exception):
    """Refused because of load or a conflicting transaction; nothing was done."""


_THROTTLED: Final = frozenset(
    {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "Throttling"}
    | {"TransactionConflictException", "TransactionInProgressException", "ReplicatedWriteConflictException"}
    | {"TooManyRequestsException", "LimitExceededException"}
)
_CREDENTIALS: Final = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
        "AccessDeniedException",
    }
    | {"MissingAuthenticationTokenException", "IncompleteSignatureException", "InvalidClientTokenId"}
)
_SERVER_ERROR: Final = 500


class AioTransport:
    """Drives a low-level DynamoDB client of aioboto3, or any object with the same coroutine methods."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._calls: dict[str, Any] = {}

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; see `Transport`."""
        call = self._calls.get(operation)
        if call is None:
            call = self._calls[operation] = getattr(self._client, method_of(operation))
        try:
            answer: dict[str, Any] = await call(**parameters)
        except ClientError as error:
            raise mapped(operation, _failure(error)) from error
        except ConnectTimeoutError as error:
            raise Unanswered(str(error), sent=False) from error
        except EndpointConnectionError as error:
            # The client says so of a connection that breaks under a request as well.
            unsent = isinstance(error.kwargs.get("error"), ClientConnectorError)
            raise Unanswered(f"{error}: {error.kwargs.get('error')}", sent=not unsent) from error
        except (ReadTimeoutError, HTTPClientError, ConnectionError, TimeoutError) as error:
            raise Unanswered(f"{type(error).__name__}: {error}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise no_credentials() from error
        except CredentialRetrievalError as error:
            raise Unanswered(f"the AWS credentials could not be renewed: {error}", sent=False) from error
        except ParamValidationError as error:
            raise Invalid(f"{operation} was refused by the client: {error}") from error
        except BotoCoreError as error:
            raise Unanswered(f"{type(error).__name__}: {error}") from error
        except RuntimeError as error:
            if "refreshed credentials are still expired" not in str(error):
                raise
            raise Invalid(f"the AWS credentials have expired: {error} Check where they come from") from error
        return answer


def no_credentials() -> Invalid:
    """Return the error for a process that has no AWS credentials."""
    return Invalid(
        "no AWS credentials were found: give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
        "(any values will do for the local engine: `mangacache local` prints them)"
    )


def method_of(operation: str) -> str:
    """Return a client's method for an operation: `get_item` for `GetItem`."""
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in operation).lstrip("_")


class Failure(msgspec.Struct, frozen=True):
    """What a refusal says.

    Attributes:
        code: the error's name; the HTTP status where it has none.
        message: in the server's words.
        status: HTTP's.
        item: that stood in the way of a write.
        reasons: (code, item) for each operation of a cancelled transaction.
    """

    code: str
    message: str
    status: int
    item: Typed = {}
    reasons: tuple[tuple[str | None, Typed | None], ...] = ()


def mapped(operation: str, failure: Failure) -> Exception:  # noqa: PLR0911 - a return a kind of failure
    """Return the error that a refusal means."""
    code, message = failure.code, failure.message
    if code == "ConditionalCheckFailedException":
        return ConditionFailed(failure.item)
    if code == "TransactionCanceledException":
        return _canceled(failure.reasons, message)
    if code in _THROTTLED:
        return Throttled(f"{code}: {message}")
    if failure.status >= _SERVER_ERROR or code in ("InternalServerError", "ServiceUnavailable"):
        return Unanswered(f"{code}: {message}")
    if code == "ResourceNotFoundException":
        return NotFound(f"{operation}: the table or index does not exist: run `mangacache tables create` ({message})")
    if code in _CREDENTIALS:
        return Invalid(f"{operation} was refused: {code}: {message}. Check the credentials and the role's rights")
    if code == "ValidationException":
        return Invalid(f"{operation} was refused as invalid: {message}")
    return MangaCacheError(f"{operation} failed: {code}: {message}")


def _failure(error: ClientError) -> Failure:
    response = error.response
    detail = response.get("Error", {})
    return Failure(
        code=detail.get("Code", ""),
        message=detail.get("Message", ""),
        status=response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0),
        item=response.get("Item", {}),
        reasons=tuple((reason.get("Code"), reason.get("Item")) for reason in response.get("CancellationReasons") or ()),
    )


def _canceled(reasons: tuple[tuple[str | None, Typed | None], ...], message: str) -> Exception:
    pairs = tuple((code or "None", item or {}) for code, item in reasons)
    codes = {code for code, _ in pairs} - {"None"}
    if "ConditionalCheckFailed" in codes:
        return TransactionCanceled(pairs)
    if codes and codes <= {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}:
        return Throttled(f"transaction cancelled: {', '.join(sorted(codes))}")
    return Invalid(f"the transaction was refused: {message}")
