"""The fence of a session's lock, in the table alone: who claims, who is refused, and what becomes of it at a delete."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from mangatest import Interrupted

from mangacache import Conflict, Consistency, Invalid, NotFound
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store
from mangacache.store.deletion import Delete
from mangacache.store.fences import checked_fence
from mangacache.telemetry import Telemetry

STRONG = Consistency.STRONG


async def _claim(store: Store, session_id: str = "s", claim_id: str = "a") -> int | None:
    found = await store.fences.read(session_id)
    return await store.fences.claim(session_id, found, claim_id=claim_id, stamp=store.stamp())


@asynccontextmanager
async def _both(world, **options):
    async with world.store() as store, world.cache(**options) as cache:
        yield store, cache


async def test_each_claim_raises_the_fence_by_one_and_leaves_the_version_as_it_was(world):
    async with _both(world) as (store, cache):
        done = await cache.session("s").append(role="user", content="a")
        assert [await _claim(store, claim_id=name) for name in "abc"] == [1, 2, 3]
        context = await cache.session("s").context(consistency=STRONG)
        assert await store.fences.current("s") == (3, "c")
    assert context.version == done.version
    assert context.meta.attributes == {}


async def test_of_those_who_claim_on_the_same_reading_one_is_given_it(world):
    async with _both(world) as (store, cache):
        await cache.session("s").append(role="user", content="a")
        found = await store.fences.read("s")
        claims = [store.fences.claim("s", found, claim_id=str(i), stamp=store.stamp()) for i in range(8)]
        given = await asyncio.gather(*claims)
    assert sorted(given, key=str) == [1, *[None] * 7]


async def test_a_session_that_has_not_begun_can_be_locked_and_begins_under_the_fence_it_has(world):
    async with _both(world) as (store, cache):
        session = cache.session("s", customer_id="c")
        assert await _claim(store) == 1
        assert (await session.context(consistency=STRONG)).meta is None
        with pytest.raises(NotFound, match="first append"):
            await session.update({"a": 1}, fence=1)
        done = await session.append(role="user", content="a")
        assert (done.number, str(done.version)) == (1, "1.1.1")
        await session.update({"a": 1}, fence=1)
        context = await session.context(consistency=STRONG)
        assert await _claim(store) == 2
    assert (context.meta.status, context.meta.attributes) == ("active", {"a": 1})


async def test_a_write_under_an_earlier_fence_is_refused_and_says_why(world):
    async with _both(world) as (store, cache):
        session = cache.session("s")
        await session.append(role="user", content="a")
        assert await _claim(store) == 1
        await session.update({"by": "one"}, fence=1)
        assert await _claim(store, claim_id="b") == 2
        for write in (session.update({"by": "late"}, fence=1), session.summarise("late", fence=1)):
            with pytest.raises(Conflict, match=r"fence 1.* lost: the session's fence is 2"):
                await write
        await session.summarise("two", fence=2)
        await session.update({"with": "no lock"})
        context = await session.context(consistency=STRONG)
    assert context.meta.attributes == {"by": "one", "with": "no lock"}
    assert context.summary.text == "two"


async def test_a_fence_that_was_never_given_is_no_better_than_an_old_one(world):
    async with _both(world) as (store, cache):
        await cache.session("s").append(role="user", content="a")
        with pytest.raises(Conflict, match="fence is 0"):
            await cache.session("s").update({"a": 1}, fence=1)
        assert await _claim(store) == 1
        with pytest.raises(Conflict, match="fence is 1"):
            await cache.session("s").update({"a": 1}, fence=2)


@pytest.mark.parametrize("fence", [0, -1, 1.0, "1", True, b"1"])
async def test_what_can_be_no_fence_is_refused_before_anything_is_asked(fence):
    with pytest.raises(Invalid, match="fence"):
        checked_fence(fence)


async def test_a_delete_ends_every_lock_and_what_was_held_before_changes_nothing_of_the_next_life(world):
    async with _both(world) as (store, cache):
        session = cache.session("s")
        await session.append(role="user", content="a")
        assert await _claim(store) == 1
        await session.delete()
        with pytest.raises((Conflict, NotFound)):
            await session.update({"late": 1}, fence=1)
        await session.append(role="user", content="b")
        with pytest.raises(Conflict, match="lost"):
            await session.update({"late": 1}, fence=1)
        assert await _claim(store, claim_id="b") == 3
        await session.update({"now": 1}, fence=3)
        context = await session.context(consistency=STRONG)
    assert context.meta.attributes == {"now": 1}


async def _moved_by_a_claim(world, operation, act):
    """Do something whose write is preceded by a claim, made after it has read META; return the fences of two claims."""
    networks = []

    def wrap(inner):
        networks.append(Interrupted(inner))
        return networks[0]

    async with _both(world, wrap=wrap) as (store, cache):
        fences = [await _claim(store)]

        async def claim():
            fences.append(await _claim(store, claim_id="between"))

        session = cache.session("s", customer_id="c")
        await session.context(consistency=STRONG)
        networks[0].before(operation, claim)
        await act(session)
        assert not networks[0].waiting
        fences.append((await store.fences.current("s"))[0])
    return fences


async def test_a_session_that_begins_does_not_set_back_a_fence_that_was_raised_meanwhile(world):
    async def begin(session):
        await session.append(role="user", content="a")

    assert await _moved_by_a_claim(world, "TransactWriteItems", begin) == [1, 2, 2]


async def test_nor_does_a_delete(world):
    async with world.cache() as cache:
        await cache.session("s").append(role="user", content="a")

    async def delete(session):
        await session.delete()

    assert await _moved_by_a_claim(world, "TransactWriteItems", delete) == [1, 2, 3]


async def test_a_claim_that_finds_the_session_begun_or_deleted_meanwhile_is_not_given(world):
    async with _both(world) as (store, cache):
        await _claim(store)
        tombstone = await store.fences.read("s")
        await cache.session("s").append(role="user", content="a")
        assert await store.fences.claim("s", tombstone, claim_id="b", stamp=store.stamp()) is None
        live = await store.fences.read("s")
        await store.run("s", Delete(stamp=store.stamp()).steps(None))
        assert await store.fences.claim("s", live, claim_id="c", stamp=store.stamp()) is None
        assert await store.fences.current("s") == (2, "")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_claim_whose_answer_was_lost_knows_itself_by_its_id(world, begun):
    async with world.transport() as inner:
        network = Interrupted(inner)
        async with world.cache() as cache, world.store() as others:
            if begun:
                await cache.session("s").append(role="user", content="a")
            store = _on(world, network)
            operation = "UpdateItem" if begun else "PutItem"
            network.lose_reply(operation, _nothing)
            assert await _claim(store) == 1
            network.lose_reply("UpdateItem", lambda: _claim(others, claim_id="later"))
            assert await _claim(store, claim_id="b") is None
            assert not network.waiting
            assert await store.fences.current("s") == (3, "later")


async def _nothing():
    return None


def _on(world, transport):
    return Store(transport, settings=world.settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())


async def test_a_guarded_change_whose_answer_was_lost_is_done_once_or_says_that_it_was_not(world):
    networks = []

    def wrap(inner):
        networks.append(Interrupted(inner))
        return networks[0]

    async with _both(world, wrap=wrap) as (store, cache):
        session = cache.session("s")
        await session.append(role="user", content="a")
        await _claim(store)
        networks[0].lose_reply("UpdateItem", lambda: _claim(store, claim_id="b"))
        done = await session.update({"by": "one"}, fence=1)
        assert done.version.revision == 2
        context = await session.context(consistency=STRONG)
        with pytest.raises(Conflict, match="Nothing was changed"):
            await session.update({"by": "late"}, fence=1)
    assert context.meta.attributes == {"by": "one"}


async def test_a_foreign_session_is_not_locked_until_it_is_adopted(world):
    await world.put(
        {"PK": {"S": "SESSION#s"}, "SK": {"S": "TURN#2026-11-01"}, "role": {"S": "user"}, "content": {"S": "hi"}}
    )
    async with world.store() as store:
        with pytest.raises(Conflict, match="adopt"):
            await store.fences.read("s")


async def test_a_lock_outlives_the_meta_that_dynamodb_deletes_and_reuses_no_number(world):
    """META may go before the turns that it should outlive; a claim then counts on from the turns that are left."""
    async with _both(world) as (store, cache):
        for _ in range(3):
            await cache.session("s").append(role="user", content="a")
        await world.delete_items(lambda item: item["SK"]["S"] == "META")
        assert await _claim(store) == 1
    async with world.cache() as cache:
        done = await cache.session("s").append(role="user", content="b")
    assert done.number == 4
