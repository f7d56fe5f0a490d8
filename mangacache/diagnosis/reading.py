"""Doors that let reads through and nothing else: a diagnosis must not change what it looks at."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from mangacache.redis.link import LinkLost, ScriptFailed
from mangacache.redis.pipeline import PipelinedLine, heard
from mangacache.redis.reconnecting import said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mangacache.clock import Clock
    from mangacache.redis import Argument, Dialer
    from mangacache.settings import RedisAddress
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


__all__ = ["COMMANDS", "OPERATIONS", "LinkLost", "ReadingNode", "ReadingTransport", "ScriptFailed", "reading_node"]
