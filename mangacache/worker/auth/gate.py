"""The gate that every request passes: it says who asks, or that nobody is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mangacache.worker.caller import ROLES, Caller

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANYBODY: Final = Caller(kind="open", scopes=ROLES["operator"])


class Gate(Protocol):
    """Tells who asks."""

    async def authenticate(self, headers: Mapping[str, str], remote: str | None) -> Caller:
        """Return who asks.

        Args:
            headers: of the request.
            remote: the peer's address.

        Raises:
            Unauthenticated: there is no credential, or it is not good.
        """


class OpenGate:
    """Lets everybody do everything: for a worker that only this machine reaches."""

    async def authenticate(self, headers: Mapping[str, str], remote: str | None) -> Caller:
        """See `Gate`."""
        del headers, remote
        return _ANYBODY
