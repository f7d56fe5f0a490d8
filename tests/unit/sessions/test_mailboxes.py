"""Mailboxes: who waits for what, what a failure means for whom, and what is left when callers go."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextvars import ContextVar

import pytest
from fleet import GUARD_S
from mangatest import SetClock

from mangacache import Closed, Conflict, Corrupt, Invalid, Rejected, Settings, Transient, VersionGone
from mangacache.sessions.actor import Actor
from mangacache.sessions.hands import MOST_PARKED
from mangacache.sessions.intake import Intake
from mangacache.sessions.mailbox import Mailboxes
from mangacache.sessions.treatment import DEAD_LETTERS_KEPT, Treatment, treatment_of
from mangacache.sessions.watch import Watch
from mangacache.tasks import TaskOwner
from mangacache.telemetry import Telemetry

VARIABLE = ContextVar("variable", default="nothing")


class TurnedClock(SetClock):
    """A clock that a test turns; waits are real, and short."""

    def monotonic_s(self):
        return 1000.0 + self.age_offset_s

    async def sleep(self, seconds):
        self.age_offset_s += seconds
        await asyncio.sleep(0)


class Runtime:
    """Mailboxes with everything about them that a test may look at."""

    def __init__(self, **settings):
        self.clock = TurnedClock()
        self.telemetry = Telemetry()
        self.tasks = TaskOwner(on_failure=self.telemetry.count_survived)
        self.recovered, self.escalated = [], []
        self.settings = Settings(**settings)
        self.mailboxes = Mailboxes(
            settings=self.settings,
            tasks=self.tasks,
            clock=self.clock,
            random=random.Random(1),
            telemetry=self.telemetry,
            intake=Intake(1000, clock=self.clock),
            after=lambda _: None,
            recover=self.recover,
            escalate=lambda what, error: self.escalated.append((what, error)),
        )
        self.watch = Watch(self.mailboxes, settings=self.settings, telemetry=self.telemetry)
        self.actor = Actor("s")

    async def recover(self, actor):
        self.recovered.append(actor)

    def start(self, operation, **how):
        return asyncio.create_task(self.mailboxes.run(how.pop("actor", self.actor), operation, **how))

    def turns(self, what):
        return self.telemetry.value("mangacache_turns_total", what=what)


class Held:
    """An operation that says when it has begun, and ends when it is let go."""

    def __init__(self, result="done"):
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()
        self.result, self.cancelled = result, False

    async def __call__(self):
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.result


async def answer(value="done"):
    return value


async def soon(condition):
    async with asyncio.timeout(GUARD_S):
        while not condition():  # noqa: ASYNC110 - looks from outside
            await asyncio.sleep(0)


@pytest.fixture
def runtime():
    return Runtime()


# Turns


async def test_messages_of_one_session_run_one_after_the_other_and_those_of_others_meanwhile(runtime):
    held, order = Held(), []

    async def note(name):
        order.append(name)

    first = runtime.start(held)
    await held.begun.wait()
    behind = [runtime.start(lambda name=name: note(name)) for name in ("b", "c")]
    await runtime.mailboxes.run(Actor("other"), lambda: note("other"))
    assert order == ["other"]
    held.let_go.set()
    await asyncio.gather(first, *behind)
    assert order == ["other", "b", "c"]


async def at_home(runtime):
    """Wait until there is a parked hand, as there is after a first turn."""
    await runtime.mailboxes.run(Actor("before"), answer)
    await soon(lambda: runtime.mailboxes._hands.parked)


async def test_an_actor_that_is_idle_again_has_neither_mailbox_nor_task(runtime):
    assert await runtime.mailboxes.run(runtime.actor, answer) == "done"
    await soon(lambda: runtime.actor.activity is None)
    assert runtime.mailboxes.running == {}
    assert len(runtime.tasks) == len(runtime.mailboxes._hands.parked) == 1


async def test_tasks_that_wait_for_work_are_few_and_go_home_at_the_end(runtime):
    held = [Held() for _ in range(MOST_PARKED + 20)]
    calls = [runtime.start(one, actor=Actor(str(number))) for number, one in enumerate(held)]
    for one in held:
        await one.begun.wait()
        one.let_go.set()
    await asyncio.gather(*calls)
    await soon(lambda: len(runtime.tasks) == MOST_PARKED)
    runtime.mailboxes.close()
    await soon(lambda: not len(runtime.tasks))


async def test_a_message_that_comes_as_the_mailbox_empties_is_run_too(runtime):
    async def chain(left):
        return await runtime.mailboxes.run(runtime.actor, answer) and (left and await chain(left - 1))

    await asyncio.gather(*(chain(20) for _ in range(5)))
    assert runtime.actor.activity is None


async def test_a_session_with_many_messages_gives_way_to_others(runtime):
    order = []

    async def note(name):
        order.append(name)

    busy = [runtime.start(lambda: note("busy")) for _ in range(60)]
    other = runtime.start(lambda: note("other"), actor=Actor("other"))
    await asyncio.gather(other, *busy)
    assert order.index("other") < 59


async def test_an_idle_actor_begins_a_turn_at_once_and_a_busy_one_behind_the_others(runtime):
    order, held = [], Held()

    async def note(name):
        order.append(name)
        return name

    await at_home(runtime)
    asyncio.get_running_loop().call_soon(order.append, "another turn of the loop")
    assert await runtime.mailboxes.run(runtime.actor, lambda: note("idle")) == "idle"
    assert order == ["idle"]
    assert runtime.actor.activity is None
    first = runtime.start(held)
    await held.begun.wait()
    second = runtime.start(lambda: note("busy"))
    await soon(lambda: len(runtime.actor.activity.mailbox) == 1)
    held.let_go.set()
    await asyncio.gather(first, second)
    assert order == ["idle", "another turn of the loop", "busy"]


async def test_turns_that_never_wait_let_others_run(runtime):
    await at_home(runtime)
    others = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    for _ in range(100):
        await runtime.mailboxes.run(runtime.actor, answer)
    assert others == ["ran"]


async def test_what_only_concerns_the_sender_is_told_at_once_where_the_actor_is_idle(runtime):
    await at_home(runtime)
    others = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    with pytest.raises(Invalid):
        await runtime.mailboxes.run(runtime.actor, Failing(Invalid("i"), 1))
    assert others == []
    assert runtime.actor.activity is None
    assert await runtime.mailboxes.run(runtime.actor, answer) == "done"


@pytest.mark.parametrize("parked", [False, True])
async def test_a_turn_is_one_task_from_its_beginning_to_its_end(runtime, parked):
    """A timeout holds on to the task in which it began, so that must be the one that goes on: not the caller's."""
    caller, tasks = asyncio.current_task(), []

    async def times_out():
        tasks.append(asyncio.current_task())
        if tasks[0] is caller:
            return "would cancel the caller"
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            tasks.append(asyncio.current_task())
            return "timed out"

    if parked:
        await at_home(runtime)
    async with asyncio.timeout(GUARD_S):
        assert await runtime.mailboxes.run(runtime.actor, times_out) == "timed out"
    assert tasks[0] is tasks[1] is not caller
    assert caller.cancelling() == 0
    assert await runtime.mailboxes.run(runtime.actor, answer) == "done"


