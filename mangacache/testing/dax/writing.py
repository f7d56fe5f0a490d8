"""Writes: DynamoDB first, then the item cache; an error leaves the caches as they are."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from mangacache.testing.dynamodb.errors import Refusal
from mangacache.testing.dynamodb.values import copy_item, normalise_item

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mangacache.clock import Clock
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.door import Answer, Ask, Door, Parameters, Steps
    from mangacache.testing.dax.node import Node
    from mangacache.testing.dax.tables import Tables
    from mangacache.testing.dynamodb.values import Item

MOST_UNREAD: Final = 10_000
"""Transactions that may wait to be read back; with more, the oldest are read before the lag is over."""
_REPEATS: Final = 8
"""How often what a batch left undone is sent again on the wire: the real client cannot name it to its caller, as it
forgets the keys of puts that come back."""


class Writes:
    """The writing operations; see `Reads` for the arguments. The query caches never hear of a write."""

    def __init__(self, door: Door, cluster: Cluster, tables: Tables, clock: Clock, *, whole: bool) -> None:
        self._whole = whole
        self._door = door
        self._cluster = cluster
        self._tables = tables
        self._clock = clock
        self._unread: deque[tuple[float, list[tuple[str, Item]]]] = deque()

    def put_item(self, node: Node, parameters: Parameters) -> Steps:
        """Put an item and keep it."""
        answer = yield from self._write(node, "PutItem", parameters)
        table, item = parameters["TableName"], parameters["Item"]
        self._cluster.written(node, self._tables.key_of(table, item), _kept(item))
        return self._own_spelling(answer, table, item)

    def delete_item(self, node: Node, parameters: Parameters) -> Steps:
        """Delete an item and forget what is cached, also that there was none."""
        answer = yield from self._write(node, "DeleteItem", parameters)
        table, key = parameters["TableName"], parameters["Key"]
        self._cluster.written(node, self._tables.key_of(table, key), None)
        return self._own_spelling(answer, table, key)

    def update_item(self, node: Node, parameters: Parameters) -> Steps:
        """Update an item and keep the new one, which DynamoDB gives back; forget it where the caller wants another."""
        returns = parameters.get("ReturnValues", "NONE")
        keeps = returns in ("NONE", "ALL_NEW")
        answer = yield from self._write(
            node, "UpdateItem", {**parameters, "ReturnValues": "ALL_NEW"} if keeps else parameters
        )
        table, key = parameters["TableName"], parameters["Key"]
        self._cluster.written(node, self._tables.key_of(table, key), answer["Attributes"] if keeps else None)
        if returns == "NONE":
            return {name: value for name, value in answer.items() if name != "Attributes"}
        return self._own_spelling(answer, table, key) if returns.startswith("ALL") else answer

    def _write(self, node: Node, operation: str, parameters: Parameters) -> Steps:
        yield from self._door.learn(node, [parameters.get("TableName")])
        return (yield from self._door.ask(node, operation, parameters))

    def _own_spelling(self, answer: Answer, table: str, key: Mapping[str, Any]) -> Answer:
        """Return the answer with the request's key in its attributes, as the client puts it there."""
        if self._whole or "Attributes" not in answer:
            return answer
        attributes = copy_item(answer["Attributes"]) | self._tables.key_attributes(table, key)
        return {**answer, "Attributes": attributes}

    def batch_write_item(self, node: Node, parameters: Parameters) -> Steps:
        """Write a batch and keep what was put; what DynamoDB left undone changes nothing."""
        wanted = parameters.get("RequestItems")
        yield from self._door.learn(node, wanted if isinstance(wanted, dict) else ())
        answer = yield from self._door.ask(node, "BatchWriteItem", parameters)
        repeats = _REPEATS if self._whole else 0
        while repeats and answer["UnprocessedItems"]:
            repeats -= 1
            again = {**parameters, "RequestItems": answer["UnprocessedItems"]}
            answer = yield from self._door.ask(node, "BatchWriteItem", again)
        for table, requests in parameters["RequestItems"].items():
            left = answer["UnprocessedItems"].get(table, ())
            for request in requests:
                if request in left:
                    continue
                put = request["PutRequest"]["Item"] if "PutRequest" in request else None
                place = self._tables.key_of(table, request["DeleteRequest"]["Key"] if put is None else put)
                self._cluster.written(node, place, None if put is None else _kept(put))
        return answer

    def transact_write_items(self, node: Node, parameters: Parameters) -> Steps:
        """Pass a transaction on; the items it names are read in the background."""
        asked = [operation for entry in parameters.get("TransactItems", ()) for operation in entry.values()]
        yield from self._door.learn(node, dict.fromkeys(operation.get("TableName") for operation in asked))
        answer = yield from self._door.ask(node, "TransactWriteItems", parameters)
        keys = [
            (
                operation["TableName"],
                self._tables.key_attributes(operation["TableName"], operation.get("Key") or operation["Item"]),
            )
            for operation in asked
        ]
        self._unread.append((self._clock.monotonic_s(), keys))
        yield from self.read_back(node)
        return answer

    def read_back(self, node: Node) -> Generator[Ask, Answer, None]:
        """Read the items of each transaction that is as old as the replication lag, and keep them.

        With no lag that is before the transaction's reply, else before the first request after the lag. Items that
        cannot be read are forgotten.
        """
        while self._unread and (
            self._unread[0][0] + self._cluster.replication_lag_s <= self._clock.monotonic_s()
            or len(self._unread) > MOST_UNREAD
        ):
            _, keys = self._unread.popleft()
            places = [self._tables.key_of(table, key) for table, key in keys]
            gets = [{"Get": {"TableName": table, "Key": key}} for table, key in keys]
            began = self._cluster.tick()
            try:
                answer = yield from self._door.ask(node, "TransactGetItems", {"TransactItems": gets})
            except (ClientError, BotoCoreError, OSError):
                for place in places:
                    self._cluster.written(node, place, None)
                continue
            for place, response in zip(places, answer["Responses"], strict=True):
                self._cluster.filled(node, place, response.get("Item"), began=began)


def _kept(item: Mapping[str, Any]) -> Item | None:
    """Return a written item as DynamoDB spells it; None, to forget the entry, where only DynamoDB understands it."""
    try:
        return normalise_item(item)
    except (Refusal, ParamValidationError):
        return None
