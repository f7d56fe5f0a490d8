"""The fault port of one link: what can happen on the way to Redis, on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mangacache.redis import ScriptFailed

if TYPE_CHECKING:
    from mangacache.testing.redis.ears import MemoryEar
    from mangacache.testing.redis.line import MemoryLine, Message


@dataclass(slots=True)
class _Plan:
    """Something that is to happen to the next messages."""

    left: int
    script: str | None

    def strikes(self, message: Message) -> bool:
        """Tell whether it happens to this message, and count it."""
        if not self.left or (self.script or message.name) != message.name or message.name == "info":
            return False
        self.left -= 1
        return True


class LinkFaults:
    """Faults of one link, in force until `mend`. INFO is struck only by `cut` and `stall`.

    Attributes:
        held: messages on their way, oldest first, that arrive by `deliver` or `mend`.
        is_cut, is_stalled: whether that fault is in force.
    """

    def __init__(self) -> None:
        self.held: list[Message] = []
        self.lines: dict[MemoryLine, None] = {}
        self.ears: dict[MemoryEar, None] = {}
        self.is_cut = False
        self.is_stalled = False
        self._lost: list[_Plan] = []
        self._unheard: list[_Plan] = []
        self._delayed: list[_Plan] = []
        self._refused: list[_Plan] = []

    def __repr__(self) -> str:
        return f"<LinkFaults cut={self.is_cut} stalled={self.is_stalled} held={self.held}>"

    def cut(self) -> None:
        """Break every connection, and refuse new ones; what was on its way is lost."""
        self.is_cut = True
        self.reset()

    def reset(self) -> None:
        """Break every connection once; new ones open."""
        for line in list(self.lines):
            line.abort()
        self.deafen()

    def deafen(self) -> None:
        """Break every connection that listens, and no other: what is published before they are back is lost."""
        for ear in list(self.ears):
            ear.abort("the connection broke")

    def stall(self) -> None:
        """Let nothing through: what is sent is held, connections neither open nor break."""
        self.is_stalled = True

    def lose_requests(self, count: int = 1, *, script: str | None = None) -> None:
        """Lose the next `count` requests, of one script or of any, without a sign: their senders wait in vain."""
        self._lost.append(_Plan(count, script))

    def lose_replies(self, count: int = 1, *, script: str | None = None) -> None:
        """Have the next `count` requests, of one script or of any, carried out and their replies lost."""
        self._unheard.append(_Plan(count, script))

    def delay(self, count: int = 1, *, script: str | None = None) -> None:
        """Hold the next `count` requests, of one script or of any, back until `deliver`."""
        self._delayed.append(_Plan(count, script))

    def refuse(self, count: int = 1, *, script: str | None = None) -> None:
        """Have the server refuse the next `count` requests, of one script or of any, for want of memory."""
        self._refused.append(_Plan(count, script))

    def deliver(self, index: int = 0) -> None:
        """Let a message arrive that is held; its sender may have given up long ago."""
        message = self.held.pop(index)
        message.node.accept(message)

    def mend(self) -> None:
        """End every fault: what is held arrives, in order, and connections open again."""
        self.is_cut = self.is_stalled = False
        for plans in (self._lost, self._unheard, self._delayed, self._refused):
            plans.clear()
        while self.held:
            self.deliver()
        for ear in list(self.ears):
            ear.catch_up()

    def pass_on(self, message: Message) -> None:
        """Do to a message what is to happen to it."""
        if _strikes(self._lost, message):
            return
        if _strikes(self._refused, message):
            message.refuse(ScriptFailed(f"{message.name}: OOM command not allowed when used memory > 'maxmemory'"))
            return
        if _strikes(self._unheard, message):
            message.lose_reply()
        if self.is_stalled or _strikes(self._delayed, message):
            self.held.append(message)
        else:
            message.node.accept(message)


def _strikes(plans: list[_Plan], message: Message) -> bool:
    return any(plan.strikes(message) for plan in plans)
