"""The window of a session for a reader: read strongly, or only its newest turns and the others by number (R4).

META and the newest turns tell the version, so they are read strongly. The turns below them have numbers then, and what
stands under a number does not change: they may come from DAX. What DAX does not have is read strongly; where a number
is missing there too, the turn has expired and gone, and the whole window is read as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.model import WINDOW
from mangacache.store import keys
from mangacache.store.items import is_seal, read_turn
from mangacache.store.snapshot import Reread, Snapshot, interpreted
from mangacache.tasks import both

if TYPE_CHECKING:
    from mangacache.store.dax.reading import DaxReads
    from mangacache.store.loading import Loader
    from mangacache.store.values import Typed

NEWEST: Final = 8
"""Turns that are read strongly: as many short ones cost the one read unit that the newest alone would, and turns that
few readers have seen yet are the ones that DAX does not have."""


class Loaded(msgspec.Struct, frozen=True):
    """A session as it was read; `source` is `dax` where a part of its turns came from there."""

    snapshot: Snapshot
    source: str


class Windows:
    """Reads sessions for readers, at the version that DynamoDB has.

    Args:
        loader: strong reads.
        reads: through DAX; None where every read goes to DynamoDB.
    """

    def __init__(self, loader: Loader, reads: DaxReads | None) -> None:
        self._loader = loader
        self._reads = reads

    async def load(self, session_id: str) -> Loaded:
        """Return what `Loader.load` would, in the cheaper way of the two."""
        if self._reads is not None and self._reads.door.ready():
            loaded = await self._by_number(session_id, self._reads)
            if loaded is not None:
                return loaded
        return Loaded(await self._loader.load(session_id), "dynamodb")

    async def _by_number(self, session_id: str, reads: DaxReads) -> Loaded | None:
        meta, items = await both(self._loader.meta(session_id), self._loader.newest(session_id, NEWEST))
        try:
            snapshot = interpreted(meta, items, in_order=False)
        except Reread:
            return None
        if snapshot.foreign or meta is None or meta.adopting:
            return None
        missing = numbers_below(snapshot, len(items))
        if missing is None:
            return None
        source = "dynamodb"
        if missing:
            found = await reads.turns(session_id, snapshot.version.incarnation, missing)
            source = "dax" if found else source
            absent = [number for number in missing if number not in found]
            if absent:
                reads.door.missed()
                found |= await self._strongly(session_id, snapshot.version.incarnation, absent)
            if len(found) < len(missing):
                return None
            older = tuple(read_turn(found[number]) for number in missing)
            snapshot = msgspec.structs.replace(snapshot, turns=older + snapshot.turns)
        try:
            return Loaded(await self._loader.with_summary(session_id, snapshot), source)
        except Reread:
            return None

    async def _strongly(self, session_id: str, incarnation: int, numbers: list[int]) -> dict[int, Typed]:
        low, high = (keys.turn_key(incarnation, number) for number in (numbers[0], numbers[-1]))
        found: dict[int, Typed] = {}
        async for item in self._loader.turn_items(session_id, low=low, high=high):
            place = keys.parse_turn_key(item["SK"]["S"])
            if place is not None and not is_seal(item):
                found[place[1]] = item
        return {number: found[number] for number in numbers if number in found}


def numbers_below(snapshot: Snapshot, read: int) -> range | None:
    """Return the numbers of the window that were not read; None where they cannot be told from what was.

    Args:
        snapshot: what META and the newest items amount to.
        read: how many items were read, at most `NEWEST`.
    """
    turns, last = snapshot.turns, snapshot.version.number
    if read < NEWEST:
        return range(0)  # there is nothing more
    if len(turns) < NEWEST or turns[-1].number != last or turns[0].number != last - NEWEST + 1:
        return None  # seals, another life's turns, or a hole
    return range(max(1, last - WINDOW + 1), turns[0].number)
