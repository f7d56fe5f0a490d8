"""What is read by way of DAX is what DynamoDB has, or as old as it says: on the doubles, and by the real client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from daxworlds import OLD_S, dax_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mangacache import Consistency, NewTurn, VersionGone
from mangacache.testing import MemoryRedis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daxworlds import DaxWorld

OLD = Consistency.EVENTUAL(OLD_S)
LIKE_DAX = {"replication_lag_s": 0.0, "item_ttl_s": 300.0, "query_ttl_s": 300.0}


@pytest.fixture(params=["double", "emulator"])
async def dax(request: pytest.FixtureRequest, dynoxide: str) -> AsyncIterator[DaxWorld]:
    async with dax_world(request.param, dynoxide, **LIKE_DAX) as world:
        yield world


def _lines(count, first=1):
    return [f"line {i}" for i in range(first, first + count)]


# Reads for contexts: the newest turns strongly, the others by number.


async def test_a_context_is_the_same_whether_its_turns_came_by_number_or_by_a_query(dax):
    async with dax.worker() as writer, dax.worker() as by_number, dax.worker(dax_fills="strong") as strong:
        for count in (3, 6, 30):
            await writer.say(*_lines(count))
            for reader in (by_number, strong):
                reader.forget()
            ours = await by_number.session().context(turns=32)
            theirs = await strong.session().context(turns=32)
            assert (ours.turns, ours.meta, ours.summary, ours.version) == (
                theirs.turns,
                theirs.meta,
                theirs.summary,
                theirs.version,
            )
        assert (ours.source, theirs.source) == ("dax", "dynamodb")
        assert by_number.dax("BatchGetItem") == 1


async def test_every_type_of_attribute_comes_back_the_same_by_dax(dax):
    attributes = {
        "text": "うる星やつら",
        "whole": 7,
        "bytes": b"\x00\xff",
        "list": [1, "two", None, True, {"deep": [b"x"]}],
        "words": {"a", "b"},
        "numbers": {1, 2},
        "none": None,
        "yes": True,
    }
    async with dax.worker() as writer, dax.worker() as reader:
        long = "長い話 " * 400  # stored deflated
        await writer.session().append(role="user", content=long, attributes=attributes)
        await writer.say(*_lines(12))
        context = await reader.session().context(turns=32)
        assert context.source == "dax"
        assert (context.turns[0].content, context.turns[0].attributes) == (long, attributes)


async def test_what_dax_keeps_as_absent_is_read_in_dynamodb(dax):
    """A turn's number was asked for before the turn was stored: the answer that there is none stays in the cache."""
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say("line 1")
        reads = reader.cache._store.windows._reads
        assert await reads.turns("s", 1, range(1, 6)) != {}
        await writer.say(*_lines(14, 2))
        assert list(await reads.turns("s", 1, range(1, 6))) == [1]
        context = await reader.session().context(turns=32)
        assert [turn.content for turn in context.turns] == _lines(15)
        assert context.source == "dax"


