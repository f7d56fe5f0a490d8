"""Items of the table to and from the model."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.errors import Corrupt
from mangacache.model import Attribute, Meta, Summary, Turn, Version
from mangacache.store import keys
from mangacache.store.values import Typed, from_typed, to_typed

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_INFLATED_BYTES: Final = 16 * 1024 * 1024
"""What a stored turn may inflate to; more is damage or malice."""

TURN_NAMES: Final = frozenset(
    {
        "PK",
        "SK",
        "turn_id",
        "role",
        "content",
        "content_compressed",
        "created_at",
        "ttl",
        "seal",
        "adopted_from",
    }
)
META_NAMES: Final = frozenset(
    {
        "PK",
        "SK",
        "customer_id",
        "status",
        "created_at",
        "last_active_at",
        "last_number",
        "incarnation",
        "revision",
    }
    | {"summary_upto", "change_id", "fence", "fence_claim", "ttl", "unswept", "adopting"}
)


class MetaRecord(msgspec.Struct, frozen=True, gc=False):
    """META as stored, expired or not.

    Attributes:
        incarnation: None in a META that somebody else wrote.
        revision: 0 in the tombstone that a delete leaves, or a lock of a session that has not begun.
        fence: raised by each claim of the session's lock, and by each delete.
        claim: the random id of the claim that raised it last; empty after a delete.
        unswept: True while turns of earlier incarnations may still be there.
        adopting: `copying` or `deleting` while an `adopt` is under way, else empty.
    """

    incarnation: int | None = None
    revision: int = 0
    customer_id: str | None = None
    status: str = "active"
    created_at: str = ""
    last_active_at: str = ""
    last_number: int = 0
    summary_upto: int = 0
    change_id: str = ""
    fence: int = 0
    claim: str = ""
    expires_at: int = 0
    unswept: bool = False
    adopting: str = ""
    attributes: dict[str, Attribute] = {}

    def public(self, version: Version, newest: Turn | None) -> Meta:
        """Return what a context shows of it: nothing that is outside the version."""
        return Meta(
            customer_id=self.customer_id,
            status=self.status,
            created_at=self.created_at,
            last_active_at=newest.created_at if newest is not None else self.created_at,
            last_number=version.number,
            attributes=self.attributes,
        )


def key(session_id: str, sort_key: str) -> Typed:
    """Return the key of an item of a session."""
    return {"PK": {"S": keys.partition(session_id)}, "SK": {"S": sort_key}}


def turn_item(
    session_id: str, incarnation: int, turn: Turn, *, typed_attributes: Typed, compress_from_bytes: int
) -> Typed:
    """Return the item of a turn; its content is deflated from `compress_from_bytes` on, where that saves bytes."""
    item = key(session_id, keys.turn_key(incarnation, turn.number))
    item["turn_id"] = {"S": turn.turn_id}
    item["role"] = {"S": turn.role}
    raw = turn.content.encode()
    if len(raw) >= compress_from_bytes and len(deflated := zlib.compress(raw)) < len(raw):
        item["content_compressed"] = {"B": deflated}
    else:
        item["content"] = {"S": turn.content}
    item["created_at"] = {"S": turn.created_at}
    if turn.expires_at:
        item["ttl"] = {"N": str(turn.expires_at)}
    item.update(typed_attributes)
    return item


def seal_item(session_id: str, sort_key: str, expires_at: int) -> Typed:
    """Return the empty item that stands for "nothing more in this incarnation"."""
    return {**key(session_id, sort_key), "seal": {"BOOL": True}, "ttl": {"N": str(expires_at)}}


def is_seal(item: Typed) -> bool:
    """Tell whether an item is a seal and no turn."""
    return "seal" in item


def _text(item: Typed, name: str) -> str:
    value = item.get(name)
    if value is None:
        return ""
    return value["S"] if "S" in value else str(from_typed(value))


def _integer(item: Typed, name: str) -> int:
    value = item.get(name)
    try:
        return int(value["N"]) if value and "N" in value else 0
    except ValueError as error:
        raise Corrupt(f"{name} of {_place(item)} is no whole number: {value}") from error


def _place(item: Typed) -> str:
    return f"item {_text(item, 'PK')!r} {_text(item, 'SK')!r}"


def _content(item: Typed) -> str:
    stored = item.get("content_compressed")
    if stored is None:
        return _text(item, "content")
    if "B" not in stored:
        return _text(item, "content_compressed")
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(bytes(stored["B"]), MAX_INFLATED_BYTES)
        if not inflate.eof:
            raise Corrupt(f"content of {_place(item)} is cut off or inflates to over {MAX_INFLATED_BYTES} bytes")
        return raw.decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise Corrupt(f"content of {_place(item)} is damaged: {error}") from error


def expires_at(item: Typed) -> int:
    """Return the second after which an item is not shown any more; 0 is never."""
    value = item.get("ttl")
    try:
        return int(float(value["N"])) if value and "N" in value else 0
    except ValueError as error:
        raise Corrupt(f"ttl of {_place(item)} is no number") from error


def _free(item: Typed, names: frozenset[str]) -> dict[str, Attribute]:
    return {name: from_typed(value) for name, value in item.items() if name not in names}


def read_turn(item: Typed) -> Turn:
    """Return the turn of an item, ours or another writer's (whose turns have no number).

    Raises:
        Corrupt: bytes that are not what they should be.
    """
    place = keys.parse_turn_key(item["SK"]["S"])
    return Turn(
        number=place[1] if place else 0,
        turn_id=_text(item, "turn_id"),
        role=_text(item, "role"),
        content=_content(item),
        created_at=_text(item, "created_at"),
        attributes=_free(item, TURN_NAMES),
        expires_at=expires_at(item),
    )


def read_meta(item: Typed) -> MetaRecord:
    """Return META of an item, ours or another writer's."""
    return MetaRecord(
        incarnation=_integer(item, "incarnation") if "N" in item.get("incarnation", {}) else None,
        revision=_integer(item, "revision"),
        customer_id=_text(item, "customer_id") or None,
        status=_text(item, "status"),
        created_at=_text(item, "created_at"),
        last_active_at=_text(item, "last_active_at"),
        last_number=_integer(item, "last_number"),
        summary_upto=_integer(item, "summary_upto"),
        change_id=_text(item, "change_id"),
        fence=_integer(item, "fence"),
        claim=_text(item, "fence_claim"),
        expires_at=expires_at(item),
        unswept="unswept" in item,
        adopting=_text(item, "adopting"),
        attributes=_free(item, META_NAMES),
    )


