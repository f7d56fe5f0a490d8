"""One node of a cluster and what its entries count for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.testing.dax.lru import LruCache
from mangacache.testing.dynamodb.values import Item, item_size

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mangacache.testing.dax.options import DaxOptions
    from mangacache.testing.dax.tables import ItemKey

ENTRY_OVERHEAD_BYTES: Final = 64
"""What an entry counts for beside its key and value, so that a cache of negative entries is bounded too."""

MOST_WRITTEN: Final = 100_000


class Node:
    """One node: two caches that know nothing of each other.

    Args:
        number: from 0.
        options: of the cluster.

    Attributes:
        items: whole items by key; None stands for "nothing there".
        queries: answers of Query and Scan by the whole request.
        alive: whether it answers.
        life: how often it has died; what was begun in an earlier life never ends.
        died_s: the monotonic second of its last death.
        written: when the last write of each key reached it, in ticks; kept where overtaken fills are dropped, of the
            last `MOST_WRITTEN` keys: no read is so long under way that more are written meanwhile.
    """

    def __init__(self, number: int, options: DaxOptions) -> None:
        self.number = number
        self.items: LruCache[Item | None] = LruCache(ttl_s=options.item_ttl_s, max_bytes=options.item_bytes)
        self.queries: LruCache[dict[str, Any]] = LruCache(ttl_s=options.query_ttl_s, max_bytes=options.query_bytes)
        self.alive = True
        self.life = 0
        self.died_s = 0.0
        self.written: dict[ItemKey, int] = {}

    def note_write(self, key: ItemKey, tick: int) -> None:
        """Remember when a write reached this node, the latest last."""
        self.written.pop(key, None)
        self.written[key] = tick
        if len(self.written) > MOST_WRITTEN:
            del self.written[next(iter(self.written))]

    def store_item(self, key: ItemKey, item: Item | None, now_s: float) -> None:
        """Store an item, or with None that there is none."""
        size_bytes = item_size(item or {}) + _key_size(key) + ENTRY_OVERHEAD_BYTES
        self.items.put(key, item, size_bytes=size_bytes, negative=item is None, now_s=now_s)

    def store_answer(self, request: Hashable, answer: dict[str, Any], now_s: float) -> None:
        """Store the answer of a Query or Scan."""
        items: list[Item] = answer.get("Items", [])
        size_bytes = sum(map(item_size, items)) + item_size(answer.get("LastEvaluatedKey", {}))
        size_bytes += len(repr(request)) + ENTRY_OVERHEAD_BYTES
        self.queries.put(request, answer, size_bytes=size_bytes, negative=answer["Count"] == 0, now_s=now_s)

    def die(self, now_s: float) -> None:
        """Lose everything and answer no more."""
        self.alive = False
        self.life += 1
        self.died_s = now_s
        self.items.clear()
        self.queries.clear()
        self.written.clear()


def _key_size(key: ItemKey) -> int:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in key.key]
    return len(key.table.encode()) + sum(map(len, parts))
