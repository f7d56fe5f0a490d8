"""What is done about what a client says: a message and how far the conversation has come, to a step. No I/O."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from mangacache.errors import Invalid
from mangacache.worker.sockets.closing import Code
from mangacache.worker.sockets.messages import Append, ContextAsked, Id, Open, Ping, decoded, id_of

MOST_MISTAKES: Final = 16
"""Messages that are none before the socket is closed; each one that is one takes a mistake back."""


class Do(msgspec.Struct, frozen=True):
    """Carry a message out."""

    message: Open | Append | ContextAsked


class Say(msgspec.Struct, frozen=True):
    """Answer."""

    answer: dict[str, Any]


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an error, and end the socket where `code` says so."""

    error: Invalid
    id: Id | None = None
    code: Code | None = None


Step: TypeAlias = "Do | Say | Refuse"


class Conversation:
    """One socket's.

    Attributes:
        opened: whether the first message was one, and was carried out.
    """

    __slots__ = ("_mistakes", "opened")

    def __init__(self) -> None:
        self._mistakes = 0
        self.opened = False

    def heard(self, text: str) -> Step:
        """Return what is done about a text frame."""
        try:
            message = decoded(text)
            self._check_place(message)
        except Invalid as error:
            return self._mistake(error, id_of(text))
        self._mistakes = max(0, self._mistakes - 1)
        if isinstance(message, Ping):
            return Say({"type": "pong"} | ({"id": message.id} if message.id is not None else {}))
        return Do(message)

    def heard_binary(self) -> Refuse:
        """Return what is done about a binary frame."""
        return Refuse(Invalid("messages are JSON in text frames: binary ones are not read"), code=Code.TEXT_ONLY)

    def _check_place(self, message: Open | Append | ContextAsked | Ping) -> None:
        if isinstance(message, Open) and self.opened:
            raise Invalid("this connection has a session already: open another connection for another one")
        if isinstance(message, Append | ContextAsked) and not self.opened:
            raise Invalid("the first message is `open`, with the session's id")

    def _mistake(self, error: Invalid, found: Id | None) -> Step:
        self._mistakes += 1
        ends = self._mistakes >= MOST_MISTAKES
        return Refuse(error, found, Code.TOO_MANY_MISTAKES if ends else None)
