"""Reads: from an entry, or from DynamoDB and into one; consistent ones past both caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.testing.dax.batches import BatchGet
from mangacache.testing.dax.requests import copy_answer, frozen, of_whole_attributes, projection_of
from mangacache.testing.dynamodb.paths import project
from mangacache.testing.dynamodb.values import copy_item

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.door import Answer, Door, Parameters, Steps
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
        whole: see `Serving`.
    """

    def __init__(self, door: Door, cluster: Cluster, tables: Tables, clock: Clock, *, whole: bool) -> None:
        self._door = door
        self._cluster = cluster
        self._tables = tables
        self._clock = clock
        self._whole = whole

    def get_item(self, node: Node, parameters: Parameters) -> Steps:
        """Answer a GetItem."""
        if parameters.get("ConsistentRead"):
            answer = yield from self._door.ask(node, "GetItem", self._asked(parameters))
            item: Item | None = answer.get("Item")
            if item is None or self._whole or parameters.get("ProjectionExpression") is not None:
                return answer
        else:
            yield from self._door.learn(node, [parameters.get("TableName")])
            self._tables.check("GetItem", parameters)
            answer = yield from self._cached(node, parameters)
            item = answer.get("Item")
            if item is None or self._whole:
                return answer
            wanted = projection_of(parameters)
            if wanted is not None:
                return {**answer, "Item": project(item, wanted.tree)}
        # The client puts the key that was asked for into the item, so the caller's numbers keep their spelling.
        own = {name: dict(value) for name, value in parameters["Key"].items()}
        return {**answer, "Item": copy_item(item) | own}

    def _cached(self, node: Node, parameters: Parameters) -> Steps:
        """Return the whole item; what was consumed only where DynamoDB was asked."""
        table, key = parameters["TableName"], parameters["Key"]
        place = self._tables.key_of(table, key)
        entry = node.items.get(place, self._clock.monotonic_s())
        if entry is not None:
            return {} if entry.value is None else {"Item": entry.value}
        began = self._cluster.tick()
        answer = yield from self._door.ask(node, "GetItem", {"TableName": table, "Key": key, **_reported(parameters)})
        self._cluster.filled(node, place, answer.get("Item"), began=began)
        return answer

    def _asked(self, parameters: Parameters) -> Parameters:
        return of_whole_attributes(parameters) if self._whole else parameters

    def batch_get_item(self, node: Node, parameters: Parameters) -> Steps:
        """Answer a BatchGetItem."""
        wanted = parameters.get("RequestItems")
        yield from self._door.learn(node, wanted if isinstance(wanted, dict) else ())
        self._tables.check("BatchGetItem", parameters)
        batch = BatchGet(
            parameters["RequestItems"], self._tables, node.items, self._clock.monotonic_s(), whole=self._whole
        )
        answer: Answer = {}
        if batch.missed:
            began = self._cluster.tick()
            asked = {"RequestItems": batch.missed, **_reported(parameters)}
            answer = yield from self._door.ask(node, "BatchGetItem", asked)
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
            return (yield from self._door.ask(node, operation, self._asked(parameters)))
        request = (operation, frozen(parameters))
        entry = node.queries.get(request, self._clock.monotonic_s())
        if entry is not None:
            return entry.value if self._whole else copy_answer(entry.value)
        answer = yield from self._door.ask(node, operation, self._asked(parameters))
        kept = {name: value for name, value in answer.items() if name != "ConsumedCapacity"}
        node.store_answer(request, kept if self._whole else copy_answer(kept), self._clock.monotonic_s())
        return answer

    def transact_get_items(self, node: Node, parameters: Parameters) -> Steps:
        """Pass a TransactGetItems on; neither cache is asked or filled."""
        if self._whole:
            gets = [{"Get": of_whole_attributes(entry["Get"])} for entry in parameters["TransactItems"]]
            parameters = {**parameters, "TransactItems": gets}
        return (yield from self._door.ask(node, "TransactGetItems", parameters))


def _reported(parameters: Parameters) -> Parameters:
    """Return what a request says of the report on what was consumed, for the one that is made of it."""
    wanted = parameters.get("ReturnConsumedCapacity")
    return {} if wanted is None else {"ReturnConsumedCapacity": wanted}
