"""Writes: each effect of a decision as one request."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Transient
from mangacache.store import keys
from mangacache.store.effects import Begin, Bury, Change, Done, Draft, Put, Refused, Touch
from mangacache.store.items import expires_at, is_seal, key, meta_item, seal_item, summary_item, turn_item
from mangacache.store.transport import ConditionFailed, TransactionCanceled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mangacache.clock import Clock
    from mangacache.store.dax.door import DaxDoor
    from mangacache.store.dax.forgetting import Forgetting
    from mangacache.store.items import MetaRecord
    from mangacache.store.loading import Loader
    from mangacache.store.requests import Requests
    from mangacache.store.values import Typed

_FREE: Final = "attribute_not_exists(PK)"
_BATCH: Final = 25
_MAX_BATCH_TRIES: Final = 12
_TOKEN_LENGTH: Final = 36  # the most that a ClientRequestToken may have
SEAL_S: Final = 3_600
_SAME_META: Final = "incarnation = :incarnation AND revision = :revision"


class Writer:
    """Sends the writes of decisions, and says how each went.

    Args:
        requests: to DynamoDB.
        loader: strong reads.
        table_name: that is written.
        clock: waits between tries of a batch.
        compress_from_bytes: from which size on content is deflated.
        forgetting: tells DAX what was deleted, where there is DAX.
        puts: through which single turns are put, where they are.
    """

    def __init__(
        self,
        requests: Requests,
        loader: Loader,
        table_name: str,
        *,
        clock: Clock,
        compress_from_bytes: int,
        forgetting: Forgetting | None = None,
        puts: DaxDoor | None = None,
    ) -> None:
        self._requests = requests
        self._loader = loader
        self._table_name = table_name
        self._clock = clock
        self._compress_from_bytes = compress_from_bytes
        self._forgetting = forgetting
        self._puts = puts

    async def put(self, session_id: str, effect: Put) -> Done | Refused:
        """Store turns under numbers that must be free: one by a put, several by a transaction."""
        items = [self._turn_item(session_id, effect.incarnation, draft) for draft in effect.drafts]
        if len(items) > 1:
            return await self._transact(
                [self._put_if_free(item) for item in items],
                token=_token(effect.nonce, effect.incarnation, effect.drafts),
            )
        return await self._put_one(items[0])

    async def _put_one(self, item: Typed) -> Done | Refused:
        """Put a turn; where single turns go through DAX, DynamoDB settles whatever that leaves open."""
        in_doubt = False
        if self._puts is not None:
            through = {"TableName": self._table_name, "Item": item, "ConditionExpression": _FREE}
            done = await self._puts.put(through)
            if done:
                return Done()
            in_doubt = done is None
        return await self._conditional("PutItem", self._put_if_free(item), in_doubt=in_doubt)

    async def begin(self, session_id: str, effect: Begin) -> Done | Refused:
        """Store META and the first turns of a life in one transaction."""
        incarnation = effect.meta.incarnation or 1
        meta_put = {
            **self._put_if_free(meta_item(session_id, effect.meta)),
            **_if_still(effect.previous),
        }
        puts = [self._put_if_free(self._turn_item(session_id, incarnation, draft)) for draft in effect.drafts]
        token = _token(effect.nonce, incarnation, effect.drafts, revision=effect.meta.revision)
        return await self._transact([meta_put, *puts], token=token)

    async def touch(self, session_id: str, effect: Touch) -> Done | Refused:
        """Raise what META says outside its version."""
        return await self._conditional(
            "UpdateItem",
            {
                **self._update(session_id),
                "UpdateExpression": "SET last_number = :number, last_active_at = :at, #ttl = :ttl",
                "ConditionExpression": "incarnation = :incarnation AND revision > :zero AND last_number <= :number",
                "ExpressionAttributeNames": {"#ttl": "ttl"},
                "ExpressionAttributeValues": {
                    ":number": {"N": str(effect.number)},
                    ":at": {"S": effect.last_active_at},
                    ":ttl": {"N": str(effect.expires_at)},
                    ":incarnation": {"N": str(effect.incarnation)},
                    ":zero": {"N": "0"},
                },
            },
        )

    async def change(self, session_id: str, effect: Change) -> Done | Refused:
        """Raise META's revision by one, with what changes; a summary goes into the same transaction."""
        update = {**self._update(session_id), **_change_expression(effect)}
        if effect.summary is None:
            return await self._conditional("UpdateItem", {**update, "ReturnValues": "ALL_NEW"})
        put = self._put_if_free(summary_item(session_id, effect.incarnation, effect.summary))
        return await self._transact([update, put], token=effect.change_id)

    async def bury(self, session_id: str, effect: Bury) -> Done | Refused:
        """Seal a number and make META a tombstone, in one transaction."""
        meta_put = {
            **self._put_if_free(meta_item(session_id, effect.tombstone)),
            **_if_alive(effect.previous, effect.sealed),
        }
        seal_key = keys.turn_key(effect.incarnation, effect.sealed)
        seal = self._put_if_free(seal_item(session_id, seal_key, effect.tombstone.expires_at))
        return await self._transact([meta_put, seal], token=_hashed(effect.nonce, effect.incarnation, effect.sealed))

    async def sweep(self, session_id: str, incarnation: int, *, seal_expires_at: int, retention_s: int) -> bool:
        """Overwrite every turn below `incarnation` by an empty seal and delete its summaries.

        The seals catch a put that is still on its way; they expire after an hour. META keeps `unswept` until all of
        it is done, so that a sweep that is cut off is taken up by the next loader.

        Args:
            session_id: whose turns they are.
            incarnation: the least that is kept.
            seal_expires_at: in an hour, by this worker's clock; if that is behind the clocks of those who stored the
                turns, theirs count.
            retention_s: by which a turn's ttl tells when it was stored.
        """
        high = keys.turn_key(incarnation, 0)
        turns = self._loader.turn_items(session_id, high=high, names=("PK", "SK", "seal", "#ttl"))
        doomed = [item async for item in turns if not is_seal(item)]
        stored_at = max((expires_at(item) for item in doomed), default=0) - retention_s
        until = max(seal_expires_at, stored_at + SEAL_S)
        seals = [{"PutRequest": {"Item": seal_item(session_id, item["SK"]["S"], until)}} for item in doomed]
        high = keys.summary_key(incarnation, 0)
        summaries = self._loader.turn_items(session_id, low=keys.SUMMARY, high=high, names=("PK", "SK"))
        gone = [{"DeleteRequest": {"Key": {"PK": item["PK"], "SK": item["SK"]}}} async for item in summaries]
        await self.batch([*seals, *gone])
        clear = {
            **self._update(session_id),
            "UpdateExpression": "REMOVE unswept",
            "ConditionExpression": "incarnation = :incarnation",
            "ExpressionAttributeValues": {":incarnation": {"N": str(incarnation)}},
        }
        swept = await self._conditional("UpdateItem", clear)
        if self._forgetting is not None:
            await self._forgetting.batch([*seals, *gone])
            await self._forgetting.update(clear)
        return isinstance(swept, Done)

    async def delete_items(self, session_id: str, sort_keys: Iterable[str]) -> None:
        """Delete items of a session."""
        places = list(dict.fromkeys(sort_keys))
        await self.batch([{"DeleteRequest": {"Key": key(session_id, place)}} for place in places])
        if self._forgetting is not None:
            for place in places:  # each of which may be stored again at any moment
                await self._forgetting.absent(session_id, place)

    async def batch(self, writes: Sequence[dict[str, Any]]) -> None:
        """Send unconditional writes, 25 at a time, until DynamoDB has taken each.

        Raises:
            Transient: some were left unprocessed again and again.
        """
        for start in range(0, len(writes), _BATCH):
            left: Any = writes[start : start + _BATCH]
            for tries in range(_MAX_BATCH_TRIES):
                answer = await self._requests.send("BatchWriteItem", {"RequestItems": {self._table_name: left}})
                left = (answer.body.get("UnprocessedItems") or {}).get(self._table_name)
                if not left:
                    break
                await self._clock.sleep(self._requests.pause_s(tries))
            else:
                raise Transient(f"DynamoDB left {len(left)} writes of a batch unprocessed {_MAX_BATCH_TRIES} times")

    async def conditional_update(self, session_id: str, parameters: dict[str, Any]) -> Done | Refused:
        """Send an update of META that is given as expressions."""
        return await self._conditional("UpdateItem", {**self._update(session_id), **parameters})

    async def put_if_free(self, item: Typed) -> Done | Refused:
        """Store an item where none stands."""
        return await self._conditional("PutItem", self._put_if_free(item))

    async def put_item(self, item: Typed) -> None:
        """Store an item, whatever stands there."""
        await self._requests.send("PutItem", {"TableName": self._table_name, "Item": item})

    def _turn_item(self, session_id: str, incarnation: int, draft: Draft) -> Typed:
        return turn_item(
            session_id,
            incarnation,
            draft.turn,
            typed_attributes=draft.typed_attributes,
            compress_from_bytes=self._compress_from_bytes,
        )

    def _put_if_free(self, item: Typed) -> dict[str, Any]:
        return {
            "TableName": self._table_name,
            "Item": item,
            "ConditionExpression": _FREE,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def _update(self, session_id: str) -> dict[str, Any]:
        return {
            "TableName": self._table_name,
            "Key": key(session_id, keys.META),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    async def _conditional(
        self, operation: str, parameters: dict[str, Any], *, in_doubt: bool = False
    ) -> Done | Refused:
        try:
            answer = await self._requests.send(operation, parameters, in_doubt=in_doubt)
        except ConditionFailed as failed:
            return Refused((failed.item,), failed.in_doubt)
        return Done(answer.body.get("Attributes") or {})

    async def _transact(self, operations: list[dict[str, Any]], *, token: str) -> Done | Refused:
        items = [{"Update" if "UpdateExpression" in operation else "Put": operation} for operation in operations]
        try:
            await self._requests.send("TransactWriteItems", {"TransactItems": items, "ClientRequestToken": token})
        except TransactionCanceled as canceled:
            standing = tuple(None if code == "None" else item for code, item in canceled.reasons)
            return Refused(standing, canceled.in_doubt)
        return Done()


def _token(nonce: str, incarnation: int, drafts: Sequence[Draft], *, revision: int = 0) -> str:
    """Return a transaction's request token: the same for a repeated request, another for each number tried."""
    return _hashed(nonce, incarnation, revision, drafts[0].turn.number, *(draft.turn.turn_id for draft in drafts))


def _hashed(*parts: object) -> str:
    return sha256("\0".join(map(str, parts)).encode()).hexdigest()[:_TOKEN_LENGTH]


def _if_still(previous: MetaRecord | None) -> dict[str, Any]:
    """Return the condition that META is still what was read: no touch has renewed its ttl, no claim its fence."""
    if previous is None:
        return {"ConditionExpression": _FREE}
    fence_still, fence = fence_condition(previous.fence)
    return {
        "ConditionExpression": f"{_SAME_META} AND #ttl < :renewed AND {fence_still}",
        "ExpressionAttributeNames": {"#ttl": "ttl"},
        "ExpressionAttributeValues": {
            ":incarnation": {"N": str(previous.incarnation)},
            ":revision": {"N": str(previous.revision)},
            ":renewed": {"N": str(previous.expires_at + 1)},
            **fence,
        },
    }


def _if_alive(previous: MetaRecord | None, sealed: int) -> dict[str, Any]:
    """Return the condition that META is of the same life, its fence too, and reserves no more numbers than were known.

    Any revision but a tombstone's will do: a change of META does not save a session from its delete. Where every turn
    has expired and gone, others count on from META's reserve, past the seal.
    """
    if previous is None:
        return {"ConditionExpression": _FREE}
    fence_still, fence = fence_condition(previous.fence)
    return {
        "ConditionExpression": "incarnation = :incarnation AND revision > :zero AND last_number <= :seen AND "
        + fence_still,
        "ExpressionAttributeValues": {
            **fence,
            ":incarnation": {"N": str(previous.incarnation)},
            ":zero": {"N": "0"},
            ":seen": {"N": str(max(previous.last_number, sealed - 1))},
        },
    }


def fence_condition(fence: int) -> tuple[str, Typed]:
    """Return the condition that META's fence is this, and its values; where nobody has claimed yet there is none."""
    if not fence:
        return "attribute_not_exists(fence)", {}
    return "fence = :fence", {":fence": {"N": str(fence)}}


def _change_expression(effect: Change) -> dict[str, Any]:
    sets = {
        **effect.sets,
        "revision": {"N": str(effect.revision + 1)},
        "change_id": {"S": effect.change_id},
    }
    names = {f"#s{i}": name for i, name in enumerate(sets)}
    expression = "SET " + ", ".join(f"#s{i} = :s{i}" for i in range(len(sets)))
    values = {f":s{i}": value for i, value in enumerate(sets.values())}
    if effect.removes:
        names |= {f"#r{i}": name for i, name in enumerate(effect.removes)}
        expression += " REMOVE " + ", ".join(f"#r{i}" for i in range(len(effect.removes)))
    guard, fence = fence_condition(effect.fence) if effect.fence is not None else ("", {})
    return {
        "UpdateExpression": expression,
        "ConditionExpression": f"{_SAME_META} AND {guard}" if guard else _SAME_META,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values
        | {":incarnation": {"N": str(effect.incarnation)}, ":revision": {"N": str(effect.revision)}}
        | fence,
    }
