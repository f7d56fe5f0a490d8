"""A server as a child: how it comes up, how it goes, and what is said when it does neither."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import pytest
from commands import gone
from mangatest import HANG_GUARD_S

from mangacache import Invalid, Transient
from mangacache.local import ServerProcess, free_port, valkey_process
from mangacache.local.process import answers

STUBBORN = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = server.accept()
    client.recv(100)
    client.sendall(b"+PONG")
"""


async def reached(condition):
    async with asyncio.timeout(HANG_GUARD_S):
        while not condition():  # noqa: ASYNC110 - a process ends without telling this loop
            await asyncio.sleep(0.005)


async def ping(port):
    return await answers(asyncio.open_connection("127.0.0.1", port), b"PING\r\n", b"+PONG")


def script(tmp_path, source, *, port=None):
    """Return a server that is a few lines of Python, its port the first argument."""
    return ServerProcess(
        "script",
        command=lambda chosen: [sys.executable, "-c", source, str(chosen)],
        ready=ping,
        port=port,
        log=tmp_path / "script.log",
    )


@pytest.fixture
async def valkey(tmp_path):
    server = valkey_process(folder=tmp_path, keep=True)
    await server.start()
    yield server
    await server.stop()


async def test_a_server_goes_when_its_watchdog_is_killed(valkey):
    os.kill(valkey.watchdog_pid, signal.SIGKILL)
    await reached(lambda: gone(valkey.pid))
    assert not await ping(valkey.port)
    assert not valkey.running


async def test_a_watchdog_goes_when_its_server_has_died(valkey):
    watchdog = valkey.watchdog_pid
    assert valkey.running
    valkey.kill()
    await reached(lambda: gone(watchdog) or not valkey.running)
    assert not valkey.running


async def test_a_killed_server_comes_up_again_where_it_was(valkey):
    port, pid = valkey.port, valkey.pid
    valkey.kill()
    await valkey.restart()
    assert valkey.port == port
    assert valkey.pid != pid
    assert await ping(port)


async def test_a_paused_server_answers_nothing_until_it_goes_on(valkey):
    valkey.pause()
    reader, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
    writer.write(b"PING\r\n")
    answer = asyncio.ensure_future(reader.readline())
    done, _ = await asyncio.wait((answer,), timeout=0.1)
    assert not done
    valkey.resume()
    assert await answer == b"+PONG\r\n"
    writer.close()
    await writer.wait_closed()


async def test_a_paused_server_can_be_stopped_and_still_ends_in_good_order(valkey, tmp_path):
    pid = valkey.pid
    valkey.pause()
    await valkey.stop()
    assert gone(pid)
    assert "User requested shutdown" in (tmp_path / "valkey.log").read_text()


async def test_a_server_that_will_not_end_is_made_to(tmp_path):
    server = script(tmp_path, STUBBORN)
    await server.start()
    pid = server.pid
    await server.stop()
    assert gone(pid)
    assert not await ping(server.port)


async def test_stopping_twice_or_before_the_start_is_no_fault(tmp_path):
    server = valkey_process(folder=tmp_path)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    server.kill()
    assert not server.running


async def test_the_end_of_what_a_dead_server_said_is_in_the_error(tmp_path):
    server = script(tmp_path, "import sys; print('x' * 9999); sys.exit('there is no room for me')")
    with pytest.raises(Transient, match=r"script did not come up on port \d+; it said: x+\nthere is no room for me$"):
        await server.start()
    assert not server.running


async def test_a_program_that_does_not_exist_is_named(tmp_path):
    server = ServerProcess(
        "nothing", command=lambda _: ["/nowhere/server"], ready=ping, port=None, log=tmp_path / "nothing.log"
    )
    with pytest.raises(Transient, match=r"/nowhere/server: .*No such file"):
        await server.start()


async def test_a_free_port_that_somebody_else_took_first_is_changed_for_another(tmp_path, monkeypatch):
    """Between the choice of a port and the server's start somebody else may take it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr("mangacache.local.process.free_port", iter(ports).__next__)
        server = valkey_process(folder=tmp_path)
        await server.start()
        assert server.port == ports[1]
        await server.stop()


async def test_a_given_port_in_use_is_refused_before_anything_is_started(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = valkey_process(folder=tmp_path, port=taken.getsockname()[1])
        with pytest.raises(Invalid, match="end what listens there, or choose another port"):
            await server.start()
    assert server.pid == 0


async def test_a_start_that_is_cancelled_can_be_stopped_and_leaves_nothing(tmp_path):
    server = script(tmp_path, "import time; time.sleep(3600)")
    starting = asyncio.ensure_future(server.start())
    await reached(lambda: server.pid)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await server.stop()
    assert gone(server.pid)


async def test_an_address_that_answers_something_else_or_nothing_is_not_ready():
    async def hello(reader, writer):
        await reader.read(100)
        writer.write(b"-ERR")
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as other:
        assert not await ping(other.sockets[0].getsockname()[1])
    assert not await ping(free_port())


def test_its_repr_says_what_and_where(tmp_path):
    assert repr(valkey_process(folder=tmp_path, port=7000)) == "<ServerProcess Valkey, pid None, port 7000>"
