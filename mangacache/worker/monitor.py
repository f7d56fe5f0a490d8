"""Looks at the worker every second: which services are there, how the hit ratio stands, whether sessions are shed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mangacache.tasks import TaskOwner
from mangacache.worker.hit_ratio import HitRatio
from mangacache.worker.readiness import Verdict, judge

if TYPE_CHECKING:
    from mangacache import MangaCache, Settings
    from mangacache.clock import Clock
    from mangacache.worker.metrics import WorkerMetrics
    from mangacache.worker.readiness import Readiness

EVERY_S: Final = 1.0
_SHED_LATELY_S: Final = 30.0
_FROM_CACHE: Final = ("memory", "redis")
_SOURCES: Final = (*_FROM_CACHE, "dax", "dynamodb")


class Monitor:
    """What is known of a worker's health.

    Attributes:
        hit_ratio: the window and its alarm.
    """

    def __init__(
        self, cache: MangaCache, readiness: Readiness, *, settings: Settings, clock: Clock, metrics: WorkerMetrics
    ) -> None:
        self._cache = cache
        self._readiness = readiness
        self._clock = clock
        self._metrics = metrics
        self._tasks = TaskOwner(on_failure=cache.telemetry.count_survived)
        self._sheddings = 0
        self._shed_at_s = -math.inf
        self.hit_ratio = HitRatio(
            least=settings.hit_ratio_least, window_s=settings.hit_ratio_window_s, reads=settings.hit_ratio_reads
        )

    def start(self) -> None:
        """Look every second from now on."""
        self._tasks.start(self._run(), name="look after the worker's health")

    async def close(self) -> None:
        """Look no more."""
        await self._tasks.cancel()

    async def _run(self) -> None:
        while True:
            self.look()
            await self._clock.sleep(EVERY_S)

    def look(self) -> Verdict:
        """Look once, and return the verdict."""
        self._metrics.refresh()
        state, now_s = self._cache.supervisor.state(), self._clock.monotonic_s()
        self._readiness.look(state.health)
        if state.sheddings > self._sheddings:
            self._sheddings, self._shed_at_s = state.sheddings, now_s
        self._look_at_hits(now_s)
        verdict = judge(
            self._readiness.phase,
            state,
            away_s=self._readiness.away_s(),
            hit_ratio_low=self.hit_ratio.low,
            shedding=now_s - self._shed_at_s < _SHED_LATELY_S,
        )
        self._metrics.ready.set(verdict.ready)
        return verdict

    def _look_at_hits(self, now_s: float) -> None:
        telemetry, hit_ratio = self._cache.telemetry, self.hit_ratio
        answered = {source: telemetry.value("mangacache_contexts_total", source=source) for source in _SOURCES}
        hits = sum(answered[source] for source in _FROM_CACHE)
        changed = hit_ratio.look(now_s, hits=hits, reads=sum(answered.values()))
        self._metrics.hit_ratio.set(hit_ratio.ratio)
        self._metrics.hit_ratio_low.set(hit_ratio.low)
        if not changed:
            return
        if hit_ratio.low:
            self._metrics.hit_ratio_alarms.inc()
            telemetry.log.warning("hit_ratio_low", ratio=round(hit_ratio.ratio, 4), contexts=hit_ratio.seen)
        else:
            ratio = None if math.isnan(hit_ratio.ratio) else round(hit_ratio.ratio, 4)
            telemetry.log.info("hit_ratio_back", ratio=ratio, contexts=hit_ratio.seen)
