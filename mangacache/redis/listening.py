"""One connection that hears what is published: channels are added and removed, messages are handed on as they come.

Ours and not redis-py's: its pub/sub subscribes again by itself after a break and says nothing of what was published
meanwhile, which is the one thing that a listener has to know; and it has none for asyncio on a cluster.

Where the server knows sharded pub/sub (Redis 7, Valkey), that is used: in a cluster a message then goes to the nodes of
one shard and not to all. An older server is asked for the classic kind, and publishers find out the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import hiredis

from mangacache.redis.link import LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock

_END_WITHIN_S: Final = 1.0
_NOT_YET: Final = object()
_SAID: Final = 200
_MESSAGES: Final = frozenset({b"message", b"smessage"})
_REMOVED: Final = frozenset({b"unsubscribe", b"sunsubscribe"})


class Elsewhere(Exception):
    """In this cluster another node has the channel's slot.

    Attributes:
        host, port: of that node; an empty host is the one that was asked.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port}")
        self.host = host
        self.port = port


class Hearer(Protocol):
    """Whom a connection tells what it hears."""

    def heard(self, ear: Ear, channel: str, payload: bytes) -> None:
        """Take a message."""

    def dropped(self, ear: Ear, channel: str) -> None:
        """Learn that the server has ended a subscription: the slot has moved to another node."""

    def ended(self, ear: Ear, why: str) -> None:
        """Learn that the connection is gone, and with it every subscription on it; told once."""


class Ear(Protocol):
    """A connection for subscriptions.

    Attributes:
        nodes: of the cluster that it leads to, by host and port, as that node knows them; an empty host is its own.
    """

    nodes: tuple[tuple[str, int], ...]

    async def add(self, channel: str, stands: Callable[[], None]) -> None:
        """Subscribe.

        Args:
            channel: to what.
            stands: called when the server has confirmed it, before any message that was published after that.

        Raises:
            LinkLost: the connection broke, or the server refused.
            Elsewhere: another node has the channel.
        """

    def remove(self, channel: str) -> None:
        """End a subscription; nobody waits for that."""

    async def ping(self) -> None:
        """Wait until the server has answered.

        Raises:
            LinkLost: the connection broke.
        """

    def abort(self, why: str) -> None:
        """Let go of it at once."""

    async def gone(self) -> None:
        """Wait until nothing is left of it, after `abort`."""


class _Asked:
    """A command that is to be answered.

    Attributes:
        removes: the channel that it ends the subscription to, or empty.
        done: called at once when it has been carried out.
    """

    __slots__ = ("done", "outcome", "removes")

    def __init__(self, outcome: asyncio.Future[Any], removes: bytes, done: Callable[[], None] | None) -> None:
        self.outcome = outcome
        self.removes = removes
        self.done = done


