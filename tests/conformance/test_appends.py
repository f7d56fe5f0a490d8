"""Appends: durable, ordered, once; the same on the in-memory double and on a real engine."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from mangatest import Lossy, SetClock

from mangacache import Conflict, Consistency, Invalid, NewTurn, Transient, VersionGone

if TYPE_CHECKING:
    from mangacache.store import Transport

pytestmark = [pytest.mark.on_moto, pytest.mark.on_both_transports]

STRONG = Consistency.STRONG


async def test_turns_are_numbered_from_one_and_read_back_in_order(world):
    async with world.cache() as cache:
        session = cache.session("s-1", customer_id="c-1")
        first = await session.append(role="user", content="Is Berserk 1 in stock?", turn_id="m-1")
        second = await session.append(role="assistant", content="Two copies.", turn_id="m-2")
        context = await session.context(at_least=second.version)
    assert (first.number, second.number) == (1, 2)
    assert [(turn.role, turn.content) for turn in context.turns] == [
        ("user", "Is Berserk 1 in stock?"),
        ("assistant", "Two copies."),
    ]
    assert context.meta.customer_id == "c-1"
    assert context.meta.last_active_at == context.turns[-1].created_at
    assert context.meta.last_number == 2


async def test_free_attributes_come_back_equal_from_memory_and_from_the_table(world):
    attributes = {
        "price": Decimal("6.80"),
        "volumes": 41,
        "cover": b"\x00\xff",
        "tags": ["seinen", {"rating": Decimal("9.47"), "none": None, "deep": [[True, b""]]}],
        "empty": {"text": "", "list": [], "map": {}, "bytes": b""},
        "languages": {"ja", "de"},
        "ids": {1, 2, Decimal("3.5")},
        "日本": "ベルセルク 🗡",
    }
    async with world.cache() as cache:
        session = cache.session("s-1")
        await session.append(role="tool", content="", turn_id="m-1", attributes=attributes)
        memory = await session.context(consistency=Consistency.EVENTUAL(60))
        strong = await session.context(consistency=STRONG)
    assert strong.turns[0].attributes == attributes
    assert memory.turns == strong.turns
    assert _types(memory.turns[0].attributes) == _types(strong.turns[0].attributes)


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _types(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_types(member) for member in value]
    return type(value)


async def test_what_a_caller_does_to_an_answer_changes_no_other_answer(world):
    async with world.cache() as cache:
        session = cache.session("s-1")
        await session.append(role="user", content="a", turn_id="m-1", attributes={"tags": ["x"]})
        read = await session.context(consistency=STRONG)
        read.turns[0].attributes["tags"].append("y")
        again = await session.context(consistency=Consistency.EVENTUAL(60))
    assert again.source == "memory"
    assert again.turns[0].attributes == {"tags": ["x"]}


async def test_long_content_is_deflated_in_the_table_and_read_back_whole(world):
    content = "マンガ " * 5000
    async with world.cache() as cache:
        await cache.session("s-1").append(role="user", content=content, turn_id="m-1")
        context = await cache.session("s-1").context(consistency=STRONG)
    (item,) = [item for item in await world.items() if item["SK"]["S"].startswith("TURN#")]
    assert context.turns[0].content == content
    assert len(item["content_compressed"]["B"]) < 1000


async def test_an_append_with_a_stored_turn_id_returns_the_first_result_on_any_worker(world):
    async with world.cache() as one, world.cache() as two:
        first = await one.session("s-1").append(role="user", content="hello", turn_id="m-1")
        await one.session("s-1").append(role="assistant", content="hi", turn_id="m-2")
        again = [await cache.session("s-1").append(role="user", content="hello", turn_id="m-1") for cache in (one, two)]
    assert [(result.number, result.duplicate) for result in again] == [(first.number, True)] * 2
    assert first.duplicate is False
    assert len([item for item in await world.items() if "turn_id" in item]) == 2


async def test_a_worker_that_knows_an_old_window_does_not_store_a_retry_twice(world):
    """w0 stores x; w1 stores y after it; w0's memory is behind when x comes again through w1, and z through w0."""
    async with world.cache() as w0, world.cache() as w1:
        await w0.session("s").append(role="user", content="a", turn_id="a")
        await w1.session("s").append(role="user", content="x", turn_id="x")
        again = await w0.session("s").append(role="user", content="x", turn_id="x")
        last = await w0.session("s").append(role="user", content="z", turn_id="z")
    assert (again.number, again.duplicate, last.number) == (2, True, 3)


