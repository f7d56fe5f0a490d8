"""Reads: from an entry, or from DynamoDB and into one; consistent ones past both caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.testing.dax.batches import BatchGet
from mangacache.testing.dax.requests import copy_answer, frozen
from mangacache.testing.dynamodb.paths import project
from mangacache.testing.dynamodb.request import Request
from mangacache.testing.dynamodb.values import copy_item

if TYPE_CHECKING:
    from collections.abc import Generator

    from mangacache.clock import Clock
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.door import Answer, Ask, Door, Parameters, Steps
    from mangacache.testing.dax.node import Node
    from mangacache.testing.dax.tables import Tables
    from mangacache.testing.dynamodb.values import Item


class Reads:
    """The reading operations.

    Misses are not joined: two at once ask DynamoDB twice. A projected GetItem reads the whole item and keeps it.

    Args:
        door: to DynamoDB.
        cluster: whose caches are filled.
        tables: what is known of tables.
        clock: what time is read from.
    """

    def __init__(self, door: Door, cluster: Cluster, tables: Tables, clock: Clock) -> None:
        self._door = door
        self._cluster = cluster
        self._tables = tables
        self._clock = clock

    def get_item(self, node: Node, parameters: Parameters) -> Steps:
        """Answer a GetItem."""
        if parameters.get("ConsistentRead"):
            answer = yield from self._door.ask(node, "GetItem", parameters)
            item, projection = answer.get("Item"), parameters.get("ProjectionExpression")
            if item is None or projection is not None:
                return answer
        else:
            yield from self._door.learn(node, [parameters.get("TableName")])
            self._tables.check("GetItem", parameters)
            item = yield from self._cached(node, parameters["TableName"], parameters["Key"])
            if item is None:
                return {}
            wanted = Request(parameters).projection()
            if wanted is not None:
                return {"Item": project(item, wanted.tree)}
        # The client puts the key that was asked for into the item, so the caller's numbers keep their spelling.
        return {"Item": copy_item(item) | {name: dict(value) for name, value in parameters["Key"].items()}}

    def _cached(self, node: Node, table: str, key: Item) -> Generator[Ask, Answer, Item | None]:
        place = self._tables.key_of(table, key)
        entry = node.items.get(place, self._clock.monotonic_s())
        if entry is not None:
            return entry.value
        began = self._cluster.tick()
        answer = yield from self._door.ask(node, "GetItem", {"TableName": table, "Key": key})
        item: Item | None = answer.get("Item")
        self._cluster.filled(node, place, item, began=began)
        return item

    def batch_get_item(self, node: Node, parameters: Parameters) -> Steps:
        """Answer a BatchGetItem."""
        wanted = parameters.get("RequestItems")
        yield from self._door.learn(node, wanted if isinstance(wanted, dict) else ())
        self._tables.check("BatchGetItem", parameters)
        batch = BatchGet(parameters["RequestItems"], self._tables, node.items, self._clock.monotonic_s())
        answer: Answer = {}
        if batch.missed:
            began = self._cluster.tick()
            answer = yield from self._door.ask(node, "BatchGetItem", {"RequestItems": batch.missed})
            for place, item in batch.read(answer):
                self._cluster.filled(node, place, item, began=began)
        return batch.reply(answer)

    def query(self, node: Node, parameters: Parameters) -> Steps:
        """Answer a Query."""
        return (yield from self._many(node, "Query", parameters))

    def scan(self, node: Node, parameters: Parameters) -> Steps:
        """Answer a Scan."""
        return (yield from self._many(node, "Scan", parameters))

    def _many(self, node: Node, operation: str, parameters: Parameters) -> Steps:
        """Answer from the node's query cache, which other nodes do not share and writes do not touch."""
        if parameters.get("ConsistentRead"):
            return (yield from self._door.ask(node, operation, parameters))
        request = (operation, frozen(parameters))
        entry = node.queries.get(request, self._clock.monotonic_s())
        if entry is not None:
            return copy_answer(entry.value)
        answer = yield from self._door.ask(node, operation, parameters)
        node.store_answer(request, copy_answer(answer), self._clock.monotonic_s())
        return answer

    def transact_get_items(self, node: Node, parameters: Parameters) -> Steps:
        """Pass a TransactGetItems on; neither cache is asked or filled."""
        return (yield from self._door.ask(node, "TransactGetItems", parameters))
