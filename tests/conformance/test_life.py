"""The life of a session: META, summaries, history, deletion, expiry, sessions of other writers, customers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random

import pytest
from mangatest import HastyClock, Interrupted, SetClock

from mangacache import Conflict, Consistency, Invalid, MangaCache, NewTurn, NotFound, Settings, Version
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB

pytestmark = pytest.mark.on_moto

STRONG = Consistency.STRONG
DAY_S = 86_400


async def _say(cache, session_id, *contents, customer_id=None, prefix=""):
    session = cache.session(session_id, customer_id=customer_id)
    return [await session.append(role="user", content=c, turn_id=f"{prefix}{c}") for c in contents]


# META


async def test_an_update_raises_the_revision_and_is_seen_with_its_token_on_another_worker(world):
    async with world.cache() as one, world.cache() as two:
        (first,) = await _say(one, "s", "a", customer_id="c")
        await two.session("s").context()
        done = await one.session("s").update({"title": "Berserk", "volume": 1}, status="escalated")
        context = await two.session("s").context(at_least=done.version)
    assert done.version == Version(1, 1, first.version.revision + 1)
    assert context.meta.attributes == {"title": "Berserk", "volume": 1}
    assert context.meta.status == "escalated"


@pytest.mark.moto_lacks("atomicity")
async def test_updates_by_two_workers_at_once_are_all_kept(world):
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", "a")
        await asyncio.gather(*((one, two)[i % 2].session("s").update({f"k{i}": i}) for i in range(12)))
        context = await one.session("s").context(consistency=STRONG)
    assert context.meta.attributes == {f"k{i}": i for i in range(12)}
    assert context.version.revision == 13


async def _nothing():
    return None


def _interrupted(network):
    """Return what wraps the one transport of a worker, which is then found in `network`."""
    return lambda transport: network.append(Interrupted(transport)) or network[-1]


async def test_a_change_whose_reply_was_lost_is_made_once(world):
    network: list[Interrupted] = []
    async with world.cache(wrap=_interrupted(network)) as one:
        await _say(one, "s", "a")
        network[0].lose_reply("UpdateItem", _nothing)
        updated = await one.session("s").update({"k": 1})
        network[0].lose_reply("TransactWriteItems", _nothing)
        summarised = await one.session("s").summarise("a")
        context = await one.session("s").context(consistency=STRONG)
        assert not network[0].waiting
    assert (updated.version.revision, summarised.version.revision) == (2, 3)
    assert context.version == Version(1, 1, 3)
    assert (context.meta.attributes, context.summary.text) == ({"k": 1}, "a")


async def test_a_change_whose_reply_was_lost_and_that_was_changed_since_is_called_unknown_and_not_repeated(world):
    network: list[Interrupted] = []
    async with world.cache(wrap=_interrupted(network)) as one, world.cache() as two:
        await _say(one, "s", "a")
        network[0].lose_reply("UpdateItem", lambda: two.session("s").update({"k": 2}))
        with pytest.raises(Conflict, match="is unknown"):
            await one.session("s").update({"k": 1})
        context = await two.session("s").context(consistency=STRONG)
        assert not network[0].waiting
    assert (context.meta.attributes, context.version.revision) == ({"k": 2}, 3)


async def test_an_update_that_expects_a_version_conflicts_when_meta_has_moved_on(world):
    async with world.cache() as one, world.cache() as two:
        (first,) = await _say(one, "s", "a")
        await two.session("s").update({"k": 1})
        with pytest.raises(Conflict, match="not at the expected"):
            await one.session("s").update({"k": 2}, if_version=first.version)
        context = await one.session("s").context(consistency=STRONG)
    assert context.meta.attributes == {"k": 1}


async def test_attributes_are_removed_and_the_layouts_own_names_are_refused(world):
    async with world.cache() as cache:
        await _say(cache, "s", "a")
        await cache.session("s").update({"k": 1, "l": 2})
        done = await cache.session("s").update(remove=["k"])
        with pytest.raises(Invalid, match="layout"):
            await cache.session("s").update({"revision": 7})
        with pytest.raises(Invalid, match="layout"):
            await cache.session("s").update(remove=["ttl"])
    assert done.meta.attributes == {"l": 2}


async def test_what_has_not_begun_cannot_be_changed(world):
    async with world.cache() as cache:
        with pytest.raises(NotFound, match="begins with its first append"):
            await cache.session("s").update({"k": 1})
    assert await world.items() == []


async def test_a_closed_session_still_takes_turns(world):
    async with world.cache() as cache:
        await _say(cache, "s", "a")
        assert (await cache.session("s").close()).meta.status == "closed"
        (done,) = await _say(cache, "s", "b")
    assert done.number == 2


# Summaries


async def test_the_newest_summary_is_in_the_context_and_none_goes_backwards(world):
    async with world.cache() as cache:
        await _say(cache, "s", *"abcdef")
        await cache.session("s").summarise("up to three", upto=3)
        await cache.session("s").summarise("up to six")
        with pytest.raises(Conflict, match="never goes backwards"):
            await cache.session("s").summarise("up to five", upto=5)
        with pytest.raises(Invalid, match="reaches turn 1 to 6"):
            await cache.session("s").summarise("beyond", upto=7)
        context = await cache.session("s").context(consistency=STRONG)
    assert (context.summary.upto, context.summary.text) == (6, "up to six")
    assert context.version.revision == 3


@pytest.mark.moto_lacks("atomicity")
async def test_two_workers_that_summarise_at_once_leave_one_summary_for_each_turn(world):
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", *"abc")
        outcomes = await asyncio.gather(
            *(cache.session("s").summarise(f"by {i}", upto=3) for i, cache in enumerate((one, two))),
            return_exceptions=True,
        )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Updated"]


# History


async def test_history_is_paged_both_ways_without_gap_or_overlap(world):
    async with world.cache() as cache:
        session = cache.session("s")
        for start in range(0, 96, 32):
            await session.append_many([NewTurn(role="user", content=f"{start + i}") for i in range(32)])
        back, cursor = [], None
        while True:
            page = await session.history(before=cursor, limit=7)
            back = [turn.number for turn in page.turns] + back
            if (cursor := page.older) is None:
                break
        forth, cursor = [], ""
        while cursor is not None:
            page = await session.history(after=cursor, limit=10)
            forth += [turn.number for turn in page.turns]
            cursor = page.newer
        newest = await session.history(limit=5)
        onwards = await session.history(before=newest.older, limit=3)
        again = await session.history(after=onwards.newer, limit=10)
    assert back == forth == list(range(1, 97))
    assert [turn.number for turn in again.turns] == [turn.number for turn in newest.turns]


async def test_history_and_context_go_past_dynamodbs_pages_of_one_megabyte(world):
    noise = random.Random(5)
    contents = [noise.randbytes(120_000).hex() for _ in range(12)]
    async with world.cache(compress_from_bytes=300_000) as cache:
        for i, content in enumerate(contents):
            await cache.session("s").append(role="user", content=content, turn_id=f"{i}")
        page = await cache.session("s").history(limit=50)
        context = await cache.session("s").context(turns=32, consistency=STRONG)
    assert [turn.content for turn in page.turns] == contents
    assert context.turns == page.turns
    assert page.older is None


@pytest.mark.parametrize("bad", [{"limit": 0}, {"limit": 1001}, {"before": "a", "after": "b"}])
@pytest.mark.moto_lacks("a part in it")
async def test_a_page_that_cannot_be_is_refused(world, bad):
    async with world.cache() as cache:
        with pytest.raises(Invalid):
            await cache.session("s").history(**bad)


@pytest.mark.parametrize("turns", [0, 33, -1, "20"])
@pytest.mark.moto_lacks("a part in it")
async def test_a_context_holds_1_to_32_turns(world, turns):
    async with world.cache() as cache:
        with pytest.raises(Invalid, match="use `history` for more"):
            await cache.session("s").context(turns=turns)


# Deletion


async def test_nothing_of_a_deleted_session_is_returned_by_any_call_on_any_worker(world):
    async with world.cache() as one, world.cache() as two:
        done = await _say(one, "s", *"abc", customer_id="c")
        await one.session("s").summarise("abc")
        await two.session("s").context()
        deleted = await one.session("s").delete()
        for cache in (one, two):
            context = await cache.session("s").context(at_least=deleted.version)
            assert (context.meta, context.turns, context.summary) == (None, (), None)
            assert (await cache.session("s").history()).turns == ()
            assert (await cache.customer("c").sessions()).sessions == ()
        old_token = await two.session("s").context(at_least=done[-1].version)
    assert deleted.existed
    assert deleted.swept
    assert old_token.version == Version(2, 0, 0)
    assert not any("content" in item or "summary_text" in item for item in await world.items())


async def test_a_session_begun_again_is_numbered_from_one_in_its_next_incarnation(world):
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", *"abc", customer_id="c")
        await two.session("s").context()
        await one.session("s").delete()
        (done,) = await _say(two, "s", "a", customer_id="d")
        context = await one.session("s").context(at_least=done.version)
        page = await one.customer("d").sessions()
    assert (done.number, done.version, done.duplicate) == (1, Version(2, 1, 1), False)
    assert [turn.content for turn in context.turns] == ["a"]
    assert context.meta.customer_id == "d"
    assert [info.session_id for info in page.sessions] == ["s"]


async def test_deleting_what_is_not_there_does_nothing(world):
    async with world.cache() as cache:
        assert (await cache.session("s").delete()).existed is False
        await _say(cache, "s", "a")
        await cache.session("s").delete()
        assert (await cache.session("s").delete()).existed is False


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.moto_lacks("atomicity")
async def test_a_delete_that_races_appends_loses_only_what_it_covers(world, seed):
    """Three workers append while a fourth deletes twice: each incarnation's survivors are dense from 1."""
    noise = random.Random(seed)
    async with world.cache() as w0, world.cache() as w1, world.cache() as w2, world.cache() as w3:
        await _say(w0, "s", "first")

        async def append(cache, name):
            for i in range(12):
                for _ in range(noise.randrange(3)):
                    await asyncio.sleep(0)
                done = await cache.session("s").append(role="user", content=name, turn_id=f"{name}{i}")
                acked.append((done.version.incarnation, done.number, f"{name}{i}"))

        async def delete():
            for _ in range(2):
                for _ in range(noise.randrange(40)):
                    await asyncio.sleep(0)
                deleted.append((await w3.session("s").delete()).existed)

        acked: list[tuple[int, int, str]] = []
        deleted: list[bool] = []
        await asyncio.gather(append(w0, "x"), append(w1, "y"), append(w2, "z"), delete())
        last = await w0.session("s").append(role="user", content="last", turn_id="last")
        stored = (await w1.session("s").history(limit=100)).turns
    incarnation = last.version.incarnation
    assert deleted[0], "the second finds nothing where no append came between"
    assert incarnation == 1 + sum(deleted)
    assert [turn.number for turn in stored] == list(range(1, len(stored) + 1))
    alive = {(number, turn_id) for life, number, turn_id in acked if life == incarnation}
    assert alive | {(last.number, "last")} == {(turn.number, turn.turn_id) for turn in stored}


