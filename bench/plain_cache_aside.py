"""The peer: cache-aside as a careful user writes it, on the libraries everybody uses.

Read: GET `session:{id}:context`; where it is absent, META, the 20 newest turns and the newest summary from
DynamoDB, side by side, and SETEX for 300 s. Write: PutItem of the turn, then DEL of the context.

It has what a good review would ask for: one low-level client for the process's life, a pool that fits, strong
reads, keys that sort by time and cannot collide, bytes that stay bytes, a cache that may fail without failing the
bot. What it gets wrong is the pattern's own: a reader that missed may fill the cache with what it read before a
write.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import aioboto3
from aiobotocore.config import AioConfig
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

TURN_LIMIT: Final = 20
CACHE_TTL_S: Final = 300
RETENTION_S: Final = 90 * 86_400
_BATCH: Final = 25

Typed = dict[str, dict[str, Any]]


class PlainContext(NamedTuple):
    """What was read; `turns` are `turn_id`, `role`, `content`, `sk`, oldest first; `source` is redis or dynamodb."""

    meta: dict[str, Any] | None
    turns: list[dict[str, str]]
    summary: str | None
    source: str


class PlainCacheAside:
    """Sessions in DynamoDB with their contexts cached in Redis.

    Attributes:
        cache_errors: failures of Redis that were survived.
    """

    def __init__(self, dynamodb: Any, redis: Redis, *, table_name: str, strong_reads: bool = True) -> None:
        self._dynamodb = dynamodb
        self._redis = redis
        self._table_name = table_name
        self._strong_reads = strong_reads
        self.cache_errors = 0

    async def read(self, session_id: str) -> PlainContext:
        """Return a session's context, from the cache where it is there."""
        key = _cache_key(session_id)
        cached = await self._cached(key)
        if cached is not None:
            return PlainContext(**json.loads(cached), source="redis")
        meta, turns, summary = await asyncio.gather(
            self._meta(session_id),
            self._newest(session_id, "TURN#", TURN_LIMIT),
            self._newest(session_id, "SUMMARY#", 1),
        )
        context = PlainContext(
            meta=meta,
            turns=[_turn(item) for item in reversed(turns)],
            summary=summary[0]["summary_text"]["S"] if summary else None,
            source="dynamodb",
        )
        cacheable = {"meta": context.meta, "turns": context.turns, "summary": context.summary}
        try:
            await self._redis.set(key, json.dumps(cacheable), ex=CACHE_TTL_S)
        except RedisError:
            self.cache_errors += 1
        return context

    async def append(self, session_id: str, *, role: str, content: str, turn_id: str | None = None) -> str:
        """Store one turn, forget the cached context, and return the turn's sort key."""
        item = _turn_item(session_id, role=role, content=content, turn_id=turn_id)
        await self._dynamodb.put_item(TableName=self._table_name, Item=item)
        await self._forget(session_id)
        sort_key: str = item["SK"]["S"]
        return sort_key

    async def put_meta(self, session_id: str, *, customer_id: str, attributes: Mapping[str, str] | None = None) -> None:
        """Store META as given, and forget the cached context."""
        await self._dynamodb.put_item(
            TableName=self._table_name, Item=_meta_item(session_id, customer_id, attributes or {})
        )
        await self._forget(session_id)

    async def load(self, session_id: str, *, customer_id: str, turns: Sequence[tuple[str, str]]) -> None:
        """Store META and many turns (role, content) at once, for a bench to begin with."""
        items = [_meta_item(session_id, customer_id, {})]
        items += [_turn_item(session_id, role=role, content=content, turn_id=None) for role, content in turns]
        for start in range(0, len(items), _BATCH):
            left: Any = {self._table_name: [{"PutRequest": {"Item": item}} for item in items[start : start + _BATCH]]}
            while left:
                left = (await self._dynamodb.batch_write_item(RequestItems=left)).get("UnprocessedItems")

    async def _cached(self, key: str) -> bytes | None:
        try:
            cached: bytes | None = await self._redis.get(key)
        except RedisError:
            self.cache_errors += 1
            return None
        return cached

    async def _forget(self, session_id: str) -> None:
        try:
            await self._redis.delete(_cache_key(session_id))
        except RedisError:
            self.cache_errors += 1

    async def _meta(self, session_id: str) -> dict[str, Any] | None:
        answer = await self._dynamodb.get_item(
            TableName=self._table_name,
            Key={"PK": {"S": f"SESSION#{session_id}"}, "SK": {"S": "META"}},
            ConsistentRead=self._strong_reads,
        )
        item = answer.get("Item")
        if item is None:
            return None
        return {name: _plain(value) for name, value in item.items() if name not in ("PK", "SK")}

    async def _newest(self, session_id: str, prefix: str, limit: int) -> list[Typed]:
        answer = await self._dynamodb.query(
            TableName=self._table_name,
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": {"S": f"SESSION#{session_id}"}, ":prefix": {"S": prefix}},
            ScanIndexForward=False,
            Limit=limit,
            ConsistentRead=self._strong_reads,
        )
        items: list[Typed] = answer["Items"]
        return items