@pytest.mark.moto_lacks("atomicity")
async def test_workers_that_append_at_once_leave_no_hole_and_no_double(world):
    async with world.cache() as w0, world.cache() as w1, world.cache() as w2:
        caches = [w0, w1, w2]
        done = await asyncio.gather(
            *(caches[i % 3].session("s").append(role="user", content=f"{i}", turn_id=f"t{i}") for i in range(48))
        )
        context = await w0.session("s").context(turns=32, consistency=STRONG)
    assert sorted(result.number for result in done) == list(range(1, 49))
    assert [turn.number for turn in context.turns] == list(range(17, 49))


@pytest.mark.moto_lacks("atomicity")
async def test_each_append_sent_twice_through_different_workers_is_stored_once(world):
    async with world.cache() as w0, world.cache() as w1:
        calls = [(cache, i) for cache in (w0, w1) for i in range(30)]
        random.Random(7).shuffle(calls)
        done = await asyncio.gather(
            *(cache.session("s").append(role="user", content=f"{i}", turn_id=f"t{i}") for cache, i in calls)
        )
    numbers = {(i, result.number) for (_, i), result in zip(calls, done, strict=True)}
    assert len(numbers) == 30
    assert sorted(number for _, number in numbers) == list(range(1, 31))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.moto_lacks("tokens")
async def test_lost_requests_and_replies_and_late_requests_store_each_turn_once(world, seed):
    """Three workers, every third request lost one way or another, each append tried until it is acknowledged."""
    lossy: list[Lossy] = []

    def wrap(transport: Transport) -> Transport:
        lossy.append(Lossy(transport, seed=seed * 10 + len(lossy)))
        return lossy[-1]

    async with world.cache(wrap=wrap) as w0, world.cache(wrap=wrap) as w1, world.cache(wrap=wrap) as w2:

        async def append(cache, i):
            while True:
                try:
                    return i, await cache.session("s").append(role="user", content=f"{i}", turn_id=f"t{i}")
                except Transient:
                    continue

        calls = [append(cache, i) for i in range(16) for cache in (w0, w1, w2)[i % 2 : i % 2 + 2]]
        done = await asyncio.gather(*calls)
        for transport in lossy:
            await transport.settle()
    assert sum(transport.lost for transport in lossy) > 5
    async with world.cache() as reader:
        stored = (await reader.session("s").history(limit=100)).turns
    assert [turn.number for turn in stored] == list(range(1, 17))
    assert {(turn.turn_id, turn.number) for turn in stored} == {(f"t{i}", result.number) for i, result in done}


async def test_a_retry_after_more_than_a_window_is_found_by_the_token_from_before_its_first_try(world):
    async with world.cache() as one, world.cache() as two:
        session = one.session("s")
        before = (await session.append(role="user", content="0", turn_id="t0")).version
        first = await session.append(role="user", content="x", turn_id="x")
        for i in range(40):
            await session.append(role="user", content=f"{i}", turn_id=f"u{i}")
        late = await two.session("s").append(role="user", content="x", turn_id="x", after=before)
        without = await two.session("s").append(role="user", content="x", turn_id="x")
    assert (late.number, late.duplicate) == (first.number, True)
    assert without.number == 43, "without the token the promise reaches 32 turns"


async def test_append_many_stores_all_in_one_request_and_only_what_is_new(world):
    async with world.cache() as cache:
        session = cache.session("s")
        await session.append(role="user", content="b", turn_id="b")
        done = await session.append_many([NewTurn(role="user", content=c, turn_id=c) for c in "abc"])
        again = await session.append_many([NewTurn(role="user", content=c, turn_id=c) for c in "abc"])
    assert [(result.number, result.duplicate) for result in done] == [(2, False), (1, True), (3, False)]
    assert [(result.number, result.duplicate) for result in again] == [(2, True), (1, True), (3, True)]


