"""Changes whose answer is lost, at a real worker's application: made once, and never over what others wrote since."""

from __future__ import annotations

import asyncio

import pytest
from httpworlds import http_world
from mangatest import HANG_GUARD_S
from scripted_worker import problem

from mangacache import Conflict, Consistency, Transient
from mangacache.client import WorkerClient
from mangacache.client.changes import Summed, Wish
from mangacache.model import Context, Meta, Summary, Version
from mangacache.testing import Proxy


class LostAnswers:
    """A worker whose answers can be lost, a session of it by way of a client, and the same at hand for somebody else.

    Attributes:
        session: the client's.
        other: somebody else's, who changes it meanwhile.
    """

    def __init__(self, proxy, session, other):
        self._proxy = proxy
        self.session = session
        self.other = other

    async def lost(self, call, *, meanwhile=None):
        """Return the result of a call whose first answer is lost when it has been carried out."""
        before = (await self.now()).version
        self._proxy.stall(way="down")
        calling = asyncio.ensure_future(call)
        async with asyncio.timeout(HANG_GUARD_S):
            while (await self.now()).version == before:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
            if meanwhile is not None:
                await meanwhile()
            self._proxy.sever()
            self._proxy.restore()
            return await calling

    async def now(self):
        return await self.other.context(consistency=Consistency.STRONG)


@pytest.fixture
async def world():
    async with (
        http_world() as made,
        Proxy.open(made.port) as proxy,
        WorkerClient.open([f"http://127.0.0.1:{proxy.port}"]) as client,
    ):
        other = made.cache.session("s")
        for number in range(1, 4):
            await other.append(role="user", content=str(number))
        yield LostAnswers(proxy, client.session("s"), other)


async def test_an_update_whose_answer_was_lost_is_found_made_and_not_made_again(world):
    updated = await world.lost(world.session.update({"mood": "glad", "price": 14.5}, status="waiting"))
    assert (updated.meta.status, updated.meta.attributes["mood"]) == ("waiting", "glad")
    assert updated.version == (await world.now()).version == Version(1, 3, 2)
    assert world.session.version == updated.version


async def test_an_update_whose_answer_was_lost_does_not_overwrite_what_was_written_meanwhile(world):
    async def meanwhile():
        await world.other.update({"mood": "sad"})

    with pytest.raises(Transient, match="unknown: read what is there"):
        await world.lost(world.session.update({"mood": "glad"}), meanwhile=meanwhile)
    assert (await world.now()).meta.attributes == {"mood": "sad"}


async def test_a_close_whose_answer_was_lost_closes_nothing_that_was_opened_again_meanwhile(world):
    assert (await world.lost(world.session.close())).meta.status == "closed"

    async def meanwhile():
        await world.other.update(status="active")

    await meanwhile()
    with pytest.raises(Transient, match="unknown"):
        await world.lost(world.session.close(), meanwhile=meanwhile)
    assert (await world.now()).meta.status == "active"


async def test_an_update_that_names_its_version_is_made_once_and_its_own_trace_is_no_conflict(world):
    before = (await world.now()).version
    updated = await world.lost(world.session.update({"mood": "glad"}, remove=["x"], if_version=before))
    assert updated.version == (await world.now()).version == Version(1, 3, 2)


async def test_a_conflict_after_a_lost_answer_says_that_it_may_be_this_changes_own(world):
    before = (await world.now()).version

    async def meanwhile():
        await world.other.update({"seen": 1})

    with pytest.raises(Conflict, match="unknown"):
        await world.lost(world.session.update({"mood": "glad"}, if_version=before), meanwhile=meanwhile)
    assert (await world.now()).meta.attributes == {"mood": "glad", "seen": 1}


async def test_a_conflict_without_a_lost_answer_is_what_it_was(world):
    before = (await world.now()).version
    await world.other.update({"mood": "sad"})
    with pytest.raises(Conflict) as refused:
        await world.session.update({"mood": "sad"}, if_version=before)
    assert "unknown" not in str(refused.value)


