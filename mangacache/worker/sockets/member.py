"""One socket among those that are told of a session: where it stands, and what it is told next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.worker.sockets.news import hole_before, is_news, news
from mangacache.worker.sockets.own import Own, place
from mangacache.worker.sockets.telling import SLOW, caught_up_frame, gap_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mangacache.model import Context, Turn, Version
    from mangacache.worker.sockets.news import Hole, Told
    from mangacache.worker.sockets.telling import Telling
    from mangacache.worker.sockets.wire import Wire

ANOTHERS: Final = "this session was deleted, and is another customer's now"


class Member:
    """A socket that follows a session.

    Args:
        wire: the way out.
        seen: the version up to which it has been told of the session.
        may_see: tells whether it may be told of the session as a context has it.
        content: whether turns are told with what they say.
        own_turns: whether it is told of its own turns too.
        end: ends the socket, saying why.

    Attributes:
        seen: up to which version it has been told, or was told that it cannot be.
        own: the turns it appended itself.
        lagging: it did not read what it was told, and is told nothing more before it has.
        waits: it was told of a gap, and not yet that it has caught up.
    """

    __slots__ = ("_content", "_end", "_may_see", "_own_turns", "_wire", "lagging", "own", "seen", "waits")

    def __init__(
        self,
        wire: Wire,
        *,
        seen: Version,
        may_see: Callable[[Context], bool],
        content: bool = True,
        own_turns: bool = False,
        end: Callable[[str], None],
    ) -> None:
        self._wire = wire
        self._content = content
        self._own_turns = own_turns
        self._end = end
        self._may_see = may_see
        self.seen = seen
        self.own = Own()
        self.lagging = False
        self.waits = False

    @property
    def gone(self) -> bool:
        """Whether it is told nothing any more."""
        return self._wire.closed

    def behind(self, context: Context) -> bool:
        """Tell whether it is to be told something that a context holds."""
        return not self.lagging and is_news(context, self.seen)

    def missing(self, context: Context) -> Hole | None:
        """Return the turns that are older than a context's own, and that it has not been told of."""
        return hole_before(context, self.seen)

    def take(self, context: Context, telling: Telling, older: Sequence[Turn] = ()) -> None:
        """Be told what a context holds; where it reads too slowly, as much as it has room for, and of a gap.

        Args:
            context: the session as it is.
            telling: of that context.
            older: turns before the context's own.
        """
        if self.lagging or self.gone:
            return
        if not self._may_see(context):
            self._end(ANOTHERS)
            return
        for told in news(context, self.seen, older):
            if not self._tell(told, telling):
                self.lagging = True
                self.gap(SLOW)
                return
            self.seen = told.seen
        self.own.forget(place(self.seen))

    def _tell(self, told: Told, telling: Telling) -> bool:
        if told.anew:
            self.own.forget(place(told.seen))
        frame = telling.frame(told, content=self._content)
        if told.turn is not None and not self._own_turns and self.own.passes(told.turn.turn_id, frame):
            return True
        return self._wire.offer(frame)

    def gap(self, why: str) -> None:
        """Be told that nothing is told for now."""
        if not self.waits:
            self.waits = True
            self._wire.send(gap_frame(why, self.seen))

    def restart(self, why: str, at: Version) -> None:
        """Be told that what was seen is not there any more, and go on from a version."""
        self.waits = True
        self._wire.send(gap_frame(why, at))
        self.seen = at
        self.own.forget_all()

    def caught_up(self) -> None:
        """Be told that all is told again, where a gap was told."""
        if self.waits and not self.lagging:
            self.waits = False
            self._wire.send(caught_up_frame(self.seen))

    def acknowledged(self, numbers: dict[str, int], incarnation: int) -> None:
        """Note the numbers of turns that it appended, in which life of the session."""
        places = {turn_id: (incarnation, number) for turn_id, number in numbers.items()}
        self.own.stored(places, seen=place(self.seen))

    def failed(self, turn_ids: Iterable[str]) -> None:
        """Be told of turns of its own that were stored although it was told of a failure."""
        for frame in self.own.failed(turn_ids):
            self._wire.send(frame)
