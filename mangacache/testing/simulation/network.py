"""The simulated network: what one process sends another takes time, and may be late, lost, or the last.

A connection is as TCP's: what is sent over it arrives in order or not at all. What a real network does to a segment
that it loses, TCP hides or gives up on; so a loss here is a delay of everything behind it, or a direction in which
nothing passes any more, without a sign. Single messages (`send`) are for what sends each request by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Random
    from mangacache.testing.simulation.loop import SimulatedLoop
    from mangacache.testing.simulation.processes import Process
    from mangacache.testing.simulation.tracing import Trace

_NEVER: Final = float("inf")


class Session(Protocol):
    """The server's side of one connection."""

    def received(self, data: bytes) -> None:
        """Take what has come."""

    def ended(self) -> None:
        """Hear that the connection has ended."""


class Server(Protocol):
    """What listens at an address."""

    process: Process

    def accept(self, connection: Connection) -> Session | None:
        """Return the server's side of a new connection; None refuses it."""


class Way:
    """The way from one process to one address, and what befalls what goes over it.

    Attributes:
        latency_s: how long a message takes one way, on average.
        loses: chance of each message, each way, to be lost.
        delays: chance of each message, each way, to be late.
        late_s: by how much at most.
        cut: nothing passes and connections are refused.
        silent: nothing passes, and nobody is told.
    """

    __slots__ = ("connections", "cut", "delays", "late_s", "latency_s", "loses", "silent")

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.loses = 0.0
        self.delays = 0.0
        self.late_s = 1.0
        self.cut = False
        self.silent = False
        self.connections: dict[Connection, None] = {}

    def takes_s(self, random: Random) -> float:
        """Return how long the next message takes; infinity where it is lost."""
        if self.silent or self.cut or (self.loses and random.random() < self.loses):
            return _NEVER
        chance = random.random()
        taken_s = self.latency_s * (0.5 + chance)
        if self.delays and random.random() < self.delays:
            taken_s += self.late_s * random.random()
        return taken_s

    def reset(self) -> None:
        """Break every connection that leads this way."""
        for connection in list(self.connections):
            connection.reset()

    def mend(self) -> None:
        """End every fault; a connection that has gone silent stays so, as nobody repairs a connection."""
        self.cut = self.silent = False
        self.loses = self.delays = 0.0


