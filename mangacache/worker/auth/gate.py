"""The gate that every request passes: it says who asks, or that nobody is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mangacache.errors import Invalid
from mangacache.settings import is_loopback
from mangacache.worker.caller import ROLES, Caller

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.settings import Settings

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


def gate_of(settings: Settings) -> Gate:
    """Return the gate of a worker.

    Raises:
        Invalid: others would reach it, and nobody would be asked who he is.
    """
    for host in (settings.worker_host, settings.operator_host):
        if not is_loopback(host.lower()):
            raise Invalid(
                f"the worker would let everybody in at {host}: listen on 127.0.0.1 (worker_host, operator_host)"
            )
    return OpenGate()
