"""What is asked for most, and what is loaded before it is asked for."""

from __future__ import annotations

from aiohttp import web

from mangacache.worker.asking import Ask, Nothing, Operation, answer, route
from mangacache.worker.caller import Forbidden, Scope
from mangacache.worker.shapes import (
    PrefetchAnswer,
    PrefetchBody,
    TitleBody,
    TrendSaid,
    TrendsAnswer,
    TrendsQuery,
)


async def _top(ask: Ask[TrendsQuery, None]) -> web.StreamResponse:
    top = await ask.cache.trending.top(ask.query.span, limit=ask.query.limit)
    return answer(
        TrendsAnswer(titles=tuple(TrendSaid(title=each.title, count=each.count, over=each.over) for each in top))
    )


async def _record(ask: Ask[Nothing, TitleBody]) -> web.StreamResponse:
    if ask.caller.customer_id is not None:
        raise Forbidden("titles are counted by bots and gateways, not with a customer's own credential")
    await ask.cache.trending.record(ask.body.title, weight=ask.body.weight)
    return web.Response(status=204)


async def _prefetch(ask: Ask[Nothing, PrefetchBody]) -> web.StreamResponse:
    if ask.caller.customer_id is not None:
        raise Forbidden("a customer's own credential does not name sessions to load")
    done = await ask.cache.prefetch(ask.body.session_ids)
    return answer(PrefetchAnswer(loaded=done.loaded, warm=done.warm, left=done.left))


def routes() -> list[web.RouteDef]:
    """Return the routes."""
    top = Operation(
        method="GET",
        path="/v1/trending",
        summary="The titles asked for most in the last hour or day",
        scope=Scope.READ,
        query=TrendsQuery,
        answers={200: TrendsAnswer},
    )
    record = Operation(
        method="POST",
        path="/v1/trending",
        summary="Count a title, now",
        scope=Scope.APPEND,
        body=TitleBody,
        answers={204: None},
    )
    prefetch = Operation(
        method="POST",
        path="/v1/prefetch",
        summary="Load contexts before they are asked for",
        scope=Scope.APPEND,
        body=PrefetchBody,
        answers={200: PrefetchAnswer},
    )
    return [route(top, _top), route(record, _record), route(prefetch, _prefetch)]
