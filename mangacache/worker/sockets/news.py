"""What has become of a session since somebody last saw it: the decision what one socket is told.

A worker's events say that there is something new, and never what. So what a socket is told does not rest on them: it is
what the session's context holds beyond what this socket has been told already. Nothing can come twice, nothing out of
order, and what cannot be told shows as a hole in the numbers, which is told as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.model import Turn, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mangacache.model import Context

MOST_FILLED: Final = 256
"""Turns older than the context's that are read again and sent to one who has missed them; beyond, a gap is told."""


class Hole(msgspec.Struct, frozen=True, gc=False):
    """Turns that are missing: numbers `first` to `last`."""

    first: int
    last: int

    @property
    def count(self) -> int:
        """How many."""
        return self.last - self.first + 1


class Told(msgspec.Struct, frozen=True, gc=False):
    """Something for a socket: exactly one of the other fields says what; `seen` is what has been told with it.

    Attributes:
        turn: a turn, at this version.
        hole: turns that cannot be told.
        anew: the session was deleted, and is in its next life.
        meta: META or the summary has changed.
    """

    seen: Version
    turn: Turn | None = None
    hole: Hole | None = None
    anew: bool = False
    meta: bool = False


def is_news(context: Context, seen: Version) -> bool:
    """Tell whether a context holds something that who has seen `seen` has not."""
    version = context.version
    if version.incarnation != seen.incarnation:
        return version.incarnation > seen.incarnation
    return version.number > seen.number or version.revision > seen.revision


def hole_before(context: Context, seen: Version) -> Hole | None:
    """Return which turns a context does not hold, between what was seen and its first."""
    number = seen.number if seen.incarnation == context.version.incarnation else 0
    first = next((turn.number for turn in context.turns if turn.number > number), context.version.number + 1)
    return Hole(number + 1, first - 1) if first > number + 1 else None


def news(context: Context, seen: Version, older: Sequence[Turn] = ()) -> Iterator[Told]:
    """Return what is to be told, in order, to somebody who has seen `seen`.

    Args:
        context: the session as it is.
        seen: what has been told already.
        older: turns before the context's own, that were read since they are missing.
    """
    version = context.version
    if not is_news(context, seen):
        return
    if version.incarnation > seen.incarnation:
        begins, seen = not seen.incarnation, Version(version.incarnation)
        if not begins:
            yield Told(seen, anew=True)
    for turn in (*older, *context.turns):
        if turn.number > seen.number:
            if turn.number > seen.number + 1:
                hole = Hole(seen.number + 1, turn.number - 1)
                seen = Version(seen.incarnation, turn.number - 1, seen.revision)
                yield Told(seen, hole=hole)
            seen = Version(seen.incarnation, turn.number, seen.revision)
            yield Told(seen, turn=turn)
    if version.number > seen.number:
        hole = Hole(seen.number + 1, version.number)
        seen = Version(seen.incarnation, version.number, seen.revision)
        yield Told(seen, hole=hole)
    if version.revision > seen.revision:
        yield Told(version, meta=True)
