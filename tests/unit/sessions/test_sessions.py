"""What one process keeps of its sessions, when callers leave, others interfere and the instance closes."""

from __future__ import annotations

import asyncio

import pytest
from fleet import Fleet, Gate, InMemory, MovedClock, table_in_memory, until

from mangacache import Closed, Consistency, Rejected, Transient
from mangacache.testing.redis import MemoryRedis


@pytest.fixture
async def fleet():
    return Fleet(await table_in_memory(), InMemory(MemoryRedis()))


async def _idle(worker):
    await until(lambda: not worker.actor().busy, "the session is idle")


# The mailbox


async def test_a_caller_who_leaves_before_his_turn_gives_his_place_in_the_mailbox_back(fleet):
    gate = Gate()
    async with fleet.worker(mailbox_size=2) as worker:
        await worker.say("first")
        worker.table.before("PutItem", gate)
        head = asyncio.create_task(worker.say("head"))
        await gate.reached()
        for n in range(3):
            leaving = asyncio.create_task(worker.say(f"never {n}"))
            await until(lambda: len(worker.actor().mailbox) == 1, "it waits")
            leaving.cancel()
            await asyncio.wait((leaving,))
        staying = [asyncio.create_task(worker.say(f"{n}")) for n in range(2)]
        await until(lambda: len(worker.actor().mailbox) == 2, "they wait")
        with pytest.raises(Rejected, match="mailbox_size"):
            await worker.say("too many")
        gate.opened.set()
        await asyncio.gather(head, *staying)
        assert await worker.heard() == ["first", "head", "0", "1"]


async def test_a_touch_that_fails_by_whatever_error_ends_no_write_that_waits(fleet):
    async def broken():
        raise RuntimeError("a mistake in this package")

    async with fleet.worker() as worker:
        await worker.say("0")
        fleet.clock.pass_s(400)
        worker.table.before("UpdateItem", broken)
        await asyncio.gather(worker.say("1"), worker.say("2"))
        await _idle(worker)
        assert worker.survived("touch_failed") == 1


# META's touches


async def test_a_touch_says_nothing_of_the_life_that_was_begun_meanwhile(fleet):
    """Else the new life would seem to have numbers in reserve that its META does not bound."""
    async with fleet.worker() as worker, fleet.worker() as other:
        await worker.say(*"012345")
        fleet.clock.pass_s(400)

        async def meanwhile():
            await other.session().delete()
            await other.say("new")
            await worker.latest()

        worker.table.after("UpdateItem", meanwhile)
        await worker.say("6")
        await _idle(worker)
        known = worker.actor().known
        assert (known.version.incarnation, known.meta.last_number) == (2, 1)


async def test_a_clock_that_was_an_hour_ahead_costs_one_touch_and_not_one_a_turn(fleet):
    ahead = MovedClock()
    ahead.pass_s(3600)
    async with fleet.worker(clock=ahead) as one:
        await one.say("0")
    async with fleet.worker() as two:
        await two.say(*"123456789")
        await _idle(two)
        assert two.table.counts["UpdateItem"] <= 1


# Reading


async def test_what_others_taught_memory_while_a_read_failed_is_not_shown_to_another_customer(fleet):
    async with fleet.worker() as worker, fleet.worker() as other:
        await other.say("private", customer_id="hers")

        async def learned_and_failed():
            await worker.session(customer_id="hers").context(consistency=Consistency.STRONG)
            raise Transient("no answer")

        await fleet.evict()
        worker.table.before("GetItem", learned_and_failed)
        with pytest.raises(Transient):
            await worker.session(customer_id="his").context()
        assert worker.actor().known is not None


async def test_a_read_that_is_shared_outlives_the_reader_who_began_it(fleet):
    gate = Gate()
    async with fleet.worker() as worker:
        await worker.say("0")
        worker.forget()
        await fleet.evict()
        worker.table.before("GetItem", gate)
        readers = [asyncio.create_task(worker.heard()) for _ in range(3)]
        await gate.reached()
        readers[0].cancel()
        await asyncio.wait((readers[0],))
        gate.opened.set()
        assert await readers[1] == await readers[2] == ["0"]
        assert not worker.actor().busy


