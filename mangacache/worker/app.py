"""The worker's public application: every route of /v1, behind one door."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from mangacache.clock import SystemClock, system_random
from mangacache.worker.asking import Ask, Nothing, Operation, route
from mangacache.worker.deadlines import Deadlines
from mangacache.worker.door import Door
from mangacache.worker.keys import CACHE, DEADLINES, GATE, RANDOM, READINESS, SETTINGS
from mangacache.worker.openapi.document import document, operations
from mangacache.worker.routes import contexts, customers, locks, sessions, titles, turns
from mangacache.worker.shapes import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiohttp.typedefs import Middleware

    from mangacache import MangaCache, Settings
    from mangacache.clock import Clock, Random
    from mangacache.worker.auth.gate import Gate
    from mangacache.worker.readiness import Readiness

_MODULES = (contexts, turns, sessions, locks, customers, titles)  # what is asked most often first
DOCUMENT: Final = "/v1/openapi.json"


def api_routes() -> list[web.RouteDef]:
    """Return every route of the HTTP API, that of its document included."""
    routes = [each for module in _MODULES for each in module.routes()]
    told = Operation(
        method="GET", path=DOCUMENT, summary="This document", scope=None, query=Nothing, answers={200: Document}
    )
    said = msgspec.json.encode(document([*operations(routes), told], version=version("mangacache")))

    async def answer(_: Ask[Nothing, None]) -> web.StreamResponse:
        return web.Response(body=said, content_type="application/json")

    return [*routes, route(told, answer)]


def build_app(
    cache: MangaCache,
    *,
    gate: Gate,
    readiness: Readiness,
    settings: Settings,
    outer: Sequence[Middleware] = (),
    further: Iterable[web.RouteDef] = (),
    clock: Clock | None = None,
    random: Random | None = None,
) -> web.Application:
    """Return the application of the public port.

    Args:
        cache: the instance that answers.
        gate: who may.
        readiness: whether this worker serves, or leaves.
        settings: the worker's.
        outer: rings around the door, the outermost first.
        further: routes besides those of the HTTP API: health, sockets.
        clock: where time comes from; the machine's own by default.
        random: where randomness comes from.
    """
    clock = clock if clock is not None else SystemClock()
    random = random if random is not None else system_random()
    deadlines = Deadlines(clock=clock, on_failure=cache.telemetry.count_survived)
    door = Door(gate, deadlines, timeout_s=settings.worker_request_timeout_s, random=random, telemetry=cache.telemetry)
    app = web.Application(middlewares=[*outer, door.middleware], client_max_size=settings.worker_max_body_bytes)
    app[CACHE], app[GATE], app[READINESS] = cache, gate, readiness
    app[SETTINGS], app[RANDOM], app[DEADLINES] = settings, random, deadlines
    app.add_routes(api_routes())
    app.add_routes(list(further))

    async def close(_: web.Application) -> None:
        await deadlines.close()

    app.on_cleanup.append(close)
    return app
