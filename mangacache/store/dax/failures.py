"""What the DAX client raises, as the errors of a transport.

The client has no one family: refusals are botocore's `ClientError`, some without a code; a connection that breaks is a
bare `OSError` or `EOFError`; an error code that it does not know makes it fail in its own code.
"""

from __future__ import annotations

from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from mangacache.errors import Invalid, MangaCacheError, NotFound
from mangacache.store.transport import Failure, Throttled, Unanswered, mapped

_AUTH: Final = (23, 31)
"""How DAX's own path of codes goes on when it refuses the credentials."""
_NO_ROUTE: Final = "NoRouteException"
_BROKEN: Final = frozenset(
    {"ConnectionException", "EndOfStreamException", "DecoderException", "MalformedResultException"}
    | {"InternalServerErrorException", "InternalServerError"}
)
_THROTTLED: Final = frozenset({"RequestLimitExceededException", "LimitExceededException"})
"""Beside those that DynamoDB has under the same names."""


def failure_of(operation: str, error: BaseException) -> Exception:  # noqa: PLR0911 - a return a kind of failure
    """Return the transport's error that an exception of the client means.

    Whatever is not certain counts as `Unanswered`: the outcome is open, and DynamoDB can be asked.
    """
    if isinstance(error, MangaCacheError | Unanswered):
        return error
    if isinstance(error, ClientError):
        return _refusal(operation, error)
    if isinstance(error, ConnectionRefusedError):
        return Unanswered(f"DAX: {error}", sent=False)
    if isinstance(error, TimeoutError):
        return Unanswered(f"DAX gave no answer to {operation} in time")
    if isinstance(error, OSError | EOFError):
        return Unanswered(f"DAX: {type(error).__name__}: {error}")
    if isinstance(error, BotoCoreError):
        return Invalid(f"{operation} was refused by the DAX client: {error}")
    if isinstance(error, Exception):
        return Unanswered(f"the DAX client failed: {type(error).__name__}: {error}")
    raise error


def _refusal(operation: str, error: Any) -> Exception:
    detail = error.response.get("Error", {})
    code, message = detail.get("Code") or getattr(error, "code", None) or "", detail.get("Message", "")
    if isinstance(code, tuple):  # one of its errors has two
        code = code[0]
    if code == _NO_ROUTE:
        return Unanswered(f"no node of the DAX cluster can be reached ({message})", sent=False)
    if getattr(error, "auth_error", False) or tuple((getattr(error, "codes", None) or ())[1:3]) == _AUTH:
        return Invalid(
            f"DAX refused {operation}: {message}. Check the credentials and the role's rights on the cluster"
        )
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if not code or code in _BROKEN:
        return Unanswered(f"DAX: {code or f'status {status}'}: {message}")
    if code in _THROTTLED:
        return Throttled(f"{code}: {message}")
    return _of_dynamodb(operation, mapped(operation, Failure(code=code, message=message, status=status)))


def _of_dynamodb(operation: str, failure: Exception) -> Exception:
    """Return a refusal that has one of DynamoDB's own codes, said so that DAX is not overlooked."""
    if isinstance(failure, NotFound):
        return NotFound(
            f"{operation}: the DAX cluster finds no such table or index: does it stand in the cluster's region, and may"
            " the cluster's role read it?"
        )
    if isinstance(failure, Invalid):
        return Invalid(f"through DAX: {failure}")
    if type(failure) is MangaCacheError:  # a code that nobody knows: DynamoDB may know better
        return Unanswered(str(failure))
    return failure
