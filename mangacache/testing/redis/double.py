"""The double itself: nodes put together, with their links, faults and what one may look at."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.redis import LinkLost
from mangacache.redis.pool import PooledLink
from mangacache.telemetry import Telemetry
from mangacache.testing.redis.ears import MemoryEar
from mangacache.testing.redis.faults import LinkFaults
from mangacache.testing.redis.keyspace import Keyspace
from mangacache.testing.redis.line import MemoryLine, travel
from mangacache.testing.redis.node import Node

if TYPE_CHECKING:
    from collections import Counter

    from mangacache.clock import Clock, Random
    from mangacache.redis.listening import Ear, Hearer
    from mangacache.redis.subscriptions import Place


class MemoryRedis:
    """A Redis in memory, with a replica: it runs the package's scripts, and fails as Redis does.

    It knows the scripts of this release and INFO, and nothing else. A message, once sent, arrives, whoever still waits
    for it; what a script does is one step; keys expire when their time has passed by the double's own clock.

    What can go wrong on the way is on each link (`MemoryLink.faults`); what can go wrong with the servers is here.

    Args:
        clock: the servers' wall clock, and the links' where they are given none.
        random: identities, latencies, which key goes; a seeded one makes all of it repeatable.
        latency_s: how long a message takes one way, on average; 0 takes no time, but a turn of the event loop.
    """

    def __init__(self, *, clock: Clock | None = None, random: Random | None = None, latency_s: float = 0.0) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._random = random if random is not None else system_random()
        self._latency_s = latency_s
        self._primary = Node(Keyspace(self._clock), self._random)
        self._replica: Keyspace | None = None
        self._former: Node | None = None
        self._splits = 0

    def __repr__(self) -> str:
        state = "split" if self._former is not None else "up" if self._primary.alive else "down"
        return f"<MemoryRedis {state}, {len(self.keys())} keys>"

    def link(
        self,
        *,
        connections: int = 32,
        connect_timeout_s: float = 1.0,
        timeout_s: float = 0.5,
        clock: Clock | None = None,
        random: Random | None = None,
        telemetry: Telemetry | None = None,
    ) -> MemoryLink:
        """Return a link; see `PooledLink` for the arguments."""
        return MemoryLink(
            self,
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
            clock=clock if clock is not None else self._clock,
            random=random if random is not None else self._random,
            telemetry=telemetry if telemetry is not None else Telemetry(),
        )

    # What one may look at: the primary's

    def keys(self) -> list[str]:
        """Return the keys."""
        return self._primary.db.keys()

    def hash(self, key: str) -> dict[bytes, bytes]:
        """Return a copy of a hash, empty where there is none."""
        return self._primary.db.hgetall(key)

    def ttl_ms(self, key: str) -> int:
        """Return the milliseconds a key has left; -1 where it would stay for ever, -2 where there is no key."""
        return self._primary.db.pttl(key)

    def info(self) -> dict[str, str]:
        """Return `run_id`, `master_replid` and `role`."""
        return self._primary.info()

    @property
    def calls(self) -> Counter[str]:
        """Scripts that the primary has run, by name."""
        return self._primary.calls

    # What can go wrong with the servers

    def kill(self) -> None:
        """End the primary: connections break, what it held is gone, new connections are refused until `restart`."""
        self._primary.die()

    def restart(self) -> None:
        """Start the primary anew, empty: another run of it, with another identity."""
        self._promote(Keyspace(self._clock))

    def stall(self) -> None:
        """Let the primary stand still: connections open and stay, nothing is answered until `resume`."""
        if self._primary.backlog is None:
            self._primary.backlog = []

    def resume(self) -> None:
        """Let the primary go on: it does what has arrived meanwhile, also what nobody waits for any more."""
        self._primary.resume()

    def flush(self) -> None:
        """Forget every key, and stay the same server."""
        self._primary.db.flush()

    def evict(self, key: str | None = None) -> str | None:
        """Forget a key, by default one of them at random; return which."""
        keys = self.keys()
        if key is None and keys:
            key = keys[int(self._random.random() * len(keys))]
        if key is not None:
            self._primary.db.delete(key)
        return key

    def lag(self) -> None:
        """Have the replica stop following: what is written from now on is lost by the next failover."""
        self._replica = self._primary.db.copy()

    def fail_over(self) -> None:
        """End the primary and make the replica the primary, as far as it has followed."""
        self._promote(self._followed())

    def split_brain(self) -> None:
        """Make the replica a primary while the old one goes on answering links that have not moved.

        Links made from now on reach the new one, which is the one to be looked at here; `MemoryLink.move` moves one.
        """
        if self._former is not None:
            raise Invalid("there are two primaries already: unite them first")
        self._former = self._primary
        self._splits += 1
        self._primary = Node(self._followed(), self._random)

    def unite(self) -> None:
        """Make the old primary a replica of the new one: connections to it stay, and write no more."""
        if self._former is None:
            raise Invalid("there is one primary")
        self._former.db = self._primary.db.copy()
        self._former.db.read_only = True
        self._former = None

    def _followed(self) -> Keyspace:
        followed, self._replica = self._replica or self._primary.db.copy(), None
        return followed

    def _promote(self, db: Keyspace) -> None:
        self._primary.die()
        self._primary = Node(db, self._random)

    # For links

    @property
    def splits(self) -> int:
        """How often there have been two primaries."""
        return self._splits

    async def connect(self, faults: LinkFaults, *, known_splits: int, clock: Clock, random: Random) -> MemoryLine:
        """Open a connection for a link.

        Args:
            faults: the link's.
            known_splits: `splits` when the link was made or last moved.
            clock: the link's.
            random: the link's.

        Raises:
            LinkLost: nobody listens there.
        """
        await travel(clock, random, self._latency_s)
        if faults.is_stalled:
            await _for_ever()
        node = self._former if self._former is not None and known_splits < self._splits else self._primary
        if faults.is_cut or not node.alive:
            raise LinkLost("connection refused", sent=False)
        return MemoryLine(node, faults, clock=clock, random=random, latency_s=self._latency_s)

    async def listen(
        self, hearer: Hearer, faults: LinkFaults, *, known_splits: int, clock: Clock, random: Random
    ) -> Ear:
        """Open a connection that listens; see `connect`."""
        line = await self.connect(faults, known_splits=known_splits, clock=clock, random=random)
        line.abort()
        return MemoryEar(line.node, hearer, faults, clock=clock, random=random, latency_s=self._latency_s)


class MemoryLink(PooledLink):
    """A `Link` to a `MemoryRedis`, over as many connections as commands are under way, like the real one.

    Attributes:
        faults: what goes wrong on the way.
    """

    def __init__(
        self,
        redis: MemoryRedis,
        *,
        connections: int,
        connect_timeout_s: float,
        timeout_s: float,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        super().__init__(
            redis,
            self._connected,
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
            clock=clock,
            random=random,
            telemetry=telemetry,
        )
        self.faults = LinkFaults()
        self._redis = redis
        self._known_splits = redis.splits

    def move(self) -> None:
        """Reach the new primary from now on, where there are two: its connections to the old one break."""
        self._known_splits = self._redis.splits
        self.faults.reset()

    async def dial(self, hearer: Hearer, place: Place) -> Ear:
        """Open a connection for subscriptions; see `redis.subscriptions.Dial`."""
        del place  # there is one server
        return await self._redis.listen(
            hearer, self.faults, known_splits=self._known_splits, clock=self._clock, random=self._random
        )

    async def _connected(self) -> MemoryLine:
        return await self._redis.connect(
            self.faults, known_splits=self._known_splits, clock=self._clock, random=self._random
        )


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
