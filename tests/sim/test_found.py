"""What seeds have found, told without a seed."""

from __future__ import annotations

import pytest

from mangacache import Closed, Consistency, Version
from mangacache.context.knowledge import Standing
from mangacache.testing import Operation, SeenTurn, check_history
from mangacache.testing.simulation import simulate
from mangacache.testing.simulation.dynamodb import _refused
from mangacache.testing.simulation.world import SETTINGS


class HeldUp:
    """Has the table refuse the first read of a summary for load, and stops who asked before it asks again."""

    def __init__(self, database, reader):
        self._call = database.call
        self._reader = reader
        self.asked = False
        database.call = self.call

    def call(self, operation, parameters):
        key = parameters.get("Key", {}).get("SK", {}).get("S", "")
        if operation == "GetItem" and key.startswith("SUMMARY") and not self.asked:
            self.asked = True
            self._reader.process.stop()
            raise _refused(operation, "ThrottlingException", 400)
        return self._call(operation, parameters)


def test_a_session_whose_summary_is_swept_under_a_read_is_read_again():
    """The reader has META, which names the summary; a delete sweeps it; META's version without it was answered."""

    async def story(world):
        reader, other = await world.worker(), await world.worker()

        async def begin(cache):
            session = cache.session("s")
            await session.append(role="user", content="hello")
            await session.summarise("they said hello")

        await other.call(begin)
        held = HeldUp(world.dynamodb.database, reader)
        reading = reader.begin(lambda cache: cache.session("s").context(consistency=Consistency.STRONG))
        while not held.asked:
            await world.clock.sleep(0.001)
        await other.call(lambda cache: cache.session("s").delete())
        reader.process.go_on()
        context = await reading.ended
        await world.stop()
        return context

    for seed in range(10):
        context, _ = simulate(story, seed=seed)
        assert context.summary is not None or context.meta is None, context


def test_who_waits_until_others_cannot_rely_on_the_epoch_before_is_told_when_the_worker_stops():
    """Under hold a read at LATEST waits so; it went on after its worker had stopped, and nobody waited for it."""

    async def story(world):
        worker = await world.worker(settings=SETTINGS.replace(redis_policy="hold"))
        await worker.call(lambda cache: cache.session("s").append(role="user", content="hello"))
        world.redis.kill()
        world.redis.restart()
        knowledge = worker.cache._sessions._tier._keeper.knowledge
        while knowledge.standing(world.loop.time()) is not Standing.WAITING:
            await worker.call(lambda cache: cache.session("another").context(consistency=Consistency.EVENTUAL(0.001)))
            await world.clock.sleep(0.01)
        reading = worker.begin(lambda cache: cache.session("s").context(consistency=Consistency.LATEST))
        await world.clock.sleep(0.01)
        assert not reading.ended.done()
        await worker.stop()
        await world.clock.sleep(0.01)
        assert not world.left_behind()
        with pytest.raises(Closed):
            await reading.ended

    for seed in range(5):
        simulate(story, seed=seed)


def _append(name, number, incarnation, *, begun, ended):
    version = Version(incarnation, number, 1)
    turns = (SeenTurn(number, name),)
    return Operation("append", "s", name, "w", begun, ended, "ok", version=version, turns=turns)


def test_an_append_may_have_stored_its_turn_in_a_life_that_was_over_when_it_asked_again():
    """Number 2 of the first life was made by the append whose answer was lost, and which was told of the second."""
    first, third = _append("a", 1, 1, begun=0, ended=1), _append("b", 3, 1, begun=5, ended=6)
    delete = Operation("delete", "s", "d", "w", 7, 8, "ok", version=Version(2, 0, 0))
    across = _append("c", 1, 2, begun=3, ended=10)
    assert check_history([first, third, delete, across]).clean
    late = _append("c", 1, 2, begun=9, ended=10)
    assert check_history([first, third, delete, late]).counts == {"hole": 1}