async def test_memory_gives_the_same_answer_again_and_another_one_when_something_has_changed(fleet):
    async with fleet.worker() as worker:
        await worker.say("0", "1")
        first, again = await worker.session().context(), await worker.session().context()
        assert again is first
        assert [turn.content for turn in (await worker.session().context(turns=1)).turns] == ["1"]
        assert len((await worker.session().context()).turns) == 2
        await worker.say("2")
        assert [turn.content for turn in (await worker.session().context()).turns] == ["0", "1", "2"]
        await worker.session().update({"mood": "good"})
        assert (await worker.session().context()).meta.attributes == {"mood": "good"}


async def test_what_a_caller_does_to_an_answer_changes_nobody_else_s(fleet):
    async with fleet.worker() as worker:
        session = worker.session()
        await session.append(role="user", content="0", attributes={"tags": ["a"]})
        await session.update({"cart": {"volumes": [1]}})
        for _ in range(3):
            context = await session.context()
            assert context.meta.attributes == {"cart": {"volumes": [1]}}
            assert context.turns[0].attributes == {"tags": ["a"]}
            context.meta.attributes["cart"]["volumes"].append(2)
            context.turns[0].attributes["tags"].clear()


async def test_an_answer_that_is_kept_shows_nothing_that_has_expired_since(fleet):
    day_s = 86_400
    async with fleet.worker(retention_days=1, window_age_s=1800) as worker:
        await worker.say("0")
        fleet.clock.wall_offset_s += day_s / 2
        await worker.say("1")
        forever = Consistency.EVENTUAL(10 * day_s)
        before = await worker.session().context(consistency=forever)
        assert [turn.content for turn in before.turns] == ["0", "1"]
        fleet.clock.wall_offset_s += day_s / 2 + 10
        after = await worker.session().context(consistency=forever)
        assert (after.source, [turn.content for turn in after.turns]) == ("memory", ["1"])
        assert after.version == before.version


# Closing


async def test_a_reader_whom_closing_overtakes_hears_so_and_is_not_cancelled(fleet):
    gate = Gate()
    async with fleet.worker(drain_timeout_s=0.05) as worker:
        worker.table.before("GetItem", gate)
        reading = asyncio.create_task(worker.session().context())
        await gate.reached()
    with pytest.raises(Closed):
        await reading


async def test_who_is_cancelled_while_closing_leaves_no_task_behind(fleet):
    before, gate = asyncio.all_tasks(), Gate()
    opened, writes = asyncio.Event(), []

    async def run():
        async with fleet.worker() as worker:
            worker.table.before("TransactWriteItems", gate)
            writes.append(asyncio.create_task(worker.say("1")))
            await gate.reached()
            opened.set()

    running = asyncio.create_task(run())
    await opened.wait()
    for _ in range(3):
        await asyncio.sleep(0)  # into `close`, which waits for the write
    running.cancel()
    await asyncio.wait((running, *writes))
    assert running.cancelled()
    with pytest.raises(Closed, match="repeat it"):
        await writes[0]
    await until(lambda: asyncio.all_tasks() == before, "nothing is left")


async def test_who_closes_a_second_time_waits_for_the_first(fleet):
    gate = Gate()
    async with fleet.worker() as worker:
        await worker.say("0")
        worker.table.before("PutItem", gate)
        writing = asyncio.create_task(worker.say("1"))
        await gate.reached()
        closing = [asyncio.create_task(worker.cache.close()) for _ in range(2)]
        await until(lambda: worker.cache._closed, "it closes")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(close.done() for close in closing)
        gate.opened.set()
        await asyncio.gather(writing, *closing)


# Leaving memory


async def test_a_session_that_has_just_come_does_not_leave_where_all_others_are_busy(fleet):
    """Else its next call would find another actor: two would write one session at once in one process."""
    gates = Gate(), Gate()
    async with fleet.worker(memory_sessions=1) as worker:
        await worker.say("0", session_id="busy")
        await worker.say("0", session_id="new")
        worker.forget()
        for gate in gates:
            worker.table.before("PutItem", gate)
        busy = asyncio.create_task(worker.say("1", session_id="busy"))
        await gates[0].reached()
        new = asyncio.create_task(worker.say("1", session_id="new"))
        await gates[1].reached()
        assert worker.actor("new").busy
        for gate in gates:
            gate.opened.set()
        await asyncio.gather(busy, new)
