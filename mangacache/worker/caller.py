"""Who asks, and what that one may: the outcome of the gate, which every route and socket goes by."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from math import inf
from typing import Final

import msgspec

from mangacache.worker.problems import HttpError


class Scope(Enum):
    """What a credential may be good for."""

    READ = "read"  # contexts, histories, META, lists, presence
    APPEND = "append"  # turns, and what goes with a message: rate limits, presence, prefetch, titles asked for
    CHANGE = "change"  # META, summaries, locks, closing
    DELETE = "delete"  # sessions, and all of a customer's
    OPERATE = "operate"  # adopt, and the operator's port


ROLES: Final = {
    "bot": frozenset({Scope.READ, Scope.APPEND, Scope.CHANGE, Scope.DELETE}),
    "gateway": frozenset({Scope.READ, Scope.APPEND}),
    "operator": frozenset(Scope),
    "read-only": frozenset({Scope.READ}),
}
"""The roles that a key may have."""
CUSTOMER: Final = frozenset({Scope.READ, Scope.APPEND})
"""What a customer's token is good for, in that customer's own sessions."""


class Unauthenticated(HttpError):
    """There is no credential, or it is not good."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.UNAUTHORIZED, message)
        self.headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(HttpError):
    """The credential is good, and not for this."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.FORBIDDEN, message)


def _always() -> bool:
    return True


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        kind: `open` where nobody is asked for a credential, `key`, or `customer`.
        scopes: what may be done.
        customer_id: the one customer whose sessions may be opened; None: anybody's.
        key_id: by which logs name the credential; never the credential.
        until_s: until when the credential is good: seconds since 1970.
        stands: tells whether the credential is still listed, and not revoked: for those who stay, by a socket. It shows
            nothing of the credential.
    """

    kind: str
    scopes: frozenset[Scope]
    customer_id: str | None = None
    key_id: str = ""
    until_s: float = inf
    stands: Callable[[], bool] = _always

    def require(self, scope: Scope) -> None:
        """Let what is asked for be done, or refuse it.

        Raises:
            Forbidden: the credential is not good for it.
        """
        if scope not in self.scopes:
            raise Forbidden(f"this credential may not {scope.value} here")

    def customer(self, given: str | None) -> str | None:
        """Return whose sessions are asked for: a customer's own, else whose the request names.

        Raises:
            Forbidden: the credential is another customer's.
        """
        if self.customer_id is None:
            return given
        if given is not None and given != self.customer_id:
            raise Forbidden("this credential is another customer's")
        return self.customer_id
