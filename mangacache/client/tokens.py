"""The version that a client has seen of each session: what it reads next is never older, on whichever worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mangacache.model import Version

MOST_SESSIONS: Final = 65_536


class Tokens:
    """The newest version seen of each of the sessions that were used last.

    Args:
        limit: how many sessions are remembered; of one that is forgotten the next read is any worker's to answer.
    """

    def __init__(self, limit: int = MOST_SESSIONS) -> None:
        self._limit = limit
        self._seen: dict[str, Version] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def of(self, session_id: str) -> Version | None:
        """Return what has been seen of a session, None where that is nothing."""
        return self._seen.get(session_id)

    def see(self, session_id: str, version: Version) -> None:
        """Note what was seen of a session."""
        known = self._seen.pop(session_id, None)
        self._seen[session_id] = version if known is None else known.join(version)
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]

    def forget(self, session_id: str) -> None:
        """Note that what was seen is there no more: the table was restored, or the session has expired."""
        self._seen.pop(session_id, None)
