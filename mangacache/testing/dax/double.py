"""The double itself: a cluster put together, with its clients, its fault port and its counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Self

from mangacache.clock import SystemClock, system_random
from mangacache.testing.dax.clients import MemoryDaxClient, MemoryDaxSyncClient
from mangacache.testing.dax.cluster import Cluster
from mangacache.testing.dax.conversation import ClientOptions, Conversations
from mangacache.testing.dax.driving import Driver
from mangacache.testing.dax.faults import DaxFaults
from mangacache.testing.dax.lru import CacheCounts
from mangacache.testing.dax.options import DEFAULT_BYTES, DEFAULT_TTL_S, DaxOptions
from mangacache.testing.dax.serving import Serving
from mangacache.testing.dax.tables import Tables

if TYPE_CHECKING:
    import asyncio

    from mangacache.clock import Clock, Random


@dataclass(frozen=True, slots=True, kw_only=True)
class DaxCounters:
    """What happened so far.

    Attributes:
        items: in the item caches.
        queries: in the query caches.
        passed_on: how often DynamoDB was asked, by operation; `DescribeTable` is how DAX learns a table's keys.
    """

    items: CacheCounts
    queries: CacheCounts
    passed_on: Counter[str]


class MemoryDax:
    """A DAX cluster in memory, in front of a DynamoDB: the same answers, as old as DAX's may be.

    What DAX's documents say holds here: two caches that do not know of each other, written through, bounded by time and
    memory; consistent reads and transactional ones pass by; a query's answer stays what it was until its TTL. Where
    they are silent:

    - a projected GetItem reads, keeps and uses the whole item;
    - a put keeps the item as DynamoDB spells it, an update what DynamoDB gave back as the new item (where the caller
      wants another one, or a part of it, the entry is dropped), a delete drops the entry;
    - misses at the same time each ask DynamoDB; an entry's age is not reset by reads;
    - an item read or written on one node reaches the others in order, after the lag, and is young there again; a
      query's answer stays on the node that asked;
    - see `DaxOptions.overtaken_fills` for a read that a write overtakes.

    One lock guards the cluster, so threads may use the clients of plain calls; a `MemoryDynamoDB` behind it must then
    be used by nobody else at the time, or `sync_client` be given the event loop that everybody is on.

    Args:
        backend: a `MemoryDynamoDB`, or a low-level client with the methods of boto3's or aioboto3's.
        nodes: see `DaxOptions` for this and what follows.
        item_ttl_s: see there.
        query_ttl_s: see there.
        item_bytes: see there.
        query_bytes: see there.
        replication_lag_s: see there.
        overtaken_fills: see there.
        route_check_s: see there.
        clock: what time is read from; TTLs and lags run by its monotonic seconds.
        random: chooses the node of each read.

    Attributes:
        faults: the fault port.
    """

    def __init__(
        self,
        backend: object,
        *,
        nodes: int = 1,
        item_ttl_s: float = DEFAULT_TTL_S,
        query_ttl_s: float = DEFAULT_TTL_S,
        item_bytes: int = DEFAULT_BYTES,
        query_bytes: int = DEFAULT_BYTES,
        replication_lag_s: float = 0.0,
        overtaken_fills: bool = True,
        route_check_s: float = 5.0,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        options = DaxOptions(
            nodes=nodes,
            item_ttl_s=item_ttl_s,
            query_ttl_s=query_ttl_s,
            item_bytes=item_bytes,
            query_bytes=query_bytes,
            replication_lag_s=replication_lag_s,
            overtaken_fills=overtaken_fills,
            route_check_s=route_check_s,
        )
        clock = clock if clock is not None else SystemClock()
        random = random if random is not None else system_random()
        self._cluster = Cluster(options, clock=clock, random=random)
        self._serving = Serving(self._cluster, Tables(clock), clock)
        self.faults = DaxFaults(self._cluster)
        self._conversations = Conversations(self._cluster, self._serving, self.faults, random)
        self._driver = Driver(backend, clock, self.faults)

    def client(self, *, node: int | None = None, retries: int = 0, read_timeout_s: float = 60.0) -> MemoryDaxClient:
        """Return a client with coroutine methods (`get_item`, `query`, ...); see `ClientOptions` for the arguments."""
        options = ClientOptions(node=node, retries=retries, read_timeout_s=read_timeout_s)
        return MemoryDaxClient(self._conversations, self._driver, options)

    def sync_client(
        self,
        *,
        node: int | None = None,
        retries: int = 0,
        read_timeout_s: float = 60.0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> MemoryDaxSyncClient:
        """Return a client with the methods of `amazondax.AmazonDaxClient`, to be called from any thread.

        Args:
            node: see `ClientOptions`.
            retries: see `ClientOptions`.
            read_timeout_s: see `ClientOptions`.
            loop: a running event loop on which requests are carried out, while the calling thread waits. Without it
                they are carried out in the calling thread, for which the backend must have plain calls.
        """
        options = ClientOptions(node=node, retries=retries, read_timeout_s=read_timeout_s)
        return MemoryDaxSyncClient(self._conversations, self._driver, options, loop=loop)

    @property
    def leader(self) -> int:
        """The number of the node that takes writes."""
        return self._cluster.leader.number

    @property
    def replication_lag_s(self) -> float:
        """How long what one node caches takes to the others; what is on its way already obeys a change as well."""
        return self._cluster.replication_lag_s

    @replication_lag_s.setter
    def replication_lag_s(self, lag_s: float) -> None:
        self._cluster.replication_lag_s = lag_s

    def counters(self, *, node: int | None = None) -> DaxCounters:
        """Return the counts of one node's caches, or of all; what was passed on is counted for all together."""
        nodes = self._cluster.nodes if node is None else [self._cluster.nodes[node]]
        return DaxCounters(
            items=reduce(add, (each.items.counts for each in nodes), CacheCounts()),
            queries=reduce(add, (each.queries.counts for each in nodes), CacheCounts()),
            passed_on=Counter(self._serving.door.passed_on),
        )

    async def close(self) -> None:
        """Cancel what nodes still do for callers that have gone."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
