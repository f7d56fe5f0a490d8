"""Recording everything that a session holds: what a history begins from, and what is left at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mangacache.errors import Conflict
from mangacache.model import Consistency, Context, History
from mangacache.testing.history.operations import meta_digest, summary_digest

if TYPE_CHECKING:
    from mangacache.model import Turn
    from mangacache.testing.history.recorder import HistoryRecorder

_PAGE: Final = 1000
_MAX_TRIES: Final = 20


class ReadableSession(Protocol):
    """What `MangaCache.session` hands out, as far as it is read here."""

    id: str

    async def context(self, *, consistency: Consistency) -> Context:
        """Return the context."""

    async def history(self, *, after: str, limit: int) -> History:
        """Return a page of turns."""


async def record_state(recorder: HistoryRecorder, session: ReadableSession, *, client: str = "state") -> None:
    """Read all that the session holds, strongly, and record it.

    Call it before the first operation where the session may exist already, and after the last one.

    Raises:
        Conflict: the session is being written to all the time.
    """
    for _ in range(_MAX_TRIES):
        with recorder.state(session.id, client=client) as call:
            before = await session.context(consistency=Consistency.STRONG)
            turns: list[Turn] = []
            cursor: str | None = ""
            while cursor is not None:
                page = await session.history(after=cursor, limit=_PAGE)
                turns += page.turns
                cursor = page.newer
            now = await session.context(consistency=Consistency.STRONG)
            if now.version == before.version:
                call.saw(
                    now.version,
                    turns,
                    source=now.source,
                    meta=meta_digest(now.meta),
                    summary=summary_digest(now.summary),
                )
                return
    raise Conflict(f"session {session.id!r} changed {_MAX_TRIES} times while it was read: end its writers first")
