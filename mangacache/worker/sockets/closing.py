"""How sockets end: the codes of the WebSocket protocol and this one's own (from 4000 on), and which error has which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from mangacache.errors import Closed, Conflict, Invalid, Rejected, Transient
from mangacache.worker.caller import Forbidden, Unauthenticated

_MOST_REASON_BYTES: Final = 123


class Code(IntEnum):
    """Why a socket was closed, for the peer's program; the reason beside it is for people."""

    TEXT_ONLY = 1003  # a binary frame
    TOO_MANY_MISTAKES = 1008  # messages that are none, again and again
    INTERNAL = 1011  # a fault of ours
    LEAVING = 1012  # the worker leaves: connect again, to another
    TRY_LATER = 1013  # overloaded, or DynamoDB is away; or the peer does not read
    BAD_OPEN = 4400  # the first message is wrong
    UNAUTHENTICATED = 4401  # no credential, a wrong one, or one whose time is over
    FORBIDDEN = 4403  # not with this credential
    ANOTHERS = 4404  # the session was deleted, and is another customer's now
    SILENT = 4408  # no first message in time, or no heartbeat
    CONFLICT = 4409  # what was seen is not there, or the session is not as the client believes
    TOO_FAST = 4429  # a limit is used up


def code_of(error: BaseException) -> Code:  # noqa: PLR0911 - a case an error
    """Return how a socket ends whose opening failed with an error of the library's."""
    match error:
        case Unauthenticated():
            return Code.UNAUTHENTICATED
        case Forbidden():
            return Code.FORBIDDEN
        case Transient() | Closed():
            return Code.TRY_LATER
        case Rejected():
            return Code.TOO_FAST
        case Conflict():
            return Code.CONFLICT
        case Invalid():
            return Code.BAD_OPEN
        case _:
            return Code.INTERNAL


def shortened(reason: str) -> bytes:
    """Return a reason as a frame can carry it: at most 123 bytes of UTF-8, and no character cut in two."""
    return reason.encode()[:_MOST_REASON_BYTES].decode(errors="ignore").encode()