async def test_append_many_begins_a_session_with_32_turns(world):
    async with world.cache() as cache:
        turns = [NewTurn(role="user", content=f"{i}", turn_id=f"t{i}") for i in range(32)]
        done = await cache.session("s", customer_id="c").append_many(turns)
        context = await cache.session("s").context(turns=32, consistency=STRONG)
    assert [result.number for result in done] == list(range(1, 33))
    assert [turn.content for turn in context.turns] == [f"{i}" for i in range(32)]


@pytest.mark.moto_lacks("atomicity")
async def test_append_many_by_two_workers_at_once_mixes_nothing(world):
    async with world.cache() as one, world.cache() as two:

        async def many(cache, name):
            turns = [NewTurn(role="user", content=name, turn_id=f"{name}{i}") for i in range(5)]
            return [result.number for result in await cache.session("s").append_many(turns)]

        numbers = await asyncio.gather(*(many(cache, f"{k}-") for k, cache in enumerate([one, two] * 4)))
    assert all(group == list(range(group[0], group[0] + 5)) for group in numbers)
    assert sorted(number for group in numbers for number in group) == list(range(1, 41))


async def test_a_cancelled_append_is_stored_and_the_cancellation_goes_on(world):
    async with world.cache() as cache:
        session = cache.session("s")
        await session.append(role="user", content="0", turn_id="t0")
        task = asyncio.create_task(session.append(role="user", content="1", turn_id="t1"))
        while not cache._sessions.residents.actors["s"].draining:  # noqa: ASYNC110 - looks from outside
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await session.append(role="user", content="1", turn_id="t1")
    assert (again.number, again.duplicate) == (2, True)


@pytest.mark.moto_lacks("speed")
async def test_a_number_beyond_the_reserve_is_stored_only_after_meta_was_raised(world):
    async with world.cache(touch_every_s=86_400) as cache:
        session = cache.session("s")
        for start in range(0, 576, 32):
            await session.append_many([NewTurn(role="user", content="", turn_id=f"{start + i}") for i in range(32)])
            (meta,) = [item for item in await world.items() if item["SK"]["S"] == "META"]
            assert start + 32 <= int(meta["last_number"]["N"]) + 512
    assert start + 32 > 512


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"role": "robot"}, "no role"),
        ({"content": "\ud800"}, "lone surrogate"),
        ({"content": "é" * 131_073}, "262144"),
        ({"content": b"bytes"}, "must be text"),
        ({"turn_id": ""}, "turn_id must have"),
        ({"turn_id": "x" * 129}, "has 129"),
        ({"turn_id": "\udfff"}, "lone surrogate"),
        ({"attributes": {"PK": "x"}}, "used by the table's layout"),
        ({"attributes": {"price": 1.5}}, "Decimal"),
        ({"attributes": {"n": 10**40}}, "38 digits"),
        ({"attributes": {"n": Decimal("NaN")}}, "does not fit"),
        ({"attributes": {"tags": set()}}, "empty set"),
        ({"attributes": {"o": object()}}, "is a object"),
    ],
)
@pytest.mark.moto_lacks("a part in it")
async def test_a_turn_that_cannot_be_stored_is_refused_with_the_reason_and_nothing_is_done(world, changes, said):
    async with world.cache() as cache:
        with pytest.raises(Invalid, match=said):
            await cache.session("s").append(**{"role": "user", "content": "x", "turn_id": "t", **changes})
    assert await world.items() == []


@pytest.mark.parametrize(
    "session_id", ["{a}", "a\nb", "a#b", "TURN#1", "漫画", "👩‍🚀", "a b", "%7B", "x" * 128, "\x00"]
)
async def test_any_text_is_an_id_and_no_two_are_confused(world, session_id):
    async with world.cache() as cache:
        done = await cache.session(session_id, customer_id=session_id).append(role="user", content="x", turn_id="t")
        assert done.number == 1
        page = await cache.customer(session_id).sessions()
        assert [info.session_id for info in page.sessions] == [session_id]
        assert (await cache.session(session_id + "-" if len(session_id) < 128 else "y").context()).turns == ()


