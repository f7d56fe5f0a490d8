"""The epoch item: the generation of the context cache, and which Redis it is kept in.

An epoch's number stands in every key of the cache, so raising it empties the cache for everybody at once. It is raised
when the primary of Redis is another one than before (rule R6 of the context protocol), and by a worker that could not
send its invalidations (section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.errors import Corrupt
from mangacache.store.transport import ConditionFailed

if TYPE_CHECKING:
    from mangacache.store.requests import Requests
    from mangacache.store.values import Typed

PARTITION: Final = "CACHE#"
_SORT: Final = "EPOCH"


class EpochRecord(msgspec.Struct, frozen=True):
    """The epoch item as read.

    Attributes:
        epoch: from 1 on.
        identity: of Redis's primary, or in a cluster of each with its slots; empty while no worker has met one.
        settled: whether nobody can rely on the epoch before this one any more.
    """

    epoch: int
    identity: str = ""
    settled: bool = False


class Epochs:
    """Reads and raises the epoch of one cache."""

    def __init__(self, requests: Requests, *, table_name: str, key_prefix: str) -> None:
        self._requests = requests
        self._partition = PARTITION + key_prefix
        self._where = {
            "TableName": table_name,
            "Key": {"PK": {"S": self._partition}, "SK": {"S": _SORT}},
        }

    async def read(self) -> EpochRecord:
        """Return the item, read strongly; made where there is none. Nobody relies on what was before the first.

        Raises:
            Corrupt: somebody else has written it.
        """
        while True:
            answer = await self._requests.send("GetItem", {**self._where, "ConsistentRead": True})
            if item := answer.body.get("Item"):
                return self._record(item)
            await self._update(
                "SET epoch = :new, #identity = :identity, settled = :yes",
                "attribute_not_exists(PK)",
                {":new": {"N": "1"}, ":identity": {"S": ""}, ":yes": {"BOOL": True}},
            )

    def _record(self, item: Typed) -> EpochRecord:
        try:
            return EpochRecord(int(item["epoch"]["N"]), item["identity"]["S"], "settled" in item)
        except (KeyError, ValueError) as error:
            raise Corrupt(
                f"the cache's epoch item, PK {self._partition!r} SK {_SORT!r}, is not as this package writes it: "
                "delete it, and the workers make it anew"
            ) from error

    async def name(self, identity: str, *, epoch: int, before: str = "") -> None:
        """Note a primary where none was met before it, without raising the epoch, unless somebody else has noted one.

        Args:
            identity: what is to be noted, the others in a cluster along with it.
            epoch: under which it was met.
            before: what stands there.
        """
        await self._update(
            "SET #identity = :identity",
            "epoch = :epoch AND #identity = :before",
            {":identity": {"S": identity}, ":before": {"S": before}, ":epoch": {"N": str(epoch)}},
        )

    async def raise_(self, epoch: int, *, identity: str, to: int | None = None) -> None:
        """Raise the epoch by one or as far as `to`, unless somebody else has; read it again to see where it is."""
        new = to if to is not None else epoch + 1
        await self._update(
            "SET epoch = :new, #identity = :identity REMOVE settled",
            "epoch = :epoch",
            {":new": {"N": str(new)}, ":identity": {"S": identity}, ":epoch": {"N": str(epoch)}},
        )

    async def settle(self, epoch: int) -> None:
        """Note that nobody can rely on the epoch before this one any more, where it still is this one."""
        await self._update(
            "SET settled = :yes", "epoch = :epoch", {":yes": {"BOOL": True}, ":epoch": {"N": str(epoch)}}, named=False
        )

    async def _update(self, update: str, condition: str, values: dict[str, Any], *, named: bool = True) -> None:
        names = {"ExpressionAttributeNames": {"#identity": "identity"}} if named else {}
        try:
            await self._requests.send(
                "UpdateItem",
                {
                    **self._where,
                    "UpdateExpression": update,
                    "ConditionExpression": condition,
                    "ExpressionAttributeValues": values,
                    **names,
                },
            )
        except ConditionFailed:
            return  # somebody else was first, or our own first try was: reading it again tells
