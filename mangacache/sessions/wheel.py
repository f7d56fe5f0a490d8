"""Finds the actors that have been idle longest, without a look at all of them.

Actors lie in buckets, one for each stamp of time. A use writes the stamp of now into the actor and moves nothing. Only
when the oldest bucket is taken up is each actor in it looked at: who has been used since moves to the bucket of his
last use, so a move is paid for by a use; who has not is the one that was asked for. A stamp lasts a fraction of the
idle time, or a fraction of the actors' number in uses, whichever is shorter, so that the order within a bucket, which
is that of coming in, hardly matters.

The hashed wheel of G. Varghese and T. Lauck, Hashed and Hierarchical Timing Wheels, SOSP 1987, with lazy moves.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mangacache.sessions.actor import Actor

_STAMPS: Final = 64
"""Uses of one actor on average that are told apart, before the order within a bucket is that of coming in."""


class Wheel:
    """Buckets of actors by the stamp of their last use, as far as it is known.

    Attributes:
        stamp: of now; actors share the object, so it costs each of them nothing.
    """

    def __init__(self, now_s: float) -> None:
        self.stamp = now_s
        self._buckets: dict[float, deque[Actor]] = {}
        self._order: list[float] = []
        self._uses = 0

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def advance(self, now_s: float) -> None:
        """Begin a new stamp."""
        self.stamp = max(now_s, math.nextafter(self.stamp, math.inf))
        self._uses = 0

    def use(self, actor: Actor, of: int) -> bool:
        """Note a use of one of so many actors; True where it is time for a new stamp."""
        actor.used = self.stamp
        self._uses += 1
        return self._uses * _STAMPS > of

    def add(self, actor: Actor) -> None:
        """Take in an actor that is used now."""
        actor.used = self.stamp
        self._put(actor, self.stamp)

    def _put(self, actor: Actor, stamp: float) -> None:
        bucket = self._buckets.get(stamp)
        if bucket is None:
            bucket = self._buckets[stamp] = deque()
            heappush(self._order, stamp)
        bucket.append(actor)

    @property
    def oldest_s(self) -> float:
        """The stamp of the oldest bucket, infinite where there is none."""
        return self._order[0] if self._order else math.inf

    def take(self) -> Actor | None:
        """Look at one actor of the oldest bucket: return it where it has not been used since, else move it.

        None where it was moved, or there is none. The caller puts back by `add` what it does not want gone.
        """
        while self._order:
            stamp = self._order[0]
            bucket = self._buckets[stamp]
            if not bucket:
                heappop(self._order)
                del self._buckets[stamp]
                continue
            actor = bucket.popleft()
            if actor.used > stamp and not actor.gone:
                self._put(actor, actor.used)
                return None
            return actor
        return None
