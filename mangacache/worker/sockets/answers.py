"""What the server says, but for what happens to a session: see `telling`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mangacache.worker.problems import problem_of

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


def newest(results: Sequence[Appended]) -> Version:
    """Return the version from which on a reader sees all turns of an append: one stored before has its own."""
    return max((result.version for result in results), key=lambda each: (each.incarnation, each.number))


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
    return {"type": "appended", "id": message_id, "turns": turns, "version": str(newest(results))}


def draining(reconnect_after_s: float) -> dict[str, Any]:
    """Return the word that the worker leaves."""
    return {"type": "draining", "reconnect_after_s": round(reconnect_after_s, 3)}


def context_answer(message_id: Id, context: Context) -> dict[str, Any]:
    """Return the answer to `context`: as HTTP has it."""
    meta = context.meta
    return {
        "type": "context",
        "id": message_id,
        "session_id": context.session_id,
        "version": str(context.version),
        "source": context.source,
        "stale": context.stale,
        "degraded": context.degraded,
        "meta": meta,
        "turns": context.turns,
        "summary": context.summary,
        "last_active_at": meta.last_active_at if meta is not None else None,
        "last_number": meta.last_number if meta is not None else None,
    }


def error_answer(error: Exception, message_id: Id | None = None) -> dict[str, Any]:
    """Return the answer to a message that was not carried out; without an `id` where it had none."""
    named = {"id": message_id} if message_id is not None else {}
    return {"type": "error"} | named | {"problem": problem_of(error)}
