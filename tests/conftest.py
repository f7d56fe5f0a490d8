"""What the suites share: servers of their own on free loopback ports, tables of their own, clocks one can set."""

from __future__ import annotations

import faulthandler
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from mangatest import LoopThread, World

from mangacache import Settings
from mangacache.local import LocalOptions, LocalStack
from mangacache.store import Transport, open_transport
from mangacache.store.transport import AioTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
os.environ.setdefault("AWS_REGION", "us-east-1")


def _stack(engine: str) -> Iterator[LocalStack]:
    loop = LoopThread()
    opening = LocalStack.open(LocalOptions(engine=engine, redis=False))
    stack = loop.run(opening.__aenter__())
    try:
        yield stack
    finally:
        loop.run(opening.__aexit__(None, None, None))
        loop.close()


@pytest.fixture(scope="session")
def dynoxide() -> Iterator[str]:
    """A real engine's address, with faithful transactions; its absence fails the tests that need it, saying so."""
    for stack in _stack("dynoxide"):
        yield stack.dynamodb_url


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Moto's address, for the cases in which it is faithful."""
    for stack in _stack("moto"):
        yield stack.dynamodb_url


@asynccontextmanager
async def _world(endpoint: str | None) -> AsyncIterator[World]:
    settings = Settings(table_name=f"t-{uuid4().hex[:12]}", dynamodb_endpoint=endpoint, retry_base_s=0.001)
    if endpoint is None:
        from mangacache.testing import MemoryDynamoDB

        database = MemoryDynamoDB()

        @asynccontextmanager
        async def connect() -> AsyncIterator[Transport]:
            yield AioTransport(database.client())
    else:

        def connect() -> Any:  # type: ignore[misc]
            return open_transport(settings)

    world = World(settings, connect)
    async with world.store() as store:
        await store.schema.create()
    yield world


@pytest.fixture(params=["memory", "dynoxide"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A table on the in-memory double and on a real engine: the same cases hold on both."""
    endpoint = None if request.param == "memory" else request.getfixturevalue("dynoxide")
    async with _world(endpoint) as made:
        yield made


@pytest.fixture
async def real_world(dynoxide: str) -> AsyncIterator[World]:
    """A table on the real engine."""
    async with _world(dynoxide) as made:
        yield made


@pytest.fixture
async def moto_world(moto: str) -> AsyncIterator[World]:
    """A table on moto."""
    async with _world(moto) as made:
        yield made


@pytest.fixture(autouse=True)
def _hang_guard() -> Iterator[None]:
    """End the run with every thread's stack when a single test hangs; generous, and no measure of speed."""
    faulthandler.dump_traceback_later(10 * 60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
