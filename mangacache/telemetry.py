"""Logs and metrics of one instance: its own registry, no global configuration, never content or credentials."""

from __future__ import annotations

import logging
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from prometheus_client import Metric
    from structlog.typing import FilteringBoundLogger

M = TypeVar("M", Counter, Histogram)

_LOGGER: Final = logging.getLogger("mangacache")
_LOGGER.addHandler(logging.NullHandler())

_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BUCKET_NAMES: Final = (*map(floatToGoString, _BUCKETS_S), "+Inf")


def logger() -> FilteringBoundLogger:
    """Return a structured logger that hands its events to the standard library's `mangacache` logger.

    structlog's global configuration is neither used nor changed; without a handler nothing is printed.
    """
    bound: FilteringBoundLogger = structlog.wrap_logger(
        _LOGGER,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return bound


class Labelled(Generic[M]):
    """A metric whose children are kept once found: finding one takes a lock and checks its labels each time."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """Return the metric's child of these labels, as the metric itself does."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child

    def collect(self) -> Iterable[Metric]:
        """Return the metric's samples."""
        samples: Iterable[Metric] = self._metric.collect()
        return samples


class Times(Collector):
    """A histogram by one label for what happens on every call: each of `Histogram`'s takes two locks to add to.

    Only one thread adds; whichever may look.

    Args:
        name: of the metric.
        documentation: what Prometheus says of it.
        label: by what it is split.
        registry: shows it.
    """

    def __init__(self, name: str, documentation: str, label: str, *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = (label,)  # as the library's own metrics have it
        self._counts: dict[str, list[int]] = {}
        self._sums_s: dict[str, float] = {}
        registry.register(self)

    def observe(self, label: str, seconds: float) -> None:
        """Add one."""
        counts = self._counts.get(label)
        if counts is None:
            counts = self._counts[label] = [0] * len(_BUCKET_NAMES)
            self._sums_s[label] = 0.0
        counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self._sums_s[label] += seconds

    def describe(self) -> Iterable[Metric]:
        """Return the metric without its samples: a registry refuses another of its name."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """Return the metric's samples."""
        family = self._family()
        for label, counts in tuple(self._counts.items()):
            buckets = list(zip(_BUCKET_NAMES, map(float, accumulate(counts)), strict=True))
            family.add_metric([label], buckets, self._sums_s.get(label, 0.0))
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)


class Tracer(Protocol):
    """Who hears of each call to a service, for traces; it is told of the way and never of what is sent."""

    def span(self, system: str, operation: str) -> AbstractContextManager[object]:
        """Return a context manager around one call to `dynamodb`, `dax` or `redis`."""


class Telemetry:
    """The counters of one instance.

    Attributes:
        registry: a prometheus_client registry of this instance's own.
        tracer: None where nobody traces, which costs nothing but the question.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.log = logger()
        self.tracer: Tracer | None = None
        self.requests = Labelled(
            Counter(
                "mangacache_dynamodb_requests",
                "Requests sent to DynamoDB.",
                ["operation"],
                registry=self.registry,
            )
        )
        self.request_seconds = Labelled(
            Histogram(
                "mangacache_dynamodb_request_seconds",
                "Time of one request to DynamoDB, retries apart.",
                ["operation"],
                buckets=_BUCKETS_S,
                registry=self.registry,
            )
        )
        self.retries = Labelled(
            Counter(
                "mangacache_dynamodb_retries",
                "Requests sent again.",
                ["operation", "reason"],
                registry=self.registry,
            )
        )
        self.touches = Counter("mangacache_touches", "Writes of META outside the version.", registry=self.registry)
        self.contexts = Labelled(
            Counter("mangacache_contexts", "Contexts answered.", ["source"], registry=self.registry)
        )
        self.tier_misses = Labelled(
            Counter(
                "mangacache_tier_misses",
                "Contexts that a tier was asked for and did not have; what it had is in mangacache_contexts_total.",
                ["tier"],
                registry=self.registry,
            )
        )
        self.tier_stale_refused = Labelled(
            Counter(
                "mangacache_tier_stale_refused",
                "Contexts that were there and older than the reader, or the tier, may use: refused.",
                ["tier"],
                registry=self.registry,
            )
        )
        self.collisions = Counter(
            "mangacache_append_collisions", "Appends that found their number taken.", registry=self.registry
        )
        self.redis_calls = Labelled(
            Counter("mangacache_redis_calls", "Round trips to Redis, by script.", ["script"], registry=self.registry)
        )
        self.redis_seconds = Times(
            "mangacache_redis_call_seconds",
            "Time from asking Redis to a script's answer, the wait for a connection included.",
            "script",
            registry=self.registry,
        )
        self.redis_up = Gauge("mangacache_redis_up", "Whether Redis is reached.", registry=self.registry)
        self.redis_reconnections = Counter(
            "mangacache_redis_reconnections", "Times that Redis was reached again.", registry=self.registry
        )
        self.cache_events = Labelled(
            Counter(
                "mangacache_context_cache",
                "What happened to contexts in Redis: each outcome of the protocol's messages, by its name.",
                ["event"],
                registry=self.registry,
            )
        )
        self.dax_requests = Labelled(
            Counter(
                "mangacache_dax_requests",
                "Requests that DAX was to answer: answered, failed, refused by what stands behind it, or not sent"
                " because too many are under way (full) or DAX is away (open).",
                ["operation", "outcome"],
                registry=self.registry,
            )
        )
        self.dax_seconds = Labelled(
            Histogram(
                "mangacache_dax_request_seconds",
                "Time of one request to DAX, the wait for a thread included.",
                ["operation"],
                buckets=_BUCKETS_S,
                registry=self.registry,
            )
        )
        self.dax_queue_seconds = Histogram(
            "mangacache_dax_queue_seconds",
            "How long a call to DAX waited for a thread.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.dax_orphans = Counter(
            "mangacache_dax_orphans", "Calls to DAX that went on after their callers had left.", registry=self.registry
        )
        self.dax_up = Gauge("mangacache_dax_up", "Whether DAX is asked.", registry=self.registry)
        self.rate_limits = Labelled(
            Counter(
                "mangacache_rate_limits",
                "Rate limits asked, by who decided (redis, local, closed) and how (allowed, refused).",
                ["source", "outcome"],
                registry=self.registry,
            )
        )
        self.turns = Labelled(
            Counter(
                "mangacache_turns",
                "Turns of messages that were not like others: run again, slow, cut off, dead letters, fatal.",
                ["what"],
                registry=self.registry,
            )
        )
        self.sessions = Gauge("mangacache_sessions", "Sessions in memory.", registry=self.registry)
        self.memory_bytes = Gauge(
            "mangacache_memory_bytes", "What the contexts in memory take, about.", registry=self.registry
        )
        self.calls_inside = Gauge("mangacache_calls_inside", "Calls under way or waiting.", registry=self.registry)
        self.calls_window = Gauge("mangacache_calls_window", "Calls that are let in at once.", registry=self.registry)
        self.loop_lag_seconds = Gauge(
            "mangacache_loop_lag_seconds", "How late the event loop runs.", registry=self.registry
        )
        self.depths: dict[str, list[Callable[[], int]]] = {}
        self._depth = Gauge(
            "mangacache_queue_depth",
            "What waits or is under way in a queue, by its name.",
            ["queue"],
            registry=self.registry,
        )
        self.survived = Labelled(
            Counter(
                "mangacache_survived",
                "Failures survived without an error to the caller.",
                ["what"],
                registry=self.registry,
            )
        )

    def watch_depth(self, queue: str, depth: Callable[[], int]) -> None:
        """Show how much is in a queue whenever somebody looks; several that go by one name are added up."""
        depths = self.depths.setdefault(queue, [])
        depths.append(depth)
        self._depth.labels(queue).set_function(lambda: sum(each() for each in depths))

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value, 0 where it was never counted."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def count_survived(self, what: str, error: BaseException, **fields: Any) -> None:
        """Count and log a failure that reaches no caller."""
        self.survived.labels(what).inc()
        self.log.warning(what, error=f"{type(error).__name__}: {error}", **fields)
