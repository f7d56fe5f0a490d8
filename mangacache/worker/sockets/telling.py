"""What a socket is told of its session, as frames; one that many sockets are told is encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.worker.sockets.frames import frame

if TYPE_CHECKING:
    from mangacache.model import Context, Turn, Version
    from mangacache.worker.sockets.news import Hole, Told

UNREAD: Final = "these turns cannot be sent here: read them from the session's history"
SLOW: Final = "this connection is read too slowly: what is new is sent when it has been read"


def _without_content(turn: Turn) -> dict[str, Any]:
    return {"number": turn.number, "turn_id": turn.turn_id, "role": turn.role, "created_at": turn.created_at}


class Telling:
    """The frames that tell what a context holds; made for one context, and thrown away."""

    __slots__ = ("_context", "_frames")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._frames: dict[tuple[Version, bool, str], bytes] = {}

    def frame(self, told: Told, *, content: bool) -> bytes:
        """Return the frame that tells something."""
        if told.hole is not None:
            return gap_frame(UNREAD, told.seen, hole=told.hole)
        what = "turn" if told.turn is not None else "deleted" if told.anew else "meta"
        key = (told.seen, content, what)
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = frame(self._message(told, content=content))
        return found

    def _message(self, told: Told, *, content: bool) -> dict[str, Any]:
        token = str(told.seen)
        if told.turn is not None:
            turn = told.turn if content else _without_content(told.turn)
            return {"type": "turn", "number": told.turn.number, "version": token, "turn": turn}
        if told.anew:
            return {"type": "deleted", "version": token}
        meta, summary = self._context.meta, self._context.summary
        message: dict[str, Any] = {"type": "closed" if meta is not None and meta.status == "closed" else "meta"}
        message |= {"version": token, "status": meta.status if meta is not None else None}
        if content:
            message |= {"meta": meta, "summary": summary}
        return message


def gap_frame(why: str, seen: Version, *, hole: Hole | None = None) -> bytes:
    """Return the frame that says that something is missing.

    Args:
        why: in words.
        seen: up to where all has been told, or is known to be missing.
        hole: which turns will not come; None: nothing is told until `caught_up`, and then what is missing comes first.
    """
    message: dict[str, Any] = {"type": "gap", "why": why, "version": str(seen), "waits": hole is None}
    if hole is not None:
        message |= {"first": hole.first, "last": hole.last}
    return frame(message)


def caught_up_frame(seen: Version) -> bytes:
    """Return the frame that ends a gap: all up to a version has been told, and what is new is told again."""
    return frame({"type": "caught_up", "version": str(seen)})
