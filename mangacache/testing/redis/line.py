"""A connection to a node, and what travels on it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from mangacache.redis import LinkLost, ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mangacache.clock import Clock, Random
    from mangacache.redis import Argument, Script
    from mangacache.testing.redis.faults import LinkFaults
    from mangacache.testing.redis.node import Node


class Message:
    """A request on its way, and its reply's.

    Attributes:
        name: the script's, or `info`.
        node: whom it is for.
        reply: done when the reply is on its way back, or when none will come.
    """

    __slots__ = ("_act", "_error", "_loses_reply", "_value", "name", "node", "reply")

    def __init__(self, name: str, node: Node, act: Callable[[], Any]) -> None:
        self.name = name
        self.node = node
        self.reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._act = act
        self._value: Any = None
        self._error: Exception | None = LinkLost(f"{name}: the connection broke", sent=True, broke=True)
        self._loses_reply = False

    def __repr__(self) -> str:
        return f"<Message {self.name}>"

    def lose_reply(self) -> None:
        """Have nobody hear what came of it."""
        self._loses_reply = True

    def refuse(self, error: ScriptFailed) -> None:
        """Have it refused instead of done."""
        self._answer(None, error)

    def carry_out(self) -> None:
        """Do it; an error of the server's is an answer too."""
        try:
            value = self._act()
        except (LinkLost, ScriptFailed, NotImplementedError) as error:
            self._answer(None, error)
        else:
            self._answer(value, None)

    def _answer(self, value: Any, error: Exception | None) -> None:
        if not self._loses_reply and not self.reply.done():
            self._value, self._error = value, error
            self.reply.set_result(None)

    def result(self) -> Any:
        """Return the reply, or raise what came instead."""
        if self._error is not None:
            raise self._error
        return self._value


class MemoryLine:
    """A `Line` to a node: one message at a time, which cannot be called back once it is sent.

    Args:
        node: where it leads.
        faults: what befalls its messages.
        clock: of the way: each message takes its time there and back.
        random: how long exactly.
        latency_s: how long one way takes on average.
    """

    def __init__(self, node: Node, faults: LinkFaults, *, clock: Clock, random: Random, latency_s: float) -> None:
        self.node = node
        self._faults = faults
        self._clock = clock
        self._random = random
        self._latency_s = latency_s
        self._sent: Message | None = None
        self._broken = False
        node.lines[self] = None
        faults.lines[self] = None

    async def info(self) -> dict[str, str]:
        """See `Server`."""
        found: dict[str, str] = await self._ask("info", self.node.info)
        return found

    async def run(
        self, script: Script, key: str, arguments: Sequence[Argument], *, more_keys: Sequence[str] = ()
    ) -> Any:
        """See `Server`."""
        return await self._ask(script.name, partial(self.node.run, script, (key, *more_keys), tuple(arguments)))

    async def call(self, *command: Argument) -> Any:
        """See `Server`."""
        return await self._ask(str(command[0]).lower(), partial(self.node.call, *command))

    async def _ask(self, name: str, act: Callable[[], Any]) -> Any:
        if self._broken:
            raise LinkLost(f"{name}: the connection broke", sent=True, broke=True)
        message = self._sent = Message(name, self.node, act)
        try:
            await travel(self._clock, self._random, self._latency_s)
        finally:  # what was sent arrives, whether or not anybody waits for it still
            if not self._broken:
                self._faults.pass_on(message)
        await message.reply
        await travel(self._clock, self._random, self._latency_s)
        if self._broken:
            raise LinkLost(f"{name}: the connection broke", sent=True, broke=True)
        return message.result()

    def abort(self) -> None:
        """See `Line`; also what a fault does to it."""
        self._broken = True
        self.node.lines.pop(self, None)
        self._faults.lines.pop(self, None)
        if self._sent is not None and not self._sent.reply.done():
            self._sent.reply.set_result(None)

    async def ended(self) -> None:
        """See `Line`: there is nothing to wait for."""


async def travel(clock: Clock, random: Random, latency_s: float) -> None:
    """Wait as long as one way takes; at the least, everybody else who is ready comes first."""
    await clock.sleep(2 * latency_s * random.random() if latency_s else 0)
