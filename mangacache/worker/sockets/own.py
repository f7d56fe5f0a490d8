"""Which turns a connection appended itself: it has their acknowledgements, and need not be told of them again.

A turn is known by its turn_id, since others may hear of it before its writer has the acknowledgement. It is passed over
from the moment in which it is sent to be stored. Where it then turns out that its writer was told of a failure though
it was stored, it is told late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.model import Version

Place: TypeAlias = "tuple[int, int]"
"""Where a turn stands: the incarnation, and its number in it."""


def place(version: Version) -> Place:
    """Return where a version's newest turn stands."""
    return version.incarnation, version.number


class Own:
    """The turns of one connection that the session's news has yet to pass, and those under way."""

    __slots__ = ("_acknowledged", "_under_way")

    def __init__(self) -> None:
        self._under_way: dict[str, bytes | None] = {}
        self._acknowledged: dict[str, Place] = {}

    def __len__(self) -> int:
        return len(self._under_way) + len(self._acknowledged)

    def begin(self, turn_ids: Iterable[str]) -> None:
        """Note turns that are about to be stored."""
        for turn_id in turn_ids:
            self._under_way[turn_id] = None

    def passes(self, turn_id: str, frame: bytes) -> bool:
        """Tell whether a turn is this connection's own, and need not be told of now."""
        if turn_id in self._under_way:
            self._under_way[turn_id] = frame
            return True
        return self._acknowledged.pop(turn_id, None) is not None

    def stored(self, places: dict[str, Place], *, seen: Place) -> None:
        """Note turns that are acknowledged.

        Args:
            places: of each turn.
            seen: up to where the connection has been told of the session.
        """
        for turn_id, at in places.items():
            self._under_way.pop(turn_id, None)
            if at > seen:
                self._acknowledged[turn_id] = at

    def failed(self, turn_ids: Iterable[str]) -> list[bytes]:
        """Note turns whose writer is told of a failure; return the frames of those that were stored all the same."""
        frames = [self._under_way.pop(turn_id, None) for turn_id in turn_ids]
        return [frame for frame in frames if frame is not None]

    def forget(self, upto: Place) -> None:
        """Forget acknowledged turns up to a place: they have been passed, or lie in what could not be told."""
        if self._acknowledged:
            self._acknowledged = {turn_id: at for turn_id, at in self._acknowledged.items() if at > upto}

    def forget_all(self) -> None:
        """Forget what was acknowledged: it is not there any more."""
        self._acknowledged = {}
