"""Whole instances on some Redis and a table in memory: for tests of what needs both, on each Redis."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mangacache import MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB, MemoryRedis, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mangacache.store import Transport

PATIENT_S = 10.0
"""A machine that is busy with other tests is no outage."""


class HurriedClock(SystemClock):
    """A clock whose long sleeps end when a test says so, and not by time.

    Attributes:
        asleep: how many sleep.
    """

    def __init__(self) -> None:
        self._hurries = asyncio.Event()
        self.asleep = 0

    async def sleep(self, seconds: float) -> None:
        if seconds < 1:
            return await super().sleep(seconds)
        self.asleep += 1
        try:
            await self._hurries.wait()
        finally:
            self.asleep -= 1
        return await super().sleep(0.01)

    def hurry(self) -> None:
        """Let whoever sleeps, and will sleep, go on at once."""
        self._hurries.set()


class Instances:
    """Instances that share a table and a Redis.

    Args:
        endpoint: of the Redis; None: the double.
        redis: False has none at all.

    Attributes:
        table: the double of DynamoDB.
        double: the double of Redis, where it is that.
        proxy: the way to a real one, where it is one server.
    """

    def __init__(self, endpoint: str | None = None, *, redis: bool = True) -> None:
        self.table = MemoryDynamoDB()
        self.double = MemoryRedis() if redis and endpoint is None else None
        self.proxy: Proxy | None = None
        self._endpoint = endpoint
        self._prefix = f"t{uuid4().hex[:10]}:"
        self._links: list[Any] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls, port: int | None = None, *, endpoint: str | None = None, redis: bool = True
    ) -> AsyncIterator[Instances]:
        """Make the table; a server at a port is reached by way of a proxy."""
        if port is None:
            made = cls(endpoint, redis=redis)
            await made._create()
            yield made
            return
        async with Proxy.open(port) as proxy:
            made = cls(f"redis://127.0.0.1:{proxy.port}")
            made.proxy = proxy
            await made._create()
            yield made

    @property
    def settings(self) -> Settings:
        return Settings(
            key_prefix=self._prefix,
            redis_endpoint=self._endpoint,
            redis_timeout_s=PATIENT_S,
            connect_timeout_s=PATIENT_S,
            retry_base_s=0.001,
            loop_lag_limit_s=60.0,
        )

    async def _create(self) -> None:
        async with self.store() as store:
            await store.schema.create()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The table alone."""
        yield Store(
            AioTransport(self.table.client()),
            settings=self.settings,
            clock=SystemClock(),
            random=system_random(),
            telemetry=Telemetry(),
        )

    @asynccontextmanager
    async def cache(
        self,
        *,
        wrap: Callable[[Transport], Transport] | None = None,
        clock: SystemClock | None = None,
        **changes: Any,
    ) -> AsyncIterator[MangaCache]:
        """One worker."""
        transport: Transport = AioTransport(self.table.client())
        settings = self.settings.replace(**changes) if changes else self.settings
        link = None
        if self.double is not None:
            link = self.link(timeout_s=settings.redis_timeout_s)
        wrapped = wrap(transport) if wrap is not None else transport
        async with MangaCache.open(settings, transport=wrapped, link=link, clock=clock) as cache:
            yield cache

    def link(self, *, timeout_s: float = PATIENT_S) -> Any:
        """A worker's own way to the double."""
        assert self.double is not None
        link = self.double.link(timeout_s=timeout_s, connect_timeout_s=PATIENT_S)
        self._links.append(link)
        return link

    # What can happen on the way to Redis

    def cut(self) -> None:
        """Break every connection of every worker, and let no new one open."""
        if self.proxy is not None:
            self.proxy.cut()
        for link in self._links:
            link.faults.cut()

    def mend(self) -> None:
        """End that."""
        if self.proxy is not None:
            self.proxy.restore()
        for link in self._links:
            link.faults.mend()