async def test_a_sweep_that_was_cut_off_is_finished_by_the_next_loader(world):
    async with world.cache() as one:
        await _say(one, "s", *"abcdef")
        sweep = one._store.writer.sweep
        one._store.writer.sweep = None  # the worker dies, in effect: the transaction is through, the sweep is not
        deleted = await one.session("s").delete()
        one._store.writer.sweep = sweep
    assert deleted.existed
    assert not deleted.swept
    assert sum("content" in item for item in await world.items()) == 6
    async with world.cache() as two:
        assert (await two.session("s").context()).turns == ()
    assert sum("content" in item for item in await world.items()) == 0
    assert not any("unswept" in item for item in await world.items())


async def test_a_worker_with_an_old_window_reads_it_again_before_it_writes(world):
    """The seals of a deleted life last an hour; a worker that slept through it must not put past them."""
    clock = SetClock()
    async with world.cache(clock=clock) as sleeper, world.cache() as other:
        await _say(sleeper, "s", *"abc")
        await other.session("s").delete()
        await world.delete_items(lambda item: "seal" in item)
        clock.age_offset_s += 1801
        (done,) = await _say(sleeper, "s", "d")
    assert done.version == Version(2, 1, 1)


async def test_a_retry_that_meets_a_delete_is_stored_in_the_new_life_under_a_token_that_holds_there(world):
    """The old life still holds its turn, unswept; what is found there is gone for good and counts no more."""
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", "a")
        await two.session("s").context()
        await _say(one, "s", "b", "x")
        one._store.writer.sweep = None
        await one.session("s").delete()
        (again,) = await _say(two, "s", "x")
        context = await two.session("s").context(at_least=again.version, consistency=STRONG)
    assert (again.version, again.number, again.duplicate) == (Version(2, 1, 1), 1, False)
    assert [turn.turn_id for turn in context.turns] == ["x"]


