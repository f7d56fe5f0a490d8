"""The decision behind every append: rule R1 of the context protocol.

Number by number, a conditional put settles who comes next. A collision shows another worker's turn, or our own
from a try whose answer was lost; the `turn_id` tells them apart. Once a number is taken, a late put of it is
harmless, so a time-out is answered by the same put again and never by the next number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from mangacache.errors import Conflict, Transient, VersionGone
from mangacache.model import WINDOW, Appended, Version
from mangacache.store.effects import (
    Begin,
    Done,
    Draft,
    Load,
    LookBack,
    Put,
    Refused,
    Stamp,
    Steps,
    Tail,
    Touch,
)
from mangacache.store.items import MetaRecord, is_live, is_seal, read_meta, read_turn
from mangacache.store.snapshot import RESERVE, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mangacache.model import Turn

MAX_COLLISIONS: Final = 512

Since: TypeAlias = "Callable[[], Version | None]"
"""Tells what was known when a call began; None where nothing was, and there was no time to store much since."""


class Append:
    """One append of one turn or several, under way.

    Args:
        drafts: the turns, in order, their turn_ids all different.
        stamp: when they are stored.
        customer_id: whose session a new one is, and must be where it is somebody's already.
        after: the token that the caller had before its first try; it widens the search for the turn_ids.
    """

    def __init__(
        self, drafts: Sequence[Draft], *, stamp: Stamp, customer_id: str | None, after: Version | None
    ) -> None:
        self._drafts = tuple(drafts)
        self._turn_ids = frozenset(draft.turn.turn_id for draft in drafts)
        self._stamp = stamp
        self._customer_id = customer_id
        self._after = after
        self._found: dict[str, int] = {}
        self._before_us: set[str] = set()
        self._in_doubt = False
        self._life = 0
        self._begun_after: Version | None = None
        self._search_after: Version | None = None

    def steps(self, known: Snapshot | None, since: Since | None = None) -> Steps[tuple[tuple[Appended, ...], Snapshot]]:
        """Return the results, one for each turn in order, and what is known then.

        Args:
            known: what the worker knows; None reads it first.
            since: asked when the session has been read. A retry is promised to be found while fewer than 32 turns have
                been stored when it *begins*; what was stored while it waited, or while an earlier try of the same call
                failed, is looked through as well.

        Raises:
            Conflict: the session is foreign, or another customer's.
            VersionGone: `after` is newer than the source of truth.
            Transient: too many collisions.
        """
        fresh = known is None
        known = known if known is not None else (yield from self._load())
        if not fresh and self._may_be_gone(known):
            known, fresh = (yield from self._load()), True
        if self._after is not None and not known.version.covers(self._after):
            if not fresh:
                known = yield from self._load()
            if not known.version.covers(self._after):
                raise VersionGone(f"the token {self._after} is newer than the source of truth ({known.version})")
        if since is not None and (begun_at := since()) is not None:
            self._begun_after = Version(begun_at.incarnation, max(0, begun_at.number - WINDOW))
        self._search_after = self._first_searched  # an earlier run may have looked through less than there is now
        for _ in range(MAX_COLLISIONS):
            self._check(known)
            self._enter(known.version.incarnation)
            self._learn(known.turns)
            if self._search_after is not None:
                yield from self._look_back(known, self._search_after)
            rest = tuple(draft for draft in self._drafts if draft.turn.turn_id not in self._found)
            if not rest:
                return self._results(known), known
            first = known.version.number + 1
            if known.must_begin(self._stamp.now_s) or not self._newest_is_live(known):
                done, known = yield from self._begin(known, first, rest)
            elif known.meta is not None and first + len(rest) - 1 > known.meta.last_number + RESERVE:
                known = yield from self._touch(known, known.meta)
                continue
            else:
                done, known = yield from self._put(known, first, rest)
            if done:
                return self._results(known), known
        raise Transient(
            f"{MAX_COLLISIONS} other writers were faster in this session: nothing was stored",
            retry_after_s=0.2,
        )

    def _load(self) -> Steps[Snapshot]:
        return cast("Snapshot", (yield Load())).counted(self._stamp.now_s)

    def _check(self, known: Snapshot) -> None:
        if known.foreign:
            raise Conflict(
                "this session was written by somebody else, whose turns have no numbers: "
                "call `adopt()` on it once its other writers have stopped, then append"
            )
        check_customer(known.meta, self._customer_id, self._stamp.now_s)

    def _may_be_gone(self, known: Snapshot) -> bool:
        """Tell whether a number that is free by this knowledge may have been used, or belong to a dead life.

        DynamoDB deletes expired turns, and with them what a put of their numbers would collide with. Another
        customer's session may have been deleted and begun again by this one.
        """
        expired = bool(known.turns) and not self._newest_is_live(known)
        return expired or is_anothers(known.meta, self._customer_id, self._stamp.now_s)

    def _newest_is_live(self, known: Snapshot) -> bool:
        """Tell whether the newest number is held by a turn that is stored for certain.

        If not, its number is counted from META or may be gone at any moment, and no put collides with another's: the
        append goes through META then, whose revision lets one worker at a time take the next number.
        """
        newest = known.turns[-1] if known.turns else None
        return (
            newest is not None
            and newest.number == known.version.number
            and is_live(newest.expires_at, self._stamp.now_s)
        )

    def _enter(self, incarnation: int) -> None:
        """Begin again where a delete has begun a new life: what was found in the old one has gone with it."""
        if incarnation != self._life:
            self._life = incarnation
            self._found.clear()
            self._before_us.clear()
            self._search_after = self._first_searched

    @property
    def _first_searched(self) -> Version | None:
        return self._after if self._after is not None else self._begun_after

    def _learn(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            if turn.turn_id in self._turn_ids and turn.turn_id not in self._found:
                self._found[turn.turn_id] = turn.number
                if not self._in_doubt:
                    self._before_us.add(turn.turn_id)

    def _look_back(self, known: Snapshot, after: Version) -> Steps[None]:
        first = after.number + 1 if after.incarnation == known.version.incarnation else 1
        last = (known.turns[0].number if known.turns else known.version.number + 1) - 1
        if first <= last and not self._turn_ids <= self._found.keys():
            found = yield LookBack(known.version.incarnation, first, last, self._turn_ids)
            for turn_id, number in cast("dict[str, int]", found).items():
                self._found.setdefault(turn_id, number)
                self._before_us.add(turn_id)
        self._search_after = None

    def _numbered(self, first: int, rest: tuple[Draft, ...]) -> tuple[Draft, ...]:
        return tuple(
            Draft(msgspec.structs.replace(draft.turn, number=first + i), draft.typed_attributes)
            for i, draft in enumerate(rest)
        )

    def _put(self, known: Snapshot, first: int, rest: tuple[Draft, ...]) -> Steps[tuple[bool, Snapshot]]:
        drafts = self._numbered(first, rest)
        outcome = yield Put(known.version.incarnation, first, drafts, self._stamp.nonce)
        if isinstance(outcome, Done):
            return True, self._stored(known, drafts)
        refused = cast("Refused", outcome)
        self._in_doubt = self._in_doubt or refused.in_doubt
        if any(is_seal(item) for item in refused.items if item):
            return False, (yield from self._load())
        standing = refused.items[0] or {}
        if len(drafts) == 1 and standing.get("turn_id", {}).get("S") == drafts[0].turn.turn_id:
            # Ours already: an unanswered try of this call, or the same append through another worker. What stands
            # counts, not what we would have written: another try may have had another time, or other words.
            turn = read_turn(standing)
            if not refused.in_doubt:
                self._before_us.add(turn.turn_id)
            self._found[turn.turn_id] = turn.number
            return True, known.grown([turn])
        snapshot, turns = cast("tuple[Snapshot, tuple[Turn, ...]]", (yield Tail(known)))
        self._learn(turns)
        return False, snapshot

    def _begin(self, known: Snapshot, first: int, rest: tuple[Draft, ...]) -> Steps[tuple[bool, Snapshot]]:
        drafts = self._numbered(first, rest)
        previous = known.meta
        kept = previous if previous is not None and not known.must_begin(self._stamp.now_s) else None
        base = kept if kept is not None else MetaRecord(customer_id=self._customer_id, created_at=self._stamp.at)
        meta = msgspec.structs.replace(
            base,
            incarnation=known.version.incarnation or 1,
            revision=known.version.revision + 1,
            last_active_at=self._stamp.at,
            last_number=drafts[-1].turn.number,
            fence=previous.fence if previous is not None else 0,
            claim=previous.claim if previous is not None else "",
            expires_at=max(self._stamp.meta_expires_at, base.expires_at),
            unswept=previous is not None and previous.unswept,
        )
        outcome = yield Begin(meta, previous, first, drafts, self._stamp.nonce)
        if isinstance(outcome, Done):
            version = Version(meta.incarnation or 1, known.version.number, meta.revision)
            summary = known.summary if kept is not None else None
            begun = Snapshot(meta=meta, version=version, turns=known.turns, summary=summary)
            return True, self._stored(begun, drafts)
        self._in_doubt = self._in_doubt or cast("Refused", outcome).in_doubt
        return False, (yield from self._load())

    def _touch(self, known: Snapshot, meta: MetaRecord) -> Steps[Snapshot]:
        """Raise META's last_number before a turn's number would pass its reserve."""
        incarnation = known.version.incarnation
        outcome = yield Touch(incarnation, known.version.number, self._stamp.at, self._stamp.meta_expires_at)
        if isinstance(outcome, Done):
            raised = msgspec.structs.replace(
                meta,
                last_number=known.version.number,
                last_active_at=self._stamp.at,
                expires_at=self._stamp.meta_expires_at,
            )
            return msgspec.structs.replace(known, meta=raised)
        item = cast("Refused", outcome).items[0]
        standing = read_meta(item) if item else None
        if standing is not None and (standing.incarnation, standing.revision) == (incarnation, meta.revision):
            return msgspec.structs.replace(known, meta=standing)
        return (yield from self._load())

    def _stored(self, known: Snapshot, drafts: tuple[Draft, ...]) -> Snapshot:
        self._found.update({draft.turn.turn_id: draft.turn.number for draft in drafts})
        return known.grown([draft.turn for draft in drafts])

    def _results(self, known: Snapshot) -> tuple[Appended, ...]:
        version = known.version
        results = []
        for draft in self._drafts:
            number = self._found[draft.turn.turn_id]
            at = Version(version.incarnation, number, version.revision)
            if self._after is not None:
                at = at.join(self._after)
            results.append(Appended(number, at, draft.turn.turn_id in self._before_us))
        return tuple(results)


class AnotherCustomers(Conflict):
    """The session belongs to another customer than the caller says."""


def is_anothers(meta: MetaRecord | None, customer_id: str | None, now_s: float) -> bool:
    """Tell whether a live session belongs to another customer than the caller says; unknown on either side is not."""
    if customer_id is None or meta is None or meta.customer_id is None:
        return False
    return meta.customer_id != customer_id and is_live(meta.expires_at, now_s)


def check_customer(meta: MetaRecord | None, customer_id: str | None, now_s: float) -> None:
    """Refuse a session that belongs to another customer than the caller says.

    Raises:
        AnotherCustomers: it does.
    """
    if is_anothers(meta, customer_id, now_s):
        raise AnotherCustomers("this session belongs to another customer: check the session's id, or begin a new one")
