"""A caller leaves at every moment of a call: it is applied or not, never half, and the session goes on.

Three ways of leaving, at each await of the calling task: as it begins to wait, some time later, and in the very moment
in which what it waits for is there. Each once, and twice in a row.
"""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from mangacache import Consistency, NewTurn
from mangacache.testing.simulation import simulate
from mangacache.testing.simulation.world import SETTINGS

BY_THE_CLOCK = {"read the epoch", "end calls to Redis that take too long"}
TOO_MANY = 200
SETTLED_S = 4.0  # longer than a lease, and than anything here is tried again
TURNS = [NewTurn(role="user", content=f"the words of {name}", turn_id=name) for name in ("x", "y", "z")]

CALLS = {
    "append": lambda session: session.append(role="user", content="the words of x", turn_id="x"),
    "append_many": lambda session: session.append_many(TURNS),
    "update": lambda session: session.update({"mood": 7}),
    "context": lambda session: session.context(consistency=Consistency.LATEST),
}
STATES = ("there is no session", "nothing is known of it", "all is known of it", "another worker has written")


class Leaving:
    """Drives a coroutine, and cancels its task at one of its awaits.

    Args:
        coroutine: the call.
        at: which await, from 0.
        how: `at once`, `later`, or `with the result`.
        again: whether to cancel at the next await as well.
    """

    def __init__(self, coroutine, *, at, how, again):
        self._coroutine = coroutine
        self._places = (at, at + 1) if again else (at,)
        self._how = how
        self.reached = False

    def __await__(self):
        driven = self._coroutine.__await__()
        task = asyncio.current_task()
        sent, thrown = None, None
        for place in count():
            try:
                waits_for = driven.send(sent) if thrown is None else driven.throw(thrown)
            except StopIteration as end:
                return end.value
            if place in self._places:
                self.reached = True
                self._leave(task, waits_for)
            sent = thrown = None
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - handed on
                thrown = error

    def _leave(self, task, waits_for):
        if self._how == "at once" or waits_for is None:
            task.cancel()
        elif self._how == "later":
            asyncio.get_running_loop().call_later(0.0003, task.cancel)
        else:
            waits_for.add_done_callback(lambda _: task.cancel())


def stored(world):
    """Return what the table holds of the session but for META's times: the turns, and what META says."""
    items = world.dynamodb.database.call("Scan", {"TableName": SETTINGS.table_name})["Items"]
    turns = {item["turn_id"]["S"] for item in items if "turn_id" in item}
    moods = {item["mood"]["N"] for item in items if "mood" in item}
    return turns, moods


def lasting(worker):
    """Return the names of a worker's tasks but of those that come and go by the clock, or wait for anybody's turn."""
    parked = {hand.task for hand in worker.cache._sessions._writes._mailboxes._hands.parked}
    tasks = worker.process.tasks()
    return sorted(task.get_name() for task in tasks if task not in parked and task.get_name() not in BY_THE_CLOCK)


async def prepared(world, state):
    worker, other = await world.worker(), await world.worker()
    await world.clock.sleep(1)

    async def begin(cache):
        await cache.session("s").append(role="user", content="first", turn_id="first")

    if state == "another worker has written":
        await worker.call(begin)
        await other.call(lambda cache: cache.session("s").append(role="user", content="next", turn_id="next"))
    elif state == "all is known of it":
        await worker.call(begin)
    elif state == "nothing is known of it":
        await other.call(begin)
    await world.clock.sleep(1)
    return worker, other


async def leaves(world, name, state, *, at, how, again):
    """Return whether the await was reached, having checked what must hold."""
    worker, other = await prepared(world, state)
    before = stored(world)
    tasks = lasting(worker)
    connections = len(world.redis.sessions)
    made = []

    async def call(cache):
        made.append(Leaving(CALLS[name](cache.session("s")), at=at, how=how, again=again))
        return await made[0]

    outcome = "ended"
    try:
        await worker.call(call)
    except asyncio.CancelledError:
        outcome = "left"
    except LookupError:
        outcome = "no session"
    now = stored(world)
    await world.clock.sleep(SETTLED_S)
    assert stored(world) == now, "what is known when the call has ended is what stays"
    applied = now != before
    if outcome == "ended":
        assert applied == (name != "context")
    if name == "append":
        assert now[0] - before[0] in (set(), {"x"})
    elif name == "append_many":
        assert now[0] - before[0] in (set(), {"x", "y", "z"}), "all or none"

    assert lasting(worker) == tasks, world.loop.where()
    assert world.redis.leases() == []
    assert len(world.redis.sessions) <= max(connections, 2)
    assert not world.loop.failures

    if name.startswith("append"):
        again_at = other if at % 2 else worker
        done = await again_at.call(lambda cache: CALLS[name](cache.session("s")))
        results = done if isinstance(done, tuple) else (done,)
        assert all(result.duplicate == applied for result in results)
        for one in (worker, other):
            context = await one.call(lambda c: c.session("s").context(turns=32, consistency=Consistency.LATEST))
            ids = [turn.turn_id for turn in context.turns]
            assert len(set(ids)) == len(ids)
            assert [turn.number for turn in context.turns] == list(range(1, len(ids) + 1))
            assert set(ids) == stored(world)[0]
    await world.stop()
    return made[0].reached


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice in a row"])
@pytest.mark.parametrize("how", ["at once", "later", "with the result"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CALLS)
def test_a_caller_leaves_at_each_await(name, state, how, again):
    for at in range(TOO_MANY):
        reached, _ = simulate(lambda world, at=at: leaves(world, name, state, at=at, how=how, again=again), seed=at)
        if not reached:
            break
    else:
        pytest.fail(f"there is no end of awaits after {TOO_MANY}")
    if state != "all is known of it" or name != "context":
        assert at > 0, "there is an await in every call"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CALLS)
def test_a_caller_leaves_at_any_time(name, state):
    """Some sixty moments from the beginning of a call until after its end, whoever runs then."""

    async def story(world, after_s):
        worker, other = await prepared(world, state)
        before = stored(world)
        call = worker.begin(lambda cache: CALLS[name](cache.session("s")))
        await world.clock.sleep(after_s)
        call.cancel()
        await asyncio.wait((call.ended,))
        call.ended.cancelled() or call.ended.exception()
        now = stored(world)
        await world.clock.sleep(SETTLED_S)
        assert stored(world) == now
        if name == "append_many":
            assert now[0] - before[0] in (set(), {"x", "y", "z"})
        if name.startswith("append"):
            done = await other.call(lambda cache: CALLS[name](cache.session("s")))
            results = done if isinstance(done, tuple) else (done,)
            assert all(result.duplicate == (now != before) for result in results)
        assert world.redis.leases() == []
        await world.stop()
        await world.clock.sleep(1)
        assert world.left_behind() == []
        return now != before

    outcomes = [simulate(lambda world, at=at: story(world, at * 0.00015), seed=at)[0] for at in range(60)]
    if name.startswith("append"):
        assert True in outcomes, "what has begun runs to its end"
