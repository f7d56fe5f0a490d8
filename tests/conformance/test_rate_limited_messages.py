"""A message's rate limit, in a whole instance: it leaves with the context's request, or before the turn is stored."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from fleet import MovedClock, table_in_memory
from redis import Redis

from mangacache.ephemeral import Limit
from mangacache.errors import Closed, Invalid, Rejected
from mangacache.model import Consistency, NewTurn
from mangacache.redis.pipeline import PipelinedLine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache import MangaCache

TWO = Limit("two", 2, 60)
PATIENT = {"redis_timeout_s": 10, "connect_timeout_s": 10}
"""A machine that is busy with other tests is no outage."""


class Writes:
    """A connection's transport that counts what leaves."""

    def __init__(self, inner, sent: list[bytes]) -> None:
        self._inner = inner
        self._sent = sent

    def write(self, data: bytes) -> None:
        self._sent.append(data)
        self._inner.write(data)

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


@pytest.fixture
def sent(monkeypatch) -> list[bytes]:
    """What leaves for Redis, a write at a time."""
    written: list[bytes] = []
    made = PipelinedLine.connection_made
    monkeypatch.setattr(
        PipelinedLine, "connection_made", lambda line, transport: made(line, Writes(transport, written))
    )
    return written


@pytest.fixture
async def cache(shared_valkey, monkeypatch) -> AsyncIterator[MangaCache]:
    monkeypatch.setattr("mangacache.ephemeral.workers.BEAT_S", 3600)  # nothing else leaves meanwhile
    world = await table_in_memory()
    async with world.cache(
        clock=MovedClock(),
        redis_endpoint=f"redis://127.0.0.1:{shared_valkey}",
        redis_link="multiplexed",
        key_prefix=f"t{uuid4().hex[:10]}:",
        **PATIENT,
    ) as made:
        yield made


async def begun(cache: MangaCache):
    """Return a session that Redis has, and a worker whose connection and scripts are warm."""
    session = cache.session("s", customer_id="c")
    await session.append(role="user", content="hello", rate_limit="messages")
    await session.context(consistency=Consistency.LATEST, rate_limit="messages")
    await session.context(consistency=Consistency.LATEST, rate_limit="messages")
    return session


async def units(cache: MangaCache, limit="messages") -> int:
    decision = await cache.rate_limits.peek("c", limit=limit)
    return decision.limit - decision.remaining


async def test_the_limit_leaves_in_the_same_write_as_the_request_for_the_context(cache, sent):
    session = await begun(cache)
    sent.clear()
    context = await session.context(consistency=Consistency.LATEST, rate_limit="messages")
    assert context.source == "redis"
    assert len(sent) == 1, "one round trip for both"
    assert sent[0].count(b"EVALSHA") == 2
    sent.clear()
    await session.context(consistency=Consistency.LATEST)
    assert len(sent) == 1
    assert sent[0].count(b"EVALSHA") == 1


async def test_so_does_the_refreshing_of_the_connection_that_the_message_came_by(cache, sent):
    session = await begun(cache)
    await cache.connections.connect("x", "s")
    await cache.connections.refresh("x")
    sent.clear()
    await session.context(consistency=Consistency.LATEST, rate_limit="messages", connection_id="x")
    assert len(sent) == 1
    assert sent[0].count(b"EVALSHA") == 3
    await session.context(consistency=Consistency.LATEST, connection_id="one that is gone")


async def test_a_connection_lives_on_by_its_messages_and_a_message_by_no_connection(shared_valkey):
    world = await table_in_memory()
    prefix = f"t{uuid4().hex[:10]}:"
    options = {**PATIENT, "key_prefix": prefix}
    with Redis(port=shared_valkey) as client:
        async with world.cache(redis_endpoint=f"redis://127.0.0.1:{shared_valkey}", **options) as cache:
            key = f"{prefix}conn:{{x}}"
            await cache.connections.connect("x", "s")
            client.pexpire(key, 60_000)
            await cache.session("s").context(connection_id="x")
            async with asyncio.timeout(120):
                while client.pttl(key) <= 60_000:  # noqa: ASYNC110 - nobody waits for it
                    await asyncio.sleep(0.005)
    async with world.cache(redis_endpoint="redis://127.0.0.1:1", redis_cluster="off", **options) as cache:
        assert (await cache.session("s").context(connection_id="x")).version.number == 0
    async with world.cache() as cache:
        with pytest.raises(Invalid, match="REDIS_ENDPOINT"):
            await cache.session("s").context(connection_id="x")


async def test_it_leaves_with_it_where_the_process_has_never_seen_the_session_too(cache, sent):
    await begun(cache)
    sent.clear()
    await cache.session("new", customer_id="c").context(rate_limit="messages")
    assert sent[0].count(b"EVALSHA") == 2


async def test_a_context_from_memory_takes_its_unit_too(cache):
    session = await begun(cache)
    before = await units(cache)
    assert (await session.context(consistency=Consistency.EVENTUAL(60), rate_limit="messages")).source == "memory"
    assert await units(cache) == before + 1


async def test_an_append_takes_its_unit_in_one_round_trip_before_the_turn_is_stored(cache, sent):
    session = await begun(cache)
    sent.clear()
    await session.append(role="user", content="hello", rate_limit="messages")
    assert [each.count(b"EVALSHA") for each in sent] == [1, 1], "the limit, and the commit that every append has"