class ListeningLine(asyncio.Protocol):
    """An `Ear` over a socket; speaks RESP 2. Each command has one answer, in order, among messages of any number."""

    def __init__(self, hearer: Hearer, *, clock: Clock) -> None:
        self._hearer = hearer
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._asked: deque[_Asked] = deque()
        self.nodes: tuple[tuple[str, int], ...] = ()
        self._sharded = True
        self._told = False
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        state = "ended" if self._told else "open"
        return f"<ListeningLine {state}, {'sharded' if self._sharded else 'classic'}, {len(self._asked)} asked>"

    async def begin(self, username: str | None, password: str | None) -> None:
        """Log in, and see that this is a server that others write to.

        Raises:
            LinkLost: it is not, or does not take the login.
        """
        if password is not None:
            names = () if username is None else (username,)
            await self._answered("the login", "AUTH", *names, password)
        role, clustered = b"", b""
        for section in ("replication", "cluster"):
            for line in (await self._answered("info", "INFO", section)).splitlines():
                name, _, value = line.partition(b":")
                role = value if name == b"role" else role
                clustered = value if name == b"cluster_enabled" else clustered
        if clustered == b"1":
            slots = await self._answered("the cluster's slots", "CLUSTER", "SLOTS")
            self.nodes = tuple({((node[0] or b"").decode(), node[1]): None for _, _, *nodes in slots for node in nodes})
        elif role != b"master":
            raise LinkLost("Redis answers there as a replica, not as a primary", sent=False)

    async def add(self, channel: str, stands: Callable[[], None]) -> None:
        """See `Ear`."""
        name, what = channel.encode(), f"a subscription to {channel}"
        if self._sharded:
            try:
                await self._answered(what, "SSUBSCRIBE", name, done=stands)
            except _Unknown:
                self._sharded = False
            else:
                return
        await self._answered(what, "SUBSCRIBE", name, done=stands)

    def remove(self, channel: str) -> None:
        """See `Ear`."""
        if not self._told:
            name = channel.encode()
            self._ask("SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE", name, removes=name)

    async def ping(self) -> None:
        """See `Ear`."""
        await self._answered("a ping", "PING")

    def abort(self, why: str) -> None:
        """See `Ear`."""
        if self._told:
            return
        self._told = True
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ended.set()
        lost = LinkLost(why, sent=True)
        while self._asked:
            _tell(self._asked.popleft(), lost)
        self._hearer.ended(self, why)

    async def gone(self) -> None:
        """See `Ear`."""
        with contextlib.suppress(TimeoutError):  # how it ended is of no interest: it was given up
            async with self._clock.timeout(_END_WITHIN_S):
                await self._ended.wait()

    def _ask(
        self, *command: str | bytes, removes: bytes = b"", done: Callable[[], None] | None = None
    ) -> asyncio.Future[Any]:
        asked = _Asked(self._loop.create_future(), removes, done)
        if self._told or self._transport is None:
            asked.outcome.set_result(LinkLost("the connection is closed", sent=False))
        else:
            self._asked.append(asked)
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # see pipeline.py
        return asked.outcome

    async def _answered(self, what: str, *command: str | bytes, done: Callable[[], None] | None = None) -> Any:
        outcome = await self._ask(*command, done=done)
        if isinstance(outcome, LinkLost):
            raise LinkLost(f"{what}: {outcome}", sent=outcome.sent)
        if isinstance(outcome, hiredis.ReplyError):
            raise _refusal(what, str(outcome)) from outcome
        return outcome

    # What comes in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._reader.feed(data)
            while not self._told and (reply := self._reader.gets()) is not _NOT_YET:
                self._take(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"what came is no reply: {error}"[:_SAID])

    def _take(self, reply: Any) -> None:
        kind = reply[0] if type(reply) is list and reply and type(reply[0]) is bytes else None
        if kind in _MESSAGES:
            self._hearer.heard(self, reply[1].decode(errors="replace"), reply[2])
        elif kind in _REMOVED and not (self._asked and self._asked[0].removes == reply[1]):
            self._hearer.dropped(self, reply[1].decode(errors="replace"))
        elif self._asked:
            _tell(self._asked.popleft(), reply)
        else:
            self.abort("it spoke unasked")

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.abort(f"{type(error).__name__}: {error}"[:_SAID] if error else "the server closed the connection")
        self._ended.set()


class _Unknown(LinkLost):
    """The server does not know the command."""


def _refusal(what: str, said: str) -> Exception:
    """Return what a refusal means: another node, an older server, or that there is nothing to be heard here."""
    if said.startswith("MOVED "):
        host, _, port = said.split(" ")[2].rpartition(":")
        return Elsewhere(host.strip("[]"), int(port))
    if "unknown command" in said.lower():
        return _Unknown(f"{what}: {said}", sent=False)
    return LinkLost(f"{what}: {said}", sent=False)


def _tell(asked: _Asked, outcome: Any) -> None:
    if asked.outcome.done():
        return
    asked.outcome.set_result(outcome)
    if asked.done is not None and type(outcome) is list:
        asked.done()