async def test_append_many_of_which_a_part_was_stored_before_a_delete_is_stored_whole_after_it(world):
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", "a", "b")
        await two.session("s").context()
        await one.session("s").delete()
        done = await two.session("s").append_many([NewTurn(role="user", content=c, turn_id=c) for c in "bc"])
        context = await one.session("s").context(at_least=done[-1].version)
    assert [(result.version.incarnation, result.number, result.duplicate) for result in done] == [
        (2, 1, False),
        (2, 2, False),
    ]
    assert [turn.turn_id for turn in context.turns] == ["b", "c"]


@pytest.mark.moto_lacks("tokens")
async def test_a_delete_whose_reply_was_lost_leaves_the_life_that_was_begun_after_it(world):
    network: list[Interrupted] = []
    async with world.cache(wrap=_interrupted(network)) as one, world.cache() as two:
        await _say(one, "s", *"abc")
        network[0].lose_reply("TransactWriteItems", lambda: _say(two, "s", "d"))
        deleted = await one.session("s").delete()
        context = await one.session("s").context(consistency=STRONG)
        assert not network[0].waiting
    assert (deleted.existed, deleted.version.incarnation) == (True, 2)
    assert [turn.turn_id for turn in context.turns] == ["d"]


async def test_nothing_of_a_life_whose_sweep_was_cut_off_is_in_a_page_of_history(world):
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", *"abc")
        one._store.writer.sweep = two._store.writer.sweep = None
        await one.session("s").delete()
        assert (await two.session("s").history()).turns == ()
        await _say(two, "s", "d")
        pages = [await two.session("s").history(), await one.session("s").history(after="", limit=2)]
    assert [[turn.turn_id for turn in page.turns] for page in pages] == [["d"], ["d"]]


