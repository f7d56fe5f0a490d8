"""Which link a process has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.redis.connections import RedisPyLink
from mangacache.redis.multiplexed import MultiplexedLink

if TYPE_CHECKING:
    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Link
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry


def open_link(settings: Settings, *, clock: Clock, random: Random, telemetry: Telemetry) -> Link:
    """Return the link that `redis_link` names; it connects when something is asked of it, and is closed by `close`.

    Raises:
        Invalid: `redis_ca_file` cannot be used.
    """
    kind = MultiplexedLink if settings.redis_link == "multiplexed" else RedisPyLink
    return kind(settings, clock=clock, random=random, telemetry=telemetry)
