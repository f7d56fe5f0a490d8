"""Deletes, said to DAX as well: the item cache forgets only what is written through it.

DynamoDB has done each of these writes before, and each can be done again at any later time without harm, so it does
not matter when DAX's copy of it arrives, or whether. Failures are survived: what DAX still holds is then what EVENTUAL
readers may see until it has expired there, and nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.store.items import key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mangacache.store.dax.door import DaxDoor

_ABSENT: Final = "attribute_not_exists(PK)"
_BATCH: Final = 25


class Forgetting:
    """Repeats what deletes have done through DAX.

    Args:
        door: to DAX.
        table_name: that is written.
    """

    def __init__(self, door: DaxDoor, table_name: str) -> None:
        self._door = door
        self._table_name = table_name

    async def batch(self, writes: Sequence[Mapping[str, Any]]) -> None:
        """Repeat unconditional writes of keys of an ended life, which nobody uses again: seals put, and deletes."""
        for first in range(0, len(writes), _BATCH):
            chunk = list(writes[first : first + _BATCH])
            if await self._door.ask("BatchWriteItem", {"RequestItems": {self._table_name: chunk}}) is None:
                return

    async def update(self, parameters: Mapping[str, Any]) -> None:
        """Repeat a conditional update, after which DAX holds the item as it is."""
        through = {name: value for name, value in parameters.items() if name != "ReturnValuesOnConditionCheckFailure"}
        await self._door.ask("UpdateItem", through)

    async def absent(self, session_id: str, sort_key: str) -> None:
        """Have DAX forget an item that was deleted, by a delete of what is not there.

        Its condition makes it harmless: should the item have been stored again meanwhile, this does nothing.
        """
        parameters = {"TableName": self._table_name, "Key": key(session_id, sort_key), "ConditionExpression": _ABSENT}
        await self._door.ask("DeleteItem", parameters)