@pytest.mark.parametrize("parked", [False, True])
async def test_a_turn_runs_in_its_senders_context_and_leaves_it_alone(runtime, parked):
    seen, held = [], Held()

    async def looks(name):
        seen.append((name, VARIABLE.get()))
        token = VARIABLE.set("the turn's own")
        await asyncio.sleep(0)
        seen.append((name, VARIABLE.get()))
        VARIABLE.reset(token)

    async def sends(name):
        VARIABLE.set(name)
        await runtime.mailboxes.run(runtime.actor, lambda: looks(name))
        assert VARIABLE.get() == name

    if parked:
        await at_home(runtime)
    first = runtime.start(held)
    await held.begun.wait()
    others = [asyncio.create_task(sends(name)) for name in ("a", "b")]
    held.let_go.set()
    await asyncio.gather(first, *others)
    await sends("c")
    assert seen == [(name, what) for name in "abc" for what in (name, "the turn's own")]


async def test_what_a_turn_awaits_may_be_awaited_by_others_too(runtime):
    await at_home(runtime)
    future = asyncio.get_running_loop().create_future()

    async def awaits():
        return await future

    call = asyncio.create_task(runtime.mailboxes.run(runtime.actor, awaits))
    other = asyncio.create_task(awaits())
    await asyncio.sleep(0)
    future.set_result("done")
    assert await asyncio.gather(call, other) == ["done", "done"]


# Bounds and deadlines