async def test_a_summary_of_as_many_turns_is_not_overwritten_by_a_worker_that_does_not_know_it(world):
    async with world.cache() as one, world.cache() as two:
        await _say(one, "s", *"abc")
        await two.session("s").context()
        await one.session("s").summarise("first", upto=3)
        with pytest.raises(Conflict, match="never"):
            await two.session("s").summarise("second", upto=3)
        context = await two.session("s").context(consistency=STRONG)
    assert context.summary.text == "first"


async def test_the_seals_of_a_deleter_whose_clock_is_behind_hold_an_hour_by_the_clocks_of_the_others(world):
    behind = SetClock()
    behind.wall_offset_s = -3 * DAY_S
    async with world.cache() as writer, world.cache() as sleeper, world.cache(clock=behind) as deleter:
        await _say(writer, "s", "a")
        await sleeper.session("s").context()
        await _say(writer, "s", *"bc")
        assert (await deleter.session("s").delete()).swept
        await world.expire(after_s=3000)
        (done,) = await _say(sleeper, "s", "d")
    assert done.version == Version(2, 1, 1)


async def test_the_tombstone_of_a_deleter_whose_clock_is_behind_lasts_as_long_as_what_it_replaces(world):
    behind = SetClock()
    behind.wall_offset_s = -3 * DAY_S
    async with (
        world.cache(retention_days=1) as writer,
        world.cache(retention_days=1, clock=behind) as deleter,
    ):
        await _say(writer, "s", *"abc")
        await deleter.session("s").delete()
        await world.expire()
        (done,) = await _say(writer, "s", "d")
    assert done.version == Version(2, 1, 1)


# Expiry


async def test_expired_items_that_are_still_there_are_returned_by_no_call(world):
    past = SetClock()
    past.wall_offset_s = -100 * DAY_S
    async with world.cache(clock=past) as old, world.cache() as now:
        token = (await _say(old, "s", *"abc", customer_id="c"))[-1].version
        await old.session("s").update({"k": 1})
        await old.session("s").summarise("abc")
        session = now.session("s")
        for consistency in (STRONG, Consistency.LATEST, Consistency.SESSION, Consistency.EVENTUAL(60)):
            context = await session.context(consistency=consistency, at_least=token)
            assert (context.meta, context.turns, context.summary) == (None, (), None)
        pages = [await session.history(), await session.history(after=""), await session.history(limit=1)]
        pages.append(await session.history(before="0001-0000000003"))
        pages.append(await session.history(after="0001-0000000001"))
        assert [page.turns for page in pages] == [()] * 5
        assert (await now.customer("c").sessions()).sessions == ()
        assert (await now.customer("c").sessions(limit=1)).cursor is None
        for call in (session.update({"l": 2}), session.summarise("again", upto=3), session.close()):
            with pytest.raises(NotFound, match="no such session"):
                await call
    assert len(await world.items()) == 5, "and nothing of it was written anew"


async def test_an_item_that_expires_while_it_is_in_memory_is_not_returned_either(world):
    clock = SetClock()
    async with world.cache(clock=clock) as cache:
        await _say(cache, "s", "a")
        clock.wall_offset_s += 90 * DAY_S + 60
        context = await cache.session("s").context(consistency=Consistency.EVENTUAL(60))
        assert context.source == "memory"
        assert context.turns == ()
        assert context.meta is not None, "META outlives its turns by a day"
        clock.wall_offset_s += DAY_S
        assert (await cache.session("s").context(consistency=Consistency.EVENTUAL(60))).meta is None


