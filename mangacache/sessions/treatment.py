"""What a failure in a turn means for the message, its sender and the actor; and the letters that were not delivered.

Four kinds. *Transient*: the same again may succeed, so it is tried again with a back-off, where that is safe.
*Conflict*: what was known has misled the decision, so it runs once more on what is stored. *Poison*: an error that
nobody foresaw, or stored bytes that cannot be read; tried three times where that is safe, then recorded as a dead
letter, and the actor goes on with the next message. *Fatal*: nothing in this process can be trusted to go on; the
supervisor is told. Every other error is the sender's own, and is his at once.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Conflict, Corrupt, MangaCacheError, Transient, VersionGone

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TRIES: Final = 3
DEAD_LETTERS_KEPT: Final = 100


class Treatment(Enum):
    """What is done about an error."""

    SENDER = "the sender's own"
    TRANSIENT = "transient"
    CONFLICT = "conflict"
    POISON = "poison"
    FATAL = "fatal"


def treatment_of(error: Exception) -> Treatment:
    """Return what an error of a turn is treated as."""
    if isinstance(error, Transient):
        return Treatment.TRANSIENT
    if isinstance(error, VersionGone):  # told by a strong read: reading again would tell the same
        return Treatment.SENDER
    if isinstance(error, Conflict):
        return Treatment.CONFLICT
    if isinstance(error, Corrupt) or not isinstance(error, MangaCacheError):
        return Treatment.FATAL if isinstance(error, MemoryError | SystemError) else Treatment.POISON
    return Treatment.SENDER


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message that could not be carried out; never its content.

    Attributes:
        what: what the message was to do.
        error: kind and words of what it failed by.
        tries: how often it was run.
        at_s: wall clock.
    """

    session_id: str
    what: str
    error: str
    tries: int
    at_s: float


class DeadLetters:
    """The last of them, and how many there were."""

    def __init__(self) -> None:
        self._kept: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS_KEPT)
        self.counted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, letter: DeadLetter) -> None:
        """Keep one; the oldest makes room."""
        self._kept.append(letter)
        self.counted += 1

    def listed(self) -> Sequence[DeadLetter]:
        """Return those that are kept, oldest first."""
        return tuple(self._kept)
