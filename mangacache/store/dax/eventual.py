"""Contexts for EVENTUAL readers, as old as DAX's caches may be and no older than the reader allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Corrupt
from mangacache.model import WINDOW
from mangacache.store import keys
from mangacache.store.append import is_anothers
from mangacache.store.items import read_meta, read_summary
from mangacache.store.snapshot import Reread, interpreted, joined
from mangacache.tasks import both

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.model import Version
    from mangacache.store.dax.reading import DaxReads
    from mangacache.store.snapshot import Snapshot

SLACK_S: Final = 2.0
"""What an entry may be older than the TTL: it comes to a replica up to a second late and is young there again, and it
was read a moment before it was kept, itself eventually consistent."""


class Eventual:
    """Reads META and the newest turns through DAX.

    Args:
        reads: through DAX.
        ttl_s: the larger of the cluster's two times to live.
        clock: by whose wall clock items expire.
    """

    def __init__(self, reads: DaxReads, *, ttl_s: float, clock: Clock) -> None:
        self._reads = reads
        self._least_age_s = ttl_s + SLACK_S
        self._clock = clock

    async def read(
        self,
        session_id: str,
        *,
        max_age_s: float,
        known: Snapshot | None,
        at_least: Version | None,
        customer_id: str | None,
    ) -> Snapshot | None:
        """Return what the session was at most `max_age_s` ago; None where DAX cannot tell, and DynamoDB must.

        Only a session that is plainly there is answered: what is absent, ended, expired, half adopted, somebody
        else's, or in two parts that do not fit, is not.

        Args:
            session_id: whose context.
            max_age_s: how old the answer may be.
            known: what memory holds; the answer is not older than that in any part, and never kept there.
            at_least: the reader's token.
            customer_id: whose session it must be.
        """
        if max_age_s < self._least_age_s or not self._reads.door.ready():
            return None
        try:
            read = await self._read(session_id)
        except (Reread, Corrupt):
            read = None
        now_s = self._clock.time_s()
        if read is None or read.foreign:
            self._reads.door.missed()
            return None
        answer = joined(known, read, grew_after_sent=True) if known is not None and not known.foreign else read
        if answer.must_begin(now_s) or is_anothers(answer.meta, customer_id, now_s):
            return None
        if at_least is not None and not answer.version.covers(at_least):
            self._reads.door.refused_as_stale()
            return None
        return answer

    async def _read(self, session_id: str) -> Snapshot | None:
        item, items = await both(self._reads.item(session_id, keys.META), self._reads.newest(session_id, WINDOW))
        if item is None or not items:
            return None
        meta = read_meta(item)
        snapshot = interpreted(meta, items, in_order=False)
        if meta.adopting or not snapshot.turns or meta.incarnation is None or not meta.summary_upto:
            return None if meta.adopting or not snapshot.turns else snapshot
        summary = await self._reads.item(session_id, keys.summary_key(meta.incarnation, meta.summary_upto))
        return msgspec.structs.replace(snapshot, summary=read_summary(summary)) if summary else None
