"""Strong reads: the window of a session, what follows it, pages of its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.errors import Invalid, Transient
from mangacache.model import WINDOW, History, Turn
from mangacache.store import keys
from mangacache.store.append import check_customer
from mangacache.store.items import is_live, is_seal, key, read_meta, read_summary, read_turn
from mangacache.store.snapshot import Reread, Snapshot, interpreted
from mangacache.tasks import both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.store.dax.pages import PagesByNumber
    from mangacache.store.items import MetaRecord
    from mangacache.store.requests import Requests
    from mangacache.store.values import Typed

MAX_READS: Final = 20
_BEYOND_TURNS: Final = "TURN$"  # the least text above every key that begins with TURN#
MAX_PAGE: Final = 1000


class Loader:
    """Reads sessions from DynamoDB, consistently.

    Args:
        requests: to DynamoDB.
        table_name: that is read.
        pages: pages of histories whose numbers are known, by way of DAX, where there is one.
    """

    def __init__(self, requests: Requests, table_name: str, pages: PagesByNumber | None = None) -> None:
        self._requests = requests
        self._table_name = table_name
        self._pages = pages

    async def meta(self, session_id: str) -> MetaRecord | None:
        """Return META as stored."""
        item = await self._get(session_id, keys.META)
        return read_meta(item) if item else None

    async def load(self, session_id: str) -> Snapshot:
        """Return what DynamoDB holds: META, the newest turns and the summary that META names.

        META and turns are each read consistently, at once; the pair is no snapshot, so where the two do not fit
        they are read again one after the other.
        """
        in_order = False
        for _ in range(MAX_READS):
            if in_order:
                meta = await self.meta(session_id)
                items = await self.newest(session_id)
            else:
                meta, items = await both(self.meta(session_id), self.newest(session_id))
            try:
                snapshot = interpreted(meta, items, in_order=in_order)
            except Reread:
                in_order = True
                continue
            if len(snapshot.turns) < WINDOW and meta is not None and meta.adopting == "deleting":
                snapshot = await self._ours_only(session_id, meta)
            try:
                return await self.with_summary(session_id, snapshot)
            except Reread:
                in_order = True
        raise Transient("the session is being deleted and begun again all the time: it could not be read as a whole")

    async def _ours_only(self, session_id: str, meta: MetaRecord) -> Snapshot:
        """Read the window past the foreign turns that an interrupted `adopt` has yet to delete."""
        items: list[Typed] = []
        async for item in self.turn_items(session_id, forward=False):
            if keys.parse_turn_key(item["SK"]["S"]):
                items.append(item)
            if len(items) == WINDOW:
                break
        return interpreted(meta, items, in_order=True)

    async def with_summary(self, session_id: str, snapshot: Snapshot) -> Snapshot:
        """Return what is known with the summary that its META names.

        Raises:
            Reread: the session was deleted since META was read, and the summary swept.
        """
        meta = snapshot.meta
        item: Typed = {}
        if meta is not None and meta.incarnation is not None and meta.summary_upto:
            item = await self._get(session_id, keys.summary_key(meta.incarnation, meta.summary_upto))
        elif snapshot.foreign:
            found = await self._query(session_id, low=keys.SUMMARY, high="SUMMARY$", forward=False, limit=1)
            item = found["Items"][0] if found["Items"] else {}
        if not item:
            if meta is not None and meta.incarnation is not None and meta.summary_upto:
                now = await self.meta(session_id)
                if now is None or now.incarnation != meta.incarnation:
                    raise Reread
            return snapshot
        return msgspec.structs.replace(snapshot, summary=read_summary(item))

    async def newest(self, session_id: str, count: int = WINDOW) -> list[Typed]:
        """Return the newest `count` items under `TURN#`, newest first, past DynamoDB's 1 MB pages."""
        items: list[Typed] = []
        async for item in self.turn_items(session_id, forward=False, page=count):
            items.append(item)
            if len(items) == count:
                break
        return items

    async def tail(self, session_id: str, known: Snapshot) -> tuple[Snapshot, tuple[Turn, ...]]:
        """Return `known` grown by every turn stored after it, and those turns; all of it anew where a seal stands."""
        incarnation, number = known.version.incarnation, known.version.number
        low, high = keys.turn_key(incarnation, number + 1), keys.turn_key(incarnation, keys.MAX_NUMBER)
        turns: list[Turn] = []
        async for item in self.turn_items(session_id, low=low, high=high):
            if is_seal(item) or keys.parse_turn_key(item["SK"]["S"]) is None:
                return await self.load(session_id), tuple(turns)
            turns.append(read_turn(item))
        return known.grown(turns), tuple(turns)

    async def look_back(
        self, session_id: str, incarnation: int, *, first: int, last: int, turn_ids: frozenset[str]
    ) -> dict[str, int]:
        """Return the numbers under which `turn_ids` stand among the turns `first`..`last`."""
        low, high = keys.turn_key(incarnation, first), keys.turn_key(incarnation, last)
        found: dict[str, int] = {}
        async for item in self.turn_items(session_id, low=low, high=high, names=("SK", "turn_id")):
            turn_id = item.get("turn_id", {}).get("S")
            place = keys.parse_turn_key(item["SK"]["S"])
            if turn_id in turn_ids and place is not None:
                found.setdefault(turn_id, place[1])
        return found

    async def history(
        self,
        session_id: str,
        *,
        before: str | None,
        after: str | None,
        limit: int,
        now_s: float,
        customer_id: str | None = None,
    ) -> History:
        """Return a page of turns; see `Session.history`."""
        if not 1 <= limit <= MAX_PAGE:
            raise Invalid(f"a page of history holds 1 to {MAX_PAGE} turns, not {limit}")
        if before is not None and after is not None:
            raise Invalid("history takes `before` or `after`, not both")
        meta = await self.meta(session_id)
        check_customer(meta, customer_id, now_s)
        if self._pages is not None:
            known = await self._pages.page(session_id, meta, before=before, after=after, limit=limit, now_s=now_s)
            if known is not None:
                return known
        cursor = after if after is not None else before
        low = keys.TURN + (after or "")
        high = keys.TURN + before if before is not None else _BEYOND_TURNS
        page: list[tuple[str, Turn]] = []
        more = False
        async for item in self.turn_items(session_id, low=low, high=high, forward=after is not None, page=limit + 2):
            place = item["SK"]["S"].removeprefix(keys.TURN)
            if place == cursor or not shown(item, meta):
                continue
            turn = read_turn(item)
            if not is_live(turn.expires_at, now_s):
                continue
            if len(page) == limit:
                more = True
                break
            page.append((place, turn))
        if after is None:
            page.reverse()
        # In the direction of reading `more` tells; in the other one there is what the cursor came from.
        older = more if after is None else True
        newer = more if after is not None else before is not None
        return History(
            turns=tuple(turn for _, turn in page),
            older=page[0][0] if page and older else None,
            newer=page[-1][0] if page and newer else None,
        )

    async def turn_items(
        self,
        session_id: str,
        *,
        low: str = keys.TURN,
        high: str = _BEYOND_TURNS,
        forward: bool = True,
        page: int | None = None,
        names: tuple[str, ...] = (),
    ) -> AsyncIterator[Typed]:
        """Iterate over the items from `low` to `high`, past DynamoDB's 1 MB pages."""
        start: Typed | None = None
        while True:
            answer = await self._query(
                session_id, low=low, high=high, forward=forward, limit=page, start=start, names=names
            )
            for item in answer["Items"]:
                yield item
            start = answer.get("LastEvaluatedKey")
            if not start:
                return

    async def _get(self, session_id: str, sort_key: str) -> Typed:
        parameters = {"TableName": self._table_name, "Key": key(session_id, sort_key), "ConsistentRead": True}
        answer = await self._requests.send("GetItem", parameters)
        item: Typed = answer.body.get("Item") or {}
        return item

    async def _query(
        self,
        session_id: str,
        *,
        low: str,
        high: str,
        forward: bool,
        limit: int | None = None,
        start: Typed | None = None,
        names: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "TableName": self._table_name,
            "KeyConditionExpression": "PK = :pk AND SK BETWEEN :low AND :high",
            "ExpressionAttributeValues": {
                ":pk": {"S": keys.partition(session_id)},
                ":low": {"S": low},
                ":high": {"S": high},
            },
            "ScanIndexForward": forward,
            "ConsistentRead": True,
        }
        if limit is not None:
            parameters["Limit"] = limit
        if start is not None:
            parameters["ExclusiveStartKey"] = start
        if names:
            parameters["ProjectionExpression"] = ", ".join(names)
            if "#ttl" in names:
                parameters["ExpressionAttributeNames"] = {"#ttl": "ttl"}
        return (await self._requests.send("Query", parameters)).body


def shown(item: Typed, meta: MetaRecord | None) -> bool:
    """Tell whether an item under `TURN#` is a turn of the session's present life."""
    if is_seal(item):
        return False
    place = keys.parse_turn_key(item["SK"]["S"])
    if meta is None:
        return True
    if place is None:
        return meta.adopting != "deleting"
    if meta.adopting == "copying" and "adopted_from" in item:
        return False
    return meta.incarnation is None or place[0] == meta.incarnation
