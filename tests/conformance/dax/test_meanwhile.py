"""What happens between a request to DynamoDB and its answer: clients leave, nodes die, writes overtake reads."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from amazondax.DaxError import DaxServiceError
from commands import until
from daxes import MovableClock, Wire, direct_client, emulated, node_client, real_client, refused
from dynamodb_server import ToxicServer, upstream
from mangatest import HANG_GUARD_S, LoopThread


class Held:
    """A DynamoDB whose answers to one operation are held back once they are there, or never given."""

    def __init__(self, loop, server):
        self._loop = loop
        self._server = server
        self._release = None
        self.reached = 0
        self.url = server.url

    def hold(self, operation):
        async def held(exchange):
            answer = await exchange.apply()
            self.reached += 1
            await release.wait()
            await exchange.write(answer.wire)

        release = self._release = asyncio.Event()
        self._server.plan = lambda received, _noise: held if received.operation == operation else None

    def release(self):
        async def set_it():
            self._release.set()
            self._server.plan = lambda _received, _noise: None

        self._loop.run(set_it())

    def break_off(self, operation):
        async def broken(exchange):
            exchange.reset()

        self._server.plan = lambda received, _noise: broken if received.operation == operation else None


@pytest.fixture
def held(dynoxide):
    loop = LoopThread()
    opening = ToxicServer.open(upstream(dynoxide))
    yield Held(loop, loop.run(opening.__aenter__()))
    loop.run(opening.__aexit__(None, None, None))
    loop.close()


@pytest.fixture
def opened(dynoxide, held):
    @contextmanager
    def open_wire(**options):
        with (
            direct_client(dynoxide) as direct,
            emulated(held.url, **options) as emulator,
            real_client(emulator.endpoint) as client,
            ThreadPoolExecutor(4) as pool,
        ):
            wire = Wire(emulator, client, direct, MovableClock())
            wire.pool = pool
            yield wire

    return open_wire


def string(data):
    return (bytes([0x40 + len(data)]) if len(data) < 24 else bytes([0x58, len(data)])) + data


def put_of_its_key(table, key):
    """Return the bytes of a connection that puts an item which is its key alone."""
    pk, sk = key["pk"]["S"].encode(), key["sk"]["S"].encode()
    prelude = bytes.fromhex("674a37796e65354700f6a000")
    key_bytes = bytes([0x60 + len(pk)]) + pk + sk
    return prelude + bytes.fromhex("013a7d8e7e56") + string(table.encode()) + string(key_bytes) + b"\x41\x01\xf6"


def test_a_write_changes_the_cache_also_when_its_client_has_gone_meanwhile(opened, held):
    with opened() as wire:
        key = wire.key()
        assert wire.get(key) is None
        held.hold("PutItem")
        port = int(wire.emulator.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(put_of_its_key(wire.indexed, key))
            until(lambda: held.reached == 1, "for DynamoDB to have done it")
            connections = wire.emulator.status()["nodes"][0]["connections"]
        until(lambda: wire.emulator.status()["nodes"][0]["connections"] < connections, "for the client to be gone")
        assert wire.get(key) is None, "nobody has heard yet that it was done"
        held.release()
        until(lambda: wire.get(key) == key, "for the cache to know")


def test_a_node_that_dies_meanwhile_says_nothing_though_dynamodb_has_done_it(opened, held):
    with opened(nodes=2) as wire:
        key = wire.key()
        wire.get(key)
        held.hold("PutItem")
        put = wire.pool.submit(wire.put, key)
        until(lambda: held.reached == 1, "for DynamoDB to have done it")
        wire.emulator.kill(0)
        with pytest.raises((DaxServiceError, OSError)):
            put.result(HANG_GUARD_S)
        held.release()
        assert wire.get(key, by=wire.direct) == key
        with node_client(wire.emulator.endpoints[1]) as node:
            assert wire.get(key, by=node) is None, "it has an entry, of which nobody told it that it is old"


@pytest.mark.parametrize(("keeps", "seen"), [(True, "old"), (False, "new")])
def test_a_read_that_a_write_overtakes_is_kept_or_dropped_as_was_asked_for(opened, held, keeps, seen):
    with opened(overtaken_fills=keeps) as wire:
        key = wire.key()
        wire.put(key, by=wire.direct, a={"S": "old"})
        held.hold("GetItem")
        read = wire.pool.submit(wire.get, key)
        until(lambda: held.reached == 1, "for DynamoDB to have answered the read")
        wire.put(key, a={"S": "new"})
        held.release()
        assert read.result(HANG_GUARD_S)["a"] == {"S": "old"}
        assert wire.get(key)["a"] == {"S": seen}


def test_two_misses_at_once_ask_dynamodb_twice(opened, held):
    with opened() as wire:
        key = wire.key()
        held.hold("GetItem")
        reads = [wire.pool.submit(wire.get, key) for _ in range(2)]
        until(lambda: held.reached == 2, "for both to have come")
        held.release()
        assert [read.result(HANG_GUARD_S) for read in reads] == [None, None]
        assert wire.emulator.status()["passed_on"]["GetItem"] == 2


def test_one_that_waits_for_dynamodb_holds_up_nobody_else(opened, held):
    with opened() as wire:
        key, other = wire.key(), wire.key()
        wire.put(key)
        held.hold("GetItem")
        waits = wire.pool.submit(wire.get, other)
        until(lambda: held.reached == 1, "for it to wait")
        for _ in range(20):
            assert wire.get(key) == key
        assert not waits.done()
        held.release()
        assert waits.result(HANG_GUARD_S) is None


@pytest.mark.parametrize("operation", ["PutItem", "GetItem", "Query"])
def test_what_dynamodb_does_not_answer_is_an_error_of_the_server_and_changes_no_entry(opened, held, operation):
    with opened() as wire:
        key, other = wire.key(), wire.key()
        wire.put(key, a={"S": "kept"})
        held.break_off(operation)
        with refused("InternalServerErrorException"):
            if operation == "PutItem":
                wire.put(key, a={"S": "new"})
            elif operation == "GetItem":
                wire.get(other)
            else:
                wire.client.query(
                    TableName=wire.indexed,
                    KeyConditionExpression="pk = :p",
                    ExpressionAttributeValues={":p": other["pk"]},
                )
        status = wire.emulator.status()["nodes"][0]
        assert (status["items"]["entries"], status["queries"]["entries"]) == (1, 0)
        assert wire.get(key)["a"] == {"S": "kept"}
