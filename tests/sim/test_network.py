"""The simulated network: connections are TCP's, single messages are lost or late each by itself."""

from __future__ import annotations

import asyncio
import random

import pytest

from mangacache.testing.simulation import Network, SimulatedLoop

ADDRESS = "server:1"


class Echo:
    """A server that sends back what comes."""

    def __init__(self, loop, network):
        self.process = loop.process("server")
        self.open = set()
        network.listen(ADDRESS, self)

    def accept(self, connection):
        session = EchoSession(self, connection)
        self.open.add(session)
        return session


class EchoSession:
    def __init__(self, server, connection):
        self._server = server
        self._connection = connection

    def received(self, data):
        self._connection.answer(data)

    def ended(self):
        self._server.open.discard(self)


class Listener:
    def __init__(self, heard, _):
        self._heard = heard

    def received(self, data):
        self._heard.append(data)

    def ended(self):
        self._heard.append("ended")


class Client(asyncio.Protocol):
    def __init__(self):
        self.heard = b""
        self.lost = []

    def data_received(self, data):
        self.heard += data

    def connection_lost(self, error):
        self.lost.append(error)


def run(story, *, seed=0):
    loop = SimulatedLoop(random.Random(seed))
    network = Network(loop, random.Random(seed))
    try:
        return loop.run_until_complete(story(loop, network, Echo(loop, network)))
    finally:
        loop.close()


async def connected(loop):
    return await loop.create_connection(Client, "server", 1)


def test_what_is_sent_arrives_whole_and_in_order_however_late_parts_of_it_are():
    async def story(loop, network, _):
        transport, client = await connected(loop)
        way = network.way(loop.outside, ADDRESS)
        way.delays = 0.5
        for number in range(100):
            transport.write(b"%d " % number)
            await asyncio.sleep(0.001)
        await asyncio.sleep(5)
        return client.heard

    for seed in range(5):
        assert run(story, seed=seed).split() == [b"%d" % number for number in range(100)]


def test_after_a_loss_nothing_more_passes_that_way_on_this_connection_and_a_new_one_works():
    async def story(loop, network, _):
        transport, client = await connected(loop)
        way = network.way(loop.outside, ADDRESS)
        transport.write(b"heard ")
        await asyncio.sleep(0.1)
        way.loses = 1.0
        transport.write(b"lost ")
        way.mend()
        transport.write(b"behind it ")
        await asyncio.sleep(60)
        assert (client.heard, client.lost) == (b"heard ", [])
        transport.abort()
        again, other = await connected(loop)
        again.write(b"anew")
        await asyncio.sleep(0.1)
        assert other.heard == b"anew"

    run(story)


def test_a_cut_way_refuses_and_a_silent_one_says_nothing():
    async def story(loop, network, _):
        way = network.way(loop.outside, ADDRESS)
        way.cut = True
        with pytest.raises(ConnectionRefusedError):
            await connected(loop)
        way.mend()
        way.silent = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await connected(loop)

    run(story)


def test_a_reset_is_heard_by_both_sides_once():
    async def story(loop, network, server):
        _, client = await connected(loop)
        assert len(server.open) == 1
        network.way(loop.outside, ADDRESS).reset()
        await asyncio.sleep(0.1)
        assert [type(error) for error in client.lost] == [ConnectionResetError]
        assert not server.open

    run(story)


def test_who_leaves_while_a_connection_is_being_made_leaves_none_behind():
    def steps(at):
        async def story(loop, network, server):
            del network
            accept, accepted = server.accept, asyncio.Event()

            def heard_of(connection):
                accepted.set()
                return accept(connection)

            server.accept = heard_of
            connecting = asyncio.ensure_future(connected(loop))
            await accepted.wait()
            for _ in range(at):
                await asyncio.sleep(0)
            left = connecting.cancel()
            await asyncio.wait((connecting,))
            await asyncio.sleep(1)
            if left:
                assert not server.open, f"cancelled {at} steps after the server had accepted"
            return left

        return story

    at = 0
    while run(steps(at)):
        at += 1
    assert at > 1


def test_what_a_process_sent_before_it_was_killed_arrives_and_its_connections_end():
    async def story(loop, network, server):
        process = loop.process("p")
        heard, written = [], loop.create_future()

        async def live():
            transport, client = await connected(loop)
            transport.write(b"last words")
            written.set_result(client)
            await loop.create_future()

        loop.start(process, live(), name="live")
        server.accept = lambda connection: Listener(heard, connection)
        client = await written
        assert heard == []
        process.kill()
        network.died(process)
        await asyncio.sleep(1)
        assert heard == [b"last words", "ended"]
        assert not client.lost, "the dead hear of nothing: whoever killed them would act in their name"

    run(story)
