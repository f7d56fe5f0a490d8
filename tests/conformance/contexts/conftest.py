"""Workers on one table and one Redis; after the suite no key is left in Redis that would stay for ever."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet import Fleet, InMemory, fleet_on, table_in_memory
from mangatest import LoopThread
from redis import Redis as SyncRedis

from mangacache.local.valkey import valkey_process
from mangacache.testing.redis import MemoryRedis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mangatest import World

    from mangacache.local.process import ServerProcess


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


@pytest.fixture
async def fleet(world: World, valkey_port: int) -> AsyncIterator[Fleet]:
    """Workers on this table, on the Redis that the suite shares."""
    async with fleet_on(world, valkey_port) as made:
        yield made


@pytest.fixture
async def memory_world() -> World:
    """A table on the in-memory double alone, for cases that are about Redis and take their time."""
    return await table_in_memory()


@pytest.fixture
async def memory_fleet(memory_world: World, valkey_port: int) -> AsyncIterator[Fleet]:
    """Workers on the in-memory table and the Redis that the suite shares."""
    async with fleet_on(memory_world, valkey_port) as made:
        yield made


@pytest.fixture(params=["double", "valkey"])
async def either_fleet(request: pytest.FixtureRequest, memory_world: World) -> AsyncIterator[Fleet]:
    """Workers on the in-memory table, on the double of Redis and on a real one: the same cases hold."""
    if request.param == "valkey":
        async with fleet_on(memory_world, request.getfixturevalue("valkey_port")) as made:
            yield made
        return
    double = MemoryRedis()
    yield Fleet(memory_world, InMemory(double))
    assert [key for key in double.keys() if double.ttl_ms(key) == -1] == []  # noqa: SIM118 - it is no mapping


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
    async with fleet_on(memory_world, valkey.port) as made:
        yield made
