"""Pages of a history whose turns' numbers are known: by number through DAX, without a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.model import History
from mangacache.store import keys
from mangacache.store.items import is_live, read_turn

if TYPE_CHECKING:
    from mangacache.model import Turn
    from mangacache.store.dax.reading import DaxReads
    from mangacache.store.items import MetaRecord


def numbers_of_page(meta: MetaRecord | None, *, before: str | None, after: str | None, limit: int) -> range | None:
    """Return the numbers that a page and the turn beyond it have; None where they are not known.

    Known are the numbers up to META's last_number: each has been used. What lies above is not asked for in DAX, which
    would keep the answer that there is none.

    Args:
        meta: as DynamoDB has it, read strongly.
        before: the page ends before this place.
        after: the page begins after this place.
        limit: turns a page.
    """
    if meta is None or meta.incarnation is None or meta.revision == 0 or meta.adopting:
        return None
    cursor = before if before is not None else after
    if cursor is None:
        return None
    place = keys.parse_turn_key(keys.TURN + cursor) if cursor else (meta.incarnation, 0)
    if place is None or place[0] != meta.incarnation:
        return None
    if before is not None:
        numbers = range(max(1, place[1] - 1 - limit), place[1])
    else:
        numbers = range(place[1] + 1, place[1] + limit + 2)
    return numbers if numbers and numbers[-1] <= meta.last_number else None


class PagesByNumber:
    """Reads pages through DAX.

    Args:
        reads: through DAX.
    """

    def __init__(self, reads: DaxReads) -> None:
        self._reads = reads

    async def page(
        self,
        session_id: str,
        meta: MetaRecord | None,
        *,
        before: str | None,
        after: str | None,
        limit: int,
        now_s: float,
    ) -> History | None:
        """Return the page, as DynamoDB would have it; None where a query must tell.

        Where a turn is missing here, or has expired, the page goes on beyond what was asked for: the query knows.
        """
        numbers = numbers_of_page(meta, before=before, after=after, limit=limit)
        if numbers is None or meta is None or meta.incarnation is None or not self._reads.door.ready():
            return None
        items = await self._reads.turns(session_id, meta.incarnation, numbers)
        if len(items) < len(numbers):
            return None
        turns = [read_turn(items[number]) for number in numbers]
        if not all(is_live(turn.expires_at, now_s) for turn in turns):
            return None
        more = len(turns) > limit
        shown = turns if not more else turns[1:] if before is not None else turns[:-1]
        return History(
            turns=tuple(shown),
            older=_place(meta.incarnation, shown[0]) if more or before is None else None,
            newer=_place(meta.incarnation, shown[-1]) if more or before is not None else None,
        )


def _place(incarnation: int, turn: Turn) -> str:
    return keys.turn_key(incarnation, turn.number).removeprefix(keys.TURN)