async def test_a_full_mailbox_refuses_and_says_when_to_come_back(runtime):
    runtime = Runtime(mailbox_size=2)
    held = Held()
    tasks = [runtime.start(held)]
    await held.begun.wait()
    tasks += [runtime.start(answer) for _ in range(2)]
    await soon(lambda: len(runtime.actor.activity.mailbox) == 2)
    with pytest.raises(Rejected, match="mailbox_size") as refused:
        await runtime.mailboxes.run(runtime.actor, answer)
    assert refused.value.retry_after_s > 0
    tasks.append(runtime.start(answer, waits=True))  # its policy is to wait
    held.let_go.set()
    await asyncio.gather(*tasks)


async def test_a_message_whose_deadline_has_passed_is_dropped_before_it_runs(runtime):
    held, ran = Held(), []
    first = runtime.start(held)
    await held.begun.wait()
    late = runtime.start(lambda: ran.append(1), deadline_s=1.0)
    await soon(lambda: len(runtime.actor.activity.mailbox) == 1)
    runtime.clock.age_offset_s += 2
    held.let_go.set()
    with pytest.raises(Rejected, match="deadline"):
        await late
    await first
    assert ran == []


async def test_who_waits_behind_a_turn_that_takes_its_time_hears_at_his_deadline_and_not_at_its_end(runtime):
    held = Held()
    first = runtime.start(held)
    await held.begun.wait()
    late = runtime.start(answer, deadline_s=1.0)
    patient = runtime.start(answer)
    await soon(lambda: len(runtime.actor.activity.mailbox) == 2)
    runtime.clock.age_offset_s += 2
    runtime.watch.look()
    with pytest.raises(Rejected, match="deadline"):
        await late
    held.let_go.set()
    assert await patient == await first == "done"


# Waiting for oneself


async def test_a_call_that_would_wait_for_its_own_turn_raises_at_once(runtime):
    async def again():
        await runtime.mailboxes.run(runtime.actor, answer)

    async with asyncio.timeout(GUARD_S):
        with pytest.raises(Invalid, match="wait for itself"):
            await runtime.mailboxes.run(runtime.actor, again)
    assert await runtime.mailboxes.run(runtime.actor, answer) == "done"


async def test_a_call_that_would_wait_for_its_own_turn_by_way_of_another_session_raises_too(runtime):
    other = Actor("other")

    async def there():
        await runtime.mailboxes.run(other, back)

    async def back():
        await runtime.mailboxes.run(runtime.actor, answer)

    async with asyncio.timeout(GUARD_S):
        with pytest.raises(Invalid, match="wait for itself"):
            await runtime.mailboxes.run(runtime.actor, there)


async def test_a_task_that_was_begun_in_a_turn_may_call_when_the_turn_is_over(runtime):
    over, begun = asyncio.Event(), []

    async def later():
        await over.wait()
        return await runtime.mailboxes.run(runtime.actor, answer)

    async def operation():
        begun.append(asyncio.create_task(later()))

    await runtime.mailboxes.run(runtime.actor, operation)
    over.set()
    assert await begun[0] == "done"


# Callers who leave


async def test_who_leaves_before_his_turn_takes_his_message_back(runtime):
    held, ran = Held(), []
    first = runtime.start(held)
    await held.begun.wait()
    leaving = runtime.start(lambda: ran.append(1))
    await soon(lambda: len(runtime.actor.activity.mailbox) == 1)
    leaving.cancel()
    await asyncio.wait((leaving,))
    assert len(runtime.actor.activity.mailbox) == 0
    held.let_go.set()
    await first
    assert ran == []


@pytest.mark.parametrize("fails", [False, True])
async def test_what_has_begun_is_settled_however_often_its_caller_is_cancelled(runtime, fails):
    settled, held = [], Held()

    async def durable():
        await held()
        if fails:
            raise Transient("no")
        settled.append(1)

    call = runtime.start(durable)
    await held.begun.wait()
    for _ in range(5):
        call.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not call.done()
    held.let_go.set()
    await asyncio.wait((call,))
    assert call.cancelled()
    assert settled == ([] if fails else [1])
    assert not held.cancelled


async def test_a_cancellation_in_the_moment_of_the_result_leaves_nothing_behind(runtime):
    held = Held()
    call = runtime.start(held)
    await held.begun.wait()
    held.let_go.set()
    await soon(lambda: not runtime.mailboxes.running)
    call.cancel()
    await asyncio.wait((call,))
    assert await runtime.mailboxes.run(runtime.actor, answer) == "done"


# What failures mean