async def test_numbers_and_turn_ids_of_expired_items_are_not_used_again(world):
    past = SetClock()
    past.wall_offset_s = -100 * DAY_S
    async with world.cache(clock=past) as old, world.cache() as now:
        await _say(old, "s", *"abc", customer_id="c")
        await old.session("s").update({"secret": 1})
        (again,) = await _say(now, "s", "b", customer_id="c")
        (done,) = await _say(now, "s", "d", customer_id="d")
        context = await old.session("s").context(at_least=done.version, consistency=STRONG)
        shown = await now.session("s").context(consistency=STRONG)
    assert (again.number, again.duplicate) == (2, True)
    assert done.number == 4
    assert done.version.revision == 3
    assert [turn.number for turn in shown.turns] == [4]
    assert shown.meta.attributes == {}
    assert shown.meta.customer_id == "d"
    assert context.version == shown.version


async def test_where_every_turn_is_gone_numbers_go_on_beyond_the_reserve(world):
    async with world.cache() as cache:
        token = (await _say(cache, "s", *"abc"))[-1].version
    await world.delete_items(lambda item: item["SK"]["S"].startswith("TURN#"))
    async with world.cache() as cache:
        context = await cache.session("s").context(at_least=token)
        (done,) = await _say(cache, "s", "d")
        (more,) = await _say(cache, "s", "e")
    assert context.turns == ()
    assert context.meta is not None
    assert done.number > 3 + 512
    assert more.number == done.number + 1


@pytest.mark.parametrize("stored", [[], [1], [1, 2]], ids=str)
async def test_where_the_newest_turns_have_gone_first_their_numbers_are_not_used_again(world, stored):
    """DynamoDB deletes what has expired in any order."""
    clock = SetClock()
    clock.wall_offset_s = -90 * DAY_S - 60  # META outlives its turns by a day
    async with world.cache(clock=clock) as old:
        await _say(old, "s", *"abc")
    keys = [f"TURN#0001-{number:010d}" for number in stored]
    await world.delete_items(lambda item: item["SK"]["S"].startswith("TURN#") and item["SK"]["S"] not in keys)
    async with world.cache() as one, world.cache() as two:
        done = [await _say(cache, "s", content) for cache, content in ((one, "d"), (two, "e"), (one, "f"))]
        context = await one.session("s").context(consistency=STRONG)
    numbers = [result.number for (result,) in done]
    assert numbers == [3 + 512 + 1, 3 + 512 + 2, 3 + 512 + 3]
    assert [turn.number for turn in context.turns] == numbers


@pytest.mark.moto_lacks("atomicity")
@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "TransactWriteItems"])
@pytest.mark.parametrize("stored", [[], [1, 2], [1, 2, 3]], ids=str)
async def test_workers_that_go_on_at_once_from_turns_that_have_expired_leave_no_hole_and_keep_meta(
    world, stored, operation
):
    """The one comes between the other's requests, whichever it sends."""
    clock = SetClock()
    clock.wall_offset_s = -90 * DAY_S - 60
    async with world.cache(clock=clock) as old:
        await _say(old, "s", *"abc", customer_id="c")
        await old.session("s").update({"k": 1})
    keys = [f"TURN#0001-{number:010d}" for number in stored]
    await world.delete_items(lambda item: item["SK"]["S"].startswith("TURN#") and item["SK"]["S"] not in keys)
    network: list[Interrupted] = []
    between = []
    async with (
        world.cache(wrap=_interrupted(network)) as one,
        world.cache() as two,
    ):

        async def meanwhile():
            between.extend(await _say(two, "s", *"de"))

        network[0].before(operation, meanwhile)
        done = await _say(one, "s", *"fgh")
        context = await two.session("s").context(consistency=STRONG)
    first = 4 if 3 in stored else 516
    assert sorted(result.number for result in done + between) == list(range(first, first + len(done + between)))
    assert [result.number for result in done] == sorted(result.number for result in done)
    assert (context.meta.attributes, context.meta.customer_id) == ({"k": 1}, "c")


async def test_a_worker_that_remembers_turns_which_have_expired_and_gone_takes_none_of_their_numbers(world):
    clock = SetClock()
    clock.wall_offset_s = -90 * DAY_S - 60
    async with world.cache(clock=clock) as one, world.cache() as two:
        await _say(one, "s", *"abc")
        clock.wall_offset_s = 0
        await one.session("s").context()
        await world.delete_items(lambda item: item["SK"]["S"].startswith("TURN#"))
        (second,) = await _say(two, "s", "d")
        (done,) = await _say(one, "s", "e")
    assert done.number == second.number + 1


async def test_a_worker_that_remembers_turns_which_have_expired_and_gone_puts_nothing_into_a_deleted_life(world):
    clock = SetClock()
    clock.wall_offset_s = -90 * DAY_S - 60
    async with world.cache(clock=clock) as one, world.cache() as two:
        await _say(one, "s", *"abc")
        clock.wall_offset_s = 0
        await one.session("s").context()
        await world.delete_items(lambda item: item["SK"]["S"].startswith("TURN#"))
        assert (await two.session("s").delete()).existed
        (done,) = await _say(one, "s", "e")
    assert done.version == Version(2, 1, 1)


