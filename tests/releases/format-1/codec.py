"""How a context stands in Redis: MessagePack behind one byte that names the format.

Free attributes are kept as DynamoDB types them, and read by the same function as an item's, so a context is the same
from every tier. A release reads the last release's format, and takes an unknown one for a miss: during a rolling
deployment old and new workers share one hash, and neither destroys what the other wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.errors import Corrupt
from mangacache.model import WINDOW, Summary, Turn, Version
from mangacache.store.items import MetaRecord
from mangacache.store.values import from_typed, to_typed

if TYPE_CHECKING:
    from mangacache.store.snapshot import Snapshot

FORMAT: Final = b"\x01"
GAP: Final = FORMAT
"""Stands at the place of a turn that DynamoDB deleted at the end of its retention, before its neighbours."""


class Unreadable(Exception):
    """Stored bytes that are no context of a format known here.

    Attributes:
        known_format: True where the format is ours, so that the bytes are damaged and of use to nobody.
    """

    def __init__(self, message: str, *, known_format: bool) -> None:
        super().__init__(message)
        self.known_format = known_format


class _Turn(msgspec.Struct, array_like=True, frozen=True, gc=False):
    number: int
    turn_id: str
    role: str
    content: str
    created_at: str
    expires_at: int
    typed: dict[str, Any] = {}


class _Meta(msgspec.Struct, array_like=True, frozen=True):
    incarnation: int
    revision: int
    customer_id: str | None
    status: str
    created_at: str
    last_active_at: str
    last_number: int
    summary_upto: int
    change_id: str
    expires_at: int
    unswept: bool
    typed: dict[str, Any] = {}


class _Summary(msgspec.Struct, array_like=True, frozen=True, gc=False):
    upto: int
    text: str
    created_at: str
    expires_at: int


class _Head(msgspec.Struct, array_like=True, frozen=True):
    meta: _Meta | None
    summary: _Summary | None


_DAMAGE: Final = (
    msgspec.MsgspecError,
    Corrupt,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_ENCODER: Final = msgspec.msgpack.Encoder()
_TURN: Final = msgspec.msgpack.Decoder(_Turn)
_HEAD: Final = msgspec.msgpack.Decoder(_Head)


def encode_turn(turn: Turn) -> bytes:
    """Return a turn as it stands in its slot of the ring."""
    typed = {name: to_typed(value, name) for name, value in turn.attributes.items()}
    return FORMAT + _ENCODER.encode(
        _Turn(turn.number, turn.turn_id, turn.role, turn.content, turn.created_at, turn.expires_at, typed)
    )


def encode_ring(snapshot: Snapshot) -> tuple[int, list[bytes]]:
    """Return the first number and the turns from it to the version's number, in order, gaps included."""
    last = snapshot.version.number
    turns = {turn.number: turn for turn in snapshot.turns if turn.number > last - WINDOW}
    first = min(turns, default=last + 1)
    numbers = range(first, last + 1)
    return first, [encode_turn(turns[number]) if number in turns else GAP for number in numbers]


def encode_head(snapshot: Snapshot) -> bytes:
    """Return META and the summary, as they stand beside the ring.

    The fence is left out: it is outside the version, and whoever needs it reads META.
    """
    record, summary = snapshot.meta, snapshot.summary
    meta = None
    if record is not None:
        meta = _Meta(
            incarnation=record.incarnation or 0,
            revision=record.revision,
            customer_id=record.customer_id,
            status=record.status,
            created_at=record.created_at,
            last_active_at=record.last_active_at,
            last_number=record.last_number,
            summary_upto=record.summary_upto,
            change_id=record.change_id,
            expires_at=record.expires_at,
            unswept=record.unswept,
            typed={name: to_typed(value, name) for name, value in record.attributes.items()},
        )
    head = _Head(
        meta,
        _Summary(summary.upto, summary.text, summary.created_at, summary.expires_at) if summary is not None else None,
    )
    return FORMAT + _ENCODER.encode(head)


def decode_turns(first: int, slots: list[bytes | None]) -> tuple[Turn, ...]:
    """Return the turns `first`, `first` + 1, ... that the slots hold, gaps left out.

    Raises:
        Unreadable: a slot is empty, of another format, damaged, or another number's.
    """
    turns = []
    for number, slot in enumerate(slots, start=first):
        body = _body(slot)
        if not body:
            continue
        try:
            record = _TURN.decode(body)
            attributes = {name: from_typed(value) for name, value in record.typed.items()}
        except _DAMAGE as error:
            raise Unreadable(f"turn {number}: {error}", known_format=True) from error
        if record.number != number:
            raise Unreadable(f"turn {record.number} stands in the place of {number}", known_format=True)
        turns.append(
            Turn(
                number=number,
                turn_id=record.turn_id,
                role=record.role,
                content=record.content,
                created_at=record.created_at,
                attributes=attributes,
                expires_at=record.expires_at,
            )
        )
    return tuple(turns)


def decode_head(value: bytes | None, version: Version) -> tuple[MetaRecord | None, Summary | None]:
    """Return META and the summary.

    Raises:
        Unreadable: missing, of another format, damaged, or of another version.
    """
    try:
        head = _HEAD.decode(_body(value))
        record = head.meta
        meta = None
        if record is not None:
            meta = MetaRecord(
                incarnation=record.incarnation,
                revision=record.revision,
                customer_id=record.customer_id,
                status=record.status,
                created_at=record.created_at,
                last_active_at=record.last_active_at,
                last_number=record.last_number,
                summary_upto=record.summary_upto,
                change_id=record.change_id,
                expires_at=record.expires_at,
                unswept=record.unswept,
                attributes={name: from_typed(value) for name, value in record.typed.items()},
            )
    except _DAMAGE as error:
        raise Unreadable(f"META: {error}", known_format=True) from error
    if meta is not None and (meta.incarnation, meta.revision) != (version.incarnation, version.revision):
        raise Unreadable(f"META is of another version than {version}", known_format=True)
    summary = head.summary
    return meta, (
        Summary(summary.upto, summary.text, summary.created_at, summary.expires_at) if summary is not None else None
    )


def _body(value: bytes | None) -> bytes:
    if value is None:
        raise Unreadable("a part is missing", known_format=True)
    if value[:1] != FORMAT:
        raise Unreadable(f"format {value[:1].hex() or 'none'} is not known here", known_format=not value)
    return value[1:]
