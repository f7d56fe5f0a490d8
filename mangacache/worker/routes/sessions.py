"""A session as a whole: its META, its summary, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from mangacache.errors import NotFound
from mangacache.model import Version
from mangacache.store.changes import RevisionMoved
from mangacache.worker.asking import PATH, Ask, Nothing, Operation, answer, route
from mangacache.worker.caller import Scope
from mangacache.worker.etags import expected_revision, matches, revision_tag
from mangacache.worker.problems import PreconditionFailed
from mangacache.worker.routes.contexts import level_of
from mangacache.worker.shapes import (
    AdoptAnswer,
    ChangeBody,
    DeletedAnswer,
    Freshness,
    MetaAnswer,
    SummaryBody,
    UpdatedAnswer,
)

if TYPE_CHECKING:
    from mangacache.model import Updated

_IF_MATCH = "If-Match"


async def _meta(ask: Ask[Freshness, None]) -> web.StreamResponse:
    query = ask.query
    context = await ask.session().context(turns=1, at_least=query.at_least, consistency=level_of(query))
    ask.check_owner(context)
    meta = context.meta
    if meta is None:
        raise NotFound("there is no such session: it begins with its first append")
    tag = revision_tag(context.version)
    headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
    if matches(ask.listed("If-None-Match"), tag):
        return web.Response(status=304, headers=headers)
    said = MetaAnswer(
        session_id=context.session_id,
        customer_id=meta.customer_id,
        status=meta.status,
        created_at=meta.created_at,
        attributes=meta.attributes,
    )
    return answer(said, headers=headers)


async def _change(ask: Ask[Nothing, ChangeBody]) -> web.StreamResponse:
    body, given = ask.body, ask.listed(_IF_MATCH)
    expected = expected_revision(given)
    session = await ask.owned()
    try:
        updated = await session.update(
            body.attributes, remove=body.remove, status=body.status, if_version=expected, fence=body.fence
        )
    except RevisionMoved as error:
        raise PreconditionFailed(str(error)) from error
    except NotFound as error:
        if given is None:
            raise
        raise PreconditionFailed(str(error)) from error
    return _updated(updated)


async def _summary(ask: Ask[Nothing, SummaryBody]) -> web.StreamResponse:
    session = await ask.owned()
    return _updated(await session.summarise(ask.body.text, upto=ask.body.upto, fence=ask.body.fence))


async def _close(ask: Ask[Nothing, None]) -> web.StreamResponse:
    session = await ask.owned()
    return _updated(await session.close())


async def _delete(ask: Ask[Nothing, None]) -> web.StreamResponse:
    session = await ask.owned()
    deleted = await session.delete()
    return answer(
        DeletedAnswer(
            version=str(deleted.version), existed=deleted.existed, swept=deleted.swept, degraded=deleted.degraded
        )
    )


async def _adopt(ask: Ask[Nothing, None]) -> web.StreamResponse:
    session = await ask.looked_at()
    return answer(AdoptAnswer(adopted=await session.adopt()))


def _updated(updated: Updated) -> web.Response:
    said = UpdatedAnswer(
        version=str(updated.version),
        meta=updated.meta,  # type: ignore[arg-type]  # the library's struct, of the same fields
        degraded=updated.degraded,
    )
    return answer(said, headers={"ETag": f'"{revision_tag(Version.parse(updated.version))}"'})


def routes() -> list[web.RouteDef]:
    """Return the routes."""
    known = {"If-None-Match": "the ETag of what is known: answered by 304 where it is the same"}
    insists = {_IF_MATCH: "the ETag of the META that this builds on: answered by 412 where it has moved on"}
    return [
        route(
            Operation(
                method="GET",
                path=PATH,
                summary="A session's META; its ETag is incarnation and revision",
                scope=Scope.READ,
                query=Freshness,
                answers={200: MetaAnswer, 304: None},
                headers=known,
            ),
            _meta,
        ),
        route(
            Operation(
                method="PATCH",
                path=PATH,
                summary="Change META: set and remove attributes, set the status",
                scope=Scope.CHANGE,
                body=ChangeBody,
                answers={200: UpdatedAnswer},
                headers=insists,
            ),
            _change,
        ),
        route(
            Operation(
                method="PUT",
                path=f"{PATH}/summary",
                summary="Store a summary of the turns up to a number",
                scope=Scope.CHANGE,
                body=SummaryBody,
                answers={200: UpdatedAnswer},
            ),
            _summary,
        ),
        route(
            Operation(
                method="POST",
                path=f"{PATH}/close",
                summary="Set the status to closed; turns may still be appended",
                scope=Scope.CHANGE,
                answers={200: UpdatedAnswer},
            ),
            _close,
        ),
        route(
            Operation(
                method="DELETE",
                path=PATH,
                summary="Delete a session: nothing of it is returned by any call any more",
                scope=Scope.DELETE,
                answers={200: DeletedAnswer},
            ),
            _delete,
        ),
        route(
            Operation(
                method="POST",
                path=f"{PATH}/adopt",
                summary="Renumber a session that somebody else wrote, so that it can be appended to",
                scope=Scope.OPERATE,
                answers={200: AdoptAnswer},
            ),
            _adopt,
        ),
    ]
