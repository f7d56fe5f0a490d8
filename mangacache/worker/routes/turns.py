"""Turns: appended, one or several, and read by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.clock import random_id
from mangacache.errors import Invalid
from mangacache.model import NewTurn
from mangacache.worker.asking import Ask, Operation, answer, route
from mangacache.worker.caller import Scope
from mangacache.worker.keys import RANDOM
from mangacache.worker.shapes import AppendAnswer, AppendBody, AppendedSaid, HistoryAnswer, HistoryQuery

if TYPE_CHECKING:
    from aiohttp import web

    from mangacache.clock import Random

_PATH = "/v1/sessions/{session_id:[^/]+}/turns"
_KEY = "Idempotency-Key"


def new_turns(body: AppendBody, key: str | None, random: Random) -> list[NewTurn]:
    """Return the turns to be stored, each with an id.

    Args:
        body: what was sent.
        key: of the request: the id of a turn that has none; of several, each gets the key and its place.
        random: for the ids of turns that have neither.

    Raises:
        Invalid: neither one turn nor several were given, or one has two ids.
    """
    if body.turns is not None:
        if body.role is not None or body.content is not None or body.turn_id is not None or body.attributes:
            raise Invalid("give `turns`, or `role` and `content` of one turn: not both")
        given = [(turn.role, turn.content, turn.turn_id, turn.attributes) for turn in body.turns]
    elif body.role is None or body.content is None:
        raise Invalid("an append needs `role` and `content`, or `turns` for several")
    else:
        if key is not None and body.turn_id not in {None, key}:
            raise Invalid(f"`turn_id` and {_KEY} name the turn differently: give one of them")
        given = [(body.role, body.content, body.turn_id, body.attributes)]
    several = len(given) > 1
    return [
        NewTurn(
            role=role,
            content=content,
            turn_id=turn_id or (random_id(random) if key is None else f"{key}.{place}" if several else key),
            attributes=attributes,
        )
        for place, (role, content, turn_id, attributes) in enumerate(given)
    ]


async def _append(ask: Ask[None, AppendBody]) -> web.StreamResponse:
    body = ask.body
    turns = new_turns(body, ask.header(_KEY), ask.request.app[RANDOM])
    session = await ask.owned()
    results = await session.append_many(turns, after=body.after, rate_limit=body.rate_limit)
    said = tuple(
        AppendedSaid(
            number=result.number,
            turn_id=turn.turn_id or "",
            version=str(result.version),
            duplicate=result.duplicate,
            degraded=result.degraded,
        )
        for turn, result in zip(turns, results, strict=True)
    )
    stored = all(result.duplicate for result in results)
    version = max((result.version for result in results), key=lambda each: (each.incarnation, each.number))
    return answer(AppendAnswer(turns=said, version=str(version)), status=200 if stored else 201)


async def _history(ask: Ask[HistoryQuery, None]) -> web.StreamResponse:
    query = ask.query
    before, after = query.before, query.after
    if query.cursor is not None or query.order is not None:
        if before is not None or after is not None:
            raise Invalid("give `order` and `cursor`, or `before` or `after`: not both")
        before, after = (None, query.cursor or "") if query.order == "oldest" else (query.cursor, None)
    if before is not None and after is not None:
        raise Invalid("give `before` or `after`: not both")
    session = await ask.owned()
    page = await session.history(before=before, after=after, limit=query.limit)
    cursor = page.newer if after is not None else page.older
    return answer(
        HistoryAnswer(
            turns=page.turns,  # type: ignore[arg-type]  # the library's structs, of the same fields
            older=page.older,
            newer=page.newer,
            cursor=cursor,
        )
    )


def routes() -> list[web.RouteDef]:
    """Return the routes."""
    append = Operation(
        method="POST",
        path=_PATH,
        summary="Store turns, durably, in order, once: 201 where something was stored, 200 where all were before",
        scope=Scope.APPEND,
        body=AppendBody,
        answers={201: AppendAnswer, 200: AppendAnswer},
        headers={_KEY: "the id of a turn that has no turn_id: what is sent again with it is stored once"},
    )
    history = Operation(
        method="GET",
        path=_PATH,
        summary="A page of a session's turns, oldest first",
        scope=Scope.READ,
        query=HistoryQuery,
        answers={200: HistoryAnswer},
    )
    return [route(append, _append), route(history, _history)]