@pytest.mark.parametrize(
    ("error", "treatment"),
    [
        (Transient("t"), Treatment.TRANSIENT),
        (Conflict("c"), Treatment.CONFLICT),
        (VersionGone("v"), Treatment.SENDER),
        (Invalid("i"), Treatment.SENDER),
        (Rejected("r"), Treatment.SENDER),
        (Corrupt("c"), Treatment.POISON),
        (ZeroDivisionError(), Treatment.POISON),
        (RecursionError(), Treatment.POISON),
        (MemoryError(), Treatment.FATAL),
    ],
)
def test_each_kind_of_error_has_its_treatment(error, treatment):
    assert treatment_of(error) is treatment


class Failing:
    """An operation that fails so many times."""

    def __init__(self, error, times):
        self.error, self.times, self.tries = error, times, 0

    async def __call__(self):
        self.tries += 1
        if self.tries <= self.times:
            raise self.error
        return "done"


def always():
    return True


async def test_what_is_transient_is_tried_again_with_a_back_off_where_that_is_safe(runtime):
    safe, unsafe, hopeless = (Failing(Transient("t"), times) for times in (2, 1, 9))
    before_s = runtime.clock.monotonic_s()
    assert await runtime.mailboxes.run(runtime.actor, safe, repeats=always) == "done"
    assert safe.tries == 3
    assert runtime.clock.monotonic_s() > before_s
    for operation, how, tries in ((unsafe, {}, 1), (hopeless, {"repeats": always}, 3)):
        with pytest.raises(Transient):
            await runtime.mailboxes.run(runtime.actor, operation, **how)
        assert operation.tries == tries
    assert runtime.mailboxes.dead_letters.counted == 0


async def test_what_took_its_time_to_fail_is_not_tried_again(runtime):
    class Slow(Failing):
        async def __call__(self):
            runtime.clock.age_offset_s += 5
            return await super().__call__()

    slow = Slow(Transient("t"), 1)
    with pytest.raises(Transient):
        await runtime.mailboxes.run(runtime.actor, slow, repeats=always)
    assert slow.tries == 1


async def test_a_conflict_is_decided_once_more_and_then_told(runtime):
    once, twice = Failing(Conflict("c"), 1), Failing(Conflict("c"), 2)
    assert await runtime.mailboxes.run(runtime.actor, once, repeats=always) == "done"
    with pytest.raises(Conflict):
        await runtime.mailboxes.run(runtime.actor, twice, repeats=always)
    assert twice.tries == 2


async def test_a_poison_message_costs_its_sender_an_error_and_nobody_else_anything(runtime):
    held, poison = Held(), Failing(ZeroDivisionError("no"), 9)
    first = runtime.start(held)
    await held.begun.wait()
    sent = runtime.start(poison, what="append", repeats=always)
    behind = [runtime.start(lambda n=n: answer(n)) for n in range(3)]
    held.let_go.set()
    with pytest.raises(ZeroDivisionError):
        await sent
    assert await asyncio.gather(first, *behind) == ["done", 0, 1, 2]
    assert poison.tries == 3
    (letter,) = runtime.mailboxes.dead_letters.listed()
    assert (letter.session_id, letter.what, letter.tries) == ("s", "append", 3)
    assert letter.error.startswith("ZeroDivisionError")


async def test_a_poison_message_that_may_have_been_carried_out_is_not_tried_again(runtime):
    poison = Failing(ZeroDivisionError(), 9)
    with pytest.raises(ZeroDivisionError):
        await runtime.mailboxes.run(runtime.actor, poison, what="change")
    assert poison.tries == 1
    assert len(runtime.mailboxes.dead_letters) == 1


async def test_dead_letters_are_bounded_and_counted(runtime):
    for _ in range(DEAD_LETTERS_KEPT + 5):
        with contextlib.suppress(ZeroDivisionError):
            await runtime.mailboxes.run(runtime.actor, Failing(ZeroDivisionError(), 9))
    letters = runtime.mailboxes.dead_letters
    assert (len(letters), letters.counted) == (DEAD_LETTERS_KEPT, DEAD_LETTERS_KEPT + 5)


async def test_what_is_fatal_is_told_to_the_sender_and_to_the_supervisor(runtime):
    error = MemoryError("none left")
    with pytest.raises(MemoryError):
        await runtime.mailboxes.run(runtime.actor, Failing(error, 1), what="append", repeats=always)
    assert runtime.escalated == [("append", error)]
    assert runtime.mailboxes.dead_letters.counted == 1


