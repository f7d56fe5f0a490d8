"""What DAX can answer without being wrong: what never changes, by its key, and what may be old and says so.

A turn of a known number is stored once and stays as it is, so its entry in the item cache is never stale; nor is a
summary's. That there is none is another matter: DAX keeps this answer too, and the item may have come since. So what
is absent here is not known, and is read again in DynamoDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.store import keys
from mangacache.store.items import is_seal, key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.store.dax.door import DaxDoor
    from mangacache.store.values import Typed

_BATCH: Final = 100
_BEYOND_TURNS: Final = "TURN$"  # the least text above every key that begins with TURN#


class DaxReads:
    """Reads through DAX; every one may come back with less than was asked for.

    Args:
        door: to DAX.
        table_name: that is read.
    """

    def __init__(self, door: DaxDoor, table_name: str) -> None:
        self.door = door
        self._table_name = table_name

    async def turns(self, session_id: str, incarnation: int, numbers: Iterable[int]) -> dict[int, Typed]:
        """Return the items of turns by their numbers: those that DAX has, and no seals.

        BatchGetItem, not Query: there is no expression for the client to parse, and the answer comes from the item
        cache, which a turn enters once, and not from the query cache, which holds what the list was some time ago.
        """
        wanted = {keys.turn_key(incarnation, number): number for number in numbers}
        places = list(wanted)
        found: dict[int, Typed] = {}
        for first in range(0, len(places), _BATCH):
            asked = [key(session_id, place) for place in places[first : first + _BATCH]]
            answer = await self.door.ask("BatchGetItem", {"RequestItems": {self._table_name: {"Keys": asked}}})
            if answer is None:
                break
            for item in answer["Responses"].get(self._table_name, ()):
                number = wanted.get(item["SK"]["S"])
                if number is not None and not is_seal(item):
                    found[number] = item
        return found

    async def item(self, session_id: str, sort_key: str) -> Typed | None:
        """Return an item by its key; None where it is not to be had here."""
        answer = await self.door.ask("GetItem", {"TableName": self._table_name, "Key": key(session_id, sort_key)})
        item: Typed | None = answer.get("Item") if answer is not None else None
        return item or None

    async def newest(self, session_id: str, count: int) -> list[Typed] | None:
        """Return the newest items under `TURN#` as they were within the query cache's time, newest first."""
        parameters: dict[str, Any] = {
            "TableName": self._table_name,
            "KeyConditionExpression": "PK = :pk AND SK BETWEEN :low AND :high",
            "ExpressionAttributeValues": {
                ":pk": {"S": keys.partition(session_id)},
                ":low": {"S": keys.TURN},
                ":high": {"S": _BEYOND_TURNS},
            },
            "ScanIndexForward": False,
            "Limit": count,
        }
        answer = await self.door.ask("Query", parameters)
        if answer is None or (len(answer["Items"]) < count and answer.get("LastEvaluatedKey")):
            return None
        items: list[Typed] = answer["Items"]
        return items