async def test_a_delete_that_saw_turns_which_then_expired_and_went_covers_what_others_count_on_from_there(world):
    """The seal would stand after the turns that the delete saw, far below the numbers that are given meanwhile."""
    past = SetClock()
    past.wall_offset_s = -90 * DAY_S - 60
    async with world.cache(clock=past) as old:
        await _say(old, "s", *"abc")
    network: list[Interrupted] = []
    async with (
        world.cache(wrap=_interrupted(network)) as deleter,
        world.cache() as other,
    ):

        async def meanwhile():
            await world.delete_items(lambda item: item["SK"]["S"].startswith("TURN#"))
            assert (await _say(other, "s", "d"))[0].number == 516

        network[0].before("TransactWriteItems", meanwhile)
        assert (await deleter.session("s").delete()).existed
        assert not network[0].waiting
        (done,) = await _say(other, "s", "e")
        page = await other.session("s").history()
    assert done.version == Version(2, 1, 1)
    assert [turn.turn_id for turn in page.turns] == ["e"]


async def test_a_session_that_has_ended_by_one_clock_is_not_begun_anew_over_what_another_has_renewed(world):
    ahead, behind = SetClock(), SetClock()
    async with world.cache(clock=behind) as one:
        await _say(one, "s", "a", customer_id="c")
        await one.session("s").update({"k": 1})
        await _say(one, "s", "b")
        behind.wall_offset_s = 91 * DAY_S - 30
        ahead.wall_offset_s = 91 * DAY_S + 30
        network: list[Interrupted] = []
        async with world.cache(clock=ahead, wrap=_interrupted(network)) as two:
            network[0].before("TransactWriteItems", one.close)  # which touches META
            (done,) = await _say(two, "s", "c")
            context = await two.session("s").context(consistency=STRONG)
            assert not network[0].waiting
    assert done.number == 3
    assert context.meta.attributes == {"k": 1}
    assert context.meta.customer_id == "c"


async def test_where_meta_went_before_its_turns_their_numbers_are_not_used_again(world):
    async with world.cache() as cache:
        await _say(cache, "s", *"abc")
    await world.delete_items(lambda item: item["SK"]["S"] == "META")
    async with world.cache() as cache:
        (done,) = await _say(cache, "s", "d")
        context = await cache.session("s").context(consistency=STRONG)
    assert done.number == 4
    assert [turn.number for turn in context.turns] == [1, 2, 3, 4]


# Sessions of other writers


async def _write_foreign(world, count, *, meta=True, session_id="f"):
    partition = {"S": f"SESSION#{session_id}"}
    items = [
        {
            "PK": partition,
            "SK": {"S": f"TURN#2026-01-{i + 1:02d}T00:00:00"},
            "role": {"S": "user"},
            "content": {"S": f"said {i}"},
            "model": {"N": "7.5"},
        }
        for i in range(count)
    ]
    if meta:
        items.append(
            {
                "PK": partition,
                "SK": {"S": "META"},
                "customer_id": {"S": "c"},
                "status": {"S": "open"},
                "last_active_at": {"S": "2026-01-09T00:00:00"},
                "lang": {"S": "ja"},
            }
        )
    await world.put(*items, {"PK": partition, "SK": {"S": "SUMMARY#2026-01-05"}, "summary_text": {"S": "so far"}})


async def test_a_foreign_session_is_read_as_it_is_and_an_append_names_adopt(world):
    await _write_foreign(world, 5)
    async with world.cache() as cache:
        session = cache.session("f")
        context = await session.context()
        assert [turn.content for turn in context.turns] == [f"said {i}" for i in range(5)]
        assert context.meta.attributes == {"lang": "ja"}
        assert context.summary.text == "so far"
        assert (await session.history(limit=2)).turns[-1].content == "said 4"
        with pytest.raises(Conflict, match=r"adopt\(\)"):
            await session.append(role="user", content="x", turn_id="x")
        await _write_foreign(world, 6)
        assert len((await session.context()).turns) == 6, "a foreign session is not cached"


@pytest.mark.parametrize("meta", [True, False])
async def test_an_adopted_session_has_all_its_turns_numbered_in_order_and_goes_on(world, meta):
    await _write_foreign(world, 9, meta=meta)
    async with world.cache() as cache, world.cache() as other:
        session = cache.session("f")
        before = await session.context(turns=32)
        taken = await session.adopt()
        again = await session.adopt()
        (done,) = await _say(other, "f", "more")
        context = await session.context(turns=32, at_least=done.version)
    assert (taken, again, done.number) == (9, 0, 10)
    assert [turn.content for turn in context.turns] == [f"said {i}" for i in range(9)] + ["more"]
    assert [turn.number for turn in context.turns] == list(range(1, 11))
    assert context.turns[0].attributes == before.turns[0].attributes
    assert context.summary.text == "so far"
    if meta:
        assert (context.meta.customer_id, context.meta.status) == ("c", "open")


