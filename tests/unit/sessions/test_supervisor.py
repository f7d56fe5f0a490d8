"""The supervisor: load that is let in, what dies and is begun again, the end in its order, and what it tells of it."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import msgspec
import pytest
from fleet import Fleet, Gate, InMemory, table_in_memory, until
from mangatest import HANG_GUARD_S, SetClock

from mangacache import Closed, Rejected, Settings, Transient
from mangacache.sessions import SupervisorState
from mangacache.sessions.intake import FEWEST, LEAST, Intake
from mangacache.sessions.restarts import RESTARTS, WITHIN_S, Restarts
from mangacache.sessions.supervisor import STEP_S
from mangacache.sessions.touches import Farewells
from mangacache.store.effects import Touch
from mangacache.tasks import TaskOwner
from mangacache.telemetry import Telemetry
from mangacache.testing.redis import MemoryRedis


class TurnedClock(SetClock):
    """A clock whose waits move it on at once."""

    def monotonic_s(self):
        return self.age_offset_s

    async def sleep(self, seconds):
        self.age_offset_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
async def fleet():
    return Fleet(await table_in_memory(), InMemory(MemoryRedis()))


# Who is let in


def _calm(intake, ticks=1):
    for _ in range(ticks):
        intake.adjust(lag_s=0.0, lag_limit_s=0.25, passed_s=0.1)


def _lagging(intake, lag_s=1.0, ticks=1):
    for _ in range(ticks):
        intake.adjust(lag_s=lag_s, lag_limit_s=0.25, passed_s=0.1)


def test_no_more_calls_are_let_in_than_the_limit():
    intake = Intake(3, clock=TurnedClock())
    assert [intake.enter() for _ in range(4)] == [True, True, True, False]
    intake.leave()
    assert intake.enter()


def test_while_the_loop_lags_fewer_are_let_in_and_when_it_does_not_as_many_as_before():
    intake = Intake(10_000, clock=TurnedClock())
    intake.inside = 3_000
    _lagging(intake)
    assert intake.window == 1_500
    intake.inside = 1_500
    _lagging(intake, ticks=20)
    assert intake.window == LEAST
    intake.inside = 0
    _calm(intake, ticks=10)
    assert intake.window < 10_000
    _calm(intake, ticks=10)
    assert intake.window == 10_000


def test_a_lag_that_nobody_s_calls_have_made_refuses_nobody():
    intake = Intake(10_000, clock=TurnedClock())
    _lagging(intake, ticks=50)
    assert [intake.enter() for _ in range(LEAST)] == [True] * LEAST


def test_an_overload_is_met_where_work_begins():
    """Who shares a read that is under way, and who brings the answer to what was let in, find only the limit."""
    intake = Intake(1_000, clock=TurnedClock())
    intake.inside = 900
    _lagging(intake, ticks=50)
    assert not intake.enter()
    assert not intake.enter_to_read(joins=False)
    assert [intake.enter_to_read(joins=True) for _ in range(50)] == [True] * 50
    assert [intake.enter(goes_on=True) for _ in range(51)] == [True] * 50 + [False]


def _served(intake, *, times, lag_s=0.0, used_s=0.0, refused=0):
    """Let 4,000 calls a second leave, for so many tenths of a second."""
    for _ in range(times):
        intake.left += 400
        intake.refused += refused
        intake.adjust(lag_s=lag_s, lag_limit_s=1.0, passed_s=0.1, used_s=used_s)


@pytest.mark.parametrize(
    ("lag_s", "used_s", "refused", "calm", "window"),
    [
        (0.002, 0.05, 0, 0, 10_000),  # slow services are no overload
        (0.002, 0.05, 9, 0, 10_000),
        (0.01, 0.05, 0, 0, LEAST),  # as many as leave in a 100th of a second would be 40
        (0.01, 0.05, 9, 0, 40),
        (0.002, 0.095, 9, 0, 40),
        (0.002, 0.095, 9, 60, 120),  # a call took 15 ms when it was calm, and may take 30
        (0.002, 0.095, 9, 800, 200),  # and never more than 50
    ],
)
def test_a_busy_loop_lets_no_more_in_than_it_can_serve_soon_and_a_slow_service_is_no_overload(
    lag_s, used_s, refused, calm, window
):
    intake = Intake(10_000, clock=TurnedClock())
    intake.inside = calm
    _served(intake, times=40)
    intake.inside = 800  # each of them takes 0.2 s
    _served(intake, times=2, lag_s=lag_s, used_s=used_s, refused=refused)
    assert window - 1 <= intake.window <= window


def test_in_an_overload_there_are_always_as_many_as_keep_a_processor_at_work():
    intake = Intake(10_000, clock=TurnedClock())
    intake.inside, intake.left = 800, 1
    for _ in range(50):
        intake.refused += 1
        intake.adjust(lag_s=2.0, lag_limit_s=1.0, passed_s=0.1)
    assert intake.window == FEWEST
    intake.inside = 40  # and a look without a refusal opens it by a little, and not to the other bound
    intake.adjust(lag_s=0.01, lag_limit_s=1.0, passed_s=0.1)
    assert intake.window < LEAST


async def test_in_an_overload_a_question_is_refused_before_anything_is_done_and_its_answer_is_let_in(fleet):
    async with fleet.worker() as worker:
        await worker.say("1")
        worker.cache._sessions._writes._intake.window = 0
        before = dict(worker.table.counts)
        session = worker.cache.session("s")
        with pytest.raises(Rejected):
            await session.append(role="user", content="2")
        assert dict(worker.table.counts) == before
        assert (await session.append(role="assistant", content="an answer")).number == 2


def test_who_is_refused_hears_when_those_before_him_will_have_left():
    intake = Intake(100, clock=TurnedClock())
    for _ in range(20):
        for _ in range(50):
            intake.enter()
            intake.leave()
        _calm(intake)  # 500 a second
    for _ in range(100):
        intake.enter()
    assert not intake.enter()
    assert 0.15 <= intake.refusal().retry_after_s <= 0.3
    assert intake.refused == 1


async def test_who_waits_to_be_let_in_comes_in_by_order_and_hears_when_his_time_is_over():
    clock = SetClock()
    intake, order = Intake(4, clock=clock), []
    assert all(intake.enter() for _ in range(4))

    async def come(name):
        await intake.wait(clock.monotonic_s() + HANG_GUARD_S)
        order.append(name)

    coming = [asyncio.create_task(come(name)) for name in "abc"]
    await until(lambda: intake.waiting == 3, "they wait")
    with pytest.raises(Rejected):
        await intake.wait(clock.monotonic_s())
    coming[1].cancel()
    await asyncio.wait((coming[1],))
    intake.leave()
    assert not intake.enter()  # nobody pushes in
    intake.leave()
    await asyncio.wait(coming)
    assert order == ["a", "c"]
    assert intake.inside == 4
    for _ in range(4):
        intake.leave()
    assert (intake.inside, intake.waiting) == (0, 0)


async def test_as_many_wait_as_can_ever_be_in_and_who_waits_at_the_end_hears_so():
    intake = Intake(1, clock=SetClock())
    intake.enter()
    waiting = asyncio.create_task(intake.wait(SetClock().monotonic_s() + HANG_GUARD_S))
    await until(lambda: intake.waiting == 1, "it waits")
    with pytest.raises(Rejected):
        await intake.wait(SetClock().monotonic_s() + HANG_GUARD_S)
    intake.close()
    with pytest.raises(Closed):
        await waiting
    assert intake.inside == 1


async def test_beyond_the_limit_over_all_sessions_a_call_is_refused_or_waits_by_its_policy(fleet):
    gate = Gate()
    async with fleet.worker(messages_in_flight=1) as worker:
        await worker.say("0", session_id="a")
        worker.table.before("PutItem", gate)
        held = asyncio.create_task(worker.say("1", session_id="a"))
        await gate.reached()
        with pytest.raises(Rejected, match="messages_in_flight") as refused:
            await worker.say("0", session_id="b")
        assert refused.value.retry_after_s > 0
        with pytest.raises(Rejected, match="messages_in_flight"):
            await worker.session("c").context()
        patient = worker.session("b", when_full="wait").append(role="user", content="0", turn_id="0")
        waits = asyncio.create_task(patient)
        await until(lambda: worker.cache.supervisor.state().waiting == 1, "it waits")
        gate.opened.set()
        await asyncio.gather(held, waits)
        assert await worker.heard("b") == ["0"]
        assert worker.cache.supervisor.state().refused == 2


@pytest.mark.parametrize("known", [True, False])
async def test_a_retry_that_waits_to_be_let_in_finds_what_was_stored_before_it_however_much_came_between(fleet, known):
    async with fleet.worker(messages_in_flight=1) as worker, fleet.worker() as other:
        await (worker if known else other).say("the first")
        await worker.say("0", session_id="another")
        gate = Gate()
        worker.table.before("PutItem", gate)
        held = asyncio.create_task(worker.say("1", session_id="another"))
        await gate.reached()
        again = worker.session("s", when_full="wait").append(role="user", content="the first", turn_id="the first")
        retry = asyncio.create_task(again)
        await until(lambda: worker.cache.supervisor.state().waiting == 1, "the retry waits")
        await other.say(*(f"{n}" for n in range(40)))
        worker.forget()
        gate.opened.set()
        await held
        assert (await retry).number == 1


async def test_what_was_sent_before_a_process_stood_still_is_found_however_much_came_between(fleet):
    """It waited in a socket meanwhile; whoever sent it has sent it again, to another worker."""
    async with fleet.worker() as worker, fleet.worker() as other:
        await worker.say("1")
        await other.say("sent twice", *(f"{n}" for n in range(40)))
        session = worker.session("s")
        fleet.clock.pass_s(10)
        worker.forget()
        assert (await session.append(role="user", content="sent twice", turn_id="sent twice")).number == 2
        fleet.clock.pass_s(1)
        worker.forget()
        assert (await session.append(role="user", content="sent twice", turn_id="sent twice")).duplicate


async def test_a_try_that_fails_is_begun_again_and_finds_what_another_worker_stored_however_much_came_between(fleet):
    async with fleet.worker() as worker, fleet.worker() as other:
        await worker.say("1")

        async def others_are_faster():
            await other.say("sent twice", *(f"{n}" for n in range(40)))
            raise Transient("for the test", retry_after_s=0)

        worker.table.before("PutItem", others_are_faster)
        done = await worker.session("s").append(role="user", content="sent twice", turn_id="sent twice")
        assert (done.number, done.duplicate) == (2, True)


async def test_a_call_whose_read_takes_long_finds_what_another_worker_stored_meanwhile(fleet):
    async with fleet.worker() as worker, fleet.worker() as other:
        await other.say("1")
        gate = Gate()
        worker.link.before("get", gate)
        slow = asyncio.create_task(worker.session("s").append(role="user", content="sent twice", turn_id="sent twice"))
        await gate.reached()
        await other.say("sent twice", *(f"{n}" for n in range(40)))
        fleet.clock.pass_s(0.9)
        fleet.clock.pass_s(0.9)
        gate.opened.set()
        done = await slow
        assert (done.number, done.duplicate) == (2, True)


async def test_who_has_not_stood_still_looks_through_no_more_than_the_window(fleet):
    async with fleet.worker() as worker:
        await worker.say(*(f"{n}" for n in range(40)))
        looks = worker.table.counts["Query"]
        await worker.say("another")
        assert worker.table.counts["Query"] == looks


# What dies


async def test_background_work_that_dies_is_begun_again_and_given_up_when_it_keeps_dying():
    clock, telemetry, gave_up, runs = TurnedClock(), Telemetry(), [], []
    tasks = TaskOwner(on_failure=telemetry.count_survived)
    restarts = Restarts(
        tasks=tasks,
        clock=clock,
        random=random.Random(1),
        telemetry=telemetry,
        gave_up=lambda name, error: gave_up.append((name, str(error))),
    )

    async def work():
        runs.append(1)
        raise ValueError("no")

    restarts.keep(work, name="work")
    await tasks.settle()
    assert len(runs) == RESTARTS + 1
    assert gave_up == [("work", "no")]
    assert restarts.counted == RESTARTS


async def test_background_work_that_dies_now_and_then_is_never_given_up():
    clock, telemetry, gave_up, runs = TurnedClock(), Telemetry(), [], []
    tasks = TaskOwner(on_failure=telemetry.count_survived)
    restarts = Restarts(
        tasks=tasks, clock=clock, random=random.Random(1), telemetry=telemetry, gave_up=lambda *_: gave_up.append(1)
    )

    async def work():
        runs.append(1)
        clock.age_offset_s += WITHIN_S / 4
        if len(runs) < 50:
            raise ValueError("no")

    restarts.keep(work, name="work")
    await tasks.settle()
    assert (len(runs), gave_up) == (50, [])


async def test_the_supervisor_s_own_work_is_begun_again_when_it_dies(fleet):
    async with fleet.worker() as worker:
        supervisor, calls = worker.cache.supervisor, []
        tick = supervisor.tick

        def failing(now_s):
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("a mistake in this package")
            return tick(now_s)

        supervisor.tick = failing
        await until(lambda: len(calls) >= 3, "it goes on")
        assert supervisor.state().restarts == 1
        assert worker.survived("background_died") == 1


async def test_what_is_fatal_shows_in_the_state(fleet):
    async with fleet.worker() as worker:
        assert worker.cache.supervisor.state().status == "open"
        worker.cache.supervisor.escalate("append", MemoryError("none left"))
        state = worker.cache.supervisor.state()
        assert (state.status, state.fatal) == ("failing", "append: MemoryError: none left")


# Touches of those who have left


def _farewells(limit=10_000):
    sent, telemetry = [], Telemetry()
    tasks = TaskOwner(on_failure=telemetry.count_survived)
    gate = asyncio.Event()

    async def send(session_id, touch):
        await gate.wait()
        sent.append((session_id, touch.number))

    return Farewells(SimpleNamespace(send=send), tasks=tasks, telemetry=telemetry, limit=limit), tasks, gate, sent


async def test_touches_of_those_who_have_left_go_out_a_few_at_a_time_and_the_newest_of_a_session():
    farewells, tasks, gate, sent = _farewells()
    for n in range(200):
        farewells.say(f"s{n}", Touch(1, n, "", 0))
        await asyncio.sleep(0)
    assert len(tasks) == 64
    farewells.say("s199", Touch(1, 1000, "", 0))
    gate.set()
    await tasks.settle()
    assert len(sent) == 200
    assert ("s199", 1000) in sent
    assert len(farewells) == 0


async def test_beyond_the_limit_the_oldest_touch_is_given_up_and_counted():
    farewells, tasks, gate, sent = _farewells(limit=10)
    for n in range(30):
        farewells.say(f"s{n}", Touch(1, n, "", 0))
    assert farewells.dropped == 20
    assert farewells.crowded
    gate.set()
    await tasks.settle()
    assert [session_id for session_id, _ in sent] == [f"s{n}" for n in range(20, 30)]


async def test_a_call_that_comes_while_its_session_is_leaving_is_served_by_the_next_activation(fleet):
    gate = Gate()
    async with fleet.worker(memory_sessions=1) as worker:
        await worker.say("0")
        fleet.clock.pass_s(400)
        await worker.say("1")
        await until(lambda: not worker.actor().busy, "idle")
        fleet.clock.pass_s(400)
        before = worker.actor()
        await worker.latest()
        worker.table.before("UpdateItem", gate)
        worker.actor().known = msgspec.structs.replace(
            worker.actor().known, meta=msgspec.structs.replace(worker.actor().known.meta, last_number=0)
        )
        worker.cache._sessions.actor("another")
        await gate.reached()  # its touch is on its way
        assert before.gone
        assert (await worker.say("2")).number == 3
        gate.opened.set()
        assert await worker.heard() == ["0", "1", "2"]


# The end


async def test_the_end_is_in_order_and_its_report_is_complete(fleet):
    order, gate = [], Gate()
    async with fleet.worker() as worker:
        await worker.say("0")
        worker.table.before("PutItem", gate)
        writing = asyncio.create_task(worker.say("1"))
        await gate.reached()
        sessions, tier = worker.cache._sessions, worker.tier
        settle, close, perform = tier.settle, tier.close, sessions.store.perform

        async def settling():
            if "closed" not in order and "told" not in order:
                order.append("told")
            await settle()

        async def closing():
            order.append("closed")
            await close()

        async def performing(session_id, effect):
            if isinstance(effect, Touch):
                order.append("touched")
            return await perform(session_id, effect)

        tier.settle, tier.close, sessions.store.perform = settling, closing, performing

        async def step():
            order.append("locks")

        worker.cache.supervisor.before_close("for the test", step)
        closed = asyncio.create_task(worker.cache.close())
        await until(lambda: worker.cache.supervisor.state().status == "draining", "it drains")
        assert order == []
        gate.opened.set()
        order.append("written")
        await asyncio.gather(writing, closed)
        report = worker.cache.supervisor.state().drain
    assert order == ["written", "told", "touched", "locks", "closed"]
    assert report.complete
    assert (report.touched, report.unfinished) == (1, 0)


async def test_what_could_not_be_done_in_time_is_reported_and_what_follows_is_done_all_the_same(fleet):
    hangs, done = Gate(), []
    async with fleet.worker(drain_timeout_s=0.2) as worker:
        await worker.say("0")
        worker.table.before("PutItem", hangs)
        writing = asyncio.create_task(worker.say("1"))
        await hangs.reached()
        waits = asyncio.create_task(worker.say("2"))
        await until(lambda: len(worker.actor().mailbox) == 1, "it waits")

        async def fails():
            raise Transient("for the test")

        async def step():
            done.append(1)

        worker.cache.supervisor.before_close("fails", fails)
        worker.cache.supervisor.before_close("works", step)
        await worker.cache.close()
        report = worker.cache.supervisor.state().drain
    assert (report.unfinished, report.failed_steps) == (2, ("finish the mailboxes", "fails"))
    assert done == [1]
    assert not report.complete
    for call in (writing, waits):
        with pytest.raises(Closed):
            await call


async def test_what_others_were_not_told_is_reported(fleet):
    async with fleet.worker(drain_timeout_s=1) as worker:
        await worker.say("0")
        worker.link.cut = True
        await worker.say("1")
        worker.table.epoch_away = True
        tried, settle = [], worker.tier.settle

        async def settling():
            tried.append(worker.cache.supervisor.state().status)
            await settle()

        worker.tier.settle = settling
        await worker.cache.close()
        assert worker.cache.supervisor.state().drain.untold == 1
        assert tried == ["draining"], "once, within the time that the end may take"


async def test_a_step_of_others_is_done_although_the_end_was_cancelled(fleet):
    hangs, done = Gate(), asyncio.Event()
    async with fleet.worker() as worker:
        await worker.say("0")
        worker.table.before("PutItem", hangs)
        writing = asyncio.create_task(worker.say("1"))
        await hangs.reached()

        async def step():
            done.set()

        worker.cache.supervisor.before_close("for the test", step)
        closing = asyncio.create_task(worker.cache.close())
        await until(lambda: worker.cache.supervisor.state().status == "draining", "it drains")
        closing.cancel()
        await asyncio.wait((closing, writing))
        assert done.is_set()
        assert worker.cache.supervisor.state().status == "closed"


# What it tells


async def test_its_state_is_a_value_that_can_be_exported_and_read_again(fleet):
    async with fleet.worker() as worker:
        await worker.say("0")
        state = worker.cache.supervisor.state()
        assert msgspec.json.decode(msgspec.json.encode(state), type=SupervisorState) == state
        assert state.sessions == 1
        assert state.memory_kib > 0
        assert state.health["dynamodb"].phase == state.health["redis"].phase == "closed"
        assert "1 sessions" in repr(worker.cache.supervisor)


async def test_services_that_are_away_show_in_its_health_and_so_does_their_return(fleet):
    async with fleet.worker(request_deadline_s=0.3, request_timeout_s=0.05) as worker:
        await worker.say("0")
        worker.table.away = worker.link.cut = True
        while worker.cache.supervisor.state().health["dynamodb"].phase == "closed":
            with pytest.raises(Transient):
                await worker.say("1")
        health = worker.cache.supervisor.state().health
        assert health["redis"].phase == "open"
        before = worker.table.counts["PutItem"]
        with pytest.raises(Transient, match="answers nobody"):
            await worker.say("2")
        assert worker.table.counts["PutItem"] - before <= 3  # one try a call, and the actor's own
        worker.table.away = worker.link.cut = False
        assert (await worker.say("3")).number >= 2  # the first that is answered is answered
        fleet.clock.pass_s(10)
        await worker.say("4")
        assert worker.cache.supervisor.state().health["dynamodb"].phase == "closed"


def test_a_step_of_its_work_is_bounded_below_a_millisecond():
    assert STEP_S < 0.001
    assert Settings().turn_slow_s == 5.0
    assert Settings().turn_limit_s == 30.0


def test_where_too_many_are_inside_to_be_served_in_time_no_more_writes_are_let_in_than_can_be():
    intake = Intake(10_000, clock=TurnedClock())
    for _ in range(40):
        for _ in range(200):  # 2,000 a second leave
            intake.enter()
            intake.leave()
        _calm(intake)
    intake.inside = 5_000
    intake.left += 200
    _calm(intake)
    assert LEAST < intake.window <= 510
    assert not intake.enter()
