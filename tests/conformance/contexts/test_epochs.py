"""The epoch item, and who may be connected to under it: the same on the in-memory double and on a real engine."""

from __future__ import annotations

import asyncio

import pytest
from fleet import Gate, MovedClock

from mangacache import Closed, Corrupt, Transient
from mangacache.context.keeper import EpochKeeper
from mangacache.context.knowledge import Standing
from mangacache.store.epochs import EpochRecord, Epochs
from mangacache.tasks import TaskOwner
from mangacache.telemetry import Telemetry


@pytest.fixture
async def epochs(world):
    async with world.store() as store:
        yield store.epochs


class Server:
    """A server as a new connection sees it."""

    def __init__(self, run_id="A", *, role="master", replid="1"):
        self.told = {"run_id": run_id, "master_replid": replid, "role": role}

    async def info(self):
        return self.told


@pytest.fixture
async def keepers(epochs):
    """Makers of keepers, each a worker's own."""
    telemetry = Telemetry()
    tasks = TaskOwner(on_failure=telemetry.count_survived)
    changes = []

    def make(clock=None):
        return EpochKeeper(
            epochs,
            clock=clock or MovedClock(),
            tasks=tasks,
            telemetry=telemetry,
            changed=lambda: changes.append("changed"),
        )

    make.changes = changes
    yield make
    await tasks.cancel()


# The item


async def test_the_first_reader_makes_the_item_and_it_is_settled(epochs):
    assert await epochs.read() == EpochRecord(1, "", settled=True)


async def test_readers_at_once_make_one_item(epochs):
    assert set(await asyncio.gather(*(epochs.read() for _ in range(8)))) == {EpochRecord(1, "", settled=True)}


async def test_the_first_primary_is_noted_once_and_raises_nothing(epochs):
    await epochs.read()
    await epochs.name("A", epoch=1)
    await epochs.name("B", epoch=1)
    assert await epochs.read() == EpochRecord(1, "A", settled=True)


async def test_raises_at_once_on_the_same_epoch_are_one_raise(epochs):
    await epochs.read()
    await asyncio.gather(*(epochs.raise_(1, identity=f"{i}") for i in range(8)))
    record = await epochs.read()
    assert (record.epoch, record.settled) == (2, False)


async def test_a_raise_on_an_epoch_that_has_passed_does_nothing(epochs):
    await epochs.read()
    await epochs.raise_(1, identity="A")
    await epochs.raise_(1, identity="B")
    assert await epochs.read() == EpochRecord(2, "A", settled=False)


async def test_only_the_epoch_that_was_waited_out_is_settled(epochs):
    await epochs.read()
    await epochs.raise_(1, identity="A")
    await epochs.settle(1)
    assert not (await epochs.read()).settled
    await epochs.settle(2)
    assert (await epochs.read()).settled
    await epochs.raise_(2, identity="A")
    assert not (await epochs.read()).settled, "a raise unsettles"


async def test_caches_of_different_prefixes_have_epochs_of_their_own(world, epochs):
    await epochs.read()
    await epochs.raise_(1, identity="A")
    async with world.store() as store:
        other = Epochs(store.loader._requests, table_name=world.settings.table_name, key_prefix="other:")
        assert (await other.read()).epoch == 1


# Admission


async def test_the_first_connection_names_the_primary_and_others_to_it_are_admitted(keepers):
    one, two = keepers(), keepers()
    assert [await keeper.admit(Server()) for keeper in (one, two, one)] == [1, 1, 1]
    assert keepers.changes == []


@pytest.mark.parametrize("other", [Server("B"), Server("A", replid="2")])
async def test_another_primary_raises_the_epoch_once_for_all_workers(keepers, other):
    one, two = keepers(), keepers()
    for keeper in (one, two):
        await keeper.admit(Server())
    assert [await keeper.admit(other) for keeper in (one, two, one)] == [2, 2, 2]
    assert keepers.changes == ["changed", "changed"], "each lets its old connections go"
    assert {keeper.knowledge.standing(keeper._clock.monotonic_s()) for keeper in (one, two)} == {Standing.WAITING}


async def test_workers_that_meet_another_primary_at_once_raise_the_epoch_by_one(keepers):
    workers = [keepers() for _ in range(6)]
    for keeper in workers:
        await keeper.admit(Server())
    assert await asyncio.gather(*(keeper.admit(Server("B")) for keeper in workers)) == [2] * 6


async def test_a_primary_that_comes_back_is_another_one(keepers):
    keeper = keepers()
    assert [await keeper.admit(Server(name)) for name in "ABA"] == [1, 2, 3]


@pytest.mark.parametrize("server", [Server(role="slave"), Server(role=None), Server(run_id="", replid="")])
async def test_what_is_no_primary_or_does_not_say_who_it_is_is_refused(keepers, server):
    keeper = keepers()
    with pytest.raises(Transient):
        await keeper.admit(server)
    assert await keeper.admit(Server()) == 1


async def test_readers_of_the_epoch_at_once_share_one_read(keepers, epochs, monkeypatch):
    reads = []
    read = epochs.read

    async def counted():
        reads.append(1)
        return await read()

    monkeypatch.setattr(epochs, "read", counted)
    keeper = keepers()
    standings = await asyncio.gather(*(keeper.standing() for _ in range(20)))
    assert (set(standings), len(reads)) == ({Standing.SURE}, 1)


