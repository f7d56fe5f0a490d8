"""The decision behind a delete: rule R11 of the context protocol.

One transaction seals the number after the last turn, so that an append that was on its way meets the seal, and
turns META into a tombstone of the next incarnation. Only then are the old turns overwritten, at leisure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from mangacache.errors import Invalid, Transient
from mangacache.model import Deleted, Version
from mangacache.store.append import check_customer
from mangacache.store.effects import Bury, Done, Load, Refused, Stamp, Steps, Sweep, Tail
from mangacache.store.items import MetaRecord, is_seal
from mangacache.store.keys import MAX_INCARNATION
from mangacache.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mangacache.model import Turn

MAX_COLLISIONS: Final = 512


class Delete:
    """One delete, under way.

    Args:
        customer_id: whose session it must be, where it is known whose it is.
        only_if_of: leave the session alone, without an error, unless META says that it is this customer's. The
            index by which a customer is forgotten may still name a session that has been begun anew by another.
    """

    def __init__(self, *, stamp: Stamp, customer_id: str | None = None, only_if_of: str | None = None) -> None:
        self._stamp = stamp
        self._customer_id = customer_id
        self._only_if_of = only_if_of

    def steps(self, known: Snapshot | None) -> Steps[tuple[Deleted, Snapshot]]:
        """Return the result and what is known then; a foreign session is left to `adoption.erase`.

        Raises:
            Conflict: the session is another customer's.
            Transient: appends were faster all the time.
        """
        del known  # a delete covers what is stored, whatever this worker knows
        in_doubt = False
        now = cast("Snapshot", (yield Load())).counted(self._stamp.now_s)
        for _ in range(MAX_COLLISIONS):
            check_customer(now.meta, self._customer_id, self._stamp.now_s)
            version = now.version
            if self._spared(now) or (now.meta is None and not now.turns and not now.foreign):
                return Deleted(version, existed=in_doubt, swept=True), now
            if now.has_others:
                return Deleted(version, existed=False, swept=False), now
            if now.meta is not None and now.meta.revision == 0:
                swept = not now.meta.unswept or bool((yield Sweep(version.incarnation)))
                return Deleted(version, existed=in_doubt, swept=swept), now
            tombstone = self._tombstone(now)
            sealed = version.number + 1
            outcome = yield Bury(version.incarnation, sealed, tombstone, now.meta, self._stamp.nonce)
            if isinstance(outcome, Done):
                dead = Snapshot(meta=tombstone, version=Version(version.incarnation + 1, 0, 0))
                swept = bool((yield Sweep(version.incarnation + 1)))
                return Deleted(dead.version, existed=True, swept=swept), dead
            refused = cast("Refused", outcome)
            in_doubt = in_doubt or refused.in_doubt
            meta_standing, standing = refused.items
            if meta_standing is None and standing and not is_seal(standing):
                now, _turns = cast("tuple[Snapshot, tuple[Turn, ...]]", (yield Tail(now)))
            else:
                now = cast("Snapshot", (yield Load())).counted(self._stamp.now_s)
        raise Transient(f"{MAX_COLLISIONS} appends were faster than the delete: nothing was deleted")

    def _spared(self, now: Snapshot) -> bool:
        if self._only_if_of is None or (now.meta is not None and now.meta.revision == 0):
            return False
        return now.meta is None or now.meta.customer_id != self._only_if_of

    def _tombstone(self, now: Snapshot) -> MetaRecord:
        if now.version.incarnation >= MAX_INCARNATION:
            raise Invalid("this session was deleted 9,998 times and its keys are used up: use another session id")
        return MetaRecord(
            incarnation=now.version.incarnation + 1,
            revision=0,
            status="deleted",
            # One more than before: who holds its lock holds nothing of the next life.
            fence=(now.meta.fence if now.meta is not None else 0) + 1,
            # Not before what it replaces: the deleting worker's clock may be behind.
            expires_at=max(self._stamp.meta_expires_at, now.meta.expires_at if now.meta is not None else 0),
            unswept=True,
        )
