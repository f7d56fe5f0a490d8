"""How the double refuses: the service's codes and messages, raised at last as botocore's own exceptions."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

_HTTP_BAD_REQUEST = 400


class Refusal(Exception):
    """The service's refusal of a request, before it is given the form botocore raises.

    Attributes:
        code: the error code, for example `ValidationException`.
        message: the service's message.
        fields: what the response carries besides, for example `Item` or `CancellationReasons`.
    """

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.fields = fields


def invalid(message: str) -> Refusal:
    """Return the refusal of a request that is wrong in itself."""
    return Refusal("ValidationException", message)


def invalid_values(message: str) -> Refusal:
    """Return the refusal of parameter values, with the service's usual opening."""
    return invalid(f"One or more parameter values were invalid: {message}")


def no_such_table() -> Refusal:
    """Return the refusal of a data request to a table that is not there."""
    return Refusal("ResourceNotFoundException", "Requested resource not found")


def condition_failed(item: dict[str, Any] | None) -> Refusal:
    """Return the refusal of a write whose condition does not hold; `item` is given back when asked for."""
    fields = {} if item is None else {"Item": item}
    return Refusal("ConditionalCheckFailedException", "The conditional request failed", **fields)


def unsupported(what: str) -> NotImplementedError:
    """Return the error for what DynamoDB has and this double has not: silence would make a test lie."""
    return NotImplementedError(
        f"MemoryDynamoDB does not model {what}; use the expression parameters, or a real engine for this test"
    )


def mistyped(report: str) -> ParamValidationError:
    """Return what botocore itself raises before it sends a request of the wrong form."""
    return ParamValidationError(report=report)


def raised(refusal: Refusal, operation: str) -> ClientError:
    """Return the refusal as botocore raises it."""
    response: Any = {
        "Error": {"Code": refusal.code, "Message": refusal.message},
        "ResponseMetadata": {"HTTPStatusCode": _HTTP_BAD_REQUEST, "RetryAttempts": 0},
        **refusal.fields,
    }
    return ClientError(response, operation)