def meta_item(session_id: str, meta: MetaRecord) -> Typed:
    """Return the item of META; what is empty is left out, which keeps a tombstone out of the index."""
    item = key(session_id, keys.META)
    item["incarnation"] = {"N": str(meta.incarnation)}
    item["revision"] = {"N": str(meta.revision)}
    item["last_number"] = {"N": str(meta.last_number)}
    texts = {"customer_id": meta.customer_id, "status": meta.status, "created_at": meta.created_at}
    texts |= {"last_active_at": meta.last_active_at, "change_id": meta.change_id, "adopting": meta.adopting}
    texts["fence_claim"] = meta.claim
    item.update({name: {"S": text} for name, text in texts.items() if text})
    numbers = {"summary_upto": meta.summary_upto, "fence": meta.fence, "ttl": meta.expires_at}
    item.update({name: {"N": str(number)} for name, number in numbers.items() if number})
    if meta.unswept:
        item["unswept"] = {"BOOL": True}
    item.update({name: to_typed(value, name) for name, value in meta.attributes.items()})
    return item


def summary_item(session_id: str, incarnation: int, summary: Summary) -> Typed:
    """Return the item of a summary."""
    item = key(session_id, keys.summary_key(incarnation, summary.upto))
    item["summary_text"] = {"S": summary.text}
    item["upto"] = {"N": str(summary.upto)}
    item["created_at"] = {"S": summary.created_at}
    item["ttl"] = {"N": str(summary.expires_at)}
    return item


def read_summary(item: Typed) -> Summary:
    """Return the summary of an item, ours or another writer's."""
    return Summary(
        upto=_integer(item, "upto"),
        text=_text(item, "summary_text"),
        created_at=_text(item, "created_at"),
        expires_at=expires_at(item),
    )


def is_live(expires_at: int, now_s: float) -> bool:
    """Tell whether an item may still be shown: DynamoDB deletes late, so every reader asks this."""
    return not expires_at or expires_at > now_s


def live(turns: Iterable[Turn], now_s: float) -> tuple[Turn, ...]:
    """Return the turns that may still be shown."""
    return tuple(turn for turn in turns if is_live(turn.expires_at, now_s))


def plain(item: dict[str, Any]) -> dict[str, Attribute]:
    """Return an item as plain Python values."""
    return {name: from_typed(value) for name, value in item.items()}
