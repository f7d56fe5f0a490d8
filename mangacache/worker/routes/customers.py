"""Customers: their sessions, their presence, their limits, and the end of all that is theirs."""

from __future__ import annotations

import math

from aiohttp import web

from mangacache.errors import NotFound
from mangacache.worker.asking import Ask, Nothing, Operation, answer, route
from mangacache.worker.caller import Forbidden, Scope
from mangacache.worker.shapes import (
    CostBody,
    ForgottenAnswer,
    LimitAnswer,
    PageQuery,
    PresenceAnswer,
    PresenceQuery,
    SeenSaid,
    SessionSaid,
    SessionsAnswer,
)

_PATH = "/v1/customers/{customer_id:[^/]+}"
_FORGET_WITHIN_S = 310.0
_ONE = CostBody()


async def _sessions(ask: Ask[PageQuery, None]) -> web.StreamResponse:
    page = await ask.cache.customer(ask.customer()).sessions(limit=ask.query.limit, cursor=ask.query.cursor)
    lines = tuple(
        SessionSaid(session_id=each.session_id, status=each.status, last_active_at=each.last_active_at)
        for each in page.sessions
    )
    return answer(SessionsAnswer(sessions=lines, cursor=page.cursor))


async def _forget(ask: Ask[Nothing, None]) -> web.StreamResponse:
    return answer(ForgottenAnswer(deleted=await ask.cache.forget_customer(ask.customer())))


async def _seen(ask: Ask[Nothing, None]) -> web.StreamResponse:
    sight = await ask.cache.presence.last_seen(ask.customer())
    if sight is None:
        raise NotFound("this customer has left, or was not seen within presence_keep_s")
    return answer(SeenSaid(customer_id=sight.customer_id, ago_s=sight.ago_s, online=sight.online))


async def _heartbeat(ask: Ask[Nothing, None]) -> web.StreamResponse:
    await ask.cache.presence.heartbeat(ask.customer())
    return web.Response(status=204)


async def _leave(ask: Ask[Nothing, None]) -> web.StreamResponse:
    await ask.cache.presence.leave(ask.customer())
    return web.Response(status=204)


async def _online(ask: Ask[PresenceQuery, None]) -> web.StreamResponse:
    if ask.caller.customer_id is not None:
        raise Forbidden("a customer's own credential does not show who else is there")
    presence = ask.cache.presence
    page = await presence.page(limit=ask.query.limit, cursor=ask.query.cursor)
    count = await presence.count()
    customers = tuple(
        SeenSaid(customer_id=each.customer_id, ago_s=each.ago_s, online=each.online) for each in page.sights
    )
    return answer(PresenceAnswer(count=count, customers=customers, cursor=page.cursor))


async def _limit(ask: Ask[Nothing, CostBody | None]) -> web.StreamResponse:
    cost = (ask.body or _ONE).cost
    decision = await ask.cache.rate_limits.check(ask.customer(), limit=ask.name("limit"), cost=cost)
    headers = None if decision.allowed else {"Retry-After": str(math.ceil(decision.retry_after_s))}
    said = LimitAnswer(
        allowed=decision.allowed,
        limit=decision.limit,
        remaining=decision.remaining,
        retry_after_s=decision.retry_after_s,
        source=decision.source,
    )
    return answer(said, headers=headers)


def routes() -> list[web.RouteDef]:
    """Return the routes."""
    seen, read, append = f"{_PATH}/presence", Scope.READ, Scope.APPEND
    return [
        route(
            Operation(
                method="GET",
                path=f"{_PATH}/sessions",
                summary="A customer's sessions, the most recently active first; up to five minutes old",
                scope=read,
                query=PageQuery,
                answers={200: SessionsAnswer},
            ),
            _sessions,
        ),
        route(
            Operation(
                method="DELETE",
                path=_PATH,
                summary="Delete every session of a customer, and look again until none is left",
                scope=Scope.DELETE,
                answers={200: ForgottenAnswer},
                timeout_s=_FORGET_WITHIN_S,
            ),
            _forget,
        ),
        route(
            Operation(
                method="GET",
                path=seen,
                summary="When a customer was last seen",
                scope=read,
                answers={200: SeenSaid},
            ),
            _seen,
        ),
        route(
            Operation(
                method="PUT", path=seen, summary="Say that a customer was seen now", scope=append, answers={204: None}
            ),
            _heartbeat,
        ),
        route(
            Operation(
                method="DELETE", path=seen, summary="Say that a customer has left", scope=append, answers={204: None}
            ),
            _leave,
        ),
        route(
            Operation(
                method="GET",
                path="/v1/presence",
                summary="How many customers are online, and some of them",
                scope=read,
                query=PresenceQuery,
                answers={200: PresenceAnswer},
            ),
            _online,
        ),
        route(
            Operation(
                method="POST",
                path=f"{_PATH}/rate-limits/{{limit:[^/]+}}",
                summary="Take units of a customer's limit where they are there; what is refused is not counted",
                scope=append,
                body=CostBody,
                needs_body=False,
                answers={200: LimitAnswer},
            ),
            _limit,
        ),
    ]
