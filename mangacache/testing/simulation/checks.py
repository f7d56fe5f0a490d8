"""What is looked at when a run has ended, besides its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.testing.simulation.faults import KINDS

if TYPE_CHECKING:
    from mangacache.testing.simulation.world import Worker, World

_SURVIVABLE: Final = frozenset(
    {
        "commit_lost",
        "drain_timed_out",
        "epoch_not_raised",
        "epoch_unread",
        "invalidations_slow",
        "invalidations_unsent",
        "redis_reconnect_failed",
        "release_failed",
        "script_failed",
        "sweep_failed",
        "touch_failed",
    }
)
"""What a worker may survive in an outage. Anything else is a task that failed, or a damage that nothing here does."""


ENDS_LEASES: Final = frozenset(
    {"a worker is killed", "a worker is told to stop", *(kind for kind in KINDS if "redis" in kind)}
)
"""Faults in which a lease cannot be given back, and ends by time."""


def left_in_redis(world: World, *, leases_end: bool) -> list[str]:
    """Return what stands in Redis and should not: keys that never expire, and leases where all could be given back.

    Args:
        world: whose Redis.
        leases_end: whether something happened in which a lease ends by time alone.
    """
    found = [f"the key {key} never expires" for key in world.redis.keys_for_ever()]
    if not leases_end:
        found += [f"the lease of {key} was not given back" for key in world.redis.leases()]
    return found


def survived(worker: Worker) -> list[str]:
    """Return what a worker has survived that it should not have met."""
    if not worker.is_open:
        return []
    telemetry = worker.cache.telemetry
    counted = {
        sample.labels["what"]
        for metric in telemetry.survived.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    return [f"{worker.name} survived {what!r}" for what in sorted(counted - _SURVIVABLE)]
