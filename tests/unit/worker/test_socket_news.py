"""What a socket is told of a session: each turn once and in order, or a gap; by hand, and by chance."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socketdoubles import PeerTransport, context, owner, turn, wire_to

from mangacache.model import Version
from mangacache.worker.sockets.admission import Admitted
from mangacache.worker.sockets.connection import _may_see
from mangacache.worker.sockets.frames import frame
from mangacache.worker.sockets.member import ANOTHERS, Member
from mangacache.worker.sockets.news import Hole, hole_before, is_news, news
from mangacache.worker.sockets.own import Own
from mangacache.worker.sockets.telling import Telling
from mangacache.worker.sockets.wire import HIGH_BYTES


def told(context, seen, older=()):
    """Return what `news` tells, in short."""
    return [
        ("turn", each.turn.number)
        if each.turn is not None
        else ("hole", each.hole.first, each.hole.last)
        if each.hole is not None
        else "anew"
        if each.anew
        else "meta"
        for each in news(context, seen, older)
    ]


BEGUN = Version(1, 0, 1)


class Socket:
    """A member whose peer reads when it is told to."""

    def __init__(self, seen=BEGUN, *, reads=True, most_frames=64, **more):
        self.transport = PeerTransport(reads=reads)
        self.wire = wire_to(self.transport, owner(), most_frames=most_frames)
        self.ended = []
        admitted = Admitted(more.pop("customer_id", None), lambda: None, only_own=more.pop("only_own", False))
        see = partial(_may_see, admitted)
        self.member = Member(self.wire, seen=seen, may_see=see, end=self.ended.append, **more)

    def take(self, context, older=()):
        self.member.take(context, Telling(context), older)

    @property
    def kinds(self):
        return [(said["type"], said.get("number")) for said in self.transport.said]


def test_what_is_new_is_told_in_order_with_the_versions_it_leads_to():
    found = list(news(context(4, revision=2), Version(1, 2, 1)))
    assert [str(each.seen) for each in found] == ["1.3.1", "1.4.1", "1.4.2"]
    assert told(context(4, revision=2), Version(1, 2, 1)) == [("turn", 3), ("turn", 4), "meta"]


def test_nothing_is_told_twice():
    assert told(context(4), Version(1, 4, 1)) == []
    assert told(context(3), Version(1, 4, 1)) == []
    assert not is_news(context(3), Version(1, 4, 1))


def test_a_hole_is_told_where_its_turns_cannot_be():
    assert hole_before(context(40), Version(1, 2, 1)) == Hole(3, 8)
    assert told(context(40), Version(1, 2, 1))[:2] == [("hole", 3, 8), ("turn", 9)]


def test_turns_that_were_read_again_fill_a_hole_and_what_is_left_of_it_is_told():
    older = [turn(number) for number in range(5, 9)]
    assert told(context(40), Version(1, 2, 1), older)[:3] == [("hole", 3, 4), ("turn", 5), ("turn", 6)]
    assert hole_before(context(40), Version(1, 8, 1)) is None


def test_turns_that_have_all_expired_are_a_hole():
    assert told(context(7, first=8), Version(1, 2, 1)) == [("hole", 3, 7)]


def test_a_next_life_begins_with_the_word_that_the_last_one_is_over():
    assert told(context(2, incarnation=2), Version(1, 9, 3)) == ["anew", ("turn", 1), ("turn", 2), "meta"]
    assert told(context(0, incarnation=2, revision=0), Version(1, 9, 3)) == ["anew"]


def test_a_session_that_begins_was_not_deleted():
    assert told(context(1), Version()) == [("turn", 1), "meta"]


def test_an_older_life_is_no_news():
    assert told(context(9, incarnation=1), Version(2, 1, 1)) == []


def test_a_turn_of_ones_own_is_passed_over_whether_its_acknowledgement_comes_first_or_last():
    own = Own()
    own.begin(["a", "b"])
    assert own.passes("a", b"a")  # the session tells of it before its writer hears
    own.stored({"a": (1, 1)}, seen=(1, 1))
    own.stored({"b": (1, 2)}, seen=(1, 1))
    assert own.passes("b", b"b")
    assert not own.passes("c", b"c")
    assert len(own) == 0


def test_a_turn_whose_writer_heard_of_a_failure_is_told_late_if_it_was_passed_over():
    own = Own()
    own.begin(["a", "b"])
    own.passes("a", b"frame")
    assert own.failed(["a", "b"]) == [b"frame"]
    assert not own.passes("b", b"b")


def test_acknowledged_turns_that_lie_in_a_gap_are_forgotten():
    own = Own()
    own.begin(["a"])
    own.stored({"a": (1, 5)}, seen=(1, 2))
    own.forget((1, 5))
    assert len(own) == 0


async def test_a_member_is_told_of_others_turns_and_not_of_its_own():
    socket = Socket()
    socket.member.own.begin(["mine"])
    socket.take(context(3, turn_ids={2: "mine"}))
    assert socket.kinds == [("turn", 1), ("turn", 3)]
    assert socket.member.seen == Version(1, 3, 1)


async def test_a_turn_of_ones_own_in_a_life_that_was_not_told_of_yet_is_not_told():
    """It was acknowledged before the word that the session had been deleted."""
    for upto in (1, 12):  # as many turns as the last life had, and more
        socket = Socket(seen=Version(1, 9, 1))
        socket.member.own.begin(["mine"])
        socket.member.acknowledged({"mine": upto}, 2)
        socket.take(context(upto, incarnation=2, turn_ids={upto: "mine"}))
        assert socket.kinds == [("deleted", None), *(("turn", n) for n in range(1, upto)), ("meta", None)]
        assert len(socket.member.own) == 0


async def test_a_member_that_asks_for_its_own_turns_is_told_of_them():
    socket = Socket(own_turns=True)
    socket.member.own.begin(["mine"])
    socket.take(context(2, turn_ids={2: "mine"}))
    assert socket.kinds == [("turn", 1), ("turn", 2)]


async def test_a_member_that_wants_no_content_gets_none():
    socket = Socket(content=False)
    socket.take(context(1, revision=2))
    said = socket.transport.said
    assert set(said[0]["turn"]) == {"number", "turn_id", "role", "created_at"}
    assert set(said[1]) == {"type", "version", "status"}


async def test_a_closed_session_is_told_as_closed():
    socket = Socket(seen=Version(1, 1, 1))
    socket.take(context(1, revision=2, status="closed"))
    assert [said["type"] for said in socket.transport.said] == ["closed"]


async def test_a_member_that_does_not_read_is_told_a_gap_and_goes_on_where_it_stopped():
    socket = Socket(reads=False, most_frames=2)
    socket.wire.send(frame({"type": "large", "text": "x" * HIGH_BYTES}))  # as much as the transport is given at once
    socket.take(context(5))
    assert socket.member.lagging
    assert socket.member.seen == Version(1, 2, 1)
    socket.take(context(9))
    assert len(socket.wire.outbox) == 3  # two turns and the gap
    socket.transport.take()
    await socket.wire._tasks.settle()
    socket.member.lagging = False
    socket.take(context(9))
    socket.member.caught_up()
    assert socket.kinds[1:] == [
        ("turn", 1),
        ("turn", 2),
        ("gap", None),
        *[("turn", number) for number in range(3, 10)],
        ("caught_up", None),
    ]


async def test_another_customers_session_is_not_told_and_ends_the_socket():
    socket = Socket(customer_id="ada")
    socket.take(context(1, customer_id="ada"))
    socket.take(context(2, incarnation=2, customer_id="eve"))
    assert socket.ended == [ANOTHERS]
    assert socket.kinds == [("turn", 1)]


async def test_a_customers_own_token_sees_no_session_of_which_nobody_said_whose_it_is():
    token, key = Socket(customer_id="ada", only_own=True), Socket(customer_id="ada")
    for socket in (token, key):
        socket.take(context(1, customer_id=None))
    assert (token.kinds, token.ended) == ([], [ANOTHERS])
    assert (key.kinds, key.ended) == ([("turn", 1)], [])


async def test_a_gap_is_told_once_until_it_is_over():
    socket = Socket()
    socket.member.gap("Redis is away")
    socket.member.gap("still away")
    socket.member.caught_up()
    socket.member.caught_up()
    assert [said["type"] for said in socket.transport.said] == ["gap", "caught_up"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("others"), st.integers(1, 40)),
        st.tuples(st.just("mine"), st.sampled_from(["at once", "late", "failed"])),
        st.tuples(st.just("told"), st.integers(0, 300)),
        st.tuples(st.just("reads"), st.integers(0, 200_000)),
        st.tuples(st.just("deleted"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, most_frames=st.integers(1, 8))
def test_by_chance_every_turn_is_told_once_in_order_or_lies_in_a_gap(steps, most_frames):
    """Others append, the peer reads or does not, its own appends end one way or the other, the session is deleted."""
    asyncio.run(_by_chance(steps, most_frames))


async def _by_chance(steps, most_frames):
    socket = Socket(reads=False, most_frames=most_frames)
    member, transport = socket.member, socket.transport
    socket.wire.emptied = lambda: setattr(member, "lagging", False)
    socket.wire.send(frame({"type": "large", "text": "x" * HIGH_BYTES}))
    life, ids, acknowledged, failed, pending = 1, {}, set(), set(), []

    def tell(readable):
        now = context(len(ids), incarnation=life, turn_ids=ids)
        hole = member.missing(now)
        known = range(hole.first, hole.last + 1) if hole is not None and hole.count <= readable else ()
        member.take(now, Telling(now), [turn(number, turn_id=ids[number]) for number in known])

    def settle():
        for number, turn_id, ends_well in pending:
            (acknowledged if ends_well else failed).add((life, number))
            if ends_well:
                member.acknowledged({turn_id: number}, life)
            else:
                member.failed([turn_id])
        pending.clear()

    for what, how in steps:
        if what == "others":
            for number in range(len(ids) + 1, len(ids) + 1 + how):
                ids[number] = f"{life}-{number}"
        elif what == "mine":
            number, turn_id = len(ids) + 1, f"{life}-mine-{len(ids) + 1}"
            member.own.begin([turn_id])
            ids[number] = turn_id
            pending.append((number, turn_id, how != "failed"))
            if how == "at once":
                settle()
        elif what == "told":
            tell(how)
            settle()
        elif what == "reads":
            transport.take(how)
            await _turns()
        elif what == "deleted":
            settle()
            life, ids = life + 1, {}
    settle()
    transport.take()
    for _ in range(2 + 400 // most_frames):
        await _turns()
        tell(0)
    await _turns()
    assert not member.lagging
    assert (member.seen.incarnation, member.seen.number) == (life, len(ids)) or not ids
    assert len(member.own) == 0
    _check(transport.said, acknowledged | failed, failed, lives={life: len(ids)})


async def _turns():
    for _ in range(6):
        await asyncio.sleep(0)


def _check(said, own, failed, *, lives):
    """Hold what was said against the session: numbers that are left out are own ones, or lie in a gap that was told."""
    life, next_number, late = 1, 1, set()

    def passed(upto):
        unsaid = [number for number in range(next_number, upto) if (life, number) not in own]
        assert not unsaid, f"{unsaid} were not told"

    for message in said:
        if message["type"] == "deleted":
            life, next_number = Version.parse(message["version"]).incarnation, 1
        elif message["type"] == "gap" and not message["waits"]:
            assert message["first"] >= next_number
            passed(message["first"])
            next_number = message["last"] + 1
        elif message["type"] == "turn":
            number = message["number"]
            assert (life, number) not in own - failed, "its own turn was told to it"
            if number >= next_number:
                passed(number)
                next_number = number + 1
            else:  # its writer was told of a failure first
                assert (life, number) in failed - late
                late.add((life, number))
    if life in lives:
        passed(lives[life] + 1)


def test_the_check_of_what_was_said_bites():
    said = [{"type": "turn", "number": 1}, {"type": "turn", "number": 3}]
    with pytest.raises(AssertionError, match="were not told"):
        _check(said, set(), set(), lives={1: 3})
    with pytest.raises(AssertionError):
        _check([{"type": "turn", "number": 1}] * 2, set(), set(), lives={1: 1})
    with pytest.raises(AssertionError):
        _check([{"type": "turn", "number": 1}], set(), set(), lives={1: 2})
