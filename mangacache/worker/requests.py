"""The outermost ring around every request: counts those under way, and turns new ones away during the drain."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from mangacache.worker.readiness import Readiness

HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})


class Requests:
    """The requests of one port.

    Attributes:
        under_way: how many have begun and not ended, sockets included.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
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
        if not self._readiness.takes_in and request.path not in HEALTH_PATHS:
            return self._turned_away()
        self.under_way += 1
        self._none_left.clear()
        try:
            return await handler(request)
        finally:
            self.under_way -= 1
            if not self.under_way:
                self._none_left.set()

    def _turned_away(self) -> web.Response:
        after_s = self._readiness.retry_after_s
        response = web.json_response(
            {
                "type": "about:blank",
                "title": "Service Unavailable",
                "status": 503,
                "detail": "this worker is leaving: ask again, and another one answers",
                "retry_after_s": after_s,
            },
            status=503,
            headers={"Retry-After": str(math.ceil(after_s))},
            content_type="application/problem+json",
        )
        response.force_close()
        return response
