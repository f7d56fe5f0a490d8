"""Contexts: what a bot loads before it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from mangacache.model import Consistency
from mangacache.worker.asking import Ask, Operation, answer, route
from mangacache.worker.caller import Scope
from mangacache.worker.etags import matches, weak
from mangacache.worker.shapes import ContextAnswer, ContextQuery

if TYPE_CHECKING:
    from mangacache.model import Context
    from mangacache.worker.shapes import Freshness

_LEVELS: Final = {"session": Consistency.SESSION, "latest": Consistency.LATEST, "strong": Consistency.STRONG}


def level_of(query: Freshness) -> Consistency:
    """Return the level that a query asks for.

    Raises:
        Invalid: an age with a level that takes none, or none with the one that does.
    """
    if query.age_s is None and (level := _LEVELS.get(query.consistency)) is not None:
        return level
    return Consistency(query.consistency, query.age_s)


async def _context(ask: Ask[ContextQuery, None]) -> web.StreamResponse:
    query = ask.query
    context = await ask.session().context(
        turns=query.turns, at_least=query.at_least, consistency=level_of(query), rate_limit=query.rate_limit
    )
    ask.check_owner(context)
    version = str(context.version)
    headers = {"ETag": weak(version), "Cache-Control": "no-cache"}
    if matches(ask.listed("If-None-Match"), version):
        return web.Response(status=304, headers=headers)
    return answer(_said(context, version), headers=headers)


def _said(context: Context, version: str) -> ContextAnswer:
    meta = context.meta
    return ContextAnswer(
        session_id=context.session_id,
        version=version,
        source=context.source,  # type: ignore[arg-type]  # one of the four, by the model's own docstring
        stale=context.stale,
        degraded=context.degraded,
        meta=meta,  # type: ignore[arg-type]  # the library's structs are encoded as they are: the same fields
        turns=context.turns,  # type: ignore[arg-type]
        summary=context.summary,  # type: ignore[arg-type]
        last_active_at=meta.last_active_at if meta is not None else None,
        last_number=meta.last_number if meta is not None else None,
    )


def routes() -> list[web.RouteDef]:
    """Return the routes."""
    read = Operation(
        method="GET",
        path="/v1/sessions/{session_id:[^/]+}/context",
        summary="What a bot needs before it answers: META, the last turns, the newest summary",
        scope=Scope.READ,
        query=ContextQuery,
        answers={200: ContextAnswer, 304: None},
        headers={"If-None-Match": "the ETag of what is known: answered by 304 where nothing is newer"},
    )
    return [route(read, _context)]