async def test_an_append_that_is_refused_stores_nothing_and_says_when_to_come_back(cache):
    session = cache.session("s", customer_id="c")
    await session.append(role="user", content="1", rate_limit=TWO)
    await session.append_many([NewTurn(role="user", content="2")], rate_limit=TWO)
    with pytest.raises(Rejected, match=r"limit of 2 is used up.*Nothing was done") as refused:
        await session.append(role="user", content="3", rate_limit=TWO)
    assert 0 < refused.value.retry_after_s <= 60.1
    with pytest.raises(Rejected):
        await session.append_many([NewTurn(role="user", content="3")], rate_limit=TWO)
    with pytest.raises(Rejected):
        await session.context(rate_limit=TWO)
    assert [turn.content for turn in (await session.context(consistency=Consistency.STRONG)).turns] == ["1", "2"]
    assert await units(cache, TWO) == 2
    await cache.session("s2", customer_id="another").append(role="user", content="1", rate_limit=TWO)


async def test_in_a_cluster_a_customer_has_one_limit_for_all_his_sessions(cluster):
    world = await table_in_memory()
    options = {"redis_endpoint": cluster.endpoint, "key_prefix": f"t{uuid4().hex[:10]}:"} | PATIENT
    async with world.cache(**options) as one, world.cache(**options) as two:
        await one.connections.connect("x", "s0", customer_id="c")
        sessions = [cache.session(f"s{number}", customer_id="c") for number in range(6) for cache in (one, two)]
        refused = 0
        for session in sessions:
            try:
                await session.context(rate_limit=Limit("five", 5, 3600), connection_id="x")
            except Rejected:
                refused += 1
        assert refused == len(sessions) - 5
        assert [each.session_id for each in await two.connections.of_customer("c")] == ["s0"]


async def test_what_is_wrong_with_a_turn_is_said_before_a_unit_is_taken(cache):
    session = cache.session("s", customer_id="c")
    with pytest.raises(Invalid, match="role"):
        await session.append(role="nobody", content="1", rate_limit=TWO)
    assert await units(cache, TWO) == 0


async def test_a_limit_is_a_customers(cache):
    session = cache.session("s")
    for call in (session.context(rate_limit="messages"), session.append(role="user", content="1", rate_limit=TWO)):
        with pytest.raises(Invalid, match="customer_id"):
            await call
    with pytest.raises(Invalid, match="among those of rate_limits"):
        await cache.session("s", customer_id="c").context(rate_limit="none")
    assert (await session.context()).version.number == 0


async def test_without_redis_and_while_it_is_away_a_message_is_limited_by_the_worker_itself():
    world = await table_in_memory()
    async with world.cache() as alone, world.cache(redis_endpoint="redis://127.0.0.1:1", redis_cluster="off") as away:
        for customer, cache in (("c1", alone), ("c2", away)):
            session = cache.session(f"of {customer}", customer_id=customer)
            await session.append(role="user", content="1", rate_limit=TWO)
            await session.context(rate_limit=TWO)
            for call in (session.context(rate_limit=TWO), session.append(role="user", content="2", rate_limit=TWO)):
                with pytest.raises(Rejected, match="source local"):
                    await call
            assert (await session.context()).version.number == 1


async def test_a_closed_limit_lets_no_message_through_while_redis_is_away():
    world = await table_in_memory()
    options = {"redis_endpoint": "redis://127.0.0.1:1", "redis_cluster": "off", "rate_limit_policy": "closed"}
    async with world.cache(**options) as cache:
        session = cache.session("s", customer_id="c")
        with pytest.raises(Rejected, match="cannot be asked for"):
            await session.append(role="user", content="1", rate_limit=TWO)
        await session.append(role="user", content="1")
        with pytest.raises(Rejected, match="source closed"):
            await session.context(rate_limit=TWO)


async def test_who_leaves_while_the_context_is_read_leaves_nothing_behind(cache):
    session = await begun(cache)
    before = await units(cache)
    for _ in range(20):
        reading = asyncio.create_task(session.context(consistency=Consistency.LATEST, rate_limit="messages"))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    while cache._rate_limits._tasks:
        await cache._rate_limits._tasks.step()
    assert await units(cache) == before + 20, "what was begun is taken"
    assert (await session.context(consistency=Consistency.LATEST)).version.number == 1


async def test_a_message_under_way_while_the_instance_closes_is_answered(cache):
    session = await begun(cache)
    asked = [cache._rate_limits.begin("c", "messages") for _ in range(3)]
    await cache.close()
    for each in asked:
        await cache._rate_limits.outcome(each)
    with pytest.raises(Closed):
        await session.context(rate_limit="messages")


async def test_a_read_that_fails_says_why_and_not_how_the_limit_went(cache):
    await begun(cache)
    with pytest.raises(Invalid, match="1 to 32 turns"):
        await cache.session("s", customer_id="c").context(turns=0, rate_limit="messages")


async def test_workers_are_counted_from_the_first_limit_on_and_leave_when_they_close(shared_valkey):
    world = await table_in_memory()
    options = {"redis_endpoint": f"redis://127.0.0.1:{shared_valkey}", "key_prefix": f"t{uuid4().hex[:10]}:"} | PATIENT
    with Redis(port=shared_valkey) as client:
        key = f"{options['key_prefix']}workers:{{all}}"
        async with world.cache(**options) as one, world.cache(**options) as two:
            assert client.zcard(key) == 0
            for cache in (one, two):
                await cache.rate_limits.check("c")
            deadline_s = time.monotonic() + 120
            while client.zcard(key) < 2:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.005)
        assert client.zcard(key) == 0
    with pytest.raises(Closed):
        _ = one.rate_limits
