"""Tasks: owned, named, reported; and waits that no cancellation cuts short."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from mangacache.tasks import TaskOwner, both, outlast


class Failures(list):
    def __call__(self, name, error):
        self.append((name, error))


async def test_a_failure_of_a_task_that_nobody_awaits_is_reported_once_with_its_name():
    failures = Failures()
    owner = TaskOwner(on_failure=failures)
    error = ValueError("no")

    async def fail():
        raise error

    owner.start(fail(), name="fail for the test")
    await owner.settle()
    assert failures == [("fail for the test", error)]
    assert len(owner) == 0


async def test_a_failure_that_somebody_awaits_is_theirs_and_not_reported():
    failures = Failures()
    owner = TaskOwner(on_failure=failures)

    async def fail():
        raise ValueError("no")

    task = owner.start(fail(), name="fail", awaited=True)
    with pytest.raises(ValueError, match="no"):
        await task
    assert failures == []


async def test_a_cancelled_task_is_no_failure():
    failures, lost = Failures(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    owner = TaskOwner(on_failure=failures)
    for awaited in (True, False):
        owner.start(asyncio.Event().wait(), name="wait", awaited=awaited).cancel()
    await owner.settle()
    await asyncio.sleep(0)
    assert (failures, lost) == ([], [])


async def test_settling_waits_for_tasks_started_meanwhile():
    owner = TaskOwner(on_failure=Failures())
    ended = []

    async def spawn(depth):
        await asyncio.sleep(0)
        if depth:
            owner.start(spawn(depth - 1), name="spawn")
        ended.append(depth)

    owner.start(spawn(5), name="spawn")
    await owner.settle()
    assert sorted(ended) == [0, 1, 2, 3, 4, 5]


async def test_cancelling_waits_for_tasks_that_take_their_time_and_ends_those_that_they_start():
    owner = TaskOwner(on_failure=Failures())
    began, ended = asyncio.Event(), []

    async def slow_to_end():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            owner.start(asyncio.Event().wait(), name="started while ending")
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append(True)

    owner.start(slow_to_end(), name="slow to end")
    await began.wait()
    await owner.cancel()
    assert ended == [True]
    assert len(owner) == 0


async def test_a_step_waits_for_one_task_and_not_for_all():
    owner = TaskOwner(on_failure=Failures())
    forever = owner.start(asyncio.Event().wait(), name="for ever")
    owner.start(asyncio.sleep(0), name="at once")
    await owner.step()
    assert len(owner) == 1
    assert not forever.done()
    await owner.cancel()
    await owner.step()


async def test_an_owner_keeps_its_tasks_alive():
    """The loop holds tasks weakly: one that waits for what nothing else holds would vanish with its work."""
    owner = TaskOwner(on_failure=Failures())

    async def wait_for_what_nothing_else_holds():
        await asyncio.get_running_loop().create_future()

    task = weakref.ref(owner.start(wait_for_what_nothing_else_holds(), name="wait"))
    await asyncio.sleep(0)
    gc.collect()
    assert task() is not None
    assert len(owner) == 1
    await owner.cancel()


@pytest.mark.parametrize("cancellations", [0, 1, 2, 25])
async def test_outlast_waits_through_any_number_of_cancellations(cancellations):
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(outlast(future))
    await asyncio.sleep(0)
    for _ in range(cancellations):
        waiting.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert not future.done(), "the cancellation must not go on to what is waited for"
    future.set_result("the outcome")
    await waiting
    assert future.result() == "the outcome"


@pytest.mark.parametrize("end", ["result", "error", "cancelled"])
async def test_outlast_ends_with_the_outcome_whatever_it_is_and_raises_none(end):
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(outlast(future))
    await asyncio.sleep(0)
    if end == "result":
        future.set_result(None)
    elif end == "error":
        future.set_exception(ValueError("no"))
    else:
        future.cancel()
    await waiting
    assert future.done()
    assert future.cancelled() or not isinstance(future.exception(), asyncio.CancelledError)
    await outlast(future)


async def test_outlast_is_cancelled_in_the_very_tick_of_the_result_and_still_ends():
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(outlast(future))
    await asyncio.sleep(0)
    future.set_result(None)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert future.result() is None


async def test_both_return_both_results_whichever_ends_first():
    gate = asyncio.Event()

    async def first():
        await gate.wait()
        return 1

    async def second():
        gate.set()
        return "two"

    assert await both(first(), second()) == (1, "two")


@pytest.mark.parametrize("failing", [0, 1])
async def test_when_one_of_both_fails_the_other_is_cancelled_and_has_ended(failing):
    ended = []

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("no")

    pair = [wait(), wait()]
    pair[failing].close()
    pair[failing] = fail()
    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="no"):
        await both(*pair)
    assert ended == ["cleaned up"]
    assert asyncio.all_tasks() == before


async def test_when_both_fail_one_failure_is_raised_and_the_other_is_not_reported_as_lost():
    lost = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))

    async def fail(text):
        raise ValueError(text)

    with pytest.raises(ValueError, match=r"^(one|two)$"):
        await both(fail("one"), fail("two"))
    gc.collect()
    await asyncio.sleep(0)
    assert lost == []


async def test_a_cancellation_of_both_reaches_both_and_goes_on():
    began, ended = [], []

    async def wait(name):
        began.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    waiting = asyncio.ensure_future(both(wait("a"), wait("b")))
    while len(began) < 2:  # noqa: ASYNC110 - until both have begun
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sorted(ended) == ["a", "b"]
