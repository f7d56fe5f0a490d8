"""The metrics that a worker adds to those of its `MangaCache`, in the same registry: requests, collector, process."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from mangacache.collector import PauseWatch
from mangacache.telemetry import Labelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from mangacache import MangaCache
    from mangacache.clock import Clock
    from mangacache.sessions import Supervisor

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PAUSES_S: Final = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_PHASES: Final = ("closed", "open", "half-open")
_GENERATIONS: Final = 3
_MOST_NOTED: Final = 10_000


class WorkerMetrics:
    """What a worker counts.

    Attributes:
        requests: seconds a request took, by route, method and status; sockets are left out.
        under_way: requests and sockets that have begun and not ended.
        turned_away: requests that came while the worker was leaving.
        ready: whether /readyz says yes.
        hit_ratio, hit_ratio_low, hit_ratio_alarms: see `HitRatio`.
    """

    def __init__(self, cache: MangaCache, *, clock: Clock) -> None:
        registry = cache.telemetry.registry
        self._clock = clock
        self.requests = Labelled(
            Histogram(
                "mangacache_http_request_seconds",
                "Time of one request, by the pattern of its path.",
                ["route", "method", "status"],
                buckets=_BUCKETS_S,
                registry=registry,
            )
        )
        self.under_way = Gauge(
            "mangacache_http_requests_under_way", "Requests and sockets that have not ended.", registry=registry
        )
        self.turned_away = Counter(
            "mangacache_http_requests_turned_away", "Requests that came during the drain.", registry=registry
        )
        self.ready = Gauge("mangacache_ready", "Whether /readyz says yes.", registry=registry)
        self.hit_ratio = Gauge(
            "mangacache_hit_ratio",
            "Share of contexts that memory or Redis answered, over the last hit_ratio_window_s.",
            registry=registry,
        )
        self.hit_ratio_low = Gauge(
            "mangacache_hits_low", "Whether the alarm on the hit ratio is on.", registry=registry
        )
        self.hit_ratio_alarms = Counter(
            "mangacache_hits_low_alarms", "Times that the alarm on the hit ratio has gone on.", registry=registry
        )
        self._pauses = Histogram(
            "mangacache_gc_pause_seconds",
            "How long the garbage collector held the process up, by generation.",
            ["generation"],
            buckets=_PAUSES_S,
            registry=registry,
        )
        self._noted: deque[tuple[int, float]] = deque(maxlen=_MOST_NOTED)
        for generation in range(_GENERATIONS):
            self._pauses.labels(str(generation))
        supervisor = cache.supervisor
        cache.telemetry.watch_depth("mailboxes", lambda: _in_mailboxes(supervisor))
        cache.telemetry.watch_depth("intake", lambda: supervisor.state().waiting)
        registry.register(_OfSupervisor(supervisor))
        ProcessCollector(registry=registry)

    @contextmanager
    def pauses(self) -> Iterator[None]:
        """Measure the collector's pauses while the block runs."""
        with PauseWatch(self._clock, paused=self._paused):
            yield

    def _paused(self, generation: int, seconds: float) -> None:
        """Note a pause for `refresh`: to take a metric's lock here could wait for ever for what the collector cut into.

        See `PauseWatch`.
        """
        self._noted.append((generation, seconds))

    def refresh(self) -> None:
        """Count the pauses that were noted; to be called now and then, and before the metrics are shown."""
        while self._noted:
            generation, seconds = self._noted.popleft()
            self._pauses.labels(str(generation)).observe(seconds)


def _in_mailboxes(supervisor: Supervisor) -> int:
    state = supervisor.state()
    return max(0, state.inside - state.running)


class _OfSupervisor(Collector):
    """Shows what the supervisor knows whenever somebody looks."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterable[Metric]:
        state = self._supervisor.state()
        evicted = CounterMetricFamily("mangacache_sessions_evicted", "Sessions that left memory.", labels=["reason"])
        for reason, count in state.evicted.items():
            evicted.add_metric([reason], count)
        yield evicted
        breakers = GaugeMetricFamily(
            "mangacache_breaker_state",
            "Which phase the breaker of a service is in: 1 for that, 0 for the others.",
            labels=["service", "phase"],
        )
        for service, health in state.health.items():
            for phase in _PHASES:
                breakers.add_metric([service, phase], float(health.phase == phase))
        yield breakers
        for name, text, count in (
            ("mangacache_calls_refused", "Calls for which there was no room.", state.refused),
            ("mangacache_memory_sheddings", "Times that sessions had to leave for want of memory.", state.sheddings),
            ("mangacache_dead_letters", "Messages that could not be carried out.", state.dead_letters),
            ("mangacache_background_restarts", "Times that background work was begun again.", state.restarts),
        ):
            yield CounterMetricFamily(name, text, value=count)
        yield GaugeMetricFamily(
            "mangacache_loop_lag_worst_seconds",
            "How late the event loop ran at worst in the last minute.",
            value=state.loop_lag_worst_ms / 1e3,
        )
