"""BatchGetItem: as many GetItems, of which DynamoDB is asked only for those that no entry answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mangacache.testing.dax.requests import of_whole_attributes, projection_of
from mangacache.testing.dynamodb.paths import project
from mangacache.testing.dynamodb.values import Item, copy_item

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mangacache.testing.dax.lru import LruCache
    from mangacache.testing.dax.tables import ItemKey, Tables


class BatchGet:
    """One BatchGetItem while it is answered.

    Args:
        wanted: RequestItems, checked.
        tables: that know its keys.
        cache: of the node that serves.
        now_s: the moment.
        whole: see `Serving`.

    Attributes:
        missed: RequestItems for DynamoDB; whole items, but tables read consistently as they were asked for.
    """

    def __init__(
        self,
        wanted: Mapping[str, Any],
        tables: Tables,
        cache: LruCache[Item | None],
        now_s: float,
        *,
        whole: bool,
    ) -> None:
        self._wanted = wanted
        self._whole = whole
        self._tables = tables
        self._found: dict[ItemKey, Item | None] = {}
        self._places: dict[str, list[tuple[ItemKey, Item]]] = {}
        self.missed: dict[str, Any] = {}
        for table, entry in wanted.items():
            if entry.get("ConsistentRead"):
                self.missed[table] = of_whole_attributes(entry) if whole else entry
                continue
            places = self._places[table] = [(tables.key_of(table, key), key) for key in entry["Keys"]]
            for place, key in places:
                known = cache.get(place, now_s)
                if known is not None:
                    self._found[place] = known.value
                else:
                    self.missed.setdefault(table, {"Keys": []})["Keys"].append(key)

    def read(self, answer: Mapping[str, Any]) -> Iterator[tuple[ItemKey, Item | None]]:
        """Take in DynamoDB's answer and yield what of it goes into the cache."""
        for table, places in self._places.items():
            items = {self._tables.key_of(table, item): item for item in answer["Responses"].get(table, ())}
            left = {
                self._tables.key_of(table, key) for key in answer["UnprocessedKeys"].get(table, {"Keys": ()})["Keys"]
            }
            for place, _ in places:
                if place not in self._found and place not in left:
                    item = self._found[place] = items.get(place)
                    yield place, item

    def reply(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to the caller; `answer` is DynamoDB's, empty if it was not asked."""
        responses: dict[str, list[Item]] = {}
        left: dict[str, Any] = {}
        for table, entry in self._wanted.items():
            if table not in self._places:
                responses[table] = answer["Responses"].get(table, [])
                if table in answer["UnprocessedKeys"]:
                    left[table] = answer["UnprocessedKeys"][table]
                continue
            projection = None if self._whole else projection_of(entry)
            responses[table] = []
            for place, key in self._places[table]:
                if place not in self._found:
                    left.setdefault(table, {**entry, "Keys": []})["Keys"].append(key)
                elif (item := self._found[place]) is not None:
                    if not self._whole:
                        item = copy_item(item) if projection is None else project(item, projection.tree)
                    responses[table].append(item)
        consumed = {"ConsumedCapacity": answer["ConsumedCapacity"]} if "ConsumedCapacity" in answer else {}
        return {"Responses": responses, "UnprocessedKeys": left, **consumed}