@pytest.mark.parametrize("cut", range(1, 14))
@pytest.mark.moto_lacks("speed")
async def test_an_adoption_cut_off_anywhere_shows_every_turn_once_and_can_be_finished(world, cut):
    await _write_foreign(world, 4)

    class Cut(Exception):
        pass

    class Cutting:
        def __init__(self, inner):
            self.inner, self.left = inner, cut

        async def request(self, operation, parameters):
            if operation not in ("DescribeTable", "GetItem", "Query"):
                self.left -= 1
                if self.left == 0:
                    raise Cut
            return await self.inner.request(operation, parameters)

    finished = False
    async with world.cache(wrap=Cutting) as cache:
        with contextlib.suppress(Cut):
            finished = await cache.session("f").adopt() == 4
    async with world.cache() as cache:
        session = cache.session("f")
        expected = [f"said {i}" for i in range(4)]
        assert [turn.content for turn in (await session.context()).turns] == expected
        assert [turn.content for turn in (await session.history()).turns] == expected
        await session.adopt()
        context = await session.context(consistency=STRONG)
        assert [(turn.number, turn.content) for turn in context.turns] == list(enumerate(expected, start=1))
    assert finished or cut < 13


async def test_a_foreign_session_is_deleted_item_by_item(world):
    await _write_foreign(world, 30)
    async with world.cache() as cache:
        assert (await cache.session("f").delete()).existed
        assert (await cache.session("f").context()).turns == ()
    assert await world.items() == []


# Customers


async def test_a_customers_sessions_are_listed_newest_first_page_by_page(world):
    clock = SetClock()
    async with world.cache(clock=clock) as cache:
        for i in range(7):
            clock.wall_offset_s += 60
            await _say(cache, f"s{i}", "a", customer_id="c")
        await _say(cache, "other", "a", customer_id="d")
        await _say(cache, "nobody's", "a")
        found, cursor = [], None
        while True:
            page = await cache.customer("c").sessions(limit=3, cursor=cursor)
            found.append([info.session_id for info in page.sessions])
            if (cursor := page.cursor) is None:
                break
        with pytest.raises(Invalid, match="no cursor"):
            await cache.customer("c").sessions(cursor="%%%")
    assert found == [["s6", "s5", "s4"], ["s3", "s2", "s1"], ["s0"]]


async def test_a_forgotten_customer_has_no_session_left_expired_and_foreign_ones_included(world):
    past = SetClock()
    past.wall_offset_s = -100 * DAY_S
    await _write_foreign(world, 3)
    async with world.cache(clock=past) as old, world.cache(clock=HastyClock()) as cache:
        await _say(old, "expired", *"ab", customer_id="c")
        await _say(cache, "s1", *"ab", customer_id="c")
        await _say(cache, "s2", "a", customer_id="d")
        assert await cache.forget_customer("c") == 3
        assert (await cache.customer("c").sessions()).sessions == ()
        assert len((await cache.session("s2").context(consistency=STRONG)).turns) == 1
    left = await world.items()
    assert {item["PK"]["S"] for item in left if "content" in item or "customer_id" in item} == {"SESSION#s2"}


async def test_a_customer_is_forgotten_although_the_index_names_new_sessions_only_after_a_while():
    """A pass that finds nothing proves nothing while the index trails the table; two, over 2 s apart, are asked for."""
    clock = HastyClock()
    database = MemoryDynamoDB(index_lag_s=1.5, clock=clock)
    settings = Settings(table_name="lagging")
    passes: list[float] = []

    class Watched(AioTransport):
        async def request(self, operation, parameters):
            if "IndexName" in parameters:
                passes.append(clock.monotonic_s())
            return await super().request(operation, parameters)

    transport = Watched(database.client())
    await Store(
        transport, settings=settings, clock=clock, random=random.Random(1), telemetry=Telemetry()
    ).schema.create()
    async with MangaCache.open(settings, clock=clock, transport=transport) as cache:
        await _say(cache, "s1", *"ab", customer_id="c")
        await clock.sleep(2.0)
        await _say(cache, "s2", *"ab", customer_id="c")
        await _say(cache, "s3", "a", customer_id="d")
        assert await cache.forget_customer("c") == 2
        await clock.sleep(60)
        assert (await cache.customer("c").sessions()).sessions == ()
        for session_id, left in (("s1", 0), ("s2", 0), ("s3", 1)):
            assert len((await cache.session(session_id).context(consistency=STRONG)).turns) == left
    apart = [later - earlier for earlier, later in itertools.pairwise(passes[:-1])]
    assert len(apart) >= 2
    assert min(apart) > 2.0


