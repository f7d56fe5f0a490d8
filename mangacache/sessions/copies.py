"""A copy of a session as an operator may see it: versions, ids, times and sizes; words only where they are asked for.

It is what `mangacache inspect` lays side by side, and what a worker says of its memory on the operator's port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mangacache.model import Summary, Turn
    from mangacache.sessions.actor import Actor
    from mangacache.store.items import MetaRecord
    from mangacache.store.snapshot import Snapshot


class TurnCopy(msgspec.Struct, frozen=True):
    """A turn.

    Attributes:
        content_bytes: the content's length in UTF-8.
        attributes: the names of the free ones.
        content: None unless words were asked for.
    """

    number: int
    turn_id: str
    role: str
    created_at: str
    expires_at: int
    content_bytes: int
    attributes: tuple[str, ...] = ()
    content: str | None = None


class MetaCopy(msgspec.Struct, frozen=True):
    """META; `values` of the free attributes only where words were asked for."""

    incarnation: int
    revision: int
    customer_id: str | None
    status: str
    created_at: str
    summary_upto: int
    expires_at: int
    attributes: tuple[str, ...] = ()
    values: dict[str, str] | None = None


class SummaryCopy(msgspec.Struct, frozen=True):
    """A summary."""

    upto: int
    created_at: str
    text_bytes: int
    text: str | None = None


class Copy(msgspec.Struct, frozen=True):
    """A session as one tier holds it.

    Attributes:
        version: (incarnation, newest turn, revision).
        foreign: whether somebody else writes it.
    """

    version: tuple[int, int, int]
    meta: MetaCopy | None
    turns: tuple[TurnCopy, ...]
    summary: SummaryCopy | None
    foreign: bool = False


class Remembered(msgspec.Struct, frozen=True):
    """What the memory of one process holds of a session.

    Attributes:
        copy: None where its actor is there and knows nothing.
        validated_s: how long ago the request was sent that showed it to be current; None: never.
        changed_s: how long ago another worker was last heard to have changed the session; None: never.
        waiting: messages in its mailbox.
        busy: whether something is under way.
        kib: what it takes, about.
    """

    copy: Copy | None
    validated_s: float | None
    changed_s: float | None
    waiting: int
    busy: bool
    kib: int


def copy_of(known: Snapshot, *, words: bool = False) -> Copy:
    """Return what is known of a session, without its words unless they are asked for."""
    version = known.version
    return Copy(
        version=(version.incarnation, version.number, version.revision),
        meta=meta_copy(known.meta, words=words) if known.meta is not None else None,
        turns=tuple(turn_copy(turn, words=words) for turn in known.turns),
        summary=_summary_copy(known.summary, words=words) if known.summary is not None else None,
        foreign=known.foreign,
    )


def turn_copy(turn: Turn, *, words: bool = False) -> TurnCopy:
    """Return a turn as an operator may see it."""
    return TurnCopy(
        number=turn.number,
        turn_id=turn.turn_id,
        role=turn.role,
        created_at=turn.created_at,
        expires_at=turn.expires_at,
        content_bytes=len(turn.content.encode()),
        attributes=tuple(sorted(turn.attributes)),
        content=turn.content if words else None,
    )


def meta_copy(meta: MetaRecord, *, words: bool = False) -> MetaCopy:
    """Return META as an operator may see it."""
    values: dict[str, Any] = meta.attributes
    return MetaCopy(
        incarnation=meta.incarnation or 0,
        revision=meta.revision,
        customer_id=meta.customer_id,
        status=meta.status,
        created_at=meta.created_at,
        summary_upto=meta.summary_upto,
        expires_at=meta.expires_at,
        attributes=tuple(sorted(values)),
        values={name: repr(value) for name, value in sorted(values.items())} if words else None,
    )


def _summary_copy(summary: Summary, *, words: bool) -> SummaryCopy:
    text = summary.text
    return SummaryCopy(summary.upto, summary.created_at, len(text.encode()), text if words else None)


def without_words(copy: Copy) -> Copy:
    """Return a copy without contents, values of attributes and the summary's text."""
    replace = msgspec.structs.replace
    return replace(
        copy,
        meta=replace(copy.meta, values=None) if copy.meta is not None else None,
        turns=tuple(replace(turn, content=None) for turn in copy.turns),
        summary=replace(copy.summary, text=None) if copy.summary is not None else None,
    )


def remembered(actor: Actor, *, now_age_s: float) -> Remembered:
    """Return what an actor holds, never its words; nothing of it is used or kept longer by being looked at.

    Args:
        actor: of the session.
        now_age_s: `clock.age_s` now.
    """

    def ago_s(at_s: float) -> float | None:
        return round(now_age_s - at_s, 3) if at_s > float("-inf") else None

    return Remembered(
        copy=copy_of(actor.known) if actor.known is not None else None,
        validated_s=ago_s(actor.validated_at_s),
        changed_s=ago_s(actor.changed_at_s),
        waiting=len(actor.mailbox or ()),
        busy=actor.busy,
        kib=actor.size_kib,
    )
