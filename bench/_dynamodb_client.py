"""A client process of the DynamoDB bench: one way to DynamoDB, and its load. Started by `dynamodb.py`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from _canned import SESSION, TURNS, turn
from _common import run
from _processes import serve, settle_memory

from mangacache import Settings
from mangacache.store import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from mangacache.store import Transport

_WAIT_S: Final = 30.0
_PARTITIONS: Final = 64
_KEY: Final = {name: turn(SESSION, 1)[name] for name in ("PK", "SK")}
_CONTENT: Final = turn(SESSION, 1)["content_compressed"]["B"]
_NEWEST: Final = turn(SESSION, TURNS)["content_compressed"]["B"]
_GET: Final = {"Key": _KEY, "ConsistentRead": True}
_QUERY: Final = {
    "KeyConditionExpression": "PK = :pk AND SK BETWEEN :low AND :high",
    "ExpressionAttributeValues": {":pk": _KEY["PK"], ":low": {"S": "TURN#"}, ":high": {"S": "TURN$"}},
    "ConsistentRead": True,
    "ScanIndexForward": False,
    "Limit": TURNS,
}


def _put(item: dict[str, Any]) -> dict[str, Any]:
    """Return the put of a turn as the store sends it: where none stands, and what stands there comes back."""
    return {
        "Item": item,
        "ConditionExpression": "attribute_not_exists(PK)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _check(held: Any, wanted: bytes) -> None:
    if held != wanted:
        raise AssertionError("the answer is not what is stored there")


class TransportPeer:
    """A transport of the package, through the door that the store goes through."""

    def __init__(self, transport: Transport, table_name: str) -> None:
        self._transport = transport
        self._table = {"TableName": table_name}

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str, url: str, table_name: str, connections: int) -> AsyncIterator[TransportPeer]:
        """Open the transport of that name."""
        settings = Settings.from_env().replace(
            dynamodb_endpoint=url, dynamodb_transport=name, max_connections=connections, request_timeout_s=_WAIT_S,
            request_deadline_s=_WAIT_S,
        )  # fmt: skip
        async with open_transport(settings) as transport:
            yield cls(transport, table_name)

    async def put(self, item: dict[str, Any]) -> None:
        """Put a turn."""
        await self._transport.request("PutItem", {**self._table, **_put(item)})

    async def get(self) -> None:
        """Get a turn, and look at it."""
        answer = await self._transport.request("GetItem", {**self._table, **_GET})
        _check(answer["Item"]["content_compressed"]["B"], _CONTENT)

    async def query(self) -> None:
        """Get the 20 newest turns, and look at them."""
        items = (await self._transport.request("Query", {**self._table, **_QUERY}))["Items"]
        _check(items[0]["content_compressed"]["B"], _NEWEST)
        _check(items[TURNS - 1]["content_compressed"]["B"], _CONTENT)


class AiodynamoPeer:
    """The client aiodynamo on aiohttp, which turns items into Python's own values on the way."""

    def __init__(self, table: Any) -> None:
        from aiodynamo.expressions import F, HashKey, RangeKey  # noqa: PLC0415 - an extra that need not be there

        self._table = table
        self._free = F("PK").does_not_exist()
        self._newest = HashKey("PK", SESSION) & RangeKey("SK").between("TURN#", "TURN$")
        self._key = {name: held["S"] for name, held in _KEY.items()}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, table_name: str, connections: int) -> AsyncIterator[AiodynamoPeer]:
        """Open it on a pool that fits."""
        import aiohttp  # noqa: PLC0415 - nothing for the other peers to pay
        from aiodynamo.client import Client  # noqa: PLC0415
        from aiodynamo.credentials import Key, StaticCredentials  # noqa: PLC0415
        from aiodynamo.http.aiohttp import AIOHTTP  # noqa: PLC0415
        from yarl import URL  # noqa: PLC0415

        credentials = StaticCredentials(Key(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
            client = Client(AIOHTTP(session), credentials, os.environ["AWS_REGION"], endpoint=URL(url))
            yield cls(client.table(table_name))

    async def put(self, item: dict[str, Any]) -> None:
        """Put a turn."""
        plain = {name: next(iter(held.values())) for name, held in item.items()}
        await self._table.put_item({**plain, "ttl": int(plain["ttl"])}, condition=self._free)

    async def get(self) -> None:
        """Get a turn, and look at it."""
        item = await self._table.get_item(self._key, consistent_read=True)
        _check(item["content_compressed"], _CONTENT)

    async def query(self) -> None:
        """Get the 20 newest turns, and look at them."""
        page = await self._table.query_single_page(self._newest, consistent_read=True, scan_forward=False, limit=TURNS)
        _check(page.items[0]["content_compressed"], _NEWEST)
        _check(page.items[TURNS - 1]["content_compressed"], _CONTENT)


class ThreadsPeer:
    """The synchronous client boto3, which threads share."""

    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = {"TableName": table_name}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, table_name: str, connections: int) -> AsyncIterator[ThreadsPeer]:
        """Open the low-level client on a pool that fits."""
        import boto3  # noqa: PLC0415 - nothing for the other peers to pay
        from botocore.config import Config  # noqa: PLC0415

        config = Config(region_name=os.environ["AWS_REGION"], max_pool_connections=connections)
        client = boto3.client("dynamodb", endpoint_url=url, config=config)
        yield cls(client, table_name)
        client.close()

    def put(self, item: dict[str, Any]) -> None:
        """Put a turn."""
        self._client.put_item(**self._table, **_put(item))

    def get(self) -> None:
        """Get a turn, and look at it."""
        _check(self._client.get_item(**self._table, **_GET)["Item"]["content_compressed"]["B"], _CONTENT)

    def query(self) -> None:
        """Get the 20 newest turns, and look at them."""
        items = self._client.query(**self._table, **_QUERY)["Items"]
        _check(items[0]["content_compressed"]["B"], _NEWEST)
        _check(items[TURNS - 1]["content_compressed"]["B"], _CONTENT)


Peer = TransportPeer | AiodynamoPeer | ThreadsPeer


def _opened(name: str, url: str, table_name: str, connections: int) -> AbstractAsyncContextManager[Peer]:
    if name == "aiodynamo":
        return AiodynamoPeer.open(url, table_name, connections)
    if name == "boto3":
        return ThreadsPeer.open(url, table_name, connections)
    return TransportPeer.open(name, url, table_name, connections)


class Load:
    """So many calls under way at any time, the next when one ends.

    Args:
        partition: begins the keys of what is put, so that peers share a table without meeting.
    """

    def __init__(self, peer: Peer, *, partition: str, in_flight: int) -> None:
        self._peer = peer
        self._partition = partition
        self._in_flight = in_flight
        self._numbers = itertools.count(1)

    async def prepare(self) -> None:
        """Store the turns that are read."""
        for number in range(1, TURNS + 1):
            done = self._peer.put(turn(SESSION, number))
            if done is not None:
                await done

    async def measure(self, operation: str, seconds: float) -> dict[str, Any]:
        """Call for so many seconds."""
        call = self._call(operation)
        taken_ms: list[float] = []
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        await (self._threads if isinstance(self._peer, ThreadsPeer) else self._tasks)(call, seconds, taken_ms)
        return {
            "operations": len(taken_ms),
            "elapsed_s": time.perf_counter() - started_s,
            "cpu_s": time.process_time() - started_cpu_s,
            "latencies_ms": [round(latency, 3) for latency in taken_ms],
        }

    def _call(self, operation: str) -> Callable[[], Any]:
        if operation != "PutItem":
            return self._peer.get if operation == "GetItem" else self._peer.query
        like = turn(self._partition, 0)
        partitions = [{"S": f"SESSION#{self._partition}-{place}"} for place in range(_PARTITIONS)]

        def put() -> Any:
            number = next(self._numbers)
            key = {"PK": partitions[number % _PARTITIONS], "SK": {"S": f"TURN#0001-{number:010d}"}}
            return self._peer.put({**like, **key})

        return put

    async def _tasks(self, call: Callable[[], Awaitable[None]], seconds: float, taken_ms: list[float]) -> None:
        until_s = time.perf_counter() + seconds

        async def keep_calling() -> None:
            while (sent_s := time.perf_counter()) < until_s:
                await call()
                taken_ms.append(1e3 * (time.perf_counter() - sent_s))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._in_flight):
                tasks.create_task(keep_calling())

    async def _threads(self, call: Callable[[], None], seconds: float, taken_ms: list[float]) -> None:
        until_s = time.perf_counter() + seconds

        def keep_calling() -> None:
            while (sent_s := time.perf_counter()) < until_s:
                call()
                taken_ms.append(1e3 * (time.perf_counter() - sent_s))

        with ThreadPoolExecutor(self._in_flight) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, keep_calling) for _ in range(self._in_flight)))


async def main(name: str, configuration: Mapping[str, Any]) -> None:
    """Open the peer on each server and serve the bench until it is done."""
    in_flight = configuration["in_flight"]
    async with AsyncExitStack() as opened:
        loads = {}
        for server, url in configuration["servers"].items():
            peer = await opened.enter_async_context(_opened(name, url, os.environ["SESSION_TABLE"], in_flight))
            loads[server] = Load(peer, partition=name, in_flight=in_flight)

        async def settle() -> None:
            settle_memory()

        await serve(
            {
                "prepare": lambda server: loads[server].prepare(),
                "settle": settle,
                "measure": lambda server, **arguments: loads[server].measure(**arguments),
            }
        )


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(main(sys.argv[1], given), loop=given["loop"])
