"""The way out of a socket: at once while the peer reads, bounded while it does not."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from socketdoubles import PeerTransport, messages, owner, wire_to

from mangacache.worker.sockets.frames import frame, pong_frame, text_frame
from mangacache.worker.sockets.wire import HIGH_BYTES

BIG = frame({"type": "big", "text": "x" * 1000})


def stuffed(**more):
    """Return a wire whose peer does not read, and whose transport is full."""
    transport = PeerTransport(reads=False)
    wire = wire_to(transport, owner(), **more)
    while transport.get_write_buffer_size() <= HIGH_BYTES:
        wire.send(BIG)
    return wire, transport


async def test_a_frame_for_a_peer_that_reads_is_written_at_once_and_needs_no_task():
    transport = PeerTransport()
    wire = wire_to(transport, tasks := owner())
    wire.send(frame({"type": "pong"}))
    assert transport.said == [{"type": "pong"}]
    assert len(tasks) == 0


async def test_what_a_transport_keeps_is_bounded_by_its_limit_and_one_frame():
    wire, transport = stuffed(most_frames=10_000)
    for _ in range(1_000):
        wire.send(BIG)
    assert transport.most_kept <= HIGH_BYTES + len(BIG)
    assert len(wire.outbox) == 1_000
    wire.abort()
    await wire._tasks.settle()


async def test_news_is_refused_at_the_limit_of_frames_and_at_that_of_bytes():
    wire, _ = stuffed(most_frames=3)
    assert [wire.offer(BIG) for _ in range(5)] == [True, True, True, False, False]
    wire.abort()
    await wire._tasks.settle()
    wire, _ = stuffed(most_bytes=2 * len(BIG))
    assert [wire.offer(BIG) for _ in range(5)] == [True, True, False, False, False]
    wire.abort()
    await wire._tasks.settle()


async def test_what_waited_goes_out_in_order_when_the_peer_reads_and_then_the_owner_is_told():
    wire, transport = stuffed()
    told = []
    wire.emptied = lambda: told.append(len(wire.outbox))
    for number in range(50):
        wire.send(frame({"type": "turn", "number": number}))
    transport.take(70_000)
    await wire._tasks.settle()
    transport.take()
    wire.send(frame({"type": "turn", "number": 50}))
    assert [said["number"] for said in transport.said if said["type"] == "turn"] == list(range(51))
    assert told == [0]


async def test_nothing_more_is_read_before_there_is_room():
    wire, transport = stuffed(most_frames=2)
    wire.send(BIG)
    await wire.room()
    wire.send(BIG)
    waiting = asyncio.ensure_future(wire.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    transport.take()
    await waiting


async def test_who_waits_for_room_is_let_go_when_the_wire_is_closed():
    wire, _ = stuffed(most_frames=1)
    wire.send(BIG)
    waiting = asyncio.ensure_future(wire.room())
    await asyncio.sleep(0)
    wire.abort()
    await waiting
    assert not wire.outbox


async def test_a_peer_that_takes_nothing_is_stuck_and_one_that_takes_a_little_is_not():
    wire, transport = stuffed()
    assert wire.stuck_s(10) == 0
    wire.send(BIG)  # more to send is no progress
    assert wire.stuck_s(15) == 5
    transport.take(10)
    assert wire.stuck_s(20) == 0
    assert wire.stuck_s(26) == 6
    transport.take()
    await wire._tasks.settle()
    assert wire.stuck_s(99) == 0


async def test_a_peer_for_whom_nothing_waits_is_never_stuck():
    wire = wire_to(PeerTransport(), owner())
    assert wire.stuck_s(1) == 0
    assert wire.stuck_s(1_000) == 0


async def test_a_peer_that_goes_away_while_something_waits_ends_the_wire():
    wire, transport = stuffed()
    wire.send(BIG)
    transport.abort()
    await wire._tasks.settle()
    assert wire.closed
    assert not wire.outbox
    wire.send(BIG)


@given(st.integers(0, 70_000))
def test_a_frame_says_how_long_it_is(length):
    assert messages(text_frame(b'"' + b"x" * length + b'"')) == ["x" * length]


def test_a_pong_brings_back_what_the_ping_had():
    assert pong_frame(b"abc") == b"\x8a\x03abc"
