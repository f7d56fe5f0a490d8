"""The decision behind changes of META: free attributes, status, summaries.

Each compares and raises `revision` and leaves a random `change_id`. When an answer was lost and the revision has
moved, our own `change_id` means that it was done; another one means that the outcome cannot be known any more,
and the caller is told so instead of a second, blind try.

A change that is made under a lock carries the lock's fence, which stands in the condition of the write itself: a
holder that was paused past its lease is refused by DynamoDB, however sure it is of its lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import msgspec

from mangacache.errors import Conflict, Invalid, NotFound
from mangacache.model import Summary, Updated, Version
from mangacache.store.append import check_customer, is_anothers
from mangacache.store.effects import Change, Done, Load, Refused, Stamp, Steps
from mangacache.store.items import MetaRecord, read_meta

if TYPE_CHECKING:
    from mangacache.store.snapshot import Snapshot
    from mangacache.store.values import Typed

MAX_TRIES: Final = 64


class RevisionMoved(Conflict):
    """META is at another revision than the change insists on; nothing was changed."""


class Update:
    """One change of META, under way.

    Args:
        sets: attributes to set, typed.
        removes: names of free attributes to remove.
        summary_text: a summary to store with the change.
        upto: the turn that the summary reaches; None is the newest.
        if_version: change only META of exactly this version's incarnation and revision.
        fence: of the lock under which the change is made.
        customer_id: whose session it must be, where both are known.
    """

    def __init__(
        self,
        *,
        stamp: Stamp,
        change_id: str,
        sets: Typed | None = None,
        removes: tuple[str, ...] = (),
        summary_text: str | None = None,
        upto: int | None = None,
        if_version: Version | None = None,
        fence: int | None = None,
        customer_id: str | None = None,
    ) -> None:
        self._stamp = stamp
        self._change_id = change_id
        self._sets = sets or {}
        self._removes = removes
        self._summary_text = summary_text
        self._upto = upto
        self._if_version = if_version
        self._fence = fence
        self._customer_id = customer_id

    def steps(self, known: Snapshot | None) -> Steps[tuple[Updated, Snapshot]]:
        """Return the result and what is known then.

        Raises:
            NotFound: there is no live session.
            Conflict: foreign, another customer's, changed since `if_version`, made under a lock that another holds by
                now, or the outcome is unknown.
            Invalid: a summary beyond the last turn.
        """
        fresh = known is None
        known = known if known is not None else cast("Snapshot", (yield Load()))
        for _ in range(MAX_TRIES):
            if not fresh and self._should_look_again(known):
                known = cast("Snapshot", (yield Load()))
            meta = self._checked(known)
            summary = self._summary(known, meta)
            outcome = yield self._change(known.version, summary)
            if isinstance(outcome, Done):
                return self._result(known, read_meta(outcome.item) if outcome.item else None, summary)
            refused = cast("Refused", outcome)
            if refused.items[0] is None:
                raise Conflict("a summary up to this turn is stored already: a summary is never overwritten")
            standing = read_meta(refused.items[0]) if refused.items[0] else None
            if standing is not None and standing.change_id == self._change_id:
                return self._result(known, standing, summary)
            self._check_fence(standing, known, in_doubt=refused.in_doubt)
            if refused.in_doubt:
                raise Conflict(
                    "the answer to this change was lost, and META has been changed again since: "
                    "whether the change was made is unknown. Load the session and decide anew"
                )
            known, fresh = cast("Snapshot", (yield Load())), True
        raise Conflict(f"META was changed by others {MAX_TRIES} times in a row: load the session and decide anew")

    def _check_fence(self, standing: MetaRecord | None, known: Snapshot, *, in_doubt: bool) -> None:
        """Refuse what is made under a lock that was claimed anew, where no try of it can have been carried out.

        Raises:
            Conflict: the fence has been raised.
        """
        fence = standing.fence if standing is not None else 0
        if self._fence is None or fence == self._fence:
            return
        moved = standing is None or (standing.incarnation, standing.revision) != (
            known.version.incarnation,
            known.version.revision,
        )
        if not (in_doubt and moved):
            raise Conflict(
                f"the lock under which this change was to be made (fence {self._fence}) is lost: the session's fence "
                f"is {fence} by a later claim or a delete. Nothing was changed"
            )

    def _should_look_again(self, known: Snapshot) -> bool:
        expected = self._if_version
        return (
            known.must_begin(self._stamp.now_s)
            or is_anothers(known.meta, self._customer_id, self._stamp.now_s)
            or (
                expected is not None
                and (known.version.incarnation, known.version.revision) != (expected.incarnation, expected.revision)
            )
            or (self._upto is not None and self._upto > known.version.number)
        )

    def _checked(self, known: Snapshot) -> MetaRecord:
        if known.foreign:
            raise Conflict("this session was written by somebody else: call `adopt()` on it first")
        if known.meta is None or known.must_begin(self._stamp.now_s):
            raise NotFound("there is no such session to change: it begins with its first append")
        check_customer(known.meta, self._customer_id, self._stamp.now_s)
        expected, version = self._if_version, known.version
        if expected is not None and (expected.incarnation, expected.revision) != (
            version.incarnation,
            version.revision,
        ):
            raise RevisionMoved(
                f"META is at {version}, not at the expected {expected}: load the session and decide anew"
            )
        return known.meta

    def _summary(self, known: Snapshot, meta: MetaRecord) -> Summary | None:
        if self._summary_text is None:
            return None
        upto = known.version.number if self._upto is None else self._upto
        if not 1 <= upto <= known.version.number:
            raise Invalid(f"a summary reaches turn 1 to {known.version.number} of this session, not {upto}")
        if upto <= meta.summary_upto:
            raise Conflict(f"a summary up to turn {meta.summary_upto} is stored: a summary never goes backwards")
        return Summary(upto, self._summary_text, self._stamp.at, self._stamp.turn_expires_at)

    def _change(self, version: Version, summary: Summary | None) -> Change:
        sets = {**self._sets, "ttl": {"N": str(self._stamp.meta_expires_at)}}
        if summary is not None:
            sets["summary_upto"] = {"N": str(summary.upto)}
        return Change(
            version.incarnation, version.revision, self._change_id, sets, self._removes, summary, fence=self._fence
        )

    def _result(self, known: Snapshot, after: MetaRecord | None, summary: Summary | None) -> tuple[Updated, Snapshot]:
        meta = after if after is not None else cast("MetaRecord", known.meta)
        if after is None:  # a transaction answers without the item
            meta = msgspec.structs.replace(
                meta,
                revision=meta.revision + 1,
                change_id=self._change_id,
                summary_upto=summary.upto if summary else meta.summary_upto,
                expires_at=self._stamp.meta_expires_at,
            )
        now = known.with_meta(meta)
        if summary is not None:
            now = msgspec.structs.replace(now, summary=summary)
        newest = now.turns[-1] if now.turns else None
        return Updated(now.version, meta.public(now.version, newest)), now
