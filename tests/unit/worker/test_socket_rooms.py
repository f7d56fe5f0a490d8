"""A room: what its sockets are told when events come, are lost, or cannot be followed; with a session made by hand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial

import pytest
from socketdoubles import PeerTransport, context, owner, turn, wire_to
from sockets import eventually

from mangacache.clock import SystemClock
from mangacache.ephemeral import Event
from mangacache.errors import Closed, Corrupt, Invalid, Rejected, Transient, VersionGone
from mangacache.model import History, Version
from mangacache.telemetry import Telemetry
from mangacache.worker.sockets.admission import Admitted
from mangacache.worker.sockets.connection import _may_see
from mangacache.worker.sockets.member import Member
from mangacache.worker.sockets.rooms import Rooms


class HandmadeCache:
    """A cache of one session, whose state, events and failures are set by hand."""

    def __init__(self):
        self.telemetry = Telemetry()
        self.now = context(0)
        self.events_waiting: asyncio.Queue = asyncio.Queue()
        self.failures = []
        self.reads = []
        self.history_asked = []
        self.older = ()
        self.meanwhile = None
        self.old_reads = []
        self.first_event = Event(kind="subscribed")
        self.no_events = []
        self.subscribed = 0

    def session(self, session_id):
        del session_id
        return self

    @asynccontextmanager
    async def events(self):
        self.subscribed += 1
        if self.no_events:
            raise self.no_events.pop(0)

        async def stream():
            yield self.first_event
            while (event := await self.events_waiting.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event

        yield stream()

    async def context(self, *, turns=20, at_least=None, consistency=None):
        del turns
        self.reads.append((at_least, consistency.name))
        if self.failures:
            raise self.failures.pop(0)
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.old_reads.pop(0) if self.old_reads else self.now

    async def history(self, *, after, limit):
        self.history_asked.append((after, limit))
        if self.failures:
            raise self.failures.pop(0)
        return History(tuple(self.older), None, None)

    def happens(self, version, kind="turn"):
        self.events_waiting.put_nowait(Event(kind=kind, version=version, number=version.number))


class Rig:
    """A room with its sockets."""

    def __init__(self):
        self.cache = HandmadeCache()
        self.rooms = Rooms(self.cache, clock=SystemClock())
        self.room = self.rooms.room("s")
        self.tasks = owner()
        self.ended = []

    async def enter(self, *, seen=None, read=None, joins=True):
        await self.room.begun()
        read = read if read is not None else self.cache.now
        transport = PeerTransport()
        seen = seen if seen is not None else read.version
        see = partial(_may_see, Admitted(None, lambda: None))
        member = Member(wire_to(transport, self.tasks), seen=seen, may_see=see, end=self.ended.append)
        if joins:
            self.room.join(member, read)
        return member

    async def heard(self, member, *expected):
        await eventually(lambda: kinds(member)[-len(expected) :] == list(expected))


def kinds(member):
    return [
        said["number"]
        if said["type"] == "turn"
        else said["type"]
        if said["type"] != "gap" or said["waits"]
        else (said["first"], said["last"])
        for said in member._wire._transport.said
    ]


def unheard(rig):
    return rig.cache.telemetry.survived.labels("session_unheard")._value.get()


@pytest.fixture
async def rig():
    made = Rig()
    yield made
    await made.rooms.close()


async def test_an_event_brings_what_the_session_holds_to_all_by_one_read(rig):
    members = [await rig.enter() for _ in range(5)]
    rig.cache.now = context(3)
    rig.cache.happens(Version(1, 3, 1))
    for member in members:
        await rig.heard(member, 1, 2, 3)
    assert rig.cache.reads == [(Version(1, 3, 1), "session")]


async def test_an_event_of_what_was_told_costs_no_read(rig):
    member = await rig.enter()
    rig.cache.now = context(2)
    rig.cache.happens(Version(1, 2, 1))
    await rig.heard(member, 1, 2)
    rig.cache.happens(Version(1, 1, 1))
    rig.cache.happens(Version(1, 2, 1))
    rig.cache.now = context(3)
    rig.cache.happens(Version(1, 3, 1))
    await rig.heard(member, 1, 2, 3)
    assert len(rig.cache.reads) == 2


async def test_a_lost_subscription_is_a_gap_and_one_that_stands_again_brings_what_was_missed(rig):
    member = await rig.enter()
    rig.cache.events_waiting.put_nowait(Event(kind="gap", why="Redis is away", lost=True))
    await rig.heard(member, "gap")
    rig.cache.now = context(2)  # and no event of it comes
    rig.cache.events_waiting.put_nowait(Event(kind="subscribed"))
    await rig.heard(member, "gap", 1, 2, "caught_up")
    assert rig.cache.reads[-1][1] == "latest"


async def test_events_that_were_dropped_are_made_up_for(rig):
    member = await rig.enter()
    rig.cache.now = context(2)
    rig.cache.events_waiting.put_nowait(Event(kind="gap", why="taken too slowly"))
    await rig.heard(member, 1, 2)
    assert rig.cache.reads[-1][1] == "latest"


LOST, STANDS = Event(kind="gap", why="Redis is away", lost=True), Event(kind="subscribed")


async def test_a_subscription_that_is_lost_again_while_it_is_made_up_for_is_made_up_for_again(rig):
    """What was read may be older than what was missed by then."""
    member = await rig.enter()
    rig.cache.now = context(1)

    async def lost_again():
        rig.cache.meanwhile = None
        rig.cache.events_waiting.put_nowait(LOST)
        rig.cache.events_waiting.put_nowait(STANDS)
        await eventually(rig.cache.events_waiting.empty)

    rig.cache.meanwhile = lost_again
    rig.cache.events_waiting.put_nowait(LOST)
    rig.cache.events_waiting.put_nowait(STANDS)
    await rig.heard(member, "caught_up")
    assert [level for _, level in rig.cache.reads] == ["latest", "latest"]


async def test_events_that_fail_or_end_are_a_gap_and_are_heard_again(rig):
    """Whatever it was: a room that heard nothing more would leave its sockets behind for ever."""
    member = await rig.enter()
    for at, failure in enumerate((RuntimeError("a fault"), Invalid("a notice that is none"), None), start=1):
        rig.cache.now = context(at)  # and no event of it comes
        rig.cache.events_waiting.put_nowait(failure)
        await rig.heard(member, "gap", at, "caught_up")
        assert unheard(rig) == at
    assert rig.cache.subscribed == 4


async def test_who_enters_while_the_events_fail_is_told_so_and_of_what_comes_when_they_do_not(rig):
    rig.cache.no_events = [RuntimeError("a fault"), Rejected("too many")]
    second = asyncio.ensure_future(rig.room.begun())
    member = await rig.enter()
    await second
    rig.room.give_up()
    rig.cache.now = context(1)
    await rig.heard(member, "gap", 1, "caught_up")
    assert unheard(rig) == 2


async def test_a_room_that_would_be_one_too_many_is_refused(rig):
    rig.cache.no_events = [Rejected("too many")]
    with pytest.raises(Rejected):
        await rig.room.begun()
    assert rig.room.is_empty


async def test_events_that_end_since_the_instance_is_closed_are_asked_for_no_more(rig):
    member = await rig.enter()
    rig.cache.no_events = [Closed("this MangaCache is closed")]
    rig.cache.events_waiting.put_nowait(None)
    await rig.heard(member, "gap")
    await eventually(lambda: len(rig.rooms._tasks) == 0)
    assert rig.room.deaf is not None


async def test_that_it_is_heard_again_is_not_lost_with_events_that_were_dropped(rig):
    """They came so fast that the word that the subscription stands was dropped with them."""
    member = await rig.enter()
    rig.cache.events_waiting.put_nowait(LOST)
    await rig.heard(member, "gap")
    rig.cache.now = context(2)
    rig.cache.events_waiting.put_nowait(Event(kind="gap", why="taken too slowly"))
    await rig.heard(member, "gap", 1, 2, "caught_up")


async def test_who_joins_while_the_others_are_told_is_told_of_it_too(rig):
    """He read before the turn, and joins while what another one has missed is read."""
    first, late = await rig.enter(), []
    rig.cache.now = context(40)
    rig.cache.older = [turn(number) for number in range(1, 9)]

    async def join_meanwhile():
        if rig.cache.history_asked and not late:
            late.append(await rig.enter(read=context(39)))

    rig.cache.meanwhile = join_meanwhile
    rig.cache.happens(Version(1, 39, 1))
    await rig.heard(first, *range(1, 41))
    await eventually(lambda: late)
    await rig.heard(late[0], 40)


async def test_an_event_that_comes_while_a_read_fails_is_told(rig):
    member = await rig.enter()

    async def fail():
        rig.cache.meanwhile = None
        rig.cache.now = context(2)
        rig.cache.happens(Version(1, 2, 1))
        await eventually(lambda: rig.room._target == Version(1, 2, 1))
        raise RuntimeError("a fault")

    rig.cache.meanwhile = fail
    rig.cache.happens(Version(1, 1, 1))
    await rig.heard(member, "gap", 1, 2, "caught_up")


async def test_a_turn_that_comes_while_a_restored_table_is_read_is_told(rig):
    """What was restored is read; what comes meanwhile is read again."""
    rig.cache.now = context(9)
    member = await rig.enter()
    rig.cache.failures = [VersionGone("restored")]
    rig.cache.now = context(4)

    async def appended():
        rig.cache.meanwhile = None
        rig.cache.now = context(12)
        rig.cache.happens(Version(1, 12, 1))
        await eventually(lambda: rig.room._target.number == 12)

    rig.cache.meanwhile = appended
    rig.cache.old_reads = [context(4)]
    rig.cache.happens(Version(1, 10, 1))
    await rig.heard(member, *range(5, 13))
    assert rig.cache.reads[-1][0].number == 12


async def test_who_is_being_let_in_misses_nothing_that_a_lost_subscription_did_not_bring(rig):
    """Nobody is in the room yet, and he has read the session before the subscription stands again."""
    rig.cache.first_event = LOST
    member = await rig.enter(joins=False)
    read = rig.cache.now
    rig.cache.now = context(1)  # and no event of it comes
    rig.cache.events_waiting.put_nowait(STANDS)
    await eventually(lambda: rig.room.deaf is None)
    rig.room.join(member, read)
    await rig.heard(member, 1)
    assert rig.cache.reads[-1][1] == "latest"


async def test_all_that_was_missed_is_told_before_the_word_that_it_was(rig):
    """A read that began while nothing was heard is no ground for that word."""
    member = await rig.enter()
    rig.cache.events_waiting.put_nowait(LOST)
    await rig.heard(member, "gap")

    async def stands_again():
        rig.cache.meanwhile = None
        rig.cache.events_waiting.put_nowait(STANDS)
        await eventually(lambda: rig.room.deaf is None)

    rig.cache.meanwhile = stands_again
    rig.cache.old_reads = [context(1)]
    rig.cache.now = context(2)
    rig.cache.happens(Version(1, 1, 1))  # of this worker's own, say
    await rig.heard(member, "gap", 1, 2, "caught_up")
    assert kinds(member).count("caught_up") == 1


async def test_who_comes_while_nothing_is_heard_is_told_so(rig):
    rig.cache.first_event = Event(kind="gap", why="Redis is away", lost=True)
    member = await rig.enter()
    await rig.heard(member, "gap")


async def test_who_joins_misses_nothing_that_was_told_while_he_was_being_let_in(rig):
    """He read the session before a turn, and joins after the others were told of it."""
    first = await rig.enter()
    read = rig.cache.now
    rig.cache.now = context(1)
    rig.cache.happens(Version(1, 1, 1))
    await rig.heard(first, 1)
    second = await rig.enter(read=read)
    await rig.heard(second, 1)


async def test_who_joins_misses_nothing_that_the_only_other_one_appended_meanwhile(rig):
    first = await rig.enter()
    read = rig.cache.now
    first.own.begin(["t1"])
    first.acknowledged({"t1": 1}, 1)
    rig.cache.now = context(1)
    rig.room.appended(first, Version(1, 1, 1), [1])
    assert (rig.cache.reads, len(first.own)) == ([], 0)
    second = await rig.enter(read=read)
    await rig.heard(second, 1)
    assert kinds(first) == []


async def test_what_came_before_ones_own_turn_is_told_even_to_one_alone(rig):
    member = await rig.enter()
    member.own.begin(["t2"])
    member.acknowledged({"t2": 2}, 1)
    rig.cache.now = context(2)
    rig.room.appended(member, Version(1, 2, 1), [2])
    await rig.heard(member, 1)


async def test_turns_of_ones_own_with_others_between_them_are_no_row(rig):
    """Of a batch the first turn was stored before; others came, and then the rest."""
    member = await rig.enter()
    member.own.begin(["t1", "t4"])
    member.acknowledged({"t1": 1, "t4": 4}, 1)
    rig.cache.now = context(4)
    rig.room.appended(member, Version(1, 4, 1), [1, 4])
    await rig.heard(member, 2, 3)


async def test_a_hole_is_filled_from_history_and_is_a_gap_where_that_fails(rig):
    rig.cache.now = context(50)
    rig.cache.older = [turn(number) for number in range(11, 19)]
    member = await rig.enter(seen=Version(1, 10, 1))
    await rig.heard(member, *range(11, 51))
    assert rig.cache.history_asked == [("0001-0000000010", 8)]
    rig.cache.now = context(100)
    rig.cache.meanwhile = fail_next = partial(_fail_next, rig.cache)
    rig.cache.happens(Version(1, 100, 1))
    await rig.heard(member, (51, 68), *range(69, 101))
    assert fail_next is not None


async def _fail_next(cache):
    cache.failures.append(Transient("DynamoDB is away"))
    cache.meanwhile = None


async def test_more_than_may_be_filled_is_a_gap(rig):
    rig.cache.now = context(1_000)
    member = await rig.enter(seen=Version(1, 10, 1))
    await rig.heard(member, (11, 968), *range(969, 1_001))
    assert rig.cache.history_asked == []


async def test_turns_of_another_life_do_not_fill_a_hole(rig):
    """The session is deleted and begins again between the two reads: its numbers mean other turns then."""
    rig.cache.now = context(50)
    rig.cache.older = [turn(number, content="of the next life") for number in range(11, 19)]

    async def deleted_meanwhile():
        if rig.cache.history_asked:
            rig.cache.now = context(18, incarnation=2)
            rig.cache.meanwhile = None

    rig.cache.meanwhile = deleted_meanwhile
    member = await rig.enter(seen=Version(1, 10, 1))
    await rig.heard(member, (11, 18), *range(19, 51))
    assert "of the next life" not in [said.get("turn", {}).get("content") for said in member._wire._transport.said]


async def test_a_read_that_fails_is_tried_again_and_told_as_a_gap_when_it_goes_on_failing(rig):
    member = await rig.enter()
    rig.cache.failures = [Transient("away", retry_after_s=0.001) for _ in range(2)]
    rig.cache.failures.append(Rejected("too many", retry_after_s=0.001))
    rig.cache.now = context(1)
    rig.cache.happens(Version(1, 1, 1))
    await rig.heard(member, "gap", 1, "caught_up")


async def test_what_cannot_be_read_at_all_is_a_gap_until_the_next_event(rig):
    member = await rig.enter()
    rig.cache.failures = [Corrupt("no context")]
    rig.cache.now = context(1)
    rig.cache.happens(Version(1, 1, 1))
    await rig.heard(member, "gap")
    rig.cache.now = context(2)
    rig.cache.happens(Version(1, 2, 1))
    await rig.heard(member, "gap", 1, 2, "caught_up")


async def test_a_table_that_was_restored_is_a_gap_and_it_goes_on_from_what_is_there(rig):
    rig.cache.now = context(9)
    member = await rig.enter()
    rig.cache.failures = [VersionGone("restored")]
    rig.cache.now = context(4)
    rig.cache.happens(Version(1, 10, 1))
    await rig.heard(member, "gap", "caught_up")
    assert member.seen == Version(1, 4, 1)
    rig.cache.now = context(5)
    rig.cache.happens(Version(1, 5, 1))
    await rig.heard(member, "gap", "caught_up", 5)


async def test_a_room_ends_with_its_last_socket_and_with_the_last_who_gave_up(rig):
    member = await rig.enter()
    rig.rooms.tidy("s")
    assert len(rig.rooms) == 1
    rig.room.leave(member)
    rig.rooms.tidy("s")
    assert len(rig.rooms) == 0
    await rig.rooms._tasks.settle()
    again = rig.rooms.room("s")
    await again.begun()
    rig.rooms.tidy("s")
    assert len(rig.rooms) == 1
    again.give_up()
    rig.rooms.tidy("s")
    assert len(rig.rooms) == 0


async def test_who_waits_to_enter_hears_that_the_worker_is_closed():
    rig = Rig()

    @asynccontextmanager
    async def never():
        await asyncio.Event().wait()
        yield

    rig.cache.events = never
    waiting = asyncio.ensure_future(rig.room.begun())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await rig.rooms.close()
    with pytest.raises(Closed):
        await waiting


async def test_an_idle_room_has_one_task_and_a_busy_one_two(rig):
    member = await rig.enter()
    assert len(rig.rooms._tasks) == 1
    rig.cache.now = context(1)
    rig.cache.happens(Version(1, 1, 1))
    await rig.heard(member, 1)
    await eventually(lambda: len(rig.rooms._tasks) == 1)
