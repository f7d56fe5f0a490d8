"""What is looked at when a run has ended, besides its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.testing.simulation.faults import KINDS

if TYPE_CHECKING:
    from mangacache.testing.simulation.world import Worker, World

_DAMAGE: Final = frozenset({"context_unreadable", "drain_failed"})
"""What no outage explains."""

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
    """Return what a worker has survived that it should not have met: damage, and tasks that died.

    What is foreseen at its place is counted under a word; a task that failed, under its name, which is a sentence.
    """
    if not worker.is_open:
        return []
    telemetry = worker.cache.telemetry
    counted = {
        sample.labels["what"]
        for metric in telemetry.survived.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    return [f"{worker.name} survived {what!r}" for what in sorted(counted) if " " in what or what in _DAMAGE]
