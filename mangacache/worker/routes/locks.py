"""Locks of sessions: taken, renewed and given back by their token, at any worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from mangacache.worker.asking import PATH, Ask, Nothing, Operation, answer, route
from mangacache.worker.caller import Scope
from mangacache.worker.problems import Malformed
from mangacache.worker.shapes import LockAnswer, LockBody

if TYPE_CHECKING:
    from mangacache.ephemeral import Lent

_PATH = f"{PATH}/lock"
_TOKEN = "Lock-Token"  # noqa: S105 - a header's name
_DEFAULT = LockBody()


async def _take(ask: Ask[Nothing, LockBody | None]) -> web.StreamResponse:
    body = ask.body or _DEFAULT
    session = await ask.looked_at()
    lent = await ask.cache.locks.lend(session.id, lease_s=body.lease_s, wait_s=body.wait_s)
    if ask.request.transport is None or ask.request.transport.is_closing():  # nobody would give it back
        await ask.cache.locks.give_back(session.id, lent.lock_token)
    return answer(_said(lent), status=201)


async def _renew(ask: Ask[Nothing, None]) -> web.StreamResponse:
    session = await ask.looked_at()
    return answer(_said(await ask.cache.locks.prolong(session.id, _token(ask))))


async def _release(ask: Ask[Nothing, None]) -> web.StreamResponse:
    session = await ask.looked_at()
    await ask.cache.locks.give_back(session.id, _token(ask))
    return web.Response(status=204)


def _token(ask: Ask[Nothing, None]) -> str:
    given = ask.header(_TOKEN)
    if given is None:
        raise Malformed(f"the header {_TOKEN} is missing: it says which lock")
    return given


def _said(lent: Lent) -> LockAnswer:
    return LockAnswer(lock_token=lent.lock_token, fence=lent.fence, ttl_s=lent.ttl_s, source=lent.source)


def routes() -> list[web.RouteDef]:
    """Return the routes."""
    held = {_TOKEN: "`lock_token` of the lock (required)"}
    take = Operation(
        method="POST",
        path=_PATH,
        summary="Take a session's lock; 429 where another has it",
        scope=Scope.CHANGE,
        body=LockBody,
        needs_body=False,
        answers={201: LockAnswer},
    )
    renew = Operation(
        method="PUT",
        path=_PATH,
        summary="Hold a lock for its whole time from now on; 409 where it is not held any more",
        scope=Scope.CHANGE,
        answers={200: LockAnswer},
        headers=held,
    )
    release = Operation(
        method="DELETE",
        path=_PATH,
        summary="Give a lock back; one that is held no more is left alone",
        scope=Scope.CHANGE,
        answers={204: None},
        headers=held,
    )
    return [route(take, _take), route(renew, _renew), route(release, _release)]
