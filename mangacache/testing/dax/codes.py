"""DAX's own paths of codes, from which its clients make their errors: what the double raises and the emulator sends.

A path is one that the clients know or ends beside all of them: the beginning of a known one crashes the Python client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_RETRYABLE: Final = 3
"""The first of a path after which the client does not send the request again."""
UNREACHABLE: Final = (NOT_RETRYABLE, 37, 54)
"""DAX has no answer from DynamoDB."""
UNAUTHORIZED: Final = (4, 23, 31, 33)
"""The signature is wrong or missing."""
LAST: Final[Mapping[str, int]] = {
    "ProvisionedThroughputExceededException": 40,
    "ResourceNotFoundException": 41,
    "ConditionalCheckFailedException": 43,
    "ResourceInUseException": 45,
    "ValidationException": 46,
    "InternalServerErrorException": 47,
    "ItemCollectionSizeLimitExceededException": 48,
    "LimitExceededException": 49,
    "ThrottlingException": 50,
    "TransactionConflictException": 57,
    "TransactionCanceledException": 58,
    "TransactionInProgressException": 59,
    "IdempotentParameterMismatchException": 60,
    "RequestLimitExceededException": 61,
}
"""The last of the path of each error of DynamoDB's that has one of its own, by the clients' name of it."""
_DYNAMODB: Final = (4, 37, 38, 39)
"""The beginning of every path that stands for an error of DynamoDB's."""
_OTHER: Final = (NOT_RETRYABLE, 37, 38, 39)
"""Not to be tried again; the code is taken from the text."""
_ACCESS_DENIED: Final = (4, 37, 38, 42)
_NAMES: Final[Mapping[str, str]] = {
    "InternalServerError": "InternalServerErrorException",
    "RequestLimitExceeded": "RequestLimitExceededException",
    "ThrottledException": "ThrottlingException",
    "Throttling": "ThrottlingException",
}
"""What DynamoDB and boto call otherwise than DAX's clients."""


def name_of(code: str) -> str:
    """Return what DAX's clients call an error code of DynamoDB's."""
    return _NAMES.get(code, code)


def codes_of(name: str) -> tuple[int, ...]:
    """Return the path that stands for an error, by the clients' name of it."""
    if name == "AccessDeniedException":
        return _ACCESS_DENIED
    return (*_DYNAMODB, LAST[name]) if name in LAST else _OTHER
