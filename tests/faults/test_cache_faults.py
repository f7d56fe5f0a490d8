"""Redis breaks in every way it can while worker processes read and write through it; what they were told is checked.

The runs are short here; `make suites` runs the same ones long (FAULT_OPERATIONS). Answers that say of themselves that
they are degraded are not held to be the latest, under the policy `available`; tokens hold always, and everything
acknowledged is stored once.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from loadrun import Load, run_load
from redis.asyncio import Redis
from redises import debian_redis_binary, keys_for_ever

from mangacache.local.process import free_port
from mangacache.local.valkey import valkey_process
from mangacache.testing import Proxy

OPERATIONS = int(os.environ.get("FAULT_OPERATIONS", "4000"))
CALM_OPERATIONS = int(os.environ.get("CALM_OPERATIONS", "6000"))


class Servers:
    """A primary, replicas where wanted, and the address by which workers know it."""

    def __init__(self, folder, stack):
        self._folder = folder
        self._stack = stack
        self.primary = None
        self.port = free_port()

    async def start(self, name, *, port=None, options=(), binary=None):
        folder = self._folder / name
        folder.mkdir()
        process = valkey_process(folder=folder, port=port, options=options, binary=binary)
        await process.start()
        self._stack.push_async_callback(process.stop)
        return process


@asynccontextmanager
async def _servers(folder, *, binary=None):
    async with AsyncExitStack() as stack:
        servers = Servers(folder, stack)
        servers.primary = await servers.start("primary", port=servers.port, binary=binary)
        yield servers


async def _run(
    world,
    folder,
    *,
    disturb,
    redis_port,
    policy="available",
    level="latest",
    redis_of=None,
    operations=OPERATIONS,
):
    settings = world.settings.replace(redis_endpoint=f"redis://127.0.0.1:{redis_port}", redis_policy=policy)
    histories = folder / "histories"
    histories.mkdir()
    load = Load(level=level, operations=operations)
    outcome = await run_load(load, settings=settings, folder=histories, disturb=disturb, redis_of=redis_of)
    print(outcome.summary())
    assert not outcome.report.violations, outcome.report.violations[0]
    assert not any(end["failures"] for end in outcome.ends if end)
    return outcome


@pytest.mark.parametrize("level", ["latest", "session"])
@pytest.mark.parametrize("server", ["valkey", "redis"])
async def test_without_a_fault_but_evictions_nothing_promised_is_broken(real_world, tmp_path, server, level):
    async def disturb(run):
        pass

    binary = debian_redis_binary() if server == "redis" else None
    async with _servers(tmp_path, binary=binary) as servers:
        outcome = await _run(
            real_world,
            tmp_path,
            disturb=disturb,
            redis_port=servers.port,
            level=level,
            operations=CALM_OPERATIONS,
        )
        assert keys_for_ever(servers.port) == []
    assert outcome.events["held"] > 0


@pytest.mark.parametrize("policy", ["available", "hold"])
async def test_a_redis_that_is_killed_and_comes_back_empty(real_world, tmp_path, policy):
    async with _servers(tmp_path) as servers:

        async def disturb(run):
            await run.reached(0.2)
            servers.primary.kill()
            await asyncio.sleep(0.5)
            await servers.start("again", port=servers.port)

        outcome = await _run(real_world, tmp_path, disturb=disturb, redis_port=servers.port, policy=policy)
    assert outcome.events["epoch_learned"] == 4, "every worker has moved on to the new server's epoch"
    assert outcome.degraded + outcome.refused > 0, "it was said"


async def test_a_redis_that_is_flushed_again_and_again(real_world, tmp_path):
    async with _servers(tmp_path) as servers:

        async def disturb(run):
            async with Redis(port=servers.port) as redis:
                for share in range(1, 10):
                    await run.reached(share / 10)
                    await redis.flushall()

        outcome = await _run(real_world, tmp_path, disturb=disturb, redis_port=servers.port)
    assert outcome.degraded == 0, "a flush is an eviction of everything"


@pytest.mark.parametrize("policy", ["available", "hold"])
@pytest.mark.parametrize("split", [False, True], ids=["old primary dies", "old primary lives on"])
async def test_a_failover_to_a_replica_that_lags(real_world, tmp_path, policy, split):
    """The replica stands still for a while, then takes over; where the old primary lives on, some do not notice."""
    async with _servers(tmp_path) as servers, Proxy.open(servers.port) as proxy, Proxy.open(servers.port) as other:
        replica = await servers.start("replica", options=["--replicaof", f"127.0.0.1 {servers.port}"])

        async def disturb(run):
            async with Redis(port=replica.port) as redis:
                await run.reached(0.15)
                await redis.replicaof("NO", "ONE")
            await run.reached(0.3)
            proxy.target_port = other.target_port = replica.port
            proxy.sever()  # of the workers behind the other proxy nobody loses a connection
            if not split:
                servers.primary.kill()

        def redis_of(worker):
            return f"redis://127.0.0.1:{(proxy, other)[worker % 2].port}"

        outcome = await _run(
            real_world, tmp_path, disturb=disturb, redis_port=servers.port, policy=policy, redis_of=redis_of
        )
    assert outcome.events["epoch_learned"] >= 4


@pytest.mark.parametrize("policy", ["available", "hold"])
async def test_a_worker_that_is_cut_off_from_redis_and_finds_it_again(real_world, tmp_path, policy):
    """It is away for longer than an invalidation may wait, so it has the others move on to a new epoch."""
    async with _servers(tmp_path) as servers, Proxy.open(servers.port) as proxy:

        async def disturb(run):
            await run.reached(0.15)
            proxy.cut()
            await asyncio.sleep(4.0 if policy == "available" else 1.0)
            proxy.restore()

        def redis_of(worker):
            return f"redis://127.0.0.1:{proxy.port if worker == 0 else servers.port}"

        outcome = await _run(
            real_world, tmp_path, disturb=disturb, redis_port=servers.port, policy=policy, redis_of=redis_of
        )
    assert outcome.ends[0]["degraded"] + outcome.ends[0]["refused"] > 0, "it was said"


async def test_a_redis_that_stands_still_for_a_while(real_world, tmp_path):
    async with _servers(tmp_path) as servers:

        async def disturb(run):
            for share in (0.2, 0.5):
                await run.reached(share)
                servers.primary.pause()
                await asyncio.sleep(1.2)
                servers.primary.resume()

        await _run(real_world, tmp_path, disturb=disturb, redis_port=servers.port)


async def test_connections_that_are_reset_and_workers_that_are_killed(real_world, tmp_path):
    async with _servers(tmp_path) as servers, Proxy.open(servers.port) as proxy:

        async def disturb(run):
            for share in range(1, 9):
                await run.reached(share / 10)
                proxy.sever()
                if share in (3, 6):
                    run.workers[share // 3].kill()

        outcome = await _run(real_world, tmp_path, disturb=disturb, redis_port=proxy.port)
    assert sum(end is None for end in outcome.ends) == 2
