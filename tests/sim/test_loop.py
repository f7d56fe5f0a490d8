"""The loop of the simulation: time, order, processes that stop, and what it refuses."""

from __future__ import annotations

import asyncio
import random

import pytest

from mangacache.testing.simulation import SimulatedClock, SimulatedLoop, Stuck


def run(story, *, seed=0, **options):
    loop = SimulatedLoop(random.Random(seed), **options)
    try:
        return loop.run_until_complete(story(loop))
    finally:
        loop.close()


def test_an_hour_of_sleep_takes_an_hour_of_virtual_time_and_no_time_at_all():
    async def story(loop):
        clock = SimulatedClock(loop)
        before_s, wall_s = clock.monotonic_s(), clock.time_s()
        await clock.sleep(3600)
        return clock.monotonic_s() - before_s, clock.time_s() - wall_s

    passed_s, wall_passed_s = run(story, ends_within_s=4000)
    assert 3600 <= passed_s < 3600.01
    assert wall_passed_s == pytest.approx(passed_s)


def test_a_timeout_ends_at_its_virtual_time():
    async def story(loop):
        begun_s = loop.time()
        with pytest.raises(TimeoutError):
            async with SimulatedClock(loop).timeout(5):
                await loop.create_future()
        return loop.time() - begun_s

    assert 5 <= run(story) < 5.01


def test_callbacks_of_one_process_run_in_the_order_in_which_they_were_registered():
    async def story(loop):
        seen = []
        for number in range(50):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(0)
        return seen

    assert all(run(story, seed=seed) == list(range(50)) for seed in range(20))


def test_what_a_callback_registers_runs_after_all_that_was_ready():
    async def story(loop):
        seen = []
        loop.call_soon(lambda: (seen.append("first"), loop.call_soon(seen.append, "third")))
        loop.call_soon(seen.append, "second")
        await asyncio.sleep(0.1)
        return seen

    assert all(run(story, seed=seed) == ["first", "second", "third"] for seed in range(20))


def test_timers_of_one_process_run_in_the_order_of_their_times():
    async def story(loop):
        seen = []
        for number in reversed(range(20)):
            loop.call_later(number * 1e-6, seen.append, number)
        await asyncio.sleep(0.1)
        return seen

    assert all(run(story, seed=seed) == list(range(20)) for seed in range(20))


def test_two_processes_take_their_turns_in_any_order_and_the_same_seed_gives_the_same_one():
    async def story(loop):
        seen = []

        async def count(name):
            for _ in range(10):
                seen.append(name)
                await asyncio.sleep(0)

        tasks = [loop.start(loop.process(name), count(name), name=name) for name in "ab"]
        await asyncio.wait(tasks)
        return "".join(seen)

    orders = [run(story, seed=seed) for seed in range(30)]
    assert len(set(orders)) > 10
    assert orders == [run(story, seed=seed) for seed in range(30)]


def test_what_one_connection_brings_stays_in_order_and_two_connections_bring_theirs_in_any():
    async def story(loop):
        seen = []
        process = loop.process("p")
        process.stop()
        for number in range(3):
            for connection in ("a", "b"):
                loop.deliver_at(loop.time(), process, seen.append, f"{connection}{number}", by=connection)
        loop.call_later(0, seen.append, "mine")
        await asyncio.sleep(0.1)
        process.go_on()
        await asyncio.sleep(0.1)
        return seen

    orders = {tuple(run(story, seed=seed)) for seed in range(30)}
    assert orders == {
        ("mine", "a0", "a1", "a2", "b0", "b1", "b2"),
        ("mine", "b0", "b1", "b2", "a0", "a1", "a2"),
    }


def test_a_process_that_was_stopped_finds_its_connections_before_its_timers_when_it_goes_on():
    async def story(loop):
        seen = []
        process = loop.process("p")

        async def begin():
            loop.call_later(1, seen.append, "timer")

        await loop.start(process, begin(), name="begin")
        loop.deliver_at(loop.time() + 2, process, seen.append, "data", by=seen)
        process.stop()
        await asyncio.sleep(5)
        assert seen == []
        process.go_on()
        await asyncio.sleep(0.1)
        return seen

    assert run(story) == ["data", "timer"]


def test_a_killed_process_runs_nothing_any_more_not_even_what_would_clean_up():
    async def story(loop):
        seen = []

        async def live():
            try:
                while True:
                    await asyncio.sleep(1)
                    seen.append("alive")
            finally:
                seen.append("cleaned up")

        process = loop.process("p")
        loop.start(process, live(), name="live")
        await asyncio.sleep(3.5)
        process.kill()
        await asyncio.sleep(10)
        return list(seen)

    assert run(story) == ["alive"] * 3


def test_a_wait_for_what_nobody_will_do_is_an_error_that_shows_where():
    async def waits_in_vain(loop):
        await loop.create_future()

    with pytest.raises(Stuck, match=r"nothing is ready(.|\n)*waits_in_vain:\d+"):
        run(waits_in_vain)


def test_a_run_without_an_end_is_an_error():
    async def story(_):
        while True:  # noqa: ASYNC110 - on purpose
            await asyncio.sleep(1)

    with pytest.raises(Stuck, match="no end in sight"):
        run(story, ends_within_s=60)

    async def spins(_):
        while True:  # noqa: ASYNC110 - on purpose
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="no end in sight"):
        run(spins, most_steps=1000)


def test_what_needs_a_thread_or_a_real_network_is_refused():
    async def story(loop):
        with pytest.raises(NotImplementedError, match="one thread"):
            await asyncio.to_thread(print)
        with pytest.raises(NotImplementedError, match="no connection to"):
            await loop.create_connection(asyncio.Protocol, "example.com", 80)

    run(story)
