"""What a test can have go wrong, and put right again."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from mangacache.local.dax.emulator import DaxEmulator
    from mangacache.local.dax.server import NodeServer


class EmulatorFaults:
    """Faults of one emulator, in force until `heal`.

    Args:
        emulator: that they befall.
    """

    def __init__(self, emulator: DaxEmulator) -> None:
        self._emulator = emulator
        self._healed = asyncio.Event()

    async def kill(self, node: int = 0) -> None:
        """End a node: its port is closed, its connections broken, its caches gone; another one leads if it did.

        What it was at work on gets no reply, though DynamoDB may have done it.
        """
        server = self._server(node)
        self._emulator.plans.kill(node)
        await server.stop()

    async def restart(self, node: int = 0) -> None:
        """Start a dead node again, on its port, with empty caches."""
        server = self._server(node)
        if not server.node.alive:
            await server.start()

    def slow(self, delay_s: float, *, node: int | None = None) -> None:
        """Hold each reply back, of one node or of all, whatever it is for; infinity stops them, 0 ends it."""
        if not delay_s >= 0:
            raise Invalid(f"a reply cannot be held back for {delay_s} s")
        self._emulator.plans.slow(delay_s, node=node)

    def stop_replies(self, *, node: int | None = None) -> None:
        """Do what is asked and say nothing, with connections open: what a client's time-out is for."""
        self.slow(math.inf, node=node)

    def lose_replies(self, count: int = 1, *, operation: str | None = None) -> None:
        """Do the next `count` requests for data, of one operation or of any, and end the connection instead."""
        self._emulator.plans.lose_replies(_counted(count), operation=operation)

    def throttle(self, count: int = 1, *, operation: str | None = None) -> None:
        """Refuse the next `count` requests for data, of one operation or of any, for load; nothing is done."""
        self._emulator.plans.throttle(_counted(count), operation=operation)

    def lag(self, seconds: float) -> None:
        """Set how long what one node caches takes to the others; infinity keeps them apart until it is set anew."""
        if not seconds >= 0:
            raise Invalid(f"a lag of {seconds} s cannot be")
        self._emulator.cluster.replication_lag_s = seconds

    async def heal(self) -> None:
        """End every fault: dead nodes start with empty caches, replies held back are sent, the lag is as it began."""
        for server in self._emulator.servers:
            await self.restart(server.node.number)
        self._emulator.plans.heal()
        self._emulator.cluster.replication_lag_s = self._emulator.options.replication_lag_s
        self._healed.set()
        self._healed = asyncio.Event()

    async def wait(self, delay_s: float) -> None:
        """Wait, until the faults are over at the latest."""
        try:
            async with self._emulator.clock.timeout(None if math.isinf(delay_s) else delay_s):
                await self._healed.wait()
        except TimeoutError:
            return

    def _server(self, node: int) -> NodeServer:
        if not 0 <= node < len(self._emulator.servers):
            raise Invalid(f"there is no node {node}: the cluster has {len(self._emulator.servers)}, from 0")
        return self._emulator.servers[node]


def _counted(count: int) -> int:
    if count < 1:
        raise Invalid(f"{count} requests cannot be struck: name a number from 1")
    return count
