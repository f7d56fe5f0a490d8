"""What the rooms above ask of a link to Redis, and what it tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import Any, Protocol, Self, TypeAlias

import msgspec

Argument: TypeAlias = bytes | str | int | float


class Script(msgspec.Struct, frozen=True):
    """A Lua script, by the hash under which a server knows it.

    Attributes:
        name: what logs and metrics call it.
    """

    name: str
    text: str
    sha: str

    @classmethod
    def of(cls, name: str, text: str) -> Self:
        """Return the script of a text."""
        return cls(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class LinkLost(Exception):
    """The server did not answer, or could not be asked.

    Attributes:
        sent: whether the command may have been carried out.
        broke: whether the connection broke under it; else there was none, or no room, or no time.
        down: whether the server that has the key is known to be away, so that it fails at once and will again.
    """

    def __init__(self, message: str, *, sent: bool, broke: bool = False, down: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.broke = broke
        self.down = down


class Redirected(LinkLost):
    """In a cluster, another node has the key; nothing was done.

    Attributes:
        host: of that node; empty: the one that was asked.
        port: of that node.
        ask: whether only this command is to go there, since the key's slot is on its way.
    """

    def __init__(self, message: str, *, host: str, port: int, ask: bool) -> None:
        super().__init__(message, sent=False)
        self.host = host
        self.port = port
        self.ask = ask

    @classmethod
    def by(cls, what: str, refusal: str) -> Self | None:
        """Return what a refusal says, None where it is another one: `MOVED 3999 127.0.0.1:6381`."""
        kind, _, rest = refusal.partition(" ")
        if kind not in {"MOVED", "ASK"}:
            return None
        host, _, port = rest.rpartition(" ")[2].rpartition(":")
        return cls(f"{what}: {refusal}", host=host.strip("[]"), port=int(port), ask=kind == "ASK")


class Moved(Exception):
    """The command was meant for connections admitted under another tag; nothing was sent."""


class ScriptFailed(Exception):
    """The server refused the command: a value of another kind under the key, a right that is missing, no memory."""


class Server(Protocol):
    """A connection that has just been opened, as `Admission` sees it."""

    async def info(self) -> dict[str, str]:
        """Return the server's INFO, sections `server`, `replication` and `cluster`.

        In a cluster `cluster_slots` is added: the slots that it says are its own, `0-5460,7000`.
        """

    async def run(
        self, script: Script, key: str, arguments: Sequence[Argument], *, more_keys: Sequence[str] = ()
    ) -> Any:
        """Run a script on this very connection; see `Link.run`."""

    async def call(self, *command: Argument) -> Any:
        """Send a command on this very connection; see `Link.call`."""


Admission: TypeAlias = Callable[[Server], Awaitable[int]]
"""Looks at each new connection before anything else is sent on it, and returns the tag under which it may be used.

An error refuses the connection: it is closed, and the link tries again later.
"""


class Changes(Protocol):
    """Whom a link tells that what was read over it with `watch` may not be current any more."""

    def changed(self, key: str) -> None:
        """Learn that another client has written a key since it was read, or that the server forgot it."""

    def lost(self) -> None:
        """Learn that nothing more is heard of what was read before: the connection is gone."""


class Link(Protocol):
    """A way to one Redis, or to all nodes of a cluster."""

    def watch_with(self, changes: Changes) -> None:
        """Have changes told of what is read with `watch` from now on; a link that cannot says nothing."""

    def admit_with(self, admission: Admission) -> None:
        """Have every connection looked at that is opened from now on."""

    @property
    def up(self) -> bool:
        """Whether commands are sent; while it is False they fail at once, and the link reconnects by itself."""

    async def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
    ) -> Any:
        """Run a script, and return its reply; texts are bytes.

        Args:
            script: what is run.
            key: `KEYS[1]`, which chooses the server.
            arguments: `ARGV`.
            more_keys: `KEYS[2]` and on; in a cluster they have `key`'s hash tag, or the server refuses them.
            tag: under which the connection must have been admitted; None: under whichever.
            repeatable: whether it may be carried out twice. Only then it is sent again, once, where the connection
                broke before the reply; a reply that is late is not waited for twice.
            watch: whether to be told when another client writes a key that the script has read.

        Raises:
            LinkLost: no answer in time, or no connection.
            Moved: the connections are admitted under another tag now.
            ScriptFailed: the server refused it.
        """

    async def call(
        self, *command: Argument, key: str | None = None, tag: int | None = None, repeatable: bool = False
    ) -> Any:
        """Send a command as it is, and return its reply as RESP 3 has it: `GET`, `PUBLISH`, `SCAN`.

        Nothing that blocks, subscribes, or changes the connection: it is shared.

        Args:
            command: its name and arguments.
            key: what chooses the server in a cluster, a key or a channel of sharded pub/sub; None: any primary.
            tag: see `run`.
            repeatable: see `run`.

        Raises:
            LinkLost, Moved, ScriptFailed: see `run`.
        """

    def drop(self) -> None:
        """Give up every connection: those opened from now on are admitted anew."""

    async def close(self) -> None:
        """Close every connection; `run` raises `LinkLost` from then on."""
