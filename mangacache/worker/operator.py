"""The operator's port: metrics, the supervisor's state, and messages that could not be carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mangacache.worker.caller import Forbidden, Scope, Unauthenticated
from mangacache.worker.keys import CALLER
from mangacache.worker.problems import is_declared, problem_of, response_of
from mangacache.worker.routing import is_health

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler, Middleware

    from mangacache import MangaCache
    from mangacache.telemetry import Telemetry
    from mangacache.worker.auth.gate import Gate
    from mangacache.worker.metrics import WorkerMetrics


def operator_app(routes: Sequence[web.RouteDef], *, gate: Gate, telemetry: Telemetry) -> web.Application:
    """Return the application of the operator's port: its pages are for operators, health is for everybody."""
    app = web.Application(middlewares=[_only_operators(gate, telemetry)])
    app.add_routes(routes)
    return app


def _only_operators(gate: Gate, telemetry: Telemetry) -> Middleware:
    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            try:
                caller = request[CALLER] = await gate.authenticate(request.headers, request.remote)
                if not is_health(request.path):
                    caller.require(Scope.OPERATE)
            except (Unauthenticated, Forbidden):
                if not is_health(request.path):
                    raise
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - each is an answer, and what should not happen is logged as that
            if not is_declared(error):
                telemetry.count_survived("request_failed", error)
            return response_of(problem_of(error))

    return around


class OperatorPages:
    """Answers for one worker."""

    def __init__(self, cache: MangaCache, metrics: WorkerMetrics) -> None:
        self._cache = cache
        self._worker_metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """Return the operator's own pages."""
        return [
            web.get("/metrics", self._metrics),
            web.get("/state", self._state),
            web.get("/dead-letters", self._dead_letters),
        ]

    async def _metrics(self, _: web.Request) -> web.Response:
        self._worker_metrics.refresh()
        body = generate_latest(self._cache.telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _state(self, _: web.Request) -> web.Response:
        return _json(self._cache.supervisor.state())

    async def _dead_letters(self, _: web.Request) -> web.Response:
        return _json(self._cache.supervisor.dead_letters())


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
