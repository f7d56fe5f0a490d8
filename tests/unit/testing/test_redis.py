"""What the double of Redis does when all goes well, and each way in which it may not."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from mangatest import HANG_GUARD_S, SetClock
from redises import SCRIPTS
from scriptcases import LEASE, commit, fill, get, hit, observe, release, same

from mangacache import Consistency, MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid, Transient
from mangacache.redis import LinkLost, Moved, Script, ScriptFailed
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB, MemoryRedis
from mangacache.testing.redis.keyspace import Keyspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from scriptcases import Message

    from mangacache.redis import Server
    from mangacache.testing.redis import MemoryLink

KEY = "session"


class Client:
    """Somebody with a link, whose connections are admitted under their server's number."""

    def __init__(self, redis: MemoryRedis, runs: list[str], **options: Any) -> None:
        self.link: MemoryLink = redis.link(**{"timeout_s": 0.25} | options)
        self.link.admit_with(self._admit)
        self._runs = runs
        self.admitted: list[int] = []

    async def _admit(self, server: Server) -> int:
        info = await server.info()
        if info["role"] != "master":
            raise Transient("no primary")
        if info["run_id"] not in self._runs:
            self._runs.append(info["run_id"])
        self.admitted.append(self._runs.index(info["run_id"]))
        return self.admitted[-1]

    async def send(self, message: Message, *, tag: int = 0, key: str = KEY) -> Any:
        return await self.link.run(SCRIPTS[message.name], key, message.arguments, tag=tag)

    async def lost(self, message: Message, *, tag: int = 0) -> LinkLost:
        with pytest.raises(LinkLost) as lost:
            await self.send(message, tag=tag)
        return lost.value

    async def up(self) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while not self.link.up:  # noqa: ASYNC110 - the link has no event for it
                await asyncio.sleep(0.001)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def redis(clock: SetClock) -> MemoryRedis:
    return MemoryRedis(clock=clock, random=random.Random(11))


@pytest.fixture
def clients(redis: MemoryRedis) -> Callable[[], Any]:
    """Make clients of one server; each `async with` gives as many as asked for."""

    @asynccontextmanager
    async def make(count: int = 1, **options: Any) -> AsyncIterator[Any]:
        runs: list[str] = []
        made = [Client(redis, runs, **options) for _ in range(count)]
        yield made[0] if count == 1 else made
        for client in made:
            await client.link.close()

    return make


async def filled(client: Client, version: tuple[int, int, int] = (1, 3, 2)) -> None:
    assert await client.send(get("A")) == LEASE
    assert await client.send(fill(version)) == b"filled"


# When all goes well


async def test_each_connection_is_admitted_and_then_used(redis, clients):
    async with clients(connections=3) as client:
        await filled(client)
        got = await asyncio.gather(*(client.send(get("B", have=(1, 2, 2))) for _ in range(20)))
        assert got == [hit((1, 3, 2), 3, with_meta=False)] * 20
        assert client.admitted == [0, 0, 0]
        with pytest.raises(Moved):
            await client.send(get("B"), tag=1)
        client.link.drop()
        assert await client.send(get("B", have=(1, 3, 2))) == same((1, 3, 2))
        assert client.admitted == [0] * 4
    assert redis.calls == {"get": 22, "fill": 1}


async def test_a_script_that_it_does_not_know_is_no_guess(clients):
    async with clients() as client:
        other = Script.of("get", SCRIPTS["get"].text + "\n")
        with pytest.raises(NotImplementedError, match="does not know the script 'get'"):
            await client.link.run(other, KEY, [], tag=0)
        with pytest.raises(NotImplementedError, match=r"2 turns for 1\.\.3"):
            await client.link.run(SCRIPTS["fill"], KEY, [1000, 32, 1, 3, 1, b"m", 1, "A", b"1", b"2"], tag=0)


