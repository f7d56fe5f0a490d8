"""The proxies: all arrives in order or not at all, each fault is what it says, and after `restore` all is well."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from dynamodb_server import Answer, ToxicServer, echo
from fleet import until
from mangatest import HANG_GUARD_S

from mangacache import Invalid
from mangacache.testing import DynamoProxy, Proxy
from mangacache.testing.proxy import ControlPort

MANY = random.Random(1).randbytes(3 * 2**20)


@asynccontextmanager
async def _echoing():
    """Serve a server that says again what it hears; give its port and what it has heard."""
    heard = bytearray()
    writers = set()

    async def serve(reader, writer):
        writers.add(writer)
        try:
            while data := await reader.read(2**16):
                heard.extend(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # broken by the proxy
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        while writers:
            writer = next(iter(writers))
            writer.transport.abort()
            await asyncio.sleep(0)


@pytest.fixture
async def proxied():
    async with _echoing() as (port, heard), Proxy.open(port, marks={"greeting": b"HELLO"}) as proxy:
        proxy.heard = heard
        yield proxy


@asynccontextmanager
async def _client(proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=2**22)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _says(client, word=b"word"):
    """Say a word, and tell whether it was answered; False where the connection broke."""
    reader, writer = client
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            writer.write(word)
            return await reader.readexactly(len(word)) == word
    except (OSError, asyncio.IncompleteReadError):
        return False


async def test_bytes_go_both_ways_unchanged(proxied):
    async with _client(proxied) as client:
        assert await _says(client, MANY)
    assert proxied.counts["bytes_up"] == proxied.counts["bytes_down"] == len(MANY)


async def test_what_is_delayed_and_paced_arrives_whole_and_in_order(proxied):
    proxied.delay(0.01, jitter_s=0.05)
    proxied.throttle(2**28)
    async with _client(proxied) as client:
        assert await _says(client, MANY)


async def test_a_delay_delays(proxied):
    proxied.delay(0.2, way="down")
    async with _client(proxied) as client:
        began_s = asyncio.get_running_loop().time()
        assert await _says(client)
        assert asyncio.get_running_loop().time() - began_s >= 0.19


async def test_what_is_stalled_arrives_when_it_flows_again(proxied):
    async with _client(proxied) as client:
        proxied.stall(way="down")
        client[1].write(b"word")
        await until(lambda: bytes(proxied.heard) == b"word", "the server has heard it")
        assert proxied.counts["bytes_down"] in {0, 4}
        proxied.restore()
        async with asyncio.timeout(HANG_GUARD_S):
            assert await client[0].readexactly(4) == b"word"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_direction_that_is_silent_loses_all_and_the_connection_breaks_when_it_is_restored(proxied, way):
    async with _client(proxied) as client:
        assert await _says(client)
        proxied.silence(way=way)
        client[1].write(b"lost")
        counted = "bytes_up" if way == "up" else "bytes_down"
        await until(lambda: proxied.counts[counted] == 8, "it is on its way")
        proxied.restore()
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await client[0].readexactly(4)
    assert bytes(proxied.heard) == (b"word" if way == "up" else b"wordlost")
    async with _client(proxied) as client:
        assert await _says(client)


async def test_what_is_cut_takes_in_nobody_until_it_is_restored(proxied):
    async with _client(proxied) as before:
        assert await _says(before)
        proxied.cut()
        assert not await _says(before)
    async with _client(proxied) as meanwhile:
        assert not await _says(meanwhile)
    proxied.restore()
    async with _client(proxied) as after:
        assert await _says(after)


async def test_only_connections_with_a_mark_are_severed(proxied):
    async with _client(proxied) as marked, _client(proxied) as other:
        assert await _says(marked, b"-HELLO-")
        assert await _says(other)
        assert proxied.sever("greeting") == 1
        assert not await _says(marked)
        assert await _says(other)


async def test_a_lost_reply_is_lost_after_the_server_acted(proxied):
    proxied.lose_replies(1)
    async with _client(proxied) as client:
        assert not await _says(client)
    assert bytes(proxied.heard) == b"word"
    async with _client(proxied) as client:
        assert await _says(client)


async def test_connections_break_as_often_as_they_are_to(proxied):
    proxied.reset(1.0)
    async with _client(proxied) as client:
        assert not await _says(client)
    assert bytes(proxied.heard) == b""


async def test_a_server_that_is_not_there_is_a_broken_connection(unused_tcp_port):
    async with Proxy.open(unused_tcp_port) as proxy:
        async with _client(proxy) as client:
            assert not await _says(client)
        assert proxy.counts["refused"] == 1
        async with _echoing() as (port, _):
            proxy.target_port = port
            async with _client(proxy) as client:
                assert await _says(client)


@pytest.mark.parametrize(
    "act",
    [
        lambda proxy: proxy.delay(-1),
        lambda proxy: proxy.throttle(-1),
        lambda proxy: proxy.reset(2),
        lambda proxy: proxy.lose_replies(-1),
        lambda proxy: proxy.sever("nobody"),
        lambda proxy: proxy.stall(way="sideways"),
    ],
)
async def test_what_cannot_be_is_refused(proxied, act):
    with pytest.raises(Invalid):
        act(proxied)


async def test_a_port_that_is_taken_is_refused(proxied):
    with pytest.raises(Invalid, match="cannot be used"):
        await Proxy(1).start(proxied.port)


@pytest.fixture
async def dynamo():
    """A DynamoDB that answers reads with their keys, and a proxy before it."""
    async with ToxicServer.open(echo) as server, DynamoProxy.open(int(server.url.rpartition(":")[2])) as proxy:
        proxy.behind = server
        yield proxy


@asynccontextmanager
async def _waiting(proxy, operation):
    """Have somebody ask who leaves at the end of the block."""
    task = asyncio.ensure_future(_asks(proxy, operation))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _asks(proxy, operation="GetItem"):
    headers = {"x-amz-target": f"DynamoDB_20120810.{operation}"}
    timeout = aiohttp.ClientTimeout(total=HANG_GUARD_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.post(proxy.url, data=b'{"Key": {"PK": {"S": "x"}}}', headers=headers) as answer,
    ):
        return answer.status, json.loads(await answer.read())


async def test_requests_pass_and_are_counted_by_operation(dynamo):
    assert await _asks(dynamo) == (200, {"Item": {"PK": {"S": "x"}}})
    assert await _asks(dynamo, "PutItem") == (200, {})
    assert dynamo.requests == {"GetItem": 1, "PutItem": 1}


async def test_what_is_throttled_is_refused_and_not_done(dynamo):
    dynamo.throttle(1.0)
    status, said = await _asks(dynamo, "PutItem")
    assert status == 400
    assert said["__type"].endswith("#ProvisionedThroughputExceededException")
    assert dynamo.behind.received == []
    dynamo.restore()
    assert (await _asks(dynamo, "PutItem"))[0] == 200


async def test_a_write_whose_answer_is_lost_is_done_and_reads_are_answered(dynamo):
    dynamo.lose_answers(1.0)
    async with _waiting(dynamo, "PutItem") as waiting:
        await until(lambda: dynamo.struck["not answered"] == 1, "its answer is kept back")
        assert [one.operation for one in dynamo.behind.received] == ["PutItem"]
        assert (await _asks(dynamo))[0] == 200
        assert not waiting.done()


async def test_what_is_stopped_is_done_later_though_nobody_waits_any_more(dynamo):
    dynamo.stop()
    async with _waiting(dynamo, "PutItem"):
        await until(lambda: dynamo.struck["held up"] == 1, "it is held up")
    assert dynamo.behind.received == []
    dynamo.restore()
    await until(lambda: len(dynamo.behind.received) == 1, "it is done late")


async def test_what_is_cut_is_turned_away(dynamo):
    dynamo.cut()
    with pytest.raises(aiohttp.ClientError):
        await _asks(dynamo)
    dynamo.restore()
    assert (await _asks(dynamo))[0] == 200


async def test_an_engine_that_ends_its_connections_is_asked_on_new_ones(dynamo):
    async def closing(exchange):
        await exchange.write(Answer.of({}).wire)
        exchange.close()

    dynamo.behind.once(closing)
    assert (await _asks(dynamo))[0] == 200
    assert (await _asks(dynamo))[0] == 200


@asynccontextmanager
async def _controlled(proxy):
    control = ControlPort(proxy)
    await control.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{control.port}") as http:

        async def post(path):
            async with http.post(path) as answer:
                return answer.status, await answer.json()

        try:
            yield post
        finally:
            await control.stop()


async def test_the_control_port_does_what_the_methods_do(proxied):
    async with _controlled(proxied) as post:
        assert (await post("/delay?seconds=0.3&jitter_s=0.1&way=up"))[0] == 200
        assert proxied.status()["up"]["delay_s"] == 0.3
        assert proxied.status()["down"]["delay_s"] == 0
        for action in ("throttle?bytes_per_s=1000", "stall?way=down", "silence?way=up", "reset?share=0.5", "cut"):
            assert (await post(f"/{action}"))[0] == 200, action
        assert (await post("/lose_replies?count=2&mark=greeting"))[0] == 200
        assert (await post("/sever"))[0] == 200
        status, said = await post("/restore")
        assert (status, said["done"], said["status"]["cut"]) == (200, "restore", False)


async def test_the_control_port_knows_dynamodbs_faults_too(dynamo):
    async with _controlled(dynamo) as post:
        for action in ("throttle?share=0.5", "lose_answers?share=1", "slow?seconds=1", "stop", "cut"):
            assert (await post(f"/{action}"))[0] == 200, action
        status, said = await post("/restore")
        assert (status, said["status"]["stopped"]) == (200, False)


@pytest.mark.parametrize(
    "path", ["/explode", "/delay", "/delay?seconds=soon", "/cut?way=up", "/lose_replies?count=-1", "/silence", "/reset"]
)
async def test_the_control_port_refuses_what_it_cannot_do_and_says_what_there_is(proxied, path):
    async with _controlled(proxied) as post:
        status, said = await post(path)
    assert status == 400
    assert said["error"]


@pytest.mark.parametrize("kind", [[], ["--dynamodb"]])
async def test_a_proxy_runs_as_a_process_and_says_where(proxied, kind):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mangacache.testing.proxy", "--target", f"127.0.0.1:{proxied.port}", *kind),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            said = json.loads(await process.stdout.readline())
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{said['control_port']}/status") as answer,
        ):
            assert (await answer.json())["port"] == said["port"]
    finally:
        process.kill()
        await process.wait()
