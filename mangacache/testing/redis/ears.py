"""A connection to a node that hears what scripts publish there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mangacache.redis import LinkLost
from mangacache.testing.redis.line import travel

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock, Random
    from mangacache.redis.listening import Hearer
    from mangacache.testing.redis.faults import LinkFaults
    from mangacache.testing.redis.node import Node


class MemoryEar:
    """An `Ear` to a node. Messages arrive in the order in which they were published, in a later turn of the loop.

    While the link's faults let nothing through, or the node stands still, they wait, and nothing is answered.
    """

    def __init__(
        self, node: Node, hearer: Hearer, faults: LinkFaults, *, clock: Clock, random: Random, latency_s: float
    ) -> None:
        self._node = node
        self._hearer = hearer
        self._faults = faults
        self._clock = clock
        self._random = random
        self._latency_s = latency_s
        self._channels: set[str] = set()
        self._waiting: list[tuple[str, bytes]] = []
        self.nodes: tuple[tuple[str, int], ...] = ()
        self._broken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        node.ears[self] = None
        faults.ears[self] = None

    def hear(self, channel: str, payload: bytes) -> None:
        """Take what was published at the node."""
        if channel in self._channels:
            self._waiting.append((channel, payload))
            self._loop.call_soon(self.catch_up)

    def catch_up(self) -> None:
        """Hand on what waits, if anything comes through."""
        while self._waiting and not self._held_up and not self._broken.is_set():
            self._hearer.heard(self, *self._waiting.pop(0))

    @property
    def _held_up(self) -> bool:
        return self._faults.is_stalled or self._node.backlog is not None

    async def add(self, channel: str, stands: Callable[[], None]) -> None:
        """See `Ear`."""
        await self.ping()
        self._channels.add(channel)
        stands()

    def remove(self, channel: str) -> None:
        """See `Ear`."""
        self._channels.discard(channel)

    async def ping(self) -> None:
        """See `Ear`."""
        await travel(self._clock, self._random, self._latency_s)
        if self._held_up:  # no answer will come before whoever asks has given up
            await self._broken.wait()
        await travel(self._clock, self._random, self._latency_s)
        if self._broken.is_set():
            raise LinkLost("the connection broke", sent=True)

    def abort(self, why: str) -> None:
        """See `Ear`; also what a fault does to it."""
        if not self._broken.is_set():
            self._broken.set()
            self._node.ears.pop(self, None)
            self._faults.ears.pop(self, None)
            self._hearer.ended(self, why)

    async def gone(self) -> None:
        """See `Ear`: there is nothing to wait for."""