async def test_knowledge_that_has_lapsed_is_renewed_when_it_is_asked_for(keepers):
    clock = MovedClock()
    keeper = keepers(clock)
    assert await keeper.standing() is Standing.SURE
    clock.pass_s(10)
    assert keeper.knowledge.standing(clock.monotonic_s()) is Standing.UNSURE
    assert await keeper.standing() is Standing.SURE


async def test_for_an_item_that_cannot_be_read_nobody_waits_again_and_again(keepers, epochs, monkeypatch):
    reads = []

    async def failing():
        reads.append(1)
        raise Transient("down")

    monkeypatch.setattr(epochs, "read", failing)
    clock = MovedClock()
    keeper = keepers(clock)
    assert [await keeper.standing() for _ in range(5)] == [Standing.UNSURE] * 5
    assert len(reads) == 1
    clock.pass_s(1.5)  # as long as from one failure of the poll to the next, where reads hang
    assert await keeper.standing() is Standing.UNSURE
    assert len(reads) == 1
    clock.pass_s(0.5)
    await keeper.standing()
    assert len(reads) == 2


async def test_who_waits_for_a_read_when_the_worker_closes_hears_so(epochs, monkeypatch):
    telemetry = Telemetry()
    tasks = TaskOwner(on_failure=telemetry.count_survived)
    keeper = EpochKeeper(epochs, clock=MovedClock(), tasks=tasks, telemetry=telemetry, changed=lambda: None)
    gate = Gate()
    monkeypatch.setattr(epochs, "read", gate)
    waiting = asyncio.create_task(keeper.refresh())
    await gate.reached()
    await tasks.cancel()
    with pytest.raises(Closed):
        await waiting


async def test_an_item_that_was_lost_is_put_above_what_was_known(world, keepers, epochs):
    """As after the table was restored: else the workers would not learn of any epoch for as long as it is lower."""
    clock = MovedClock()
    keeper = keepers(clock)
    await keeper.admit(Server())
    await keeper.raise_unheard()
    await keeper.raise_unheard()
    assert await world.delete_items(lambda item: item["SK"]["S"] == "EPOCH") == 1
    clock.pass_s(5)
    assert await keeper.standing() is Standing.WAITING, "whoever met the low item may rely on it"
    assert (keeper.epoch, (await epochs.read()).epoch) == (4, 4)
    assert await keeper.admit(Server()) == 4


async def test_without_the_item_the_primary_last_known_is_admitted_and_no_other(keepers, epochs, monkeypatch):
    async def failing():
        raise Transient("down")

    clock = MovedClock()
    keeper = keepers(clock)
    await keeper.admit(Server())
    monkeypatch.setattr(epochs, "read", failing)
    clock.pass_s(10)
    assert await keeper.admit(Server()) == 1
    with pytest.raises(Transient):
        await keeper.admit(Server("B"))
    with pytest.raises(Transient):
        await keepers().admit(Server())


async def test_who_could_not_tell_the_others_raises_the_epoch_and_knows_it_then(keepers):
    one, two = keepers(), keepers()
    await one.admit(Server())
    await two.admit(Server())
    await asyncio.gather(one.raise_unheard(), two.raise_unheard())
    assert one.epoch >= 2
    assert two.epoch >= 2
    await asyncio.gather(one.refresh(), two.refresh())  # the later raise, if there were two, is the other's news
    assert await one.admit(Server()) == await two.admit(Server()) == max(one.epoch, two.epoch)


async def test_a_raise_by_another_that_a_read_under_way_has_missed_pays_nothing(keepers, epochs, monkeypatch):
    """What is owed may have been written after that raise, when contexts were read under its epoch already."""
    keeper, gate, read = keepers(), Gate(), epochs.read
    await keeper.refresh()

    async def slow():
        found = await read()
        await gate()
        return found

    monkeypatch.setattr(epochs, "read", slow)
    polling = asyncio.create_task(keeper.refresh())
    await gate.reached()
    await epochs.raise_(1, identity="")
    raising = asyncio.create_task(keeper.raise_unheard())
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(polling, raising)
    assert keeper.epoch == 3


@pytest.mark.parametrize("damage", [{}, {"epoch": {"N": "1"}}, {"epoch": {"N": "1.5"}, "identity": {"S": ""}}])
async def test_a_damaged_item_is_called_so_and_a_worker_goes_on_when_it_has_been_deleted(
    world, keepers, epochs, damage
):
    clock = MovedClock()
    keeper = keepers(clock)
    assert await keeper.standing() is Standing.SURE
    await world.delete_items(lambda item: item["SK"]["S"] == "EPOCH")
    await world.put({**epochs._where["Key"], **damage})
    clock.pass_s(5)
    with pytest.raises(Corrupt, match="delete"):
        await epochs.read()
    assert await keeper.standing() is Standing.UNSURE
    await world.delete_items(lambda item: item["SK"]["S"] == "EPOCH")
    clock.pass_s(5)
    assert await keeper.standing() is Standing.SURE
