"""Chats replayed on a cluster: as clean and as cheap as on one server, also where a primary ends in the middle."""

from __future__ import annotations

import asyncio

import pytest
from clusters import clustered

from mangacache.replay import SAMPLE, Options, is_clean, replay

MEMORY_ALONE = {"near_max_age_s": 0.0}
"""A replay is over so soon that memory alone would answer it."""
PATIENT = {"redis_timeout_s": 10.0, "connect_timeout_s": 10.0}
"""A machine that is busy with other tests is no outage."""


async def test_a_replay_on_a_cluster_is_clean_and_costs_what_it_costs_on_one_server(real_world, cluster, shared_valkey):
    figures = {}
    for name, endpoint in (("cluster", cluster.endpoint), ("one", f"redis://127.0.0.1:{shared_valkey}")):
        settings = real_world.settings.replace(
            redis_endpoint=endpoint, key_prefix=f"{name}:", **MEMORY_ALONE, **PATIENT
        )
        figures[name] = await replay(SAMPLE, settings, Options(workers=2, prefix=name))
        assert is_clean(figures[name]), figures[name]
        assert figures[name]["turns_verified"] == figures[name]["turns_written"]
    of_cluster, of_one = figures["cluster"], figures["one"]
    assert of_cluster["degraded_messages"] == 0
    for tier, cost in (("redis", "round_trips_per_message"), ("dynamodb", "writes_per_message")):
        assert of_cluster[tier][cost] == pytest.approx(of_one[tier][cost], rel=0.05)
    assert of_cluster["dynamodb"]["reads_per_message"] < 0.05


async def test_a_replay_in_which_a_primary_is_killed_loses_nothing(real_world):
    begun, half = asyncio.Event(), asyncio.Event()
    done = 0

    def progress(total):
        begun.set()

        def advance():
            nonlocal done
            done += 1
            if done >= 0.2 * total:
                half.set()

        return advance

    with clustered(replicas=1, node_timeout_ms=2_000) as failing:
        settings = real_world.settings.replace(redis_endpoint=failing.endpoint, **MEMORY_ALONE)

        async def kill():
            await half.wait()
            failing.nodes[1].kill()

        killing = asyncio.create_task(kill())
        figures = await replay(SAMPLE, settings, Options(workers=1), progress=progress)
        await killing
        print(
            f"{figures['messages']} messages, {figures['degraded_messages']} degraded, {figures['lost']} lost,"
            f" {figures['latency_ms']['message']}"
        )
    assert is_clean(figures), figures
    assert figures["turns_verified"] == figures["turns_written"]
    assert figures["degraded_messages"] > 0, "it is said, where it is so"
