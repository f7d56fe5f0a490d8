"""Doors that let reads through and nothing else: a diagnosis must not change what it looks at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mangacache.redis import Dialer
from mangacache.redis.link import LinkLost, ScriptFailed
from mangacache.redis.pipeline import PipelinedLine, heard, parsed_info
from mangacache.redis.reconnecting import said
from mangacache.redis.slots import owned, slot_of
from mangacache.settings import RedisAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mangacache.clock import Clock
    from mangacache.redis import Argument
    from mangacache.redis.slots import Owned
    from mangacache.settings import Settings
    from mangacache.store import Transport

OPERATIONS: Final = frozenset(
    {"GetItem", "Query", "DescribeTable", "DescribeTimeToLive", "DescribeContinuousBackups"},
)
"""What may be asked of DynamoDB."""

COMMANDS: Final = frozenset(
    {
        "INFO",
        "CONFIG GET",
        "CLUSTER SLOTS",
        "TIME",
        "SCAN",
        "PTTL",
        "TYPE",
        "HGETALL",
        "HMGET",
        "ZRANGE",
        "MEMORY USAGE",
    }
)
"""What may be asked of Redis; of a command with parts, its first two words."""


class ReadingTransport:
    """A `Transport` that refuses whatever writes.

    Args:
        transport: that it stands before.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request that reads; see `Transport`."""
        if operation not in OPERATIONS:
            raise AssertionError(f"a diagnosis does not write, and {operation} may")
        return await self._transport.request(operation, parameters)


class ReadingNode:
    """One connection to one server, for commands that read.

    Attributes:
        address: of the server.
    """

    def __init__(self, line: PipelinedLine, address: RedisAddress) -> None:
        self.address = address
        self._line = line

    async def ask(self, *command: Argument) -> Any:
        """Return the reply to a command.

        Raises:
            LinkLost: there was none.
            ScriptFailed: the server refused it.
        """
        name = str(command[0]).upper()
        if name not in COMMANDS and " ".join([name, *map(str, command[1:2])]).upper() not in COMMANDS:
            raise AssertionError(f"a diagnosis does not write, and {name} may")
        return heard(await self._line.ask(*command), name)

    async def untouched(self) -> None:
        """Have what is read stay as old as it is for Redis's eviction, where the server can (7.2, Valkey)."""
        await self._line.ask("CLIENT", "NO-TOUCH", "ON")


@asynccontextmanager
async def reading_node(
    dialer: Dialer, address: RedisAddress, *, clock: Clock, within_s: float
) -> AsyncIterator[ReadingNode]:
    """Open a connection to a server, and close it with the block.

    Args:
        dialer: opens and logs in.
        address: of the server.
        clock: for the deadline.
        within_s: how long opening may take.

    Raises:
        LinkLost: it cannot be opened.
        ScriptFailed: the login was refused.
    """
    line = PipelinedLine(clock=clock, gone=lambda _: None)
    opened = False
    try:
        try:
            async with clock.timeout(within_s):
                username, password = await dialer.login()
                await dialer.open(address, lambda: line)
                opened = True
                await line.log_in(username, password, address.db)
        except TimeoutError as error:
            raise LinkLost(f"{address} did not answer within {within_s:g} s", sent=False) from error
        except LinkLost as error:
            raise LinkLost(f"{address}: {said(error)}", sent=False) from error
        node = ReadingNode(line, address)
        await node.untouched()
        yield node
    finally:
        line.abort("it is not needed any more")
        if opened:
            await line.ended()


_OpenNode: TypeAlias = Callable[[RedisAddress], AbstractAsyncContextManager[ReadingNode]]


class ReadingRedis:
    """Redis, or all primaries of a cluster, for commands that read; nodes are connected to as they are needed."""

    def __init__(self, stack: AsyncExitStack, first: ReadingNode, open_node: _OpenNode) -> None:
        self._stack = stack
        self._open_node = open_node
        self._owners: list[Owned] = []
        self._nodes = {(first.address.host, first.address.port): first}
        self.first = first
        self.info: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, *, clock: Clock) -> AsyncIterator[ReadingRedis]:
        """Connect to where the settings lead, and close every connection with the block.

        Raises:
            LinkLost: nobody answers.
            ScriptFailed: the login was refused.
            Invalid: the settings of the login do not go together.
        """
        dialer = Dialer(settings, clock=clock)
        within_s = settings.connect_timeout_s

        def open_node(address: RedisAddress) -> AbstractAsyncContextManager[ReadingNode]:
            return reading_node(dialer, address, clock=clock, within_s=within_s)

        async with AsyncExitStack() as stack:
            redis = cls(stack, await stack.enter_async_context(open_node(dialer.address)), open_node)
            redis.info = parsed_info(await redis.first.ask("INFO"))
            if redis.is_cluster:
                redis._owners = owned(await redis.first.ask("CLUSTER", "SLOTS"))
            yield redis

    @property
    def is_cluster(self) -> bool:
        """Whether several nodes share the keys."""
        return self.info.get("cluster_enabled") == "1"

    async def primaries(self, most: int) -> list[ReadingNode]:
        """Return the one server, or each primary of a cluster, at most so many."""
        if not self.is_cluster:
            return [self.first]
        places = dict.fromkeys((one.host, one.port) for one in self._owners)
        return [await self._node(host, port) for host, port in list(places)[:most]]

    async def ask(self, key: str, *command: Argument) -> Any:
        """Send a command to whoever has the key; see `ReadingNode.ask`."""
        if not self.is_cluster:
            return await self.first.ask(*command)
        slot = slot_of(key)
        owner = next((one for one in self._owners if one.first <= slot <= one.last), None)
        if owner is None:
            raise LinkLost(f"no node has slot {slot}", sent=False)
        return await (await self._node(owner.host, owner.port)).ask(*command)

    async def _node(self, host: str, port: int) -> ReadingNode:
        place = (host or self.first.address.host, port)
        if place not in self._nodes:
            address = replace(self.first.address, host=place[0], port=port)
            self._nodes[place] = await self._stack.enter_async_context(self._open_node(address))
        return self._nodes[place]


__all__ = [
    "COMMANDS",
    "OPERATIONS",
    "LinkLost",
    "ReadingNode",
    "ReadingRedis",
    "ReadingTransport",
    "ScriptFailed",
    "reading_node",
]
