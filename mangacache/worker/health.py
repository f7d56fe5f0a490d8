"""`/healthz` and `/readyz`: the same question on both ports, and more of an answer for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from mangacache.worker.readiness import Verdict, judge

if TYPE_CHECKING:
    from mangacache import MangaCache
    from mangacache.worker.readiness import Readiness


class HealthPages:
    """Answers for one worker."""

    def __init__(self, cache: MangaCache, readiness: Readiness) -> None:
        self._cache = cache
        self._readiness = readiness

    def verdict(self) -> Verdict:
        """Return what /readyz says now."""
        state = self._cache.supervisor.state()
        self._readiness.look(state.health)
        return judge(
            self._readiness.phase,
            state,
            away_s=self._readiness.away_s(),
            hit_ratio_low=False,
            shedding=False,
        )

    def routes(self) -> list[web.RouteDef]:
        """Return the two pages of a port."""
        return [web.get("/healthz", self._alive), web.get("/readyz", self._ready)]

    async def _alive(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"}, headers={"Cache-Control": "no-store"})

    async def _ready(self, _: web.Request) -> web.Response:
        verdict = self.verdict()
        return web.json_response(
            {"status": verdict.status}, status=200 if verdict.ready else 503, headers={"Cache-Control": "no-store"}
        )
