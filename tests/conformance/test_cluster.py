"""Both links on clusters of real servers: each key at its node, wherever its slot goes; and what a failover costs."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from clusters import clustered
from fleet import fleet_on, table_in_memory
from mangatest import HANG_GUARD_S

from mangacache import Consistency, MangaCacheError, Settings, Version
from mangacache.clock import SystemClock, system_random
from mangacache.context.primaries import Primary
from mangacache.redis import ClusterLink, FindingLink, LinkLost, Moved, Script, ScriptFailed, open_link
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from clusters import Cluster
    from fleet import Fleet

    from mangacache.redis import Admission, Link, Server

COUNT = Script.of("count", "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], 60000) return n")
PATIENT_S = 5.0
FAILED_AFTER_MS = 4_000  # a busy machine lets a server stand for a while


@pytest.fixture(params=["multiplexed", "redis-py"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def failing() -> Iterator[Cluster]:
    """A cluster of the test's own, with a replica of each primary, that soon takes a primary for failed."""
    with clustered(replicas=1, node_timeout_ms=FAILED_AFTER_MS) as made:
        yield made


@asynccontextmanager
async def linked(
    cluster: Cluster, *, kind: str = "multiplexed", admission: Admission | None = None, **changes: Any
) -> AsyncIterator[Link]:
    settings = Settings(
        redis_endpoint=cluster.endpoint,
        redis_link=kind,
        **{"redis_timeout_s": PATIENT_S, "connect_timeout_s": PATIENT_S} | changes,
    )
    link = open_link(settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
    link.admit_with(admission if admission is not None else admit)
    try:
        yield link
    finally:
        async with asyncio.timeout(HANG_GUARD_S):
            await link.close()
        assert len((link.link if isinstance(link, FindingLink) else link)._tasks) == 0


async def admit(server: Server) -> int:
    if (await server.info())["role"] != "master":
        raise MangaCacheError("a replica")
    return 1


async def until_done(act: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    """Repeat what fails, and return its result and how long that took, in seconds."""
    clock = asyncio.get_running_loop().time
    begun_s = clock()
    async with asyncio.timeout(HANG_GUARD_S):
        while True:
            try:
                return await act(), clock() - begun_s
            except (LinkLost, MangaCacheError):
                await asyncio.sleep(0.01)


def spread(cluster: Cluster, fleet: Fleet, name: str) -> list[str]:
    """Return twelve sessions whose contexts are at all three primaries, four at each."""
    found: dict[int, list[str]] = {}
    numbers = itertools.count()
    while sum(map(len, found.values())) < 12:
        session_id = f"{name}-{next(numbers)}"
        at = found.setdefault(cluster.primary_of(fleet.key(session_id)).port, [])
        if len(at) < 4:
            at.append(session_id)
    return [session_id for at in found.values() for session_id in at]


@pytest.fixture
def name() -> str:
    return uuid4().hex


# Keys and slots


async def test_that_a_server_is_a_node_of_a_cluster_is_found_out_and_each_node_is_admitted(cluster, kind, name):
    met: set[str] = set()

    async def admitting(server: Server) -> int:
        met.add((await server.info())["cluster_slots"])
        return 1

    async with linked(cluster, kind=kind, admission=admitting) as link:
        assert await asyncio.gather(*(link.run(COUNT, f"{name}:{n}", [], tag=1) for n in range(60))) == [1] * 60
        assert isinstance(link.link, ClusterLink)
        assert len(met) == 3
        assert link.up
        with pytest.raises(Moved):
            await link.run(COUNT, f"{name}:0", [], tag=2)
        at = {port: cluster.ask(port, "KEYS", f"{name}:*") for port in cluster.ports}
        assert sum(map(len, at.values())) == 60
        assert min(map(len, at.values())) > 0


async def test_keys_with_one_hash_tag_are_at_one_node_and_others_are_refused_together(cluster, kind, name):
    both = Script.of("both", "return #KEYS")
    async with linked(cluster, kind=kind) as link:
        assert await link.run(both, f"{name}{{a}}", [], more_keys=[f"{{a}}{name}"]) == 2
        with pytest.raises(ScriptFailed, match=r"CROSSSLOT|same slot"):
            await link.run(both, f"{name}{{a}}", [], more_keys=[f"{{b}}{name}"])


async def test_a_slot_on_its_way_is_asked_for_at_both_ends_and_then_found_where_it_went(cluster, kind, name):
    here, there = f"{{{name}}}:here", f"{{{name}}}:there"
    old = cluster.primary_of(here)
    new = next(node for node in cluster.nodes if node is not old)
    begin, end = cluster.moving_slot(here, new)
    async with linked(cluster, kind=kind) as link:
        assert await link.run(COUNT, here, []) == 1
        await asyncio.to_thread(begin)
        assert await link.run(COUNT, there, []) == 1
        assert await link.call("GET", there, key=there) == b"1"
        assert await link.run(COUNT, here, []) == 2
        slot = cluster.ask(old.port, "CLUSTER", "KEYSLOT", here)
        left = cluster.ask(old.port, "CLUSTER", "GETKEYSINSLOT", slot, 99)
        assert (here in left, there in left) == (True, False)
        await asyncio.to_thread(end)
        assert [await link.run(COUNT, here, []), await link.run(COUNT, there, [])] == [3, 2]


async def test_where_no_node_answers_calls_fail_and_the_link_is_down():
    with clustered(primaries=1) as lonely:
        lonely.nodes[0].kill()
        async with linked(lonely, redis_cluster="on") as link:
            with pytest.raises(LinkLost, match="no slots from"):
                await link.run(COUNT, "k", [])
            assert not link.up
            with pytest.raises(LinkLost):
                link.run(COUNT, "k", []).send(None)
            await lonely.nodes[0].restart()
            assert (await until_done(lambda: link.run(COUNT, "k", [])))[0] == 1
            assert link.up


# Nodes that end


async def test_without_a_replica_a_dead_nodes_keys_fail_and_the_others_go_on_until_it_is_back(name):
    with clustered() as few:
        dead = few.primary_of(name)
        key = next(f"{name}{n}" for n in range(100) if few.primary_of(f"{name}{n}") is not dead)
        async with linked(few) as link:
            await link.run(COUNT, name, [])
            await link.run(COUNT, key, [])
            dead.kill()
            for _ in range(20):
                with pytest.raises(LinkLost) as lost:
                    await link.run(COUNT, name, [])
                await link.run(COUNT, key, [])
            assert link.up
            assert lost.value.down
            await dead.restart()
            assert (await until_done(lambda: link.run(COUNT, name, [])))[0] == 1, "it came back empty"
            assert await link.run(COUNT, key, []) == 22


async def test_a_dead_primarys_replica_takes_over_and_no_acknowledged_turn_is_lost(failing, name):
    """Sessions are written all the while; what is read at the end is what was acknowledged, on the cache's word."""
    async with fleet_on(await table_in_memory(), failing.ports[0]) as fleet:
        settings = {"redis_timeout_s": 2.0, "redis_policy": "available"}
        async with fleet.workers(2, **settings) as (one, two):
            sessions = spread(failing, fleet, name)
            for worker in (one, two):
                for session_id in sessions:
                    await worker.say(f"first {id(worker)}", session_id=session_id)
            epoch = one.tier._keeper.epoch
            identities = one.tier._keeper.knowledge.record.identity
            assert (epoch, identities.count(";")) == (1, 2), "three primaries are noted, none of them by a raise"
            victim = failing.primary_of(fleet.key(sessions[0]))
            victim.kill()

            async def all_hit() -> float:
                for session_id in sessions:
                    await one.say(f"then {uuid4()}", session_id=session_id)
                    for worker in (one, two):
                        context = await worker.latest(session_id)
                        if context.degraded or context.source != "redis":
                            raise MangaCacheError("not yet")
                return one.tier._keeper.epoch

            raised, seconds = await until_done(all_hit)
            assert raised > epoch
            assert failing.primary_of(fleet.key(sessions[0])) is not victim
            print(f"contexts hit again {seconds:.2f} s after a primary was killed, epoch {raised}")
            for session_id in sessions:
                strong = await two.session(session_id).context(turns=32, consistency=Consistency.STRONG)
                assert await one.heard(session_id) == [turn.content for turn in strong.turns]


async def test_what_is_owed_is_paid_to_each_node_on_its_own_new_connection(cluster, name):
    async with fleet_on(await table_in_memory(), cluster.ports[0]) as fleet, fleet.worker() as worker:
        sessions = spread(cluster, fleet, name)
        for session_id in sessions:
            await worker.say("1", session_id=session_id)
        debts = worker.tier._debts
        for session_id in sessions:
            debts._queue.owe(session_id, Version(1, 1, 1), now_s=fleet.clock.monotonic_s())
        worker.link.drop()
        for session_id in sessions:
            assert not (await worker.latest(session_id)).degraded
        assert worker.event("invalidated") == 12
        assert len(debts) == 0


# Whose slots they are, as the epoch item has it


def primary(run_id: str, slots: str) -> Primary:
    return Primary.of({"role": "master", "run_id": run_id, "cluster_enabled": "1", "cluster_slots": slots})


def test_primaries_that_share_no_slot_are_noted_beside_each_other():
    noted = ""
    for run_id, slots in (("a", "0-99"), ("b", "100-199,300"), ("c", "200-299")):
        assert not primary(run_id, slots).is_in(noted)
        assert primary(run_id, slots).follows(noted)
        noted = primary(run_id, slots).noted_in(noted)
    for run_id, slots in (("a", "0-99"), ("b", "100-199,300"), ("b", "150"), ("c", "200-299")):
        assert primary(run_id, slots).is_in(noted)


def test_another_primary_for_a_slot_that_was_noted_calls_for_a_raise_and_takes_the_slot():
    noted = primary("b", "100-199").noted_in(primary("a", "0-99").noted_in(""))
    heir = primary("c", "50-149")
    assert not heir.is_in(noted)
    assert not heir.follows(noted)
    noted = heir.noted_in(noted)
    assert heir.is_in(noted)
    assert primary("a", "0-49").is_in(noted)
    assert not primary("a", "0-50").is_in(noted), "whoever has the slot taken over back calls for another raise"


def test_a_cluster_where_one_server_was_and_the_reverse_call_for_a_raise():
    single = Primary.of({"role": "master", "run_id": "a"})
    assert single.follows("")
    noted = single.noted_in("")
    assert single.is_in(noted)
    assert not primary("a", "0-99").is_in(noted)
    assert not primary("a", "0-99").follows(noted)
    of_cluster = primary("a", "0-99").noted_in(noted)
    assert primary("a", "0-99").is_in(of_cluster)
    assert not single.is_in(of_cluster)
    assert not single.follows(of_cluster)


def test_a_primary_serves_the_keys_of_its_slots():
    assert primary("a", "0-16383").serves("any")
    assert primary("a", "12182").serves("foo")
    assert primary("a", "12182").serves("other{foo}key")
    assert not primary("a", "12182").serves("bar")
    assert Primary.of({"role": "master", "run_id": "a"}).serves("any")
