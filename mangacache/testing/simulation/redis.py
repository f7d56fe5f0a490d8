"""The simulated Redis: a server on the simulated network that speaks RESP, with the scripts of the in-memory double.

The product's own link talks to it, byte by byte: what it sends in one write, whose reply belongs to whom, and what is
left on a connection whose caller has gone is the link's affair, as it is with a real server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.testing.redis.keyspace import Keyspace
from mangacache.testing.redis.node import Node
from mangacache.testing.simulation.resp import RedisSession, Watched

if TYPE_CHECKING:
    from mangacache.clock import Clock, Random
    from mangacache.testing.simulation.loop import SimulatedLoop
    from mangacache.testing.simulation.network import Connection, Network
    from mangacache.testing.simulation.processes import Process

ADDRESS: Final = "redis:6379"


class SimulatedRedis:
    """One Redis at one address: a primary, and a replica that follows it until told to lag.

    Args:
        loop: on which it runs, in a process of its own.
        network: that leads to it.
        clock: its machine's.
        random: its identities come from.

    Attributes:
        node: the primary.
        process: in which it runs; stop it, and Redis stands still.
        sessions: the connections that are open at it.
        loaded: the scripts that it knows by their hash.
        watched: the keys of which somebody wants to hear.
    """

    def __init__(self, loop: SimulatedLoop, network: Network, *, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._network = network
        self._replica: Keyspace | None = None
        self.process: Process = loop.process("redis")
        self.node = Node(Keyspace(clock), random)
        self.sessions: dict[RedisSession, None] = {}
        self.loaded: set[str] = set()
        self.watched = Watched()
        self._former: Node | None = None
        network.listen(ADDRESS, self)

    def __repr__(self) -> str:
        return f"<SimulatedRedis {'up' if self.node.alive else 'down'}, {len(self.sessions)} connections>"

    def accept(self, connection: Connection) -> RedisSession | None:
        """See `Server`."""
        if not self.node.alive:
            return None
        session = RedisSession(self, connection)
        self.sessions[session] = None
        return session

    # What one may look at

    def keys(self) -> list[str]:
        """Return the keys."""
        return self.node.db.keys()

    def keys_for_ever(self) -> list[str]:
        """Return the keys that would never expire."""
        return [key for key in self.keys() if self.node.db.pttl(key) == -1]

    def leases(self) -> list[str]:
        """Return the keys of contexts that somebody holds a lease to fill."""
        db = self.node.db
        held = [(key, db.value(key)) for key in self.keys()]
        return [
            key
            for key, fields in held
            if isinstance(fields, dict) and b"l" in fields and int(fields[b"lx"]) > db.now_ms()
        ]

    # What can go wrong

    def kill(self) -> None:
        """End it: connections break, what it held is gone, new connections are refused until `restart`."""
        self.node.alive = False
        self._break_all()

    def restart(self) -> None:
        """Start it anew, empty, with another identity."""
        self._become(Keyspace(self._clock))

    def lag(self) -> None:
        """Have the replica stop following: what is written from now on is lost by the next failover."""
        self._replica = self.node.db.copy()

    def fail_over(self) -> None:
        """Make the replica the primary, as far as it has followed."""
        followed, self._replica = self._replica or self.node.db.copy(), None
        self._become(followed)

    def split_brain(self) -> None:
        """Make the replica a primary, while the old one goes on answering those who are connected to it."""
        followed, self._replica = self._replica or self.node.db.copy(), None
        self._former, self.node = self.node, Node(followed, self._random)

    def unite(self) -> None:
        """End the old primary, where there are two: its connections break."""
        former, self._former = self._former, None
        for session in list(self.sessions):
            if session.node is former:
                session.connection.reset()

    def flush(self) -> None:
        """Forget every key."""
        self.node.db.flush()
        self.watched.all_changed()

    def evict(self) -> str | None:
        """Forget one key at random; return which."""
        keys = self.keys()
        if not keys:
            return None
        key = keys[int(self._random.random() * len(keys))]
        self.node.db.delete(key)
        self.watched.changed(key)
        return key

    def forget_scripts(self) -> None:
        """Forget the scripts, as a restart and SCRIPT FLUSH do."""
        self.loaded.clear()

    def _become(self, db: Keyspace) -> None:
        self.node.alive = False
        self._break_all()
        self.node = Node(db, self._random)
        self.watched = Watched()
        self.forget_scripts()

    def _break_all(self) -> None:
        for session in list(self.sessions):
            session.connection.reset()
