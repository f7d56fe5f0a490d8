"""What a worker knows of a session: META, the newest turns with their ids, the summary, and the version of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.model import WINDOW, Context, Summary, Turn, Version
from mangacache.store import keys
from mangacache.store.items import MetaRecord, is_live, is_seal, live, read_turn
from mangacache.store.values import copied

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mangacache.store.values import Typed

RESERVE: Final = 512
"""No turn has a number above META's last_number + RESERVE: what META must be raised before, and what bounds the
numbers ever used where DynamoDB has deleted every expired turn."""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A session as a worker knows it; it never changes, a newer one replaces it.

    Attributes:
        meta: as stored, expired and tombstones included; None where there is none.
        version: (incarnation, newest number ever used, revision).
        turns: the newest 32 at most of this incarnation, oldest first, expired ones included: they are not
            shown, but their numbers and turn_ids count. In a foreign session: as they are, without numbers.
        foreign: True where somebody else writes this session; it is read as it is and not appended to.
    """

    meta: MetaRecord | None = None
    version: Version = Version()
    turns: tuple[Turn, ...] = ()
    summary: Summary | None = None
    foreign: bool = False

    def must_begin(self, now_s: float) -> bool:
        """Tell whether the next append has to make META: there is none, it is a tombstone, or it has expired."""
        return self.meta is None or self.meta.revision == 0 or not is_live(self.meta.expires_at, now_s)

    def counted(self, now_s: float) -> Snapshot:
        """Return this knowledge with the number that a write has to go on from.

        DynamoDB deletes expired turns late and in any order. Where the newest turn that is left has expired and META
        names a later one, what came after it has gone, and its numbers are bounded by the reserve alone.
        """
        meta = self.meta
        if meta is None or not self.turns or self.foreign or is_live(self.turns[-1].expires_at, now_s):
            return self
        if meta.last_number <= self.version.number:
            return self
        version = msgspec.structs.replace(self.version, number=meta.last_number + RESERVE)
        return msgspec.structs.replace(self, version=version)

    @property
    def has_others(self) -> bool:
        """Whether others' turns are there still: they write it, or an `adopt` was cut off before it deleted them."""
        return self.foreign or (self.meta is not None and self.meta.adopting == "deleting")

    def has_expired(self, now_s: float) -> bool:
        """Tell whether a session that had begun is past its retention, as far as is known.

        A copy of META may be older than META's last touch, so whoever holds no fresh one looks again.
        """
        return self.meta is not None and self.meta.revision > 0 and self.must_begin(now_s)

    def grown(self, turns: Sequence[Turn]) -> Snapshot:
        """Return this knowledge with the turns that follow it; what it knew already is passed over."""
        new = tuple(turn for turn in turns if turn.number > self.version.number)
        if not new:
            return self
        version = msgspec.structs.replace(self.version, number=new[-1].number)
        return msgspec.structs.replace(self, turns=(self.turns + new)[-WINDOW:], version=version)

    def with_meta(self, meta: MetaRecord) -> Snapshot:
        """Return this knowledge with a newer META of the same incarnation."""
        return msgspec.structs.replace(
            self, meta=meta, version=msgspec.structs.replace(self.version, revision=meta.revision)
        )

    def numbers_of(self, turn_ids: Collection[str]) -> dict[str, int]:
        """Return the numbers under which these turn_ids stand in the window."""
        return {turn.turn_id: turn.number for turn in self.turns if turn.turn_id in turn_ids}

    def context(
        self, session_id: str, *, turns: int, now_s: float, source: str, stale: bool = False, degraded: bool = False
    ) -> Context:
        """Return what a bot sees of it: nothing expired, nothing that a caller could change for others."""
        shown = live(self.turns, now_s)
        meta = None
        if self.meta is not None and not self.must_begin(now_s):
            meta = self.meta.public(self.version, self.turns[-1] if self.turns else None)
        elif self.foreign and self.meta is not None and is_live(self.meta.expires_at, now_s):
            meta = self.meta.public(self.version, shown[-1] if shown else None)
        if meta is not None and meta.attributes:
            meta = msgspec.structs.replace(meta, attributes=copied(meta.attributes))
        summary = self.summary if self.summary and is_live(self.summary.expires_at, now_s) else None
        return Context(
            session_id=session_id,
            meta=meta,
            turns=tuple(map(_own, shown[-turns:])),
            summary=summary if meta is not None else None,
            version=self.version,
            source=source,
            stale=stale,
            degraded=degraded,
        )


