"""Chats over several workers: what a message costs, and what every reader is promised."""

from __future__ import annotations

import asyncio
import random

import pytest
from fleet import Gate

from mangacache import Consistency, NewTurn, Version
from mangacache.context.codec import encode_turn

STRONG = Consistency.STRONG


# What it costs


@pytest.mark.parametrize("remember", [True, False])
async def test_a_message_costs_two_writes_no_read_and_three_round_trips(fleet, remember):
    """In steady state, over two workers in turn, from memory that is behind or from none."""
    async with fleet.workers() as workers:
        await workers[0].say("0")
        for i in range(12):
            worker = workers[i % 2]
            if not remember:
                worker.forget()
            reads, writes, sent = worker.table.reads, worker.table.writes, len(worker.link.sent)
            context = await worker.latest()
            assert context.source == "redis"
            await worker.say(f"user {i}", f"assistant {i}")
            assert (worker.table.reads - reads, worker.table.writes - writes) == (0, 2)
            assert len(worker.link.sent) - sent == 3
        assert len((await workers[0].latest()).turns) == 25


async def test_a_message_to_the_worker_that_had_the_last_one_asks_redis_for_nothing_but_the_commits(fleet):
    async with fleet.worker() as one:
        await one.say("0")
        sent = len(one.link.sent)
        for i in range(5):
            context = await one.session().context()
            assert context.source == "memory"
            await one.say(f"user {i}", f"assistant {i}")
        assert [script for script, _, _ in one.link.sent[sent:]] == ["commit"] * 10


