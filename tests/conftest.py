"""What the suites share: servers of their own on free loopback ports, tables of their own, clocks one can set."""

from __future__ import annotations

import faulthandler
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from clusters import Cluster, clustered
from mangatest import LoopThread, World
from redises import debian_redis_binary, serving

from mangacache import Settings
from mangacache.local import LocalOptions, LocalStack
from mangacache.store import Transport, open_transport
from mangacache.store.transport import AioTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# Why a case of a suite that holds on moto too is not run there.
MOTO_LACKS = {
    "atomicity": "its transactions are not atomic among several requests at once, and one that fails may undo others",
    "tokens": "it ignores ClientRequestToken: a transaction sent again is done again, or refused by its own effect",
    "speed": "it answers some 30 queries a second, and these cases need hundreds of requests",
    "a part in it": "these cases end before anything is asked of a server",
}

BY_CLIENT = "dynoxide-by-aioboto3"

os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
os.environ.setdefault("AWS_REGION", "us-east-1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_moto: these cases hold on moto too, but for those marked `moto_lacks`")
    config.addinivalue_line("markers", "on_both_transports: these cases are run through the AWS client as well")
    config.addinivalue_line("markers", "moto_lacks(what): not run on moto, because of what it lacks: see MOTO_LACKS")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the cases that take a `world` each engine on which they hold."""
    if "world" not in metafunc.fixturenames:
        return
    engines = ["memory", "dynoxide"]
    lacking = metafunc.definition.get_closest_marker("moto_lacks")
    if lacking is not None and lacking.args[0] not in MOTO_LACKS:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {lacking.args[0]!r} is not in MOTO_LACKS")
    if lacking is None and metafunc.definition.get_closest_marker("on_moto"):
        engines.append("moto")
    if metafunc.definition.get_closest_marker("on_both_transports"):
        engines.append(BY_CLIENT)
    metafunc.parametrize("world", engines, indirect=True)


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
async def _world(endpoint: str | None, **changes: Any) -> AsyncIterator[World]:
    settings = Settings(
        table_name=f"t-{uuid4().hex[:12]}",
        dynamodb_endpoint=endpoint,
        redis_link=os.environ.get("REDIS_LINK", Settings().redis_link),
        retry_base_s=0.001,
        loop_lag_limit_s=60.0,  # a machine that is busy with other tests is no overload
        **changes,
    )
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


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[int]:
    """The port of a Valkey that suites share, each with keys of its own, all of which expire: it is looked at."""
    with serving() as port:
        yield port


@pytest.fixture(scope="session")
def debian_redis() -> Iterator[int]:
    """The port of Debian's Redis, shared the same way; its absence fails the tests that need it, saying so."""
    with serving(debian_redis_binary()) as port:
        yield port


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three primaries that share the slots, shared by suites the same way; nobody ends one of them."""
    with clustered() as made:
        yield made


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A table on the in-memory double, on a real engine, and where it is faithful on moto: the same cases hold."""
    engine, _, transport = request.param.partition("-by-")
    endpoint = None if engine == "memory" else request.getfixturevalue(engine)
    async with _world(endpoint, **({"dynamodb_transport": transport} if transport else {})) as made:
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