async def test_a_summary_that_names_its_turn_is_stored_once_and_its_own_trace_is_no_conflict(world):
    updated = await world.lost(world.session.summarise("Three numbers.", upto=3))
    now = await world.now()
    assert (updated.version, now.summary.text, now.summary.upto) == (now.version, "Three numbers.", 3)
    with pytest.raises(Conflict):
        await world.session.summarise("Three others.", upto=3)


async def test_a_summary_that_names_no_turn_does_not_come_to_reach_turns_that_it_says_nothing_of(world):
    async def meanwhile():
        await world.other.append(role="user", content="4")

    with pytest.raises(Transient, match="unknown"):
        await world.lost(world.session.summarise("Three numbers."), meanwhile=meanwhile)
    assert (await world.now()).summary.upto == 3


@pytest.mark.parametrize("change", ["update", "close", "summarise"])
async def test_what_a_worker_does_not_know_to_have_done_is_not_done_again(workers, opened, change):
    for worker in workers:
        worker.script = [problem(503, "transient"), problem(503, "transient", retry_after_s=60)]
    async with opened() as client:
        session = client.session("s-1")
        calls = {"update": lambda: session.update({"a": 1}), "close": session.close}
        call = calls.get(change, lambda: session.summarise("x"))
        with pytest.raises(Transient):
            await call()
    methods = [method for worker in workers for method, *_ in worker.heard]
    assert sum(method != "GET" for method in methods) == 1


@pytest.mark.parametrize("kind", ["rejected", "closed"])
async def test_what_a_worker_has_not_begun_is_sent_again(workers, opened, kind):
    for worker in workers:
        worker.script = [problem(503 if kind == "closed" else 429, kind, retry_after_s=1)]
    async with opened() as client:
        with pytest.raises(Transient, match="no WireUpdated"):  # these workers have no META
            await client.session("s-1").update({"a": 1})
    assert sum(method == "PATCH" for worker in workers for method, *_ in worker.heard) >= 2


def session_with(*, attributes=None, status="active", summary=None, version=None):
    meta = Meta("c", status, "", "", 3, attributes or {})
    return Context("s", meta, (), summary, version or Version(1, 3, 2), "dynamodb")


def test_a_wish_stands_where_all_of_it_does():
    wish = Wish(attributes={"mood": "glad", "n": 1.5}, remove=("old",), status="waiting")
    as_wished = {"mood": "glad", "n": 1.5, "more": 1}
    assert wish.stands(session_with(attributes=as_wished, status="waiting"))
    assert not wish.stands(session_with(attributes=as_wished))
    assert not wish.stands(session_with(attributes=as_wished | {"old": 1}, status="waiting"))
    assert not wish.stands(session_with(attributes=as_wished | {"mood": "sad"}, status="waiting"))
    assert not wish.stands(session_with(attributes={"mood": "glad"}, status="waiting"))
    assert not wish.stands(Context("s", None, (), None, Version(), "dynamodb"))


def test_a_wish_of_a_version_stands_only_at_the_next_revision():
    wish = Wish(attributes={"a": 1}, of=Version(1, 2, 1))
    assert wish.stands(session_with(attributes={"a": 1}))
    assert not wish.stands(session_with(attributes={"a": 1}, version=Version(1, 3, 3)))
    assert not wish.stands(session_with(attributes={"a": 1}, version=Version(2, 3, 2)))


def test_a_summary_stands_where_it_is_the_newest():
    assert Summed(text="x", upto=3).stands(session_with(summary=Summary(3, "x", "")))
    assert not Summed(text="x", upto=3).stands(session_with(summary=Summary(4, "x", "")))
    assert not Summed(text="x", upto=3).stands(session_with(summary=Summary(3, "y", "")))
    assert not Summed(text="x", upto=3).stands(session_with())
    assert not Summed(text="x", upto=None).stands(session_with(summary=Summary(3, "x", "")))
