"""What is told of a channel, and the queues from which its consumers take it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mangacache.errors import Closed

if TYPE_CHECKING:
    from mangacache.redis.listening import Ear


class Said(msgspec.Struct, frozen=True, gc=False):
    """A message."""

    payload: bytes


class Hears(msgspec.Struct, frozen=True, gc=False):
    """The subscription stands: everything that is published from now on is heard, until `Deaf`."""


class Deaf(msgspec.Struct, frozen=True, gc=False):
    """Something may have been missed.

    Attributes:
        why: in words.
        lost: whether nothing is heard any more until the next `Hears`; else messages were taken too slowly, and it
            goes on.
    """

    why: str
    lost: bool


Signal: TypeAlias = "Said | Hears | Deaf"


class Listener:
    """One consumer of a channel: a bounded queue of signals."""

    def __init__(self, channel: str, *, limit: int) -> None:
        self.channel = channel
        self._limit = limit
        self._signals: deque[Signal] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Listener to {self.channel}, {len(self._signals)} waiting>"

    async def ready(self) -> None:
        """Wait until something has happened: at first, until it is known whether the subscription stands.

        Raises:
            Closed: the subscriptions were closed.
        """
        while not self._signals:
            if self._closed:
                raise Closed("this MangaCache is closed")
            self._ready.clear()
            await self._ready.wait()

    async def next(self) -> Signal:
        """Return what happened next.

        Raises:
            Closed: the subscriptions were closed.
        """
        await self.ready()
        return self._signals.popleft()

    def tell(self, signal: Signal) -> None:
        """Add a signal; where there is no room, what waits is dropped and the consumer is told that."""
        if len(self._signals) >= self._limit:
            self._signals.clear()
            why = f"{self._limit} messages waited: they were taken too slowly, and dropped"
            self._signals.append(Deaf(why, lost=False))
        self._signals.append(signal)
        self._ready.set()

    def close(self) -> None:
        """Have the consumer end once it has taken what waits."""
        self._closed = True
        self._ready.set()


class Channel:
    """A channel that somebody listens to.

    Attributes:
        ear: where it is, or is being, subscribed to.
        state: what its listeners were told last; None at first.
    """

    __slots__ = ("ear", "listeners", "name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: set[Listener] = set()
        self.ear: Ear | None = None
        self.state: Hears | Deaf | None = None

    @property
    def standing(self) -> bool:
        """Whether it is subscribed to."""
        return isinstance(self.state, Hears)

    def tell(self, signal: Signal) -> None:
        """Tell every listener."""
        for listener in tuple(self.listeners):
            listener.tell(signal)

    def hears(self) -> None:
        """Tell that the subscription stands."""
        self.state = Hears()
        self.tell(self.state)

    def deaf(self, why: str) -> None:
        """Tell that it does not, once until it stands again."""
        self.ear = None
        if not isinstance(self.state, Deaf):
            self.state = Deaf(why, lost=True)
            self.tell(self.state)
