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
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Moved(Exception):
    """The command was meant for connections admitted under another tag; nothing was sent."""


class ScriptFailed(Exception):
    """The server refused the command: a value of another kind under the key, a right that is missing, no memory."""


class Server(Protocol):
    """A connection that has just been opened, as `Admission` sees it."""

    async def info(self) -> dict[str, str]:
        """Return the server's INFO, sections `server` and `replication`."""

    async def run(self, script: Script, key: str, arguments: Sequence[Argument]) -> Any:
        """Run a script on this very connection; see `Link.run`."""


Admission: TypeAlias = Callable[[Server], Awaitable[int]]
"""Looks at each new connection before anything else is sent on it, and returns the tag under which it may be used.

An error refuses the connection: it is closed, and the link tries again later.
"""


class Link(Protocol):
    """A way to one Redis."""

    def admit_with(self, admission: Admission) -> None:
        """Have every connection looked at that is opened from now on."""

    @property
    def up(self) -> bool:
        """Whether commands are sent; while it is False they fail at once, and the link reconnects by itself."""

    async def run(self, script: Script, key: str, arguments: Sequence[Argument], *, tag: int) -> Any:
        """Run a script on a connection that was admitted under `tag`, and return its reply; texts are bytes.

        It is sent once: whether it may be repeated is for the caller to know.

        Raises:
            LinkLost: no answer in time, or no connection.
            Moved: the connections are admitted under another tag now.
            ScriptFailed: the server refused it.
        """

    def drop(self) -> None:
        """Give up every connection: those opened from now on are admitted anew."""

    async def close(self) -> None:
        """Close every connection; `run` raises `LinkLost` from then on."""