class Network:
    """Ways between processes and addresses.

    Args:
        loop: delivers.
        random: decides delay and loss.
        latency_s: of each way, unless said otherwise.
        trace: hears of every message.
    """

    def __init__(
        self, loop: SimulatedLoop, random: Random, *, latency_s: float = 0.0005, trace: Trace | None = None
    ) -> None:
        self.loop = loop
        self.random = random
        self.trace = trace
        self._latency_s = latency_s
        self._servers: dict[str, Server] = {}
        self._ways: dict[tuple[Process, str], Way] = {}
        self._ended = False
        loop.network = self

    def listen(self, address: str, server: Server, *, latency_s: float | None = None) -> None:
        """Have a server reached at an address."""
        self._servers[address] = server
        if latency_s is not None:
            for (_, to), way in self._ways.items():
                if to == address:
                    way.latency_s = latency_s

    def way(self, process: Process, address: str) -> Way:
        """Return the way from a process to an address."""
        way = self._ways.get((process, address))
        if way is None:
            way = self._ways[process, address] = Way(self._latency_s)
            way.cut = self._ended
        return way

    def ways_to(self, address: str) -> list[Way]:
        """Return the ways to an address."""
        return [way for (_, to), way in self._ways.items() if to == address]

    def ways_of(self, process: Process) -> list[Way]:
        """Return the ways of a process."""
        return [way for (of, _), way in self._ways.items() if of is process]

    def died(self, process: Process) -> None:
        """Close a dead process's connections, as its operating system does; what it has sent arrives."""
        for way in self.ways_of(process):
            for connection in list(way.connections):
                connection.close()

    def end(self) -> None:
        """Carry nothing any more, and say nothing of it."""
        self._ended, self.trace = True, None
        for way in self._ways.values():
            way.cut = True
            way.reset()

    def note(self, who: str, what: str) -> None:
        """Have the trace take something down, where there is one."""
        if self.trace is not None:
            self.trace.note(who, what)

    # Connections

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], address: str
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect the calling process to an address; see `loop.create_connection`.

        Raises:
            ConnectionRefusedError: nobody listens there.
        """
        loop = self.loop
        process, way = loop.current, self.way(loop.current, address)
        connection = Connection(self, process, address, way)
        opened: asyncio.Future[bool] = loop.create_future()
        if way.cut:
            loop.deliver_at(loop.time() + way.latency_s, process, _tell, opened, False, by=connection)
        elif (taken_s := way.takes_s(self.random)) != _NEVER:
            server = self._servers[address]
            loop.deliver_at(loop.time() + taken_s, server.process, connection.arrive, server, opened, by=connection)
        try:
            if not await opened:
                raise ConnectionRefusedError(f"nobody listens at {address}")
        except BaseException:
            connection.close()
            raise
        protocol = factory()
        connection.protocol = protocol
        connected: asyncio.Future[bool] = loop.create_future()
        loop.call_soon(protocol.connection_made, connection)
        loop.call_soon(_tell, connected, True)
        try:
            await connected
        except BaseException:
            connection.close()
            raise
        return connection, protocol

    # Single messages

    def send(self, way: Way, to: Process, callback: Callable[..., object], *args: Any) -> bool:
        """Have a message arrive some time, or never; return whether it will."""
        taken_s = way.takes_s(self.random)
        if taken_s == _NEVER:
            return False
        self.loop.deliver_at(self.loop.time() + taken_s, to, callback, *args, by=args)
        return True


class Connection(asyncio.Transport):
    """One connection; to the client's process it is the transport.

    Args:
        network: that it runs over.
        process: the client.
        address: of the server.
        way: between them.

    Attributes:
        protocol: the client's.
        session: the server's side; None before it has accepted, and when it has ended.
    """

    def __init__(self, network: Network, process: Process, address: str, way: Way) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None
        self.session: Session | None = None
        self.process = process
        self._network = network
        self._server: Process | None = None
        self._address = address
        self._way = way
        self._closing = False
        self._lost = False
        self._there_s = self._back_s = 0.0
        way.connections[self] = None

    def __repr__(self) -> str:
        return f"<Connection of {self.process.name} to {self._address}>"

    # At the server

    def arrive(self, server: Server, opened: asyncio.Future[bool]) -> None:
        """Come to the server, which accepts or refuses."""
        self._server = server.process
        self.session = None if self._lost else server.accept(self)
        taken_s = self._way.takes_s(self._network.random)
        if taken_s != _NEVER:
            at_s = self._back_s = self._network.loop.time() + taken_s
            accepted = self.session is not None
            self._network.loop.deliver_at(at_s, self.process, _tell, opened, accepted, by=self)

    def answer(self, data: bytes, what: str = "") -> None:
        """Send from the server to the client."""
        if self._lost or self.session is None:
            return
        at_s = self._back_s = self._at_s(self._back_s)
        if self._network.trace is not None:
            self._network.note(self._address, f"> {self.process.name} {what}{_fate(at_s)}")
        if at_s != _NEVER:
            self._network.loop.deliver_at(at_s, self.process, self._received, data, by=self)

    def reset(self) -> None:
        """Break it; both sides hear of it at once."""
        self._end()
        if self.process.alive and not self._lost:
            self._lost = True
            error = ConnectionResetError("the connection was reset")
            self._network.loop.deliver_at(self._network.loop.time(), self.process, self._lose, error, by=self)

    # At the client: asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        if self._closing or self._lost or self._server is None:
            return
        at_s = self._there_s = self._at_s(self._there_s)
        if self._network.trace is not None:
            self._network.note(self.process.name, f"> {self._address} {len(data)} bytes{_fate(at_s)}")
        if at_s != _NEVER:
            self._network.loop.deliver_at(at_s, self._server, self._arrived, bytes(data), by=self)

    def close(self) -> None:
        """See asyncio."""
        if self._closing:
            return
        self._closing = True
        if self._server is not None:  # what was sent arrives first
            at_s = max(self._there_s, self._network.loop.time() + self._way.latency_s)
            if at_s != _NEVER:
                self._network.loop.deliver_at(at_s, self._server, self._end, by=self)
            else:
                self._end()
        else:
            self._lost = True
            self._end()
        if self.protocol is not None and not self._lost:
            self._network.loop.call_soon(self._lose, None, context=self.process.context)

    def abort(self) -> None:
        """See asyncio."""
        self.close()

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio: there is nothing to tell."""
        del name
        return default

    def get_write_buffer_size(self) -> int:
        """See asyncio: all is sent at once."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio: nothing is held back."""

    def is_reading(self) -> bool:
        """See asyncio."""
        return not self._closing

    def pause_reading(self) -> None:
        """See asyncio; refused."""
        raise NotImplementedError("a simulated connection does not stop reading")

    def resume_reading(self) -> None:
        """See asyncio."""

    def can_write_eof(self) -> bool:
        """See asyncio."""
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio."""
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See asyncio."""
        if self.protocol is None:
            raise AssertionError("a connection without a protocol")
        return self.protocol

    # On the way

    def _at_s(self, after_s: float) -> float:
        """Return when what is sent now arrives: not before what was sent before it, which may be never."""
        return max(after_s, self._network.loop.time() + self._way.takes_s(self._network.random))

    def _arrived(self, data: bytes) -> None:
        if self.session is not None:
            self.session.received(data)

    def _received(self, data: bytes) -> None:
        if not self._closing and not self._lost and isinstance(self.protocol, asyncio.Protocol):
            self.protocol.data_received(data)

    def _end(self) -> None:
        session, self.session = self.session, None
        self._way.connections.pop(self, None)
        if session is not None:
            session.ended()

    def _lose(self, error: Exception | None) -> None:
        self._lost = self._closing = True
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost(error)


def _tell(future: asyncio.Future[bool], value: bool) -> None:  # noqa: FBT001 - handed over by call_soon
    if not future.done():
        future.set_result(value)


def _fate(at_s: float) -> str:
    return " (lost)" if at_s == _NEVER else ""