async def test_what_only_concerns_the_sender_is_his_at_once(runtime):
    wrong = Failing(Invalid("i"), 1)
    with pytest.raises(Invalid):
        await runtime.mailboxes.run(runtime.actor, wrong, repeats=always)
    assert wrong.tries == 1
    assert runtime.mailboxes.dead_letters.counted == 0


# Turns that are stuck


async def test_a_turn_that_takes_over_five_seconds_is_logged_with_where_it_stands(runtime, caplog):
    held = Held()
    call = runtime.start(held, what="append")
    await held.begun.wait()
    runtime.clock.age_offset_s += 4.9
    runtime.watch.look()
    assert runtime.turns("slow") == 0
    runtime.clock.age_offset_s += 0.2
    with caplog.at_level("WARNING", logger="mangacache"):
        runtime.watch.look()
        runtime.watch.look()
    assert runtime.turns("slow") == 1
    (record,) = (record for record in caplog.records if record.msg == "turn_slow")
    assert record.what == "append"
    assert any("in __call__" in place for place in record.stack)
    assert any("in wait" in place for place in record.stack)
    held.let_go.set()
    assert await call == "done"


async def test_a_turn_that_takes_over_thirty_seconds_is_cut_off_and_the_next_begins_from_what_is_stored(runtime):
    held = Held()
    stuck = runtime.start(held)
    await held.begun.wait()
    behind = runtime.start(answer)
    runtime.clock.age_offset_s += 31
    runtime.watch.look()
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(Transient, match="unknown"):
            await stuck
    assert await behind == "done"
    assert held.cancelled
    assert runtime.recovered == [runtime.actor]
    assert runtime.turns("cut_off") == 1
    assert await runtime.mailboxes.run(runtime.actor, answer) == "done"


async def test_a_turn_that_may_take_as_long_as_it_takes_is_not_cut_off(runtime):
    held = Held()
    long = runtime.start(held, long=True)
    await held.begun.wait()
    runtime.clock.age_offset_s += 3600
    runtime.watch.look()
    await asyncio.sleep(0)
    held.let_go.set()
    assert await long == "done"


async def test_a_process_that_stood_still_cuts_nobody_off(runtime):
    held = Held()
    call = runtime.start(held)
    await held.begun.wait()
    runtime.clock.age_offset_s += 3600
    runtime.mailboxes.stood_still_s += 3600
    runtime.watch.look()
    held.let_go.set()
    assert await call == "done"
    assert runtime.turns("slow") == 0


async def test_a_cut_off_turn_is_no_cancellation_of_its_caller(runtime):
    held = Held()

    async def caller():
        try:
            await runtime.mailboxes.run(runtime.actor, held)
        except Transient:
            await asyncio.sleep(0)  # a caller that had been cancelled would end here
            return asyncio.current_task().cancelling()

    calling = asyncio.create_task(caller())
    await held.begun.wait()
    runtime.clock.age_offset_s += 31
    runtime.watch.look()
    assert await calling == 0


# The end


async def test_what_is_closed_takes_nothing_in_and_finishes_what_waits(runtime):
    held = Held()
    first = runtime.start(held)
    await held.begun.wait()
    second = runtime.start(answer)
    await soon(lambda: len(runtime.actor.activity.mailbox) == 1)
    runtime.mailboxes.close()
    with pytest.raises(Closed):
        await runtime.mailboxes.run(runtime.actor, answer)
    held.let_go.set()
    assert await asyncio.gather(first, second) == ["done", "done"]


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_turn_that_is_cut_off_as_its_task_takes_it_over_ends_in_good_order(runtime, steps):
    """Between the first stretch, in the caller's step, and the rest, in the task's, a cancellation must find both."""
    await at_home(runtime)
    held = Held()
    call = runtime.start(held)
    await held.begun.wait()
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tuple(runtime.tasks._tasks):
        task.cancel()
    async with asyncio.timeout(GUARD_S):
        await asyncio.wait((call,))
        await runtime.tasks.settle()
    with pytest.raises(Closed, match="same turn_id"):
        await call
    assert held.cancelled
    assert runtime.mailboxes.running == {}
    assert runtime.actor.activity is None


async def test_whoever_waits_when_the_tasks_are_cancelled_hears_so(runtime):
    held = Held()
    first = runtime.start(held)
    await held.begun.wait()
    second = runtime.start(answer)
    await soon(lambda: len(runtime.actor.activity.mailbox) == 1)
    await runtime.tasks.cancel()
    with pytest.raises(Closed, match="same turn_id"):
        await first
    with pytest.raises(Closed, match="before the write began"):
        await second
