"""The fence of a session's lock: a number in META that each claim raises, and that guarded writes name.

A lock that lives by time proves nothing: its holder may be paused, for as long as one likes, between looking at the
clock and writing. So whoever takes the lock raises `fence` by a conditional update, and each write that is to be done
under the lock carries the number in its own condition; an earlier holder's is refused by DynamoDB. (M. Kleppmann, How
to do distributed locking, 2016.)

The fence is outside the version: a claim changes nothing that a reader of the session sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.errors import Conflict, Invalid
from mangacache.store.effects import Done
from mangacache.store.items import MetaRecord, meta_item, read_meta
from mangacache.store.writing import fence_condition

if TYPE_CHECKING:
    from mangacache.store.effects import Refused, Stamp
    from mangacache.store.loading import Loader
    from mangacache.store.writing import Writer


class Unclaimed(msgspec.Struct, frozen=True):
    """What a claim builds on: META as read strongly, or where the life of a session stands that has none.

    Attributes:
        meta: as stored, expired and tombstones included; None where there is none.
        fresh: what a claim stores where there is no META: a tombstone, upon which the first append begins.
    """

    meta: MetaRecord | None
    fresh: MetaRecord

    @property
    def fence(self) -> int:
        """The fence now, 0 where nobody has claimed yet."""
        return self.meta.fence if self.meta is not None else 0


class Fences:
    """Claims of the locks of one table's sessions."""

    def __init__(self, loader: Loader, writer: Writer) -> None:
        self._loader = loader
        self._writer = writer

    async def read(self, session_id: str) -> Unclaimed:
        """Return what a claim builds on.

        Raises:
            Conflict: the session is foreign: its META is not ours to write.
        """
        meta = await self._loader.meta(session_id)
        if meta is not None and meta.incarnation is not None:
            return Unclaimed(meta, MetaRecord())
        known = await self._loader.load(session_id)
        if known.foreign:
            raise Conflict("this session was written by somebody else: call `adopt()` on it before you lock it")
        version = known.version  # its turns may still be there when META has expired and gone
        return Unclaimed(
            known.meta,
            MetaRecord(incarnation=version.incarnation or 1, status="deleted", last_number=version.number),
        )

    async def current(self, session_id: str) -> tuple[int, str]:
        """Return the fence now and the id of the claim that raised it, read strongly."""
        meta = await self._loader.meta(session_id)
        return (meta.fence, meta.claim) if meta is not None else (0, "")

    async def claim(self, session_id: str, found: Unclaimed, *, claim_id: str, stamp: Stamp) -> int | None:
        """Raise the fence by one, if it still is what was read.

        Args:
            session_id: whose lock.
            found: what `read` returned.
            claim_id: random, and this try's own: where an answer is lost, it tells who has raised the fence.
            stamp: of now.

        Returns:
            The fence of this claim; None where somebody else was faster.

        Raises:
            Transient: no definite answer: the fence may have been raised, for nobody.
        """
        if found.meta is None:
            new = msgspec.structs.replace(found.fresh, fence=1, claim=claim_id, expires_at=stamp.meta_expires_at)
            outcome = await self._writer.put_if_free(meta_item(session_id, new))
        else:
            outcome = await self._raise(session_id, found.meta, claim_id, stamp)
        if isinstance(outcome, Done):
            return found.fence + 1
        return _ours(outcome, claim_id)

    async def _raise(self, session_id: str, meta: MetaRecord, claim_id: str, stamp: Stamp) -> Done | Refused:
        fence_still, values = fence_condition(meta.fence)
        update = "SET fence = :next, fence_claim = :claim"
        condition = f"incarnation = :incarnation AND {fence_still}"
        values |= {
            ":next": {"N": str(meta.fence + 1)},
            ":claim": {"S": claim_id},
            ":incarnation": {"N": str(meta.incarnation)},
        }
        names: dict[str, Any] = {}
        if meta.revision == 0:  # a tombstone that a lock hangs on stays as long as one made now
            update += ", #ttl = :ttl"
            condition += " AND revision = :none"
            values |= {":ttl": {"N": str(max(stamp.meta_expires_at, meta.expires_at))}, ":none": {"N": "0"}}
            names["ExpressionAttributeNames"] = {"#ttl": "ttl"}
        expressions = {"UpdateExpression": update, "ConditionExpression": condition}
        return await self._writer.conditional_update(
            session_id, {**expressions, "ExpressionAttributeValues": values, **names}
        )


def _ours(refused: Refused, claim_id: str) -> int | None:
    standing = read_meta(refused.items[0]) if refused.items[0] else None
    return standing.fence if standing is not None and standing.claim == claim_id else None


def checked_fence(fence: int | None) -> int | None:
    """Return a fence that a guarded write names, or None where it is not guarded.

    Raises:
        Invalid: it can be no lock's.
    """
    if fence is not None and (type(fence) is not int or fence < 1):
        raise Invalid(f"`fence` is `held.fence` of a lock, a whole number from 1 on, not {fence!r}")
    return fence
