"""`mangacache serve` as a process: what it says, its pages, and how it leaves."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import aiohttp
import pytest
from mangatest import LoopThread
from workers import worker_process

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store, open_transport
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


async def _create(settings):
    async with open_transport(settings) as transport:
        store = Store(transport, settings=settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
        await store.schema.create()


@pytest.fixture
def variables(table, shared_valkey) -> Iterator[dict[str, str]]:
    """The environment of a worker with a table of its own, and a Redis."""
    made = table | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}"}
    loop = LoopThread()
    try:
        loop.run(_create(Settings.from_env(made)))
    finally:
        loop.close()
    return made


async def _get(url):
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, await response.text()


async def test_a_worker_says_where_it_listens_and_leaves_with_0_when_told(variables):
    async with worker_process(variables) as worker:
        assert await _get(f"{worker.public}/healthz") == (200, '{"status": "alive"}')
        assert await _get(f"{worker.public}/readyz") == (200, '{"status": "ready"}')
        status, text = await _get(f"{worker.operator}/metrics")
        assert status == 200
        assert "mangacache_sessions" in text
        assert (await _get(f"{worker.operator}/state"))[0] == 200
        assert await worker.leave() == 0, worker.complaints
    assert worker.said[-1] == {"event": "left", "undone": []}


async def test_sigint_is_the_same(variables):
    async with worker_process(variables) as worker:
        worker.signal(signal.SIGINT)
        assert await worker.ended() == 0, worker.complaints
