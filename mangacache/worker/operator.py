"""The operator's port: metrics, the supervisor's state, and messages that could not be carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from mangacache import MangaCache
    from mangacache.worker.metrics import WorkerMetrics


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
