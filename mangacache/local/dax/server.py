"""One node as clients meet it: a listening port and its connections."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mangacache.errors import Invalid
from mangacache.local.dax.connection import Connection
from mangacache.local.dax.replies import Endpoint
from mangacache.local.dax.signatures import complaint
from mangacache.testing.dax.serving import OPERATIONS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from mangacache.clock import Clock
    from mangacache.local.dax.answering import Reply
    from mangacache.local.dax.emulator import DaxEmulator
    from mangacache.local.dax.requests import AuthorizeConnection, Request
    from mangacache.local.dax.upstream import Upstream
    from mangacache.tasks import TaskOwner
    from mangacache.testing.dax.node import Node


class NodeServer:
    """Serves one node of a cluster.

    Args:
        emulator: whose node it is.
        node: the node.
        host: the address to listen at.
        port: 0 takes a free one, and keeps it.
        tls: None without encryption.

    Attributes:
        port: that it listens at, or did when it was alive.
        refusals: how many connections were ended for what reason.
        cut_off: how many connections ended within a request.
    """

    def __init__(self, emulator: DaxEmulator, node: Node, *, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.node = node
        self.port = port
        self.refusals: Counter[str] = Counter()
        self.cut_off = 0
        self.loop = asyncio.get_running_loop()
        self._emulator = emulator
        self._host = host
        self._tls = tls
        self._listening: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    def __repr__(self) -> str:
        state = "alive" if self.node.alive else "dead"
        return f"<NodeServer {self.node.number}, {state}, port {self.port}, {len(self._connections)} connections>"

    # Its life

    async def start(self) -> None:
        """Listen.

        Raises:
            Invalid: the port is taken, or the address is not this machine's.
        """
        was_alive, self.node.alive = self.node.alive, True  # before the first connection is there, which asks
        try:
            self._listening = await self.loop.create_server(
                lambda: Connection(self), self._host, self.port, ssl=self._tls
            )
        except (OSError, OverflowError) as error:
            self.node.alive = was_alive
            raise Invalid(
                f"port {self.port} at {self._host} cannot be used for node {self.node.number} of the DAX emulator "
                f"({error}): end what listens there, or choose another port"
            ) from error
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more and end every connection."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for connection in tuple(self._connections):
            connection.abort()

    def load(self) -> dict[str, int]:
        """Return how many connections are open, how many of them have slow readers, and what all of them hold."""
        return {
            "connections": len(self._connections),
            "stalled": sum(connection.stalled for connection in self._connections),
            "held_bytes": sum(connection.held_bytes for connection in self._connections),
        }

    # For its connections

    @property
    def clock(self) -> Clock:
        """What waits are measured by."""
        return self._emulator.clock

    @property
    def tasks(self) -> TaskOwner:
        """The owner of what goes on beside the event loop's calls."""
        return self._emulator.tasks

    @property
    def upstream(self) -> Upstream:
        """The way to DynamoDB."""
        return self._emulator.upstream

    def opened(self, connection: Connection) -> None:
        """Take in a connection, unless there are too many, or the node died while it was being opened."""
        self._connections.add(connection)
        if not self.node.alive:
            connection.abort()
            return
        limit = self._emulator.options.max_connections
        if len(self._connections) > limit:
            connection.abort(f"there are {limit} connections to this node already")

    def closed(self, connection: Connection) -> None:
        """Let a connection go."""
        self._connections.discard(connection)

    def refused(self, reason: str, peer: object) -> None:
        """Count and log a connection that is ended for its own fault."""
        self.refusals[reason.partition(":")[0]] += 1
        self._emulator.log.warning("dax_connection_ended", node=self.node.number, reason=reason, peer=str(peer))

    @property
    def first_complaint(self) -> str | None:
        """What is wrong with a connection that has not yet said who it is."""
        return None if self._emulator.options.secrets is None else "the connection has not been signed for"

    def complaint(self, request: AuthorizeConnection) -> str | None:
        """Return what is wrong with a signature, None where nothing is or nobody looks."""
        secrets = self._emulator.options.secrets
        if secrets is None:
            return None
        wrong = complaint(
            secrets,
            access_key=request.access_key,
            signature=request.signature,
            string_to_sign=request.string_to_sign,
            now_s=self.clock.time_s(),
        )
        if wrong is not None:
            self._emulator.log.warning("dax_signature_refused", node=self.node.number, reason=wrong)
        return wrong

    def answer(self, request: Request, transport: asyncio.Transport) -> Reply:
        """Begin the work on a request that came over `transport`."""

        def endpoints() -> list[Endpoint]:
            return self._emulator.endpoints(transport.get_extra_info("sockname")[0])

        return self._emulator.answering.answer(self.node, request, endpoints)

    def loses_reply(self, request: Request) -> bool:
        """Tell whether the reply to this request is to be lost; only those for data are."""
        kind = type(request).__name__
        return kind in OPERATIONS and self._emulator.plans.loses_reply(kind)

    @property
    def delay_s(self) -> float:
        """How long replies are held back."""
        return self._emulator.plans.delay_s(self.node)

    async def wait(self, delay_s: float) -> None:
        """Hold something back, until the faults are over at the latest."""
        await self._emulator.faults.wait(delay_s)


def endpoints_of(
    servers: Iterable[NodeServer], *, leader: int, session: int, hostname: str, address: str
) -> list[Endpoint]:
    """Return the nodes that live as clients are told of them."""
    packed = ip_address(address).packed
    return [
        Endpoint(
            node=server.node.number,
            hostname=hostname,
            address=packed,
            port=server.port,
            leader=server.node.number == leader,
            leader_session=session,
        )
        for server in servers
        if server.node.alive
    ]


async def resolve(host: str) -> str:
    """Return a host's address, as the endpoints' reply needs one.

    Raises:
        Invalid: it has none.
    """
    try:
        found: Any = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Invalid(f"the advertised address {host!r} cannot be resolved ({error}): give an address") from error
    address: str = min(found, key=lambda each: bool(each[0] != socket.AF_INET))[4][0]
    return address
