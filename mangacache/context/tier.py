"""The seam of the context cache: what the sessions ask of a tier between the process and DynamoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mangacache.model import Version
    from mangacache.store.snapshot import Snapshot


class ContextTier(Protocol):
    """A cache of contexts that is shared by workers. It may forget at any time, and is never older than it says."""

    async def get(self, session_id: str, *, least: Version | None, have: Snapshot | None) -> Snapshot | None:
        """Return the session if the tier holds it at `least` or newer; `have` need not be sent again."""

    async def commit(self, session_id: str, known: Snapshot) -> None:
        """Bring what was written into the tier, before the write is acknowledged."""

    async def observe(self, session_id: str, version: Version) -> None:
        """Tell the tier which version was read in DynamoDB, before it is returned."""


class NoTier:
    """No cache between the process and DynamoDB: every miss of the memory is a strong read."""

    __slots__ = ()

    async def get(self, session_id: str, *, least: Version | None, have: Snapshot | None) -> Snapshot | None:
        """Return None: nothing is held."""
        del session_id, least, have
        return None

    async def commit(self, session_id: str, known: Snapshot) -> None:
        """Do nothing."""

    async def observe(self, session_id: str, version: Version) -> None:
        """Do nothing."""
