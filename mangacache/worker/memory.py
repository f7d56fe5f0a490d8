"""The operator's page of one session: what this worker's memory holds of it, for `mangacache inspect --worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from mangacache import MangaCache


class MemoryPage:
    """Answers for one worker; no word of a session is ever in it, and being looked at keeps nothing in memory."""

    def __init__(self, cache: MangaCache) -> None:
        self._cache = cache

    def routes(self) -> list[web.RouteDef]:
        """Return the page."""
        return [web.get("/sessions/{session_id}", self._memory)]

    async def _memory(self, request: web.Request) -> web.Response:
        try:
            remembered = self._cache.memory_of(request.match_info["session_id"])
        except Invalid as error:
            return _json({"error": str(error)}, status=400)
        if remembered is None:
            return _json({"error": "this worker's memory holds nothing of this session"}, status=404)
        return _json(remembered, status=200)


def _json(value: object, *, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