async def test_keys_expire_by_its_own_clock(redis, clients, clock):
    async with clients(clock=SystemClock()) as client:
        await filled(client)
        assert redis.keys() == [KEY]
        clock.wall_offset_s += 299
        assert 0 < redis.ttl_ms(KEY) <= 1_000
        assert (await client.send(get("B", have=(1, 3, 2))))[1] >= 299_000
        clock.wall_offset_s += 299
        assert redis.keys() == [KEY], "a read renews it"
        clock.wall_offset_s += 2
        assert (redis.keys(), redis.hash(KEY), redis.ttl_ms(KEY)) == ([], {}, -2)
        assert await client.send(get("B")) == LEASE


async def test_the_service_runs_on_it(redis):
    """Two workers on the doubles: what one writes the other finds in Redis, and reads nothing in DynamoDB for it."""
    database = MemoryDynamoDB()
    settings = Settings(table_name="table")
    transport = AioTransport(database.client())
    store = Store(transport, settings=settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
    await store.schema.create()
    async with (
        MangaCache.open(settings, transport=transport, link=redis.link()) as one,
        MangaCache.open(settings, transport=transport, link=redis.link()) as other,
    ):
        for number in range(1, 41):
            await one.session("s", customer_id="c").append(role="user", content=f"{number}", turn_id=f"t-{number}")
            context = await other.session("s").context(consistency=Consistency.LATEST)
            assert context.turns[-1].content == f"{number}"
            assert number < 3 or context.source != "dynamodb"
        assert redis.calls["fill"] <= 2
        assert [key for key in redis.keys() if redis.ttl_ms(key) <= 0] == []  # noqa: SIM118 - it is no dictionary


# On the way


async def test_a_cut_link_loses_what_is_under_way_and_comes_back_by_itself(clients):
    async with clients(2) as (client, other):
        await filled(client)
        assert await other.send(get("B", have=(1, 3, 2))) == same((1, 3, 2))
        client.link.faults.cut()
        assert (await client.lost(commit((1, 4, 2), 4))).sent
        assert not (await client.lost(get("B"))).sent
        assert not client.link.up
        assert await other.send(get("B", have=(1, 3, 2))) == same((1, 3, 2)), "the other link is whole"
        client.link.faults.mend()
        await client.up()
        assert await client.send(get("B", have=(1, 3, 2))) == same((1, 3, 2)), "the lost COMMIT was not carried out"
        assert client.admitted == [0, 0]


async def test_a_link_cut_while_the_message_travels_loses_it(redis, clients):
    async with clients(timeout_s=60.0) as client:
        await filled(client)
        calls = asyncio.create_task(client.lost(commit((1, 4, 2), 4)))
        await asyncio.sleep(0)
        client.link.faults.cut()
        assert (await calls).sent
        assert redis.calls["commit"] == 0


async def test_a_stalled_link_delivers_in_the_end_what_nobody_waits_for_any_more(redis, clients):
    async with clients() as client:
        await filled(client)
        client.link.faults.stall()
        assert (await client.lost(commit((1, 4, 2), 4))).sent
        assert redis.calls["commit"] == 0
        client.link.faults.mend()
        assert redis.calls["commit"] == 1
        await client.up()
        assert await client.send(get("B", have=(1, 4, 2))) == same((1, 4, 2))


async def test_a_lost_request_never_arrives(redis, clients):
    async with clients() as client:
        await filled(client)
        client.link.faults.lose_requests()
        assert (await client.lost(commit((1, 4, 2), 4))).sent
        client.link.faults.mend()
        assert redis.calls["commit"] == 0
        assert await client.send(commit((1, 4, 2), 4)) == [b"written", 1, 4, 2]


async def test_a_lost_reply_is_of_something_that_was_done(redis, clients):
    async with clients() as client:
        await filled(client)
        client.link.faults.lose_replies()
        assert (await client.lost(commit((1, 4, 2), 4))).sent
        assert await client.send(commit((1, 4, 2), 4)) == [b"known", 1, 4, 2]
        assert redis.calls["commit"] == 2


async def test_a_delayed_message_comes_when_it_is_let(redis, clients):
    async with clients() as client:
        await filled(client)
        client.link.faults.delay(2)
        await client.lost(commit((1, 4, 2), 4))
        await client.lost(commit((1, 5, 2), 5))
        assert [message.name for message in client.link.faults.held] == ["commit", "commit"]
        client.link.faults.deliver(1)
        assert redis.keys() == [], "turn 5 came before turn 4: there is a hole, so the context goes"
        client.link.faults.deliver()
        assert redis.keys() == []
        assert redis.calls["commit"] == 2


async def test_a_refusal_by_the_server_changes_nothing_and_breaks_nothing(clients):
    async with clients() as client:
        await filled(client)
        client.link.faults.refuse()
        with pytest.raises(ScriptFailed, match="OOM"):
            await client.send(commit((1, 4, 2), 4))
        assert await client.send(get("B", have=(1, 3, 2))) == same((1, 3, 2))
        assert client.admitted == [0]


async def test_a_fault_may_be_meant_for_one_script(clients):
    async with clients() as client:
        client.link.faults.lose_requests(script="commit")
        await filled(client)
        await client.lost(commit((1, 4, 2), 4))
        assert await client.send(get("B", have=(1, 3, 2))) == same((1, 3, 2))


async def test_what_was_sent_arrives_though_its_sender_was_cancelled(redis, clients):
    async with clients() as client:
        await filled(client)
        cancelled = asyncio.create_task(client.send(commit((1, 4, 2), 4)))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert redis.calls["commit"] == 1
        assert await client.send(get("B", have=(1, 4, 2))) == same((1, 4, 2))


async def test_a_message_takes_its_time_there_and_back():
    slept: list[float] = []

    class Counting(SystemClock):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            await asyncio.sleep(0)

    redis = MemoryRedis(clock=Counting(), random=random.Random(1), latency_s=0.5)
    link = redis.link()
    assert await link.run(SCRIPTS["release"], KEY, ["A"], tag=0) == 0
    await link.close()
    assert len(slept) == 3, "to connect, there, back"
    assert all(0 < seconds < 1 for seconds in slept)
    assert len(set(slept)) == 3


# Servers


async def test_a_killed_server_comes_back_empty_and_as_another(redis, clients):
    async with clients() as client:
        await filled(client)
        before = redis.info()
        redis.kill()
        assert (await client.lost(get("B"))).sent
        await client.lost(get("B"))
        assert not client.link.up
        redis.restart()
        await client.up()
        assert redis.keys() == []
        assert {name for name in before if before[name] != redis.info()[name]} == {"run_id", "master_replid"}
        assert await client.send(get("B"), tag=1) == LEASE
        assert client.admitted == [0, 1]


async def test_a_server_that_stands_still_does_later_what_it_was_asked(redis, clients):
    async with clients(2) as (client, other):
        await filled(client)
        await other.send(release())
        redis.stall()
        assert (await client.lost(commit((1, 4, 2), 4))).sent
        assert (await other.lost(commit((1, 5, 2), 5))).sent
        assert redis.calls["commit"] == 0
        redis.resume()
        assert redis.calls["commit"] == 2
        await client.up()
        assert await client.send(get("B", have=(1, 5, 2))) == same((1, 5, 2))


async def test_a_flushed_server_is_the_same_and_empty(redis, clients):
    async with clients() as client:
        await filled(client)
        before = redis.info()
        redis.flush()
        assert (redis.keys(), redis.info()) == ([], before)
        assert await client.send(get("B")) == LEASE
        assert client.admitted == [0]


async def test_a_key_is_evicted_by_name_or_at_random(redis, clients):
    async with clients() as client:
        for number in range(5):
            await client.send(get(), key=f"k{number}")
        assert redis.evict("k2") == "k2"
        assert redis.keys() == ["k0", "k1", "k3", "k4"]
        gone = {redis.evict() for _ in range(4)}
        assert gone == {"k0", "k1", "k3", "k4"}
        assert redis.evict() is None


async def test_a_failover_loses_what_the_replica_had_not_followed(redis, clients):
    async with clients() as client:
        await filled(client)
        redis.lag()
        await client.send(commit((1, 4, 2), 4))
        await client.send(get(), key="new")
        redis.fail_over()
        await client.lost(get("B"))
        await client.send(get("B"), tag=1)
        assert client.admitted == [0, 1]
        assert redis.keys() == [KEY]
        assert redis.hash(KEY)[b"t"] == b"3"
        await client.send(commit((1, 4, 2), 4), tag=1)
        redis.fail_over()
        assert redis.hash(KEY)[b"t"] == b"4", "this time nothing lagged"
        assert redis.ttl_ms(KEY) > 0


async def test_in_a_split_the_old_primary_goes_on_answering_those_who_have_not_moved(redis, clients):
    async with clients(2) as (stays, moves):
        await filled(stays)
        redis.split_brain()
        moves.link.move()
        assert await moves.send(commit((1, 4, 2), 4), tag=1) == [b"written", 1, 4, 2]
        assert await stays.send(get("B", have=(1, 3, 2))) == same((1, 3, 2)), "it has not heard of turn 4"
        stays.link.drop()
        assert await stays.send(get("B", have=(1, 3, 2))) == same((1, 3, 2)), "new connections lead there too"
        with pytest.raises(Invalid):
            redis.split_brain()

        redis.unite()
        lost = await stays.lost(commit((1, 5, 2), 5))
        assert "READONLY" in str(lost)
        assert not lost.sent
        assert await stays.send(get("B", have=(1, 4, 2)), tag=1) == same((1, 4, 2))
        assert (stays.admitted, moves.admitted) == ([0, 0, 1], [1])
        with pytest.raises(Invalid):
            redis.unite()


async def test_a_link_made_in_a_split_reaches_the_new_primary(redis, clients):
    async with clients() as before:
        await before.send(release())
        redis.split_brain()
        async with clients() as after:
            await after.send(release())
            link = redis.link()
            assert await link.run(SCRIPTS["get"], KEY, get().arguments, tag=0) == LEASE
            await link.close()
        assert redis.keys() == [KEY]
        assert await before.send(observe((1, 1, 1))) == [b"absent", -1, -1, -1]


async def test_a_replica_is_not_admitted(redis, clients):
    async with clients() as client:
        await filled(client)
        redis.split_brain()
        redis._former.db.read_only = True
        client.link.drop()
        assert "no primary" in str(await client.lost(get("B")))
        client.link.move()
        await client.up()
        assert client.admitted == [0, 1]


async def test_the_same_seed_makes_the_same_servers_and_choices():
    async def story(seed: int) -> list[Any]:
        redis = MemoryRedis(random=random.Random(seed))
        link = redis.link()
        told: list[Any] = [redis.info()]
        for number in range(20):
            await link.run(SCRIPTS["get"], f"k{number}", get().arguments, tag=0)
        told += [redis.evict() for _ in range(10)]
        redis.restart()
        await link.close()
        return [*told, redis.info()]

    assert await story(7) == await story(7)
    assert await story(7) != await story(8)


def test_a_key_without_expiry_outlives_the_millisecond_in_which_it_is_looked_at():
    """Between HSET and PEXPIRE a key has no expiry; a clock that ticks at each look must not end it."""

    class Ticking(SystemClock):
        now_s = 1_000.0

        def time_s(self) -> float:
            self.now_s += 0.001
            return self.now_s

    keyspace = Keyspace(Ticking())
    keyspace.hset("k", {"l": b"A"})
    keyspace.pexpire("k", 1_000)
    assert keyspace.hgetall("k") == {b"l": b"A"}