def _own(turn: Turn) -> Turn:
    if not turn.attributes:
        return turn
    return msgspec.structs.replace(turn, attributes=copied(turn.attributes))


def joined(known: Snapshot | None, read: Snapshot, *, grew_after_sent: bool) -> Snapshot:
    """Return what is known after a strong read.

    Args:
        known: what the worker knew when the answer came.
        read: the answer.
        grew_after_sent: whether `known` grew after the read was sent. If so it may rightly be ahead, and the two
            are joined part by part; if not, an answer below it means that the table was restored, and it counts.
    """
    if known is None or known.foreign or read.foreign or read.version.covers(known.version) or not grew_after_sent:
        return read
    if known.version.incarnation != read.version.incarnation:
        return known if known.version.incarnation > read.version.incarnation else read
    ahead = known if known.version.number > read.version.number else read
    newer = known if known.version.revision > read.version.revision else read
    return Snapshot(
        meta=newer.meta,
        version=known.version.join(read.version),
        turns=ahead.turns,
        summary=newer.summary,
    )


class Reread(Exception):
    """The parts do not fit: something happened between the reading of one and of the other."""


def interpreted(meta: MetaRecord | None, items: Sequence[Typed], *, in_order: bool) -> Snapshot:
    """Return the knowledge that META and the newest items under `TURN#` (newest first) amount to.

    Args:
        meta: read strongly.
        items: read strongly.
        in_order: whether META was read before the items. A session that is begun between two reads in the
            other order would look as if its turns were gone.

    Raises:
        Reread: read both again, META first.
    """
    places = [keys.parse_turn_key(item["SK"]["S"]) for item in items]
    alien = meta is not None and meta.incarnation is None
    if (alien or None in places) and not (meta is not None and meta.adopting == "deleting"):
        return _foreign(meta, items)
    numbered = [(place, item) for place, item in zip(places, items, strict=True) if place is not None]
    incarnation = meta.incarnation if meta is not None and meta.incarnation is not None else 0
    newest = numbered[0][0][0] if numbered else 0
    if newest > incarnation:
        if meta is not None or not in_order:
            raise Reread
        return _orphaned(newest, numbered)
    own = [(place[1], item) for place, item in numbered if place[0] == incarnation]
    if meta is None:
        return Snapshot()
    if own and is_seal(own[0][1]):
        raise Reread
    if meta.revision and not in_order and (own[0][0] if own else -1) < meta.last_number:
        raise Reread  # META names a later turn: it was stored after the items were read, or has expired and gone
    number = own[0][0] if own else meta.last_number + (RESERVE if meta.revision else 0)
    return Snapshot(
        meta=meta,
        version=Version(incarnation, number, meta.revision),
        turns=tuple(read_turn(item) for _, item in reversed(own[:WINDOW]) if not is_seal(item)),
    )


def _foreign(meta: MetaRecord | None, items: Sequence[Typed]) -> Snapshot:
    own = [place for item in items if (place := keys.parse_turn_key(item["SK"]["S"]))]
    version = Version()
    if meta is not None and meta.incarnation is not None:
        numbers = [number for incarnation, number in own if incarnation == meta.incarnation]
        version = Version(meta.incarnation, max(numbers, default=meta.last_number), meta.revision)
    shown = [item for item in items if not is_seal(item) and "adopted_from" not in item]
    return Snapshot(
        meta=meta,
        version=version,
        turns=tuple(msgspec.structs.replace(read_turn(item), number=0) for item in reversed(shown[:WINDOW])),
        foreign=True,
    )


def _orphaned(incarnation: int, numbered: Sequence[tuple[tuple[int, int], Typed]]) -> Snapshot:
    """Return what is known where DynamoDB's own deletion took META before its turns, or a tombstone before seals."""
    own = [(place[1], item) for place, item in numbered if place[0] == incarnation]
    if is_seal(own[0][1]):
        return Snapshot(version=Version(incarnation + 1, 0, 0))
    return Snapshot(
        version=Version(incarnation, own[0][0], 0),
        turns=tuple(read_turn(item) for _, item in reversed(own[:WINDOW]) if not is_seal(item)),
    )
