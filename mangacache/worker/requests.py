"""The outermost ring around every request: counts, measures, has it logged, and turns new ones away in the drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from mangacache.errors import Closed
from mangacache.worker.keys import REQUEST_ID
from mangacache.worker.problems import problem_of, response_of
from mangacache.worker.readiness import Phase
from mangacache.worker.routing import is_health, route_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from mangacache.clock import Clock
    from mangacache.telemetry import Telemetry
    from mangacache.worker.metrics import WorkerMetrics
    from mangacache.worker.readiness import Readiness

_LEFT: Final = "left"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FAILURE: Final = 500


class Requests:
    """The requests of one port.

    Attributes:
        under_way: how many have begun and not ended, sockets included.
    """

    def __init__(
        self, readiness: Readiness, *, metrics: WorkerMetrics, telemetry: Telemetry, clock: Clock, port: str
    ) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._log = telemetry.log
        self._clock = clock
        self._port = port
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.under_way = 0

    @property
    def middleware(self) -> Middleware:
        """The ring, for an application."""

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._around(request, handler)

        return around

    async def settle(self) -> None:
        """Wait until no request is under way."""
        await self._none_left.wait()

    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._readiness.takes_in and not is_health(request.path):
            self._metrics.turned_away.inc()
            return turned_away(self._readiness.retry_after_s)
        self._began()
        began_s = self._clock.monotonic_s()
        status, response = _LEFT, None
        try:
            response = await handler(request)
            status = str(response.status)
            if self._readiness.phase is Phase.LEAVING and not response.prepared:
                response.force_close()  # the next request of this connection's goes elsewhere
            return response
        except web.HTTPException as error:
            status = str(error.status)
            raise
        except Exception:
            status = str(_FAILURE)
            raise
        finally:
            self._ended()
            if not isinstance(response, web.WebSocketResponse):
                self._measured(request, status, self._clock.monotonic_s() - began_s)

    def _began(self) -> None:
        self.under_way += 1
        self._metrics.under_way.inc()
        self._none_left.clear()

    def _ended(self) -> None:
        self.under_way -= 1
        self._metrics.under_way.dec()
        if not self.under_way:
            self._none_left.set()

    def _measured(self, request: web.Request, status: str, seconds: float) -> None:
        """Count and log a request by the pattern of its path, so that no id of anybody's stands anywhere."""
        route, method = route_of(request), request.method if request.method in _METHODS else "other"
        self._metrics.requests.labels(route, method, status).observe(seconds)
        log = self._log.info if status.startswith("5") else self._log.debug
        log(
            "request",
            port=self._port,
            method=method,
            route=route,
            status=status,
            milliseconds=round(seconds * 1e3, 3),
            request_id=request.get(REQUEST_ID, ""),
        )


def turned_away(retry_after_s: float) -> web.Response:
    """Return the answer to a request that comes during the drain, after which the connection is closed."""
    problem = problem_of(Closed("this worker is leaving: ask again, and another one answers"))
    response = response_of(msgspec.structs.replace(problem, retry_after_s=retry_after_s))
    response.force_close()
    return response
