"""`/healthz` and `/readyz`: the same question on both ports, and more of an answer for operators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from mangacache.worker.caller import Scope
from mangacache.worker.keys import CALLER

if TYPE_CHECKING:
    from mangacache.worker.monitor import Monitor
    from mangacache.worker.readiness import Readiness, Verdict

_NOT_KEPT: Final = {"Cache-Control": "no-store"}


class HealthPages:
    """Answers for one worker."""

    def __init__(self, monitor: Monitor, readiness: Readiness) -> None:
        self._monitor = monitor
        self._readiness = readiness

    def public_routes(self) -> list[web.RouteDef]:
        """Return the pages of the public port, which say a word each."""
        return [web.get("/healthz", _alive), web.get("/readyz", self._short)]

    def operator_routes(self) -> list[web.RouteDef]:
        """Return the same for the operator's port, where /readyz tells operators what is not as it should be."""
        return [web.get("/healthz", _alive), web.get("/readyz", self._by_caller)]

    async def _short(self, _: web.Request) -> web.Response:
        verdict = self._monitor.look()
        return _answer(verdict, {"status": verdict.status})

    async def _by_caller(self, request: web.Request) -> web.Response:
        caller = request.get(CALLER)
        if caller is None or Scope.OPERATE not in caller.scopes:
            return await self._short(request)
        verdict, hit_ratio = self._monitor.look(), self._monitor.hit_ratio
        return _answer(
            verdict,
            {
                "status": verdict.status,
                "reasons": verdict.reasons,
                "phase": self._readiness.phase.value,
                "away_s": {name: round(seconds, 1) for name, seconds in self._readiness.away_s().items()},
                "hit_ratio": {
                    "ratio": None if math.isnan(hit_ratio.ratio) else round(hit_ratio.ratio, 4),
                    "low": hit_ratio.low,
                    "contexts": int(hit_ratio.seen),
                },
            },
        )


async def _alive(_: web.Request) -> web.Response:
    """Answer at once: that this is answered says that the event loop lives, and nothing else is asked."""
    return web.json_response({"status": "alive"}, headers=_NOT_KEPT)


def _answer(verdict: Verdict, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=200 if verdict.ready else 503, headers=_NOT_KEPT)
