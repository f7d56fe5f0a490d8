"""Workers on one table and one Redis; after the suite no key is left in Redis that would stay for ever."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet import Fleet
from mangatest import LoopThread, World
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from mangacache import Settings
from mangacache.local.valkey import valkey_process
from mangacache.store.transport import AioTransport
from mangacache.testing import MemoryDynamoDB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mangacache.local.process import ServerProcess
    from mangacache.store import Transport


@pytest.fixture(scope="session")
def valkey_port() -> Iterator[int]:
    """A server that the suite shares; each fleet has a key prefix of its own."""
    loop = LoopThread()
    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        server = valkey_process(folder=Path(folder))
        loop.run(server.start())
        try:
            yield server.port
            assert _for_ever(server.port) == []
        finally:
            loop.run(server.stop())
            loop.close()


def _for_ever(port: int) -> list[bytes]:
    """Return the keys that no time-to-live ends."""
    with SyncRedis(port=port) as redis:
        return [key for key in redis.scan_iter() if redis.ttl(key) == -1]


@asynccontextmanager
async def _fleet(world: World, port: int) -> AsyncIterator[Fleet]:
    async with Redis(host="127.0.0.1", port=port) as redis:
        yield Fleet(world, port, redis)


@pytest.fixture
async def fleet(world: World, valkey_port: int) -> AsyncIterator[Fleet]:
    """Workers on this table, on the Redis that the suite shares."""
    async with _fleet(world, valkey_port) as made:
        yield made


@pytest.fixture
async def memory_world() -> World:
    """A table on the in-memory double alone, for cases that are about Redis and take their time."""
    database = MemoryDynamoDB()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        yield AioTransport(database.client())

    made = World(Settings(table_name="contexts", retry_base_s=0.001), connect)
    async with made.store() as store:
        await store.schema.create()
    return made


@pytest.fixture
async def memory_fleet(memory_world: World, valkey_port: int) -> AsyncIterator[Fleet]:
    """Workers on the in-memory table and the Redis that the suite shares."""
    async with _fleet(memory_world, valkey_port) as made:
        yield made


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server of the test's own, to be killed, flushed and started again."""
    server = valkey_process(folder=tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def lonely_fleet(memory_world: World, valkey: ServerProcess) -> AsyncIterator[Fleet]:
    """Workers on the in-memory table and a Redis of the test's own."""
    async with _fleet(memory_world, valkey.port) as made:
        yield made