@asynccontextmanager
async def open_clients(
    *, region: str, dynamodb_url: str, redis_url: str, connections: int, tuned: bool = False
) -> AsyncIterator[tuple[Any, Redis]]:
    """Open a low-level DynamoDB client and a Redis client, one of each for the process's life.

    Args:
        region: the table's.
        dynamodb_url: the endpoint.
        redis_url: the address.
        connections: messages under way at once; each may have its three reads out together.
        tuned: leave out the client's parameter validation and give it a constant user agent, as few do.
    """
    extras: dict[str, Any] = {"parameter_validation": False, "user_agent": "plain"} if tuned else {}
    config = AioConfig(max_pool_connections=3 * connections, **extras)
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=connections, timeout=20)
    async with (
        Redis.from_pool(pool) as redis,
        aioboto3.Session(region_name=region).client("dynamodb", endpoint_url=dynamodb_url, config=config) as dynamodb,
    ):
        yield dynamodb, redis


def _cache_key(session_id: str) -> str:
    return f"session:{session_id}:context"


def _turn_item(session_id: str, *, role: str, content: str, turn_id: str | None) -> Typed:
    turn_id = turn_id if turn_id is not None else uuid4().hex
    now = datetime.now(UTC)
    return {
        "PK": {"S": f"SESSION#{session_id}"},
        "SK": {"S": f"TURN#{now.strftime('%Y-%m-%dT%H:%M:%S.%f')}#{turn_id}"},
        "turn_id": {"S": turn_id},
        "role": {"S": role},
        "content_compressed": {"B": zlib.compress(content.encode())},
        "created_at": {"S": now.isoformat()},
        "ttl": {"N": str(int(time.time()) + RETENTION_S)},
    }


def _meta_item(session_id: str, customer_id: str, attributes: Mapping[str, str]) -> Typed:
    now = datetime.now(UTC).isoformat()
    return {
        "PK": {"S": f"SESSION#{session_id}"},
        "SK": {"S": "META"},
        "customer_id": {"S": customer_id},
        "status": {"S": "active"},
        "created_at": {"S": now},
        "last_active_at": {"S": now},
        "ttl": {"N": str(int(time.time()) + RETENTION_S)},
        **{name: {"S": value} for name, value in attributes.items()},
    }


def _turn(item: Typed) -> dict[str, str]:
    return {
        "turn_id": item["turn_id"]["S"],
        "role": item["role"]["S"],
        "content": zlib.decompress(item["content_compressed"]["B"]).decode(),
        "sk": item["SK"]["S"],
    }


def _plain(value: Mapping[str, Any]) -> Any:
    """Return an attribute as JSON can hold it and give it back."""
    ((kind, inner),) = value.items()
    return int(inner) if kind == "N" else inner
