"""The ephemeral services on some Redis, without the rest of an instance: for tests of what they promise."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis import Redis

from mangacache import Settings
from mangacache.clock import SystemClock
from mangacache.ephemeral import Asker, Connections, Presence, RateLimits, Trending
from mangacache.redis import open_link
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryRedis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from clusters import Cluster

    from mangacache.clock import Clock
    from mangacache.redis import Link, Server

PATIENT_S = 10.0
"""A machine that is busy with other tests is no outage."""


async def admit(server: Server) -> int:
    del server
    return 1


class Services:
    """One worker's services.

    Attributes:
        asker, connections, presence, rate_limits, trending: as an instance has them.
        link: the way to Redis, None where there is none.
        prefix: what its keys begin with.
    """

    def __init__(self, link: Link | None, settings: Settings, clock: Clock) -> None:
        self.link = link
        self.settings = settings
        self.telemetry = Telemetry()
        self.asker = Asker(link, settings=settings)
        made = random.Random(uuid4().int)
        self.connections = Connections(self.asker, settings=settings, random=made, telemetry=self.telemetry)
        self.presence = Presence(self.asker, settings=settings)
        self.trending = Trending(self.asker, clock=clock)
        self.rate_limits = RateLimits(self.asker, settings=settings, clock=clock, random=made, telemetry=self.telemetry)

    async def close(self) -> None:
        await self.connections.close()
        await self.rate_limits.close()
        if self.link is not None:
            await self.link.close()


class Host:
    """A Redis, and workers' services on it.

    Args:
        endpoint: of a real one; None: the double.
        client: finds the real one's client for a key.
    """

    def __init__(self, endpoint: str | None = None, client: Callable[[str], Redis] | None = None) -> None:
        self._endpoint = endpoint
        self._client = client
        self.prefix = f"t{uuid4().hex[:10]}:"
        self.double: MemoryRedis | None = None

    @property
    def is_double(self) -> bool:
        return self._endpoint is None

    @asynccontextmanager
    async def services(self, clock: Clock | None = None, **changes: Any) -> AsyncIterator[Services]:
        """A worker; the double takes its clock from the first one."""
        clock = clock if clock is not None else SystemClock()
        settings = Settings(
            redis_endpoint=self._endpoint if self._endpoint is not None else "redis://127.0.0.1:1",
            key_prefix=self.prefix,
            **{"redis_timeout_s": PATIENT_S, "connect_timeout_s": PATIENT_S} | changes,
        )
        if self._endpoint is None:
            if self.double is None:
                self.double = MemoryRedis(clock=clock)
            link: Link = self.double.link(clock=SystemClock(), timeout_s=PATIENT_S, connect_timeout_s=PATIENT_S)
        else:
            link = open_link(settings, clock=SystemClock(), random=random.Random(1), telemetry=Telemetry())
        link.admit_with(admit)
        made = Services(link, settings, clock)
        try:
            yield made
        finally:
            await made.close()
            if self.double is not None:
                assert [key for key in self.double.keys() if self.double.ttl_ms(key) == -1] == []  # noqa: SIM118 - it is no mapping

    def delete(self, key: str) -> None:
        """Forget a key, as an eviction does."""
        if self.double is not None:
            self.double.evict(key)
        else:
            with self._of(key) as client:
                client.delete(key)

    def plant(self, key: str, value: bytes = b"somebody else's") -> None:
        """Keep a text under a key."""
        if self.double is not None:
            self.double._primary.db.keep(key, value)
            self.double._primary.db.pexpire(key, 60_000)
        else:
            with self._of(key) as client:
                client.set(key, value, px=60_000)

    def _of(self, key: str) -> Redis:
        assert self._client is not None
        return self._client(key)


def on_port(port: int) -> Host:
    return Host(f"redis://127.0.0.1:{port}", lambda _: Redis(port=port))


def on_cluster(cluster: Cluster) -> Host:
    return Host(cluster.endpoint, lambda key: Redis(port=cluster.primary_of(key).port))
