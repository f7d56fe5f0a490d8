"""What the server says, but for what happens to a session: see `telling`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.worker.sockets.telling import turn_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.model import Appended, Context, Version
    from mangacache.worker.sockets.messages import Id


def ready(connection_id: str, session_id: str, version: Version, *, heartbeat_s: float) -> dict[str, Any]:
    """Return the answer to `open`: what comes after `version` is told from here on."""
    return {
        "type": "ready",
        "connection_id": connection_id,
        "session_id": session_id,
        "version": str(version),
        "heartbeat_s": heartbeat_s,
    }


def appended(message_id: Id, turn_ids: Sequence[str], results: Sequence[Appended]) -> dict[str, Any]:
    """Return the acknowledgement of an `append`: its turns are durable."""
    turns = [
        {
            "number": result.number,
            "turn_id": turn_id,
            "version": str(result.version),
            "duplicate": result.duplicate,
            "degraded": result.degraded,
        }
        for turn_id, result in zip(turn_ids, results, strict=True)
    ]
    return {"type": "appended", "id": message_id, "turns": turns, "version": turns[-1]["version"]}


def draining(reconnect_after_s: float) -> dict[str, Any]:
    """Return the word that the worker leaves."""
    return {"type": "draining", "reconnect_after_s": round(reconnect_after_s, 3)}


def context_answer(message_id: Id, context: Context) -> dict[str, Any]:
    """Return the answer to `context`."""
    meta, summary = context.meta, context.summary
    return {
        "type": "context",
        "id": message_id,
        "version": str(context.version),
        "source": context.source,
        "stale": context.stale,
        "degraded": context.degraded,
        "meta": msgspec.structs.asdict(meta) if meta is not None else None,
        "summary": msgspec.structs.asdict(summary) if summary is not None else None,
        "turns": [turn_object(turn) for turn in context.turns],
    }


def error_answer(error: Exception, message_id: Id | None = None) -> dict[str, Any]:
    """Return the answer to a message that was not carried out; without an `id` where it had none."""
    problem = {"title": type(error).__name__, "detail": str(error)}
    return {"type": "error"} | ({"id": message_id} if message_id is not None else {}) | {"problem": problem}