@pytest.mark.parametrize("session_id", ["", "x" * 129, "漫" * 43, "\ud800", None, 7])
@pytest.mark.moto_lacks("a part in it")
async def test_what_is_no_id_is_refused(world, session_id):
    async with world.cache() as cache:
        with pytest.raises(Invalid, match="session id"):
            cache.session(session_id)


async def test_another_customers_session_is_neither_read_nor_written(world):
    async with world.cache() as cache:
        await cache.session("s", customer_id="c-1").append(role="user", content="x", turn_id="t")
        with pytest.raises(Conflict, match="another customer"):
            await cache.session("s", customer_id="c-2").append(role="user", content="y", turn_id="u")
        with pytest.raises(Conflict, match="another customer"):
            await cache.session("s", customer_id="c-2").delete()
        with pytest.raises(Conflict, match="another customer"):
            await cache.session("s", customer_id="c-2").context()
        with pytest.raises(Conflict, match="another customer"):
            await cache.session("s", customer_id="c-2").history()
    assert len([item for item in await world.items() if "turn_id" in item]) == 1


async def test_a_token_newer_than_the_table_says_that_the_version_is_gone(world):
    async with world.cache() as cache:
        session = cache.session("s")
        for i in range(3):
            token = (await session.append(role="user", content=f"{i}", turn_id=f"t{i}")).version
    await world.delete_items(lambda item: item["SK"]["S"].endswith("3"))
    async with world.cache() as cache:
        with pytest.raises(VersionGone, match="newer than the source"):
            await cache.session("s").context(at_least=token)
        with pytest.raises(VersionGone, match="newer than the source"):
            await cache.session("s").append(role="user", content="x", turn_id="x", after=token)


async def test_a_worker_whose_clock_is_wrong_changes_nothing_about_numbers_and_order(world):
    behind, ahead = SetClock(), SetClock()
    behind.wall_offset_s, ahead.wall_offset_s = -40 * 86_400, 40 * 86_400
    async with world.cache(clock=behind) as w0, world.cache(clock=ahead) as w1, world.cache() as w2:
        for i in range(12):
            cache = (w0, w1, w2)[i % 3]
            done = await cache.session("s").append(role="user", content=f"{i}", turn_id=f"t{i}")
            assert done.number == i + 1
        context = await w2.session("s").context(turns=32, consistency=STRONG)
    assert [turn.content for turn in context.turns] == [f"{i}" for i in range(12)]


async def test_a_retry_that_waits_in_the_mailbox_while_a_window_of_turns_is_stored_is_found(world):
    """The promise counts from when the retry begins, not from when its turn comes."""
    async with world.cache() as one, world.cache() as two:
        first = await one.session("s").append(role="user", content="x", turn_id="x")
        await two.session("s").append(role="user", content="y", turn_id="y")
        calls = [two.session("s").append(role="user", content=f"{i}", turn_id=f"t{i}") for i in range(45)]
        calls.append(two.session("s").append(role="user", content="x", turn_id="x"))
        done = await asyncio.gather(*calls)
    assert (done[-1].number, done[-1].duplicate) == (first.number, True)


async def test_a_repeat_that_meets_the_stored_turn_shows_what_is_stored(world):
    """w1 repeats a turn_id with other words; its memory holds what stands in the table, not what it would have put."""
    async with world.cache() as w0, world.cache() as w1:
        await w0.session("s").append(role="user", content="a", turn_id="a")
        await w1.session("s").context()
        await w0.session("s").append(role="user", content="first", turn_id="x", attributes={"n": 1})
        repeated = await w1.session("s").append(role="user", content="second", turn_id="x")
        assert repeated.duplicate
        remembered = await w1.session("s").context(consistency=Consistency.EVENTUAL(60))
        stored = await w1.session("s").context(consistency=Consistency.STRONG)
    assert remembered.turns == stored.turns
    assert stored.turns[-1].content == "first"
