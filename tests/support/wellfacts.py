"""Facts of an installation that is well, to be changed one at a time, and somebody who has gathered them."""

from __future__ import annotations

from typing import Any

from mangacache.diagnosis.facts import (
    ClockFacts,
    CredentialFacts,
    DaxFacts,
    MachineFacts,
    NodeFacts,
    Offset,
    RedisFacts,
    Sample,
    TableFacts,
)

MIB = 2**20
KEYS = [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}]
INDEX = {
    "IndexName": "by_customer",
    "IndexStatus": "ACTIVE",
    "KeySchema": [
        {"AttributeName": "customer_id", "KeyType": "HASH"},
        {"AttributeName": "last_active_at", "KeyType": "RANGE"},
    ],
    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["status", "ttl"]},
}
TABLE = {
    "TableStatus": "ACTIVE",
    "KeySchema": KEYS,
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK", "customer_id")],
    "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
    "GlobalSecondaryIndexes": [INDEX],
    "DeletionProtectionEnabled": True,
}
INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "loading": "0",
    "cluster_enabled": "0",
    "maxmemory_policy": "allkeys-lru",
    "used_memory": str(100 * MIB),
    "maxmemory": str(4096 * MIB),
    "mem_fragmentation_ratio": "1.1",
    "used_memory_rss": str(110 * MIB),
    "evicted_keys": "0",
    "expired_keys": "10",
    "aof_enabled": "0",
    "rdb_last_bgsave_status": "ok",
    "connected_clients": "7",
    "maxclients": "10000",
}
CONFIG = {
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "save": "",
    "appendfsync": "everysec",
    "stop-writes-on-bgsave-error": "yes",
    "tracking-table-max-keys": "1000000",
    "timeout": "0",
    "notify-keyspace-events": "",
}
SAMPLE = Sample(looked_at=100, whole=True, ours=90)


def table(**changes):
    facts = {"where": "DynamoDB", "description": TABLE, "recovery": "ENABLED", "reads": 3.0} | changes
    return TableFacts(**{"ttl": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}} | facts)


def described(**changes):
    return table(description=TABLE | changes)


def redis(*, info=None, config=CONFIG, sample=SAMPLE, nodes=None, **changes):
    node = NodeFacts(address="rediss://r:6379", info=INFO | (info or {}), config=config, sample=sample)
    facts = {"address": "rediss://r:6379", "tls": True, "leaves": True, "nodes": (node,) if nodes is None else nodes}
    return RedisFacts(**facts | changes)


def dax(**changes):
    facts = {"address": "daxs://d:9111", "leaves": True, "tls": True, "answer_ms": 1.0, "nodes": 3}
    return DaxFacts(**facts | {"ttls_s": (300.0, 300.0), "ttls_from": "somebody says"} | changes)


def clocks(**changes):
    near = Offset(least_s=-0.4, most_s=0.7)
    return ClockFacts(**{"dynamodb": near, "redis": Offset(least_s=-0.01, most_s=0.01)} | changes)


def machine(**changes):
    modules = frozenset({"uvloop", "hiredis", "amazondax"})
    facts = {"files": 65536, "files_hard": 65536, "threads": 4096, "memory_bytes": 8192 * MIB, "cpus": 2.0}
    return MachineFacts(**facts | {"modules": modules} | changes)


def certificate(**changes):
    return CredentialFacts(**{"method": "container-role", "ends_in_s": 7200.0} | changes)


class Gathered:
    """See `Looking`: facts that are there already, or what is called instead.

    Args:
        instead: by part, a coroutine function that is awaited in its place.
    """

    def __init__(self, **instead: Any) -> None:
        self._instead = instead

    async def _fact(self, part: str, facts: Any) -> Any:
        return await self._instead[part]() if part in self._instead else facts

    async def table(self) -> TableFacts:
        return await self._fact("table", table())

    async def redis(self) -> RedisFacts:
        return await self._fact("redis", redis())

    async def dax(self) -> DaxFacts:
        return await self._fact("dax", dax())

    async def clocks(self) -> ClockFacts:
        return await self._fact("clocks", clocks())

    async def credentials(self) -> CredentialFacts:
        return await self._fact("credentials", certificate())

    async def machine(self) -> MachineFacts:
        return await self._fact("machine", machine())