async def test_turns_that_have_gone_leave_the_window_to_a_query(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        async with dax.table() as table:
            key = {"PK": {"S": "SESSION#s"}, "SK": {"S": "TURN#0001-0000000004"}}
            await table.request("DeleteItem", {"TableName": dax.settings.table_name, "Key": key})
        context = await reader.session().context(turns=32)
        assert [turn.number for turn in context.turns] == [*range(1, 4), *range(5, 21)]
        assert context.source == "dynamodb"


async def test_latest_and_session_see_what_was_stored_whatever_dax_has_kept(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        assert await reader.heard(consistency=OLD) == _lines(20)
        done = await writer.say("line 21")
        assert await reader.heard(consistency=OLD) == _lines(20)
        assert await reader.heard(at_least=done.version) == _lines(21)
        await writer.say("line 22")
        assert await reader.heard(consistency=Consistency.LATEST) == _lines(22)


async def test_strong_reads_ask_dynamodb_alone(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        context = await reader.session().context(consistency=Consistency.STRONG)
        assert context.source == "dynamodb"
        assert reader.dax("BatchGetItem") + reader.dax("Query") == 0


# EVENTUAL


async def test_an_old_answer_is_for_its_reader_alone_and_validates_nothing(dax):
    async with dax.worker() as writer, dax.worker(dax_fills="strong") as reader:
        await writer.say(*_lines(3))
        first = await reader.session().context(consistency=OLD)
        assert first.source == "dax"
        await writer.say("line 4")
        asked = reader.table.reads
        assert await reader.heard() == _lines(4)
        assert reader.table.reads > asked


async def test_an_age_below_the_larger_ttl_and_two_seconds_is_never_answered_by_dax(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(3))
        for age_s in (0, 1, 300, 301.9):
            reader.forget()
            context = await reader.session().context(consistency=Consistency.EVENTUAL(age_s))
            assert context.source == "dynamodb", age_s
        reader.forget()
        assert (await reader.session().context(consistency=OLD)).source == "dax"


async def test_an_answer_by_dax_is_no_older_than_its_age(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(3))
        assert await reader.heard(consistency=OLD) == _lines(3)
        await writer.say("line 4")
        dax.clock.moved_s += 299
        assert await reader.heard(consistency=OLD) == _lines(3)
        dax.clock.moved_s += 1.5
        assert await reader.heard(consistency=OLD) == _lines(4)


async def test_an_old_answer_is_never_older_than_the_token(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(3))
        assert await reader.heard(consistency=OLD) == _lines(3)
        done = await writer.say("line 4")
        context = await reader.session().context(consistency=OLD, at_least=done.version)
        assert ([turn.content for turn in context.turns], context.source) == (_lines(4), "dynamodb")
        with pytest.raises(VersionGone):
            await reader.session().context(consistency=OLD, at_least="1.99.1")


async def test_an_old_answer_is_not_older_than_what_memory_knows(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(3))
        assert await reader.heard(consistency=OLD) == _lines(3)
        await writer.say("line 4")
        assert await reader.heard() == _lines(4)
        dax.age.age_offset_s += OLD_S + 1
        context = await reader.session().context(consistency=OLD)
        assert ([turn.content for turn in context.turns], context.source) == (_lines(4), "dax")


async def test_old_answers_hold_the_summary_that_their_meta_names(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(4))
        await writer.session().summarise("so far", upto=2)
        context = await reader.session().context(consistency=OLD)
        assert (context.summary.text, context.source) == ("so far", "dax")
        await writer.session().summarise("further", upto=4)
        assert (await reader.session().context(consistency=OLD)).summary.text == "so far"
        assert (await reader.session().context()).summary.text == "further"


async def test_a_session_that_is_not_there_is_asked_for_in_dynamodb(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        for _ in range(2):
            context = await reader.session("none").context(consistency=OLD)
            assert (context.meta, context.source) == (None, "dynamodb")
            reader.forget()
        await writer.say("now", session_id="none")
        assert await reader.heard("none", consistency=OLD) == ["now"]


async def test_a_session_of_another_customer_is_refused_by_what_dynamodb_says(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.session(customer_id="first").append(role="user", content="hers")
        assert (await reader.session(customer_id="first").context(consistency=OLD)).source == "dax"
        await writer.session(customer_id="first").delete()
        await writer.session(customer_id="second").append(role="user", content="his")
        context = await reader.session(customer_id="second").context(consistency=OLD)
        assert [turn.content for turn in context.turns] == ["his"]


# Deletes


@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "cached everywhere"])
async def test_a_session_deleted_and_begun_again_shows_no_word_of_the_old_one(dax, seen):
    async with dax.worker() as writer, dax.worker() as reader, dax.worker(dax_fills="strong") as other:
        readers = (writer, reader, other)
        await writer.say(*_lines(20))
        await writer.session().summarise("the old one", upto=10)
        if seen:
            for each in readers:
                await each.heard()
                await each.heard(consistency=OLD)
                await each.session().history(before="0001-0000000010", limit=5)
        await writer.session().delete()
        done = await writer.say("new 1", "new 2")
        for each in readers:
            for level in (Consistency.LATEST, Consistency.STRONG, Consistency.SESSION):
                context = await each.session().context(turns=32, at_least=done.version, consistency=level)
                assert [turn.content for turn in context.turns] == ["new 1", "new 2"]
                assert context.summary is None
            pages = [
                await each.session().history(before="0001-0000000010", limit=5),
                await each.session().history(after="", limit=50),
                await each.session().history(limit=50),
            ]
            said = {turn.content for page in pages for turn in page.turns}
            assert said == {"new 1", "new 2"}
        for each in readers:
            old = await each.session().context(turns=32, consistency=OLD, at_least=done.version)
            assert [turn.content for turn in old.turns] == ["new 1", "new 2"]


async def test_dax_forgets_what_was_deleted(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(12))
        await writer.session().summarise("gone soon", upto=6)
        reads = reader.cache._store.windows._reads
        await reader.heard(consistency=OLD)
        assert len(await reads.turns("s", 1, range(1, 13))) == 12
        assert await reads.item("s", "SUMMARY#0001-0000000006")
        await writer.session().delete()
        assert await reads.turns("s", 1, range(1, 13)) == {}
        assert await reads.item("s", "SUMMARY#0001-0000000006") is None
        meta = await reads.item("s", "META")
        assert (meta["status"]["S"], meta["incarnation"]["N"], "unswept" in meta) == ("deleted", "2", False)
        assert await reader.heard(consistency=OLD) == []


async def test_dax_forgets_a_foreign_session_that_was_erased_and_nothing_that_came_after(dax):
    foreign = [
        {"PK": {"S": "SESSION#s"}, "SK": {"S": "META"}, "customer_id": {"S": "c"}},
        {"PK": {"S": "SESSION#s"}, "SK": {"S": "TURN#a"}, "role": {"S": "user"}, "content": {"S": "theirs"}},
    ]
    async with dax.worker() as writer, dax.worker() as reader:
        async with dax.table() as table:
            for item in foreign:
                await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": item})
        reads = reader.cache._store.windows._reads
        assert await reads.item("s", "META")
        assert await reads.item("s", "TURN#a")
        assert (await writer.session().delete()).swept
        assert [await reads.item("s", place) for place in ("META", "TURN#a")] == [None, None]
        await writer.say("ours")
        forgetting = writer.cache._store.writer._forgetting
        await forgetting.absent("s", "META")  # as it would come from a worker that was held up
        context = await writer.session().context(consistency=Consistency.STRONG)
        assert context.meta is not None
        assert [turn.content for turn in context.turns] == ["ours"]


@pytest.mark.parametrize("unheard", [False, True], ids=["dax is told", "dax hears nothing of it"])
async def test_a_life_of_ours_that_others_wrote_into_is_deleted_as_ours_and_its_keys_are_not_used_again(dax, unheard):
    """Were it erased with its META, the next life would have the numbers of this one, whose turns DAX still holds."""
    theirs = {"PK": {"S": "SESSION#s"}, "SK": {"S": "TURN#2024-01"}, "role": {"S": "user"}, "content": {"S": "theirs"}}
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        await writer.session().summarise("the old one", upto=10)
        assert (await reader.session().context(turns=32)).source == "dax"
        async with dax.table() as table:
            await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": theirs})
            assert "theirs" in await writer.heard(consistency=Consistency.STRONG)
            if unheard:
                dax.faults.throttle(1000)
            deleted = await writer.session().delete()
            dax.faults.heal()
            assert (deleted.existed, deleted.swept, deleted.version.incarnation) == (True, True, 2)
            done = await writer.say(*[f"new {i}" for i in range(20)])
            assert done.version.incarnation == 2
            for level in (Consistency.LATEST, Consistency.STRONG, Consistency.SESSION):
                reader.forget()
                context = await reader.session().context(turns=32, at_least=done.version, consistency=level)
                assert [turn.content for turn in context.turns] == [f"new {i}" for i in range(20)]
                assert context.summary is None
            await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": theirs})
            assert (await writer.session().delete()).existed
            await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": theirs})
            again = await writer.session().delete()
        assert (again.existed, again.version.incarnation) == (True, 3), "the tombstone stays"
        assert await reader.heard(consistency=Consistency.LATEST) == []


async def test_a_session_deleted_after_an_adoption_that_was_cut_off_shows_no_word_of_the_others(dax):
    theirs = {"PK": {"S": "SESSION#s"}, "SK": {"S": "TURN#2024-01"}, "role": {"S": "user"}, "content": {"S": "theirs"}}
    async with dax.worker() as writer, dax.worker() as reader:
        async with dax.table() as table:
            await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": theirs})
        adoption = writer.cache._store.adoption

        async def cut_off(*_):
            raise ConnectionError

        adoption._finish = cut_off
        with pytest.raises(ConnectionError):
            await writer.session().adopt()
        del adoption._finish
        deleted = await writer.session().delete()
        assert (deleted.existed, deleted.swept, deleted.version.incarnation) == (True, True, 2)
        for each in (writer, reader):
            each.forget()
            assert await each.heard(consistency=Consistency.STRONG) == []
        done = await writer.say("new")
        assert await reader.heard(at_least=done.version) == ["new"]


async def test_what_dax_is_told_late_of_an_erased_session_takes_nothing_from_the_one_that_came_after(dax):
    theirs = {"PK": {"S": "SESSION#s"}, "SK": {"S": "TURN#a"}, "role": {"S": "user"}, "content": {"S": "theirs"}}
    async with dax.worker() as writer, dax.table() as table:
        await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": theirs})
        await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": {**theirs, "SK": {"S": "META"}}})
        forgetting, said = writer.cache._store.writer._forgetting, []
        door = forgetting._door
        asks = door.ask

        async def late(operation, parameters):
            said.append((operation, parameters))

        door.ask = late
        await writer.session().delete()
        door.ask = asks
        await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": theirs})
        assert said, "DAX is told"
        for operation, parameters in said:
            await door.ask(operation, parameters)
        assert await writer.heard(consistency=Consistency.STRONG) == ["theirs"]


async def test_an_adopted_session_reads_the_same_by_dax(dax):
    async with dax.table() as table:
        for i in range(20):
            item = {
                "PK": {"S": "SESSION#s"},
                "SK": {"S": f"TURN#2024-{i:02}"},
                "role": {"S": "user"},
                "content": {"S": f"theirs {i}"},
            }
            await table.request("PutItem", {"TableName": dax.settings.table_name, "Item": item})
    async with dax.worker() as writer, dax.worker() as reader:
        assert len(await reader.heard()) == 20
        assert await writer.session().adopt() == 20
        done = await writer.say("ours")
        reader.forget()
        context = await reader.session().context(turns=32, at_least=done.version)
        assert [turn.content for turn in context.turns] == [*(f"theirs {i}" for i in range(20)), "ours"]
        assert [turn.number for turn in context.turns] == list(range(1, 22))
        assert context.source == "dax"


# Histories


async def test_pages_whose_numbers_are_known_come_by_dax_and_are_the_same(dax):
    async with dax.worker() as writer, dax.worker() as by_number, dax.worker(dax=False) as plain:
        for first in range(1, 61, 20):
            await writer.session().append_many(
                [NewTurn(role="user", content=content, turn_id=content) for content in _lines(20, first)]
            )
        await writer.cache._sessions._touches.touch(writer.cache._sessions._actors["s"])
        cursors = [{"before": f"0001-{n:010}"} for n in (1, 2, 7, 30, 60, 61, 62, 99)]
        cursors += [{"after": f"0001-{n:010}"} for n in (0, 1, 30, 54, 55, 59, 60, 99)]
        cursors += [{"after": ""}, {}, {"before": "0002-0000000005"}, {"before": "x"}, {"after": "zz"}]
        for cursor in cursors:
            for limit in (1, 5, 200):
                ours = await by_number.session().history(**cursor, limit=limit)
                theirs = await plain.session().history(**cursor, limit=limit)
                assert ours == theirs, (cursor, limit)
        assert by_number.dax("BatchGetItem") > 10


async def test_nothing_expired_is_in_a_page_that_came_by_dax(dax):
    async with dax.worker(retention_days=1) as writer, dax.worker(retention_days=1) as reader:
        await writer.say(*_lines(20))
        await writer.cache._sessions._touches.touch(writer.cache._sessions._actors["s"])
        page = await reader.session().history(before="0001-0000000010", limit=4)
        assert [turn.number for turn in page.turns] == [6, 7, 8, 9]
        dax.age.wall_offset_s += 86_400 + 5
        assert (await reader.session().history(before="0001-0000000010", limit=4)).turns == ()
        assert await reader.heard(consistency=OLD) == []


# Writing through DAX


async def test_puts_through_dax_are_read_from_it_without_a_miss(dax):
    async with dax.worker(dax_writes="puts") as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        assert writer.dax("PutItem") == 19  # the first is a transaction
        assert writer.table.counts["PutItem"] == 0
        assert await reader.heard() == _lines(20)


@pytest.mark.parametrize("fault", ["lost", "throttled", "taken"])
async def test_a_put_through_dax_is_stored_once_whatever_becomes_of_its_reply(dax, fault):
    async with dax.worker(dax_writes="puts") as writer, dax.worker(dax=False) as other:
        await writer.say("line 1")
        if fault == "lost":
            dax.faults.lose_replies(1, operation="PutItem")
        elif fault == "throttled":
            dax.faults.throttle(1, operation="PutItem")
        else:
            await other.say("another's")
        done = await writer.session().append(role="user", content="mine", turn_id="mine")
        again = await writer.session().append(role="user", content="mine", turn_id="mine")
        assert (done.duplicate, again.duplicate, again.number) == (False, True, done.number)
        said = ["line 1", *(["another's"] if fault == "taken" else []), "mine"]
        assert await other.heard(consistency=Consistency.STRONG) == said


async def test_without_the_setting_nothing_but_deletes_is_written_through_dax(dax):
    async with dax.worker() as writer:
        await writer.say(*_lines(3))
        await writer.session().update({"mood": "fine"})
        await writer.session().summarise("so far")
        written = [writer.dax(name) for name in ("PutItem", "UpdateItem", "BatchWriteItem", "DeleteItem")]
        assert written == [0, 0, 0, 0]
        await writer.session().delete()
        assert (writer.dax("BatchWriteItem"), writer.dax("UpdateItem")) == (1, 1)


# Failures


@pytest.mark.parametrize("fault", ["dead", "lost replies", "throttled", "a cluster of one that lags"])
async def test_no_reader_hears_of_a_dax_that_fails(dax, fault):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        if fault == "dead":
            dax.faults.kill(0)
        elif fault == "lost replies":
            dax.faults.lose_replies(1000)
        elif fault == "throttled":
            dax.faults.throttle(1000)
        for _ in range(6):
            for level in (Consistency.LATEST, Consistency.SESSION, OLD):
                reader.forget()
                assert await reader.heard(consistency=level) == _lines(20)
            assert len((await reader.session().history(after="", limit=5)).turns) == 5
        await reader.session().delete()
        assert await reader.heard() == []
        dax.faults.heal()


async def test_a_stalled_dax_costs_one_reader_one_time_out_and_nobody_afterwards(dax):
    async with dax.worker() as writer, dax.worker(dax_timeout_s=0.5) as reader:
        await writer.say(*_lines(20))
        door = reader.cache._store.windows._reads.door
        async with asyncio.timeout(60):
            while not door.ready():  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.01)
        dax.faults.slow(60)
        try:
            assert await reader.heard() == _lines(20)
            assert not reader.dax_up
            for _ in range(20):
                reader.forget()
                assert await reader.heard() == _lines(20)
            assert reader.dax("BatchGetItem", "failed") == 1
        finally:
            dax.faults.heal()


async def test_dax_is_asked_again_once_it_is_well(dax):
    async with dax.worker() as writer, dax.worker() as reader:
        await writer.say(*_lines(20))
        dax.faults.lose_replies(8)
        source = None
        async with asyncio.timeout(60):
            while source != "dax" or not reader.dax_up or reader.dax("BatchGetItem", "failed") == 0:
                reader.forget()
                source = (await reader.session().context()).source
                await asyncio.sleep(0.02)


# Profiles

PROFILES = {
    # name: with DAX, with Redis, settings; where a cold context, an old one, and one that was read before come from.
    "neither": (False, False, {}, ("dynamodb", "dynamodb", "dynamodb")),
    "dax": (True, False, {}, ("dax", "dax", "dax")),
    "dax, filled strongly": (True, False, {"dax_fills": "strong"}, ("dynamodb", "dax", "dynamodb")),
    "redis": (False, True, {}, ("dynamodb", "redis", "redis")),
    "both": (True, True, {"dax_fills": "strong"}, ("dynamodb", "dax", "redis")),
    "both, filled by number": (True, True, {"dax_fills": "numbers"}, ("dax", "dax", "redis")),
}


@pytest.mark.parametrize("profile", PROFILES)
async def test_what_is_configured_decides_where_a_context_comes_from_and_nothing_else(profile):
    async with dax_world("double", "", **LIKE_DAX) as dax:
        await _check_profile(dax, profile)


async def _check_profile(dax, profile):
    with_dax, with_redis, changes, sources = PROFILES[profile]
    redis = MemoryRedis() if with_redis else None
    how = {"dax": with_dax, "redis": redis, **changes}
    async with dax.worker(**how) as writer, dax.worker(**how) as reader:
        await _trust_redis(writer, reader)
        await writer.say(*_lines(20))
        for key in list(redis.keys()) if redis is not None else ():
            redis._primary.db.delete(key)
        cold = await reader.session().context(turns=32)
        reader.forget()
        old = await reader.session().context(turns=32, consistency=OLD)
        reader.forget()
        again = await reader.session().context(turns=32)
        contexts = (cold, old, again)
        assert tuple(context.source for context in contexts) == sources
        assert all((each.turns, each.version) == (cold.turns, cold.version) for each in contexts)
        assert [turn.content for turn in cold.turns] == _lines(20)
        done = await writer.say("line 21")
        assert await reader.heard(at_least=done.version) == _lines(21)
        assert await reader.heard(consistency=Consistency.LATEST) == _lines(21)
        await writer.session().delete()
        assert await reader.heard(consistency=Consistency.LATEST) == []


async def _trust_redis(*workers):
    """Wait until a worker that has just started believes what Redis says."""
    async with asyncio.timeout(60):
        for worker in workers:
            while (await worker.session("other").context(consistency=Consistency.LATEST)).degraded:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


# Any chat at all

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 1), st.integers(1, 9)),
        st.tuples(st.just("read"), st.integers(0, 2), st.sampled_from(["latest", "session", "strong", "old"])),
        st.tuples(st.just("page"), st.integers(0, 2), st.integers(1, 50)),
        st.tuples(st.just("delete"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("summarise"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("grow old"), st.just(0), st.integers(1, 400)),
        st.tuples(st.just("forget"), st.integers(0, 2), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_in_any_chat_of_two_workers_no_read_is_older_than_its_level_allows(steps):
    asyncio.run(_chat(steps))


async def _chat(steps):
    """Two workers that write and a third that reads, before two nodes of DAX, one of which lags."""
    async with (
        dax_world("double", "", nodes=2, item_ttl_s=300.0, query_ttl_s=300.0, replication_lag_s=1.0) as dax,
        dax.worker() as first,
        dax.worker(dax_writes="puts") as second,
        dax.worker() as third,
    ):
        chat = _Chat(dax, (first, second, third))
        for what, who, value in steps:
            await getattr(chat, what.replace(" ", "_"))(chat.workers[who], value)


class _Chat:
    """What was said so far, and when, beside the workers that are to know it."""

    def __init__(self, dax, workers):
        self.dax = dax
        self.workers = workers
        self.said = []
        self.states = [(0.0, ())]
        self.now_s = 0.0
        self.count = 0
        self.token = None
        self.ended = False

    async def say(self, worker, lines):
        for _ in range(lines):
            self.count += 1
            self.token = (await worker.say(f"line {self.count}")).version
            self.said.append(f"line {self.count}")
        self.states.append((self.now_s, tuple(self.said)))

    async def delete(self, worker, _):
        self.token = (await worker.session().delete()).version
        self.ended = self.ended or bool(self.said)
        self.said.clear()
        self.states.append((self.now_s, ()))

    async def summarise(self, worker, _):
        if self.said and (await worker.session().context(consistency=Consistency.STRONG)).summary is None:
            await worker.session().summarise("so far")

    async def grow_old(self, _, seconds):
        self.now_s += seconds
        self.dax.clock.moved_s += seconds
        self.dax.age.age_offset_s += seconds

    async def forget(self, worker, _):
        worker.forget()

    async def page(self, worker, before):
        page = await worker.session().history(before=f"0001-{before:010}", limit=5)
        expected = [] if self.ended else self.said[: before - 1][-5:]
        assert [turn.content for turn in page.turns] == expected

    async def read(self, worker, level):
        if level == "old":
            got = tuple(await worker.heard(consistency=OLD))
            assert got in self._allowed(), (got, self.states)
            return
        token = self.token if level == "session" else None
        levels = {"latest": Consistency.LATEST, "session": Consistency.SESSION, "strong": Consistency.STRONG}
        assert await worker.heard(consistency=levels[level], at_least=token) == self.said[-32:]

    def _allowed(self):
        """Return every state that held at some time within the allowed age."""
        allowed = {turns[-32:] for at_s, turns in self.states if at_s >= self.now_s - OLD_S}
        before = [turns[-32:] for at_s, turns in self.states if at_s < self.now_s - OLD_S]
        return allowed | ({before[-1]} if before else set())
