"""Taking over sessions that somebody else wrote in the same layout: `adopt`, and erasing them.

Adoption copies each foreign turn under the next free number, then makes META ours, then deletes the originals.
META's `adopting` tells every reader which of the two to show, so no turn is ever seen twice or not at all; and each
step can be repeated, so an `adopt` that was cut off is finished by calling it again. Other writers must have stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.errors import Transient
from mangacache.model import MAX_ID_BYTES
from mangacache.store import keys
from mangacache.store.effects import Done, Stamp
from mangacache.store.items import is_seal, key, read_summary, summary_item

if TYPE_CHECKING:
    from mangacache.store.items import MetaRecord
    from mangacache.store.loading import Loader
    from mangacache.store.values import Typed
    from mangacache.store.writing import Writer

MAX_ROUNDS: Final = 256


class Adoption:
    """Makes foreign sessions ours, or erases them."""

    def __init__(self, loader: Loader, writer: Writer) -> None:
        self._loader = loader
        self._writer = writer

    async def adopt(self, session_id: str, *, stamp: Stamp) -> int:
        """Renumber a foreign session's turns and make it ours.

        Returns:
            How many turns were taken over by this call; 0 where the session was ours already.

        Raises:
            Transient: somebody else kept writing.
        """
        taken = 0
        for _ in range(MAX_ROUNDS):
            meta = await self._loader.meta(session_id)
            items = [item async for item in self._loader.turn_items(session_id)]
            aliens = [item for item in items if keys.parse_turn_key(item["SK"]["S"]) is None]
            adopting = meta.adopting if meta is not None else ""
            if adopting == "deleting":
                await self._finish(session_id, aliens)
                return taken
            if not aliens and (meta is None or meta.incarnation is not None) and not adopting:
                return taken
            if not adopting:
                await self._announce(session_id, meta)
                continue
            copied = await self._copy(session_id, meta, items, aliens, stamp)
            if copied is None:
                continue
            taken += copied
            await self._take_over(session_id, meta, stamp)
        raise Transient("this session is still being written by others: stop them, then call `adopt()` again")

    async def erase(self, session_id: str) -> bool:
        """Delete what others wrote, and the rest of the session too unless it has a life of ours.

        What has one is left to be deleted as ours: were its META deleted, the next life would use the keys of this one
        again, whose turns DAX and slow writers may still have.

        Returns:
            Whether something is left to be deleted as ours.
        """
        meta = await self._loader.meta(session_id)
        ours = meta is not None and meta.incarnation is not None
        turns = [item["SK"]["S"] async for item in self._loader.turn_items(session_id, names=("PK", "SK"))]
        summaries = [item["SK"]["S"] async for item in self._summaries(session_id)]
        if ours:
            doomed = [place for place in turns if keys.parse_turn_key(place) is None]
            doomed += [place for place in summaries if not keys.is_summary_key(place)]
        else:
            doomed = [*turns, *summaries, keys.META]
        await self._writer.delete_items(session_id, doomed)
        if meta is not None and meta.adopting == "deleting":
            await self._finish(session_id, [])
        return ours

    def _summaries(self, session_id: str) -> Any:
        return self._loader.turn_items(session_id, low=keys.SUMMARY, high="SUMMARY$", names=("PK", "SK"))

    async def _announce(self, session_id: str, meta: MetaRecord | None) -> None:
        ours = meta is not None and meta.incarnation is not None
        condition = "incarnation = :incarnation" if ours else "attribute_not_exists(incarnation)"
        values: Typed = {":state": {"S": "copying"}}
        if meta is not None and ours:
            values[":incarnation"] = {"N": str(meta.incarnation)}
        await self._writer.conditional_update(
            session_id,
            {
                "UpdateExpression": "SET adopting = :state",
                "ConditionExpression": condition + " AND attribute_not_exists(adopting)",
                "ExpressionAttributeValues": values,
            },
        )

    async def _copy(
        self, session_id: str, meta: MetaRecord | None, items: list[Typed], aliens: list[Typed], stamp: Stamp
    ) -> int | None:
        """Copy what has no copy yet; None where somebody took a number meanwhile."""
        incarnation = (meta.incarnation if meta is not None else None) or 1
        own = [
            place[1] for item in items if (place := keys.parse_turn_key(item["SK"]["S"])) and place[0] == incarnation
        ]
        number = max(own, default=meta.last_number if meta is not None and meta.incarnation else 0)
        done = {item["adopted_from"]["S"] for item in items if "adopted_from" in item}
        copied = 0
        for alien in aliens:
            if alien["SK"]["S"] in done or is_seal(alien):
                continue
            number += 1
            outcome = await self._writer.put_if_free(_copy_of(session_id, incarnation, number, alien, stamp))
            if not isinstance(outcome, Done):
                return None
            copied += 1
        return copied

    async def _take_over(self, session_id: str, meta: MetaRecord | None, stamp: Stamp) -> None:
        incarnation = (meta.incarnation if meta is not None else None) or 1
        number = max(
            [
                place[1]
                async for item in self._loader.turn_items(session_id, names=("PK", "SK"))
                if (place := keys.parse_turn_key(item["SK"]["S"])) and place[0] == incarnation
            ],
            default=0,
        )
        sets = {
            "incarnation": {"N": str(incarnation)},
            "revision": {"N": str((meta.revision if meta is not None else 0) + 1)},
            "last_number": {"N": str(number)},
            "adopting": {"S": "deleting"},
            "ttl": {"N": str(stamp.meta_expires_at)},
        }
        upto = await self._take_summary(session_id, meta, incarnation, number, stamp)
        if upto:
            sets["summary_upto"] = {"N": str(upto)}
        names = {f"#s{i}": name for i, name in enumerate(sets)}
        expression = "SET " + ", ".join(f"#s{i} = :s{i}" for i in range(len(sets)))
        kept = {"status": "active", "created_at": stamp.at, "last_active_at": stamp.at}
        for name, default in kept.items():
            names[f"#{name}"] = name
            expression += f", #{name} = if_not_exists(#{name}, :{name})"
            sets[name] = {"S": default}
        values = {f":s{i}": value for i, (name, value) in enumerate(sets.items()) if name not in kept}
        values |= {f":{name}": {"S": default} for name, default in kept.items()}
        await self._writer.conditional_update(
            session_id,
            {
                "UpdateExpression": expression,
                "ConditionExpression": "adopting = :copying",
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": values | {":copying": {"S": "copying"}},
            },
        )

    async def _take_summary(
        self, session_id: str, meta: MetaRecord | None, incarnation: int, number: int, stamp: Stamp
    ) -> int:
        """Keep the newest foreign summary; where it does not say how far it reaches, it reaches the last turn."""
        if meta is not None and meta.summary_upto:
            return 0
        newest: Typed | None = None
        async for item in self._loader.turn_items(session_id, low=keys.SUMMARY, high="SUMMARY$", forward=False, page=1):
            newest = item
            break
        if newest is None or not number:
            return 0
        summary = read_summary(newest)
        upto = summary.upto if 1 <= summary.upto <= number else number
        kept = msgspec.structs.replace(
            summary,
            upto=upto,
            created_at=summary.created_at or stamp.at,
            expires_at=summary.expires_at or stamp.turn_expires_at,
        )
        await self._writer.put_item(summary_item(session_id, incarnation, kept))
        return upto

    async def _finish(self, session_id: str, aliens: list[Typed]) -> None:
        await self._writer.delete_items(session_id, [item["SK"]["S"] for item in aliens])
        await self._writer.conditional_update(
            session_id,
            {
                "UpdateExpression": "REMOVE adopting",
                "ConditionExpression": "adopting = :deleting",
                "ExpressionAttributeValues": {":deleting": {"S": "deleting"}},
            },
        )


def _copy_of(session_id: str, incarnation: int, number: int, alien: Typed, stamp: Stamp) -> Typed:
    turn_id = alien.get("turn_id", {}).get("S") or f"adopted:{alien['SK']['S']}"
    copy = {
        **alien,
        **key(session_id, keys.turn_key(incarnation, number)),
        "turn_id": {"S": turn_id[:MAX_ID_BYTES]},
        "adopted_from": alien["SK"],
    }
    if "N" not in alien.get("ttl", {}):
        copy["ttl"] = {"N": str(stamp.turn_expires_at)}
    return copy
