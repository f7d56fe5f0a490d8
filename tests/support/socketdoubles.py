"""Doubles for tests of the sockets' decisions: a transport whose peer reads when told, and contexts made by hand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mangacache.model import Context, Meta, Turn, Version
from mangacache.tasks import TaskOwner
from mangacache.worker.sockets.outbox import Outbox
from mangacache.worker.sockets.wire import Wire


class PeerTransport:
    """An asyncio transport before a kernel that takes nothing unless the peer reads.

    Attributes:
        read: what the peer has read.
        most_kept: the most bytes that the transport ever kept.
    """

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.read = b""
        self.kept = b""
        self.most_kept = 0
        self.high = 0
        self.aborted = False
        self._room = asyncio.Event()

    def write(self, data: bytes) -> None:
        assert not self.aborted
        self.kept += data
        self._pass_on()
        self.most_kept = max(self.most_kept, len(self.kept))

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del low
        self.high = high or 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True
        self._room.set()

    def take(self, count: int | None = None) -> None:
        """Have the peer read so many bytes, or all there are from now on."""
        if count is None:
            self.reads = True
            count = len(self.kept)
        self.read += self.kept[:count]
        self.kept = self.kept[count:]
        if len(self.kept) <= self.high // 4:
            self._room.set()

    async def drain(self) -> None:
        while len(self.kept) > self.high and not self.aborted:
            self._room.clear()
            await self._room.wait()
        if self.aborted:
            raise ConnectionResetError("the peer has gone")

    def _pass_on(self) -> None:
        if self.reads:
            self.read += self.kept
            self.kept = b""

    @property
    def said(self) -> list[dict[str, Any]]:
        """The messages that the peer has read whole."""
        return messages(self.read)


def messages(data: bytes) -> list[dict[str, Any]]:
    """Return the messages that frames hold."""
    found = []
    while len(data) >= 2:
        assert data[0] == 0x81
        length, begin = data[1], 2
        if length == 126:
            length, begin = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, begin = int.from_bytes(data[2:10], "big"), 10
        if len(data) < begin + length:
            break
        found.append(json.loads(data[begin : begin + length]))
        data = data[begin + length :]
    return found


def wire_to(transport: PeerTransport, tasks: TaskOwner, *, most_frames: int = 64, most_bytes: int = 2**20) -> Wire:
    outbox = Outbox(most_frames=most_frames, most_bytes=most_bytes)
    return Wire(transport, transport.drain, outbox=outbox, tasks=tasks)


def owner() -> TaskOwner:
    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    return TaskOwner(on_failure=failed)


def turn(number: int, *, turn_id: str = "", content: str = "") -> Turn:
    return Turn(number, turn_id or f"t{number}", "user", content or f"turn {number}", "2026-11-25T22:00:00.000Z")


def context(
    upto: int,
    *,
    first: int = 1,
    incarnation: int = 1,
    revision: int = 1,
    customer_id: str | None = None,
    status: str = "active",
    turn_ids: dict[int, str] | None = None,
) -> Context:
    """Return the context of a session that has the turns `first` to `upto` in it."""
    ids = turn_ids or {}
    meta = Meta(customer_id, status, "2026-11-25T22:00:00.000Z", "2026-11-25T22:00:00.000Z", upto)
    turns = tuple(turn(number, turn_id=ids.get(number, "")) for number in range(max(first, upto - 31), upto + 1))
    return Context("s", meta, turns, None, Version(incarnation, upto, revision), "memory")
