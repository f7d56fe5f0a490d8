"""What a cluster is like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mangacache.errors import Invalid

DEFAULT_TTL_S: Final = 300.0
DEFAULT_BYTES: Final = 64 * 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class DaxOptions:
    """The shape of a cluster, all of its nodes alike.

    Attributes:
        nodes: how many; the first leads.
        item_ttl_s: how long an item is served from the cache; infinity for ever, which DAX's own setting calls 0.
        query_ttl_s: the same for the answers of Query and Scan.
        item_bytes: memory of each node's item cache; 0 turns it off.
        query_bytes: memory of each node's query cache; 0 turns it off.
        replication_lag_s: how long what one node caches takes to the others.
        overtaken_fills: whether a node keeps what it read before a write through DAX and heard after it. The documents
            leave it open; True is the worse of both, an old item for a whole TTL, and what a caller must live with.
        route_check_s: how long the client goes on asking a node that has died.
    """

    nodes: int = 1
    item_ttl_s: float = DEFAULT_TTL_S
    query_ttl_s: float = DEFAULT_TTL_S
    item_bytes: int = DEFAULT_BYTES
    query_bytes: int = DEFAULT_BYTES
    replication_lag_s: float = 0.0
    overtaken_fills: bool = True
    route_check_s: float = 5.0

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise Invalid(f"a cluster has at least 1 node, not {self.nodes}")
        for name in ("item_ttl_s", "query_ttl_s"):
            if getattr(self, name) <= 0:
                raise Invalid(f"{name} must be above 0: for entries that never expire say math.inf")
        for name in ("item_bytes", "query_bytes", "replication_lag_s", "route_check_s"):
            if getattr(self, name) < 0:
                raise Invalid(f"{name} must not be below 0")