async def test_the_first_append_of_a_session_makes_the_next_workers_read_a_hit(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", customer_id="c")
        context = await two.latest()
        assert (context.source, context.meta.customer_id) == ("redis", "c")
        assert two.table.reads == 0


async def test_a_session_that_has_not_begun_is_read_once(fleet):
    async with fleet.workers() as (one, two):
        assert (await one.latest()).version == Version()
        assert (await two.latest()).source == "redis"
        assert two.table.reads == 0


@pytest.mark.parametrize("content", ["", "Do you have volume 41? " * 10])
async def test_a_commit_takes_the_encoded_turn_and_at_most_400_bytes_at_40_turns_as_at_400(fleet, content):
    sizes = []
    async with fleet.worker() as one:
        session = one.session()
        for stored in (39, 399):
            while len(sizes) == 0 or (await session.context()).version.number < stored:
                number = (await session.context()).version.number
                count = min(32, stored - number)
                await session.append_many(
                    [NewTurn(role="user", content="x", turn_id=f"t{number + i}") for i in range(count)]
                )
                if number + count == stored:
                    break
            await session.append(role="user", content=content, turn_id="m")
            _, key, arguments = one.link.sent[-1]
            turn = (await session.context()).turns[-1]
            sent = sum(len(part if isinstance(part, bytes) else str(part)) for part in (key, *arguments))
            sizes.append(sent - len(encode_turn(turn)))
            await session.delete()
    assert max(sizes) <= 400
    assert sizes[1] - sizes[0] <= 2, "one digit more in each number"


async def test_ten_thousand_readers_of_a_cold_session_at_three_workers_make_one_fill(memory_fleet, monkeypatch):
    monkeypatch.setattr("mangacache.context.calls.LEASE_MS", 60_000)  # it takes a while to begin so many
    async with memory_fleet.source() as source:
        for content in ("1", "2"):
            await source.session("s").append(role="user", content=content, turn_id=content)
        await source.session("s").summarise("both")
    async with memory_fleet.workers(3) as workers:
        gate = Gate()
        for worker in workers:
            await worker.latest("another")
            worker.table.before("Query", gate)
        reads = sum(worker.table.reads for worker in workers)
        readers = []
        for i in range(10_000):
            readers.append(asyncio.create_task(workers[i % 3].latest()))
            if i % 500 == 0:
                await asyncio.sleep(0)
        await gate.reached()
        gate.opened.set()
        contexts = await asyncio.gather(*readers)
        assert {len(context.turns) for context in contexts} == {2}
        assert sum(worker.event("filled") for worker in workers) == 2, "of this session, and of the other one"
        assert sum(worker.table.reads for worker in workers) - reads == 3, "META, the turns and the summary"


# What every reader is promised


async def test_who_carries_a_token_reads_what_he_wrote_on_whatever_worker(fleet):
    async with fleet.workers(3) as workers:
        token = None
        for i in range(30):
            worker = workers[(i * 7) % 3]
            context = await worker.session().context(turns=32, at_least=token)
            assert [turn.content for turn in context.turns] == [str(n) for n in range(i)]
            assert token is None or context.version.covers(token)
            token = (await worker.say(str(i))).version


async def test_updates_and_summaries_are_seen_by_latest_at_once(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        await two.heard()
        await one.session().update({"k": 1}, status="escalated")
        await two.session().summarise("short", upto=2)
        for worker in (one, two):
            context = await worker.latest()
            assert (context.meta.attributes, context.meta.status) == ({"k": 1}, "escalated")
            assert (context.summary.upto, context.summary.text) == (2, "short")
            assert context.source == "redis"
        await two.session().close()
        assert (await one.latest()).meta.status == "closed"
        await one.say("3")
        assert (await two.latest()).meta.status == "closed"


async def test_a_session_deleted_and_begun_again_over_workers_is_the_new_one_for_each(fleet):
    async with fleet.workers(3) as workers:
        for life in range(1, 4):
            writer = workers[life % 3]
            done = await writer.say(f"{life}a", f"{life}b")
            assert done.version == Version(life, 2, 1)
            for worker in workers:
                assert await worker.heard() == [f"{life}a", f"{life}b"]
            await workers[(life + 1) % 3].session().delete()
            for worker in workers:
                assert (await worker.latest()).meta is None


async def test_a_retry_through_any_worker_gives_the_first_result(fleet):
    async with fleet.workers(3) as (one, two, three):
        first = await one.say("1")
        await two.say("2")
        for worker in (three, two, one):
            again = await worker.say("1")
            assert (again.number, again.duplicate) == (first.number, True)
        results = await asyncio.gather(*(worker.say("3") for worker in (one, two, three) for _ in range(4)))
        assert {result.number for result in results} == {3}
        assert sum(not result.duplicate for result in results) == 1
        assert await three.heard() == ["1", "2", "3"]


async def test_many_turns_at_once_go_through_redis_as_one_commit(fleet):
    async with fleet.workers() as (one, two):
        await one.say("0")
        await two.heard()
        await one.session().append_many([NewTurn(role="user", content=f"{i}", turn_id=f"{i}") for i in range(1, 33)])
        assert await two.heard() == [str(i) for i in range(1, 33)]
        assert two.table.reads == 0
        assert len(one.link.of("commit")) == 2


async def test_workers_that_append_at_once_leave_a_context_without_hole_or_double(fleet):
    async with fleet.workers(3) as workers:
        done = await asyncio.gather(*(workers[i % 3].say(f"{i}") for i in range(30)))
        assert sorted(result.number for result in done) == list(range(1, 31))
        heard = [await worker.heard() for worker in workers]
        strong = await workers[0].session().context(turns=32, consistency=STRONG)
        assert heard == [[turn.content for turn in strong.turns]] * 3


@pytest.mark.parametrize(
    "session_id", ["{a}", "a}b{c", "a\nb", "a:context:9", "漫画", "👩‍🚀", "a b", "%7B", "x" * 128, "\x00", "*"]
)
async def test_a_session_of_any_id_is_shared_by_workers_and_confused_with_none(fleet, session_id):
    async with fleet.workers() as (one, two):
        await one.say("1", session_id=session_id)
        assert (await two.latest(session_id)).source == "redis"
        assert await two.heard(session_id) == ["1"]
        assert await two.heard("y") == []
        assert two.table.reads == 2, "of the other session"


# Sessions that somebody else wrote


def _foreign(*contents):
    key = {"PK": {"S": "SESSION#s"}}
    turns = [
        {**key, "SK": {"S": f"TURN#2020-01-0{i}"}, "role": {"S": "user"}, "content": {"S": content}}
        for i, content in enumerate(contents, start=1)
    ]
    return [{**key, "SK": {"S": "META"}, "status": {"S": "active"}}, *turns]


async def test_a_foreign_session_is_read_as_it_is_and_not_kept(fleet, world):
    await world.put(*_foreign("a"))
    async with fleet.workers() as (one, two):
        assert await one.heard() == ["a"]
        assert await fleet.state() == "absent"
        await world.put(*_foreign("a", "b"))
        assert await one.heard() == ["a", "b"]
        assert await two.heard() == ["a", "b"]


async def test_an_adopted_session_is_ours_for_every_worker(fleet, world):
    await world.put(*_foreign("a", "b"))
    async with fleet.workers() as (one, two):
        assert await two.heard() == ["a", "b"]
        assert await one.session().adopt() == 2
        assert await two.heard() == ["a", "b"]
        assert (await two.say("c")).number == 3
        context = await one.latest()
        assert ([turn.number for turn in context.turns], context.source) == ([1, 2, 3], "redis")


async def test_an_erased_foreign_session_is_gone_for_every_worker(fleet, world):
    await world.put(*_foreign("a", "b"))
    async with fleet.workers() as (one, two):
        assert await two.heard() == ["a", "b"]
        assert (await one.session().delete()).existed
        for worker in (one, two):
            assert await worker.heard() == []
        await two.say("1")
        assert await one.heard() == ["1"]


# Everything at once


@pytest.mark.parametrize("seed", range(6))
async def test_moving_clients_that_read_and_write_while_contexts_are_evicted_never_read_an_old_one(fleet, seed):
    """Three workers, one session; every reader sees at least what was acknowledged or read before he asked."""
    noise = random.Random(seed)
    async with fleet.workers(3) as workers:
        for worker in workers if seed % 2 else ():
            worker.link.delay_s = lambda: noise.choice((0, 0, 0.001, 0.01))
        floor = [Version()]

        async def client(name):
            for i in range(16):
                worker = noise.choice(workers)
                if noise.random() < 0.2:
                    await fleet.evict()
                if noise.random() < 0.1:
                    worker.forget()
                least = floor[0]
                if noise.random() < 0.35:
                    seen = (await worker.say(f"{name}-{i}")).version
                elif noise.random() < 0.2:
                    seen = (await worker.session().context(consistency=STRONG)).version
                    assert seen.covers(least)
                else:
                    seen = (await worker.latest()).version
                    assert seen.covers(least), f"{seen} is below {least}"
                floor[0] = floor[0].join(seen)

        await asyncio.gather(*(client(name) for name in range(8)))
        strong = await workers[0].session().context(turns=32, consistency=STRONG)
        for worker in workers:
            context = await worker.latest()
            assert (context.turns, context.version) == (strong.turns, strong.version)


async def test_a_session_past_its_retention_is_gone_though_redis_holds_it(memory_fleet):
    async with memory_fleet.workers(retention_days=1, window_age_s=60) as (one, two):
        await one.say("1", customer_id="c")
        await two.heard()
        memory_fleet.clock.pass_s(2 * 86_400 - 60)
        context = await two.latest()
        assert (context.turns, context.meta.customer_id, context.source) == ((), "c", "redis"), (
            "META lives a day longer"
        )
        memory_fleet.clock.pass_s(120)
        for worker in (one, two):
            context = await worker.latest()
            assert (context.turns, context.meta, context.source) == ((), None, "dynamodb")
        assert (await two.say("2")).number > 1, "numbers are not used again"
        assert await one.heard() == ["2"]


async def test_a_cancelled_append_is_told_to_the_others_before_the_cancellation_goes_on(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        gate = Gate()
        one.link.before("commit", gate)
        append = asyncio.create_task(one.say("2"))
        await gate.reached()
        append.cancel()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await append
        assert await two.heard() == ["1", "2"]