async def test_forgetting_a_customer_spares_a_session_that_is_another_ones_now(world):
    async with world.cache(clock=HastyClock()) as cache:
        await _say(cache, "s", "a", customer_id="c")
        await cache.session("s").delete()
        await _say(cache, "s", "b", customer_id="d")

        async def stale(_):
            return ["s"] if not asked and not asked.append(1) else []

        asked: list[int] = []
        cache._store.customers.all_ids = stale
        assert await cache.forget_customer("c") == 0
        assert [turn.content for turn in (await cache.session("s").context()).turns] == ["b"]


# The instance


async def test_touches_keep_the_index_within_five_minutes_and_leave_the_version_alone(world):
    clock = SetClock()
    async with world.cache(clock=clock) as cache:
        (first,) = await _say(cache, "s", "a", customer_id="c")
        clock.wall_offset_s += 301
        (second,) = await _say(cache, "s", "b", customer_id="c")
        (third,) = await _say(cache, "s", "c", customer_id="c")
        assert cache.telemetry.value("mangacache_touches_total") == 1
        context = await cache.session("s").context(consistency=STRONG)
        (info,) = (await cache.customer("c").sessions()).sessions
    assert info.last_active_at == context.turns[1].created_at
    assert context.meta.last_active_at == context.turns[2].created_at
    assert [done.version.revision for done in (first, second, third)] == [1, 1, 1]


async def test_what_lags_behind_is_written_when_the_instance_closes(world):
    async with world.cache() as cache:
        await _say(cache, "s", *"abcde")
    (meta,) = [item for item in await world.items() if item["SK"]["S"] == "META"]
    assert meta["last_number"]["N"] == "5"


async def test_the_memory_tier_keeps_to_its_bound_and_loses_nothing(world):
    async with world.cache(memory_sessions=4) as cache:
        for round_ in range(3):
            for i in range(20):
                (done,) = await _say(cache, f"s{i}", f"{round_}")
                assert done.number == round_ + 1
        assert len(cache._sessions) == 4


async def test_every_item_has_a_ttl(world):
    async with world.cache() as cache:
        await _say(cache, "s", *"ab", customer_id="c")
        await cache.session("s").update({"k": 1})
        await cache.session("s").summarise("ab")
        await _say(cache, "t", "a")
        await cache.session("t").delete()
        await _write_foreign(world, 2)
        await cache.session("f").adopt()
    lacking = [item["SK"]["S"] for item in await world.items() if "ttl" not in item]
    assert lacking == ["SUMMARY#2026-01-05"], "what another writer left is not ours to expire"


async def test_an_instance_belongs_to_its_loop_and_process(real_world):
    from mangacache import Closed

    async with real_world.cache() as cache:
        session = cache.session("s")

        def elsewhere():
            async def use():
                with pytest.raises(Closed, match="another event loop"):
                    await session.context()

            asyncio.run(use())

        await asyncio.to_thread(elsewhere)
        real, cache._process_id = cache._process_id, os.getpid() + 1
        with pytest.raises(Closed, match="a fork of it"):
            await session.context()
        cache._process_id = real
    with pytest.raises(Closed, match="closed"):
        await session.context()


async def test_a_retry_answered_from_memory_does_not_make_the_window_young(world):
    """25 minutes and 25 more are over the half hour after which a window is read again, whatever was asked between."""
    clock = SetClock()
    async with world.cache(clock=clock) as sleeper, world.cache() as other:
        await _say(sleeper, "s", "a")
        await _say(other, "s", *"bc")
        clock.age_offset_s += 1500
        (again,) = await _say(sleeper, "s", "a")  # nothing was asked of the table
        assert again.duplicate
        await other.session("s").delete()
        await world.delete_items(lambda item: "seal" in item)
        clock.age_offset_s += 1500
        (done,) = await _say(sleeper, "s", "d")
    assert done.version == Version(2, 1, 1)


async def test_a_second_sweep_that_was_cut_off_is_resumed_by_the_same_worker(world):
    async with world.cache() as one, world.cache() as two:
        sweep = one._store.writer.sweep
        for _ in range(2):
            await _say(one, "s", *"abc")
            one._store.writer.sweep = None  # the deleter fails here
            await one.session("s").delete()
            one._store.writer.sweep = sweep
            await two.session("s").context(consistency=STRONG)
            while [item for item in await world.items() if "content" in item]:  # noqa: ASYNC110 - it is in the table
                await asyncio.sleep(0.01)
