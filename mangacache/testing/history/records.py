"""The form of a history's file: frames of MessagePack, each with its length and a checksum.

A frame is the mark, four bytes of length, four of CRC-32, and the record. A process that is killed leaves at most its
last frame torn. What is damaged elsewhere is passed over: the mark begins with 0xC1, the one byte that MessagePack
never uses, so that a reader finds the next frame.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.testing.history.operations import Kind, Level, Outcome, SeenTurn

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT: Final = 1
MARK: Final = b"\xc1MH"
_HEADER: Final = struct.Struct("<3sII")


class Head(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """Begins what one process wrote. `machine` changes with each boot, as the monotonic clock does."""

    format: int
    worker: str
    process: int
    machine: str


class Began(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Written before an operation begins; `serial` is its number in this process."""

    serial: int
    kind: Kind
    session: str
    client: str
    invoked_ns: int
    level: Level
    max_age_ns: int | None
    token: str
    asked: int
    turns: tuple[tuple[str, int], ...]


class Wrote(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Written when an append, an update or a delete has returned."""

    serial: int
    returned_ns: int
    version: str
    numbers: tuple[int, ...]
    repeats: tuple[int, ...]
    made: bool
    stale: bool
    meta: int | None


class Saw(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Written when a read has returned.

    The turns returned are those from number `first` to `last`, each as this file said last for its number in this
    incarnation; `news` says it anew for those that differ or are new. What has no such form stands in `odd` whole.
    """

    serial: int
    returned_ns: int
    version: str
    first: int
    last: int
    news: tuple[SeenTurn, ...]
    odd: tuple[SeenTurn, ...]
    asked: int
    stale: bool
    source: str
    meta: int | None
    summary: int | None


class Gave(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Written when an operation has raised."""

    serial: int
    returned_ns: int
    outcome: Outcome


Record = Head | Began | Wrote | Saw | Gave

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Record)


def framed(record: Record) -> bytes:
    """Return the bytes of one frame."""
    body = _ENCODER.encode(record)
    return _HEADER.pack(MARK, len(body), zlib.crc32(body)) + body


class Damage(msgspec.Struct, frozen=True):
    """Bytes of a file that are no frame.

    Attributes:
        torn: they end the file, or what one process wrote of it: what a kill leaves, and no loss.
    """

    offset: int
    size: int
    torn: bool


def frames(data: bytes, damage: list[Damage]) -> Iterator[Record]:
    """Iterate over the records in `data`; what cannot be read is added to `damage`."""
    offset, size, damaged_from = 0, len(data), -1
    unpack, header_size, decode, crc32 = _HEADER.unpack_from, _HEADER.size, _DECODER.decode, zlib.crc32
    while offset + header_size <= size:
        mark, length, checksum = unpack(data, offset)
        start = offset + header_size
        body = data[start : start + length]
        if mark == MARK and len(body) == length and crc32(body) == checksum:
            try:
                record = decode(body)
            except msgspec.DecodeError:
                record = None
            if record is not None:
                if damaged_from >= 0:
                    damage.append(Damage(damaged_from, offset - damaged_from, torn=type(record) is Head))
                    damaged_from = -1
                yield record
                offset = start + length
                continue
        damaged_from = offset if damaged_from < 0 else damaged_from
        following = data.find(MARK, offset + 1)
        offset = following if following >= 0 else size
    damaged_from = offset if damaged_from < 0 else damaged_from
    if damaged_from < size:
        damage.append(Damage(damaged_from, size - damaged_from, torn=True))
