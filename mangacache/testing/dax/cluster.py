"""The nodes of a cluster: which one leads, which are asked, and how what one caches reaches the others."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from mangacache.testing.dax.errors import no_route
from mangacache.testing.dax.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock, Random
    from mangacache.testing.dax.options import DaxOptions
    from mangacache.testing.dax.tables import ItemKey
    from mangacache.testing.dynamodb.values import Item


MOST_COPIES: Final = 100_000
"""Changes that may be on their way; with more, the oldest arrive before their time."""


class _Copy(NamedTuple):
    """A change on its way from one node to another."""

    sent_s: float
    source: Node
    target: Node
    change: Callable[[Node, float], None]


class Cluster:
    """The nodes, their caches in step but for the lag, and the client's idea of which to ask.

    Args:
        options: of the cluster.
        clock: what time is read from.
        random: chooses the node of a read.

    Attributes:
        nodes: all of them, dead ones too.
        leader: the node that takes writes.
        replication_lag_s: how long a change takes to the other nodes; may be changed at any time, and then holds for
            what is on its way as well. Changes arrive in the order in which they were made, and before their time
            where more than `MOST_COPIES` are on their way: a lag without end is not memory without end.
    """

    def __init__(self, options: DaxOptions, *, clock: Clock, random: Random) -> None:
        self._options = options
        self._clock = clock
        self._random = random
        self.nodes = [Node(number, options) for number in range(options.nodes)]
        self.leader = self.nodes[0]
        self.replication_lag_s = options.replication_lag_s
        self._copies: deque[_Copy] = deque()
        self._ticks = 0

    # Who is asked.

    def route(self, *, write: bool, pinned: int | None = None) -> Node:
        """Return the node that a request goes to.

        A dead node is asked, in vain, until the client's health check has missed it; then the others are left, and
        one of them leads if it was the leader.

        Raises:
            ConnectionRefusedError: the node is dead.
            DaxClientError: no node is left.
        """
        self.settle()
        node = self._leader() if write else self._reader(pinned)
        if not node.alive:
            raise ConnectionRefusedError(f"[Errno 111] Connection refused: node {node.number}")
        return node

    def _leader(self) -> Node:
        routes = self._routes()
        if self.leader not in routes:
            self.leader = next((node for node in routes if node.alive), routes[0])
        return self.leader

    def _reader(self, pinned: int | None) -> Node:
        if pinned is not None:
            return self.nodes[pinned]
        routes = self._routes()
        return routes[int(self._random.random() * len(routes))]

    def _routes(self) -> list[Node]:
        noticed_s = self._clock.monotonic_s() - self._options.route_check_s
        routes = [node for node in self.nodes if node.alive or node.died_s > noticed_s]
        if not routes:
            raise no_route()
        return routes

    def kill(self, node: Node) -> None:
        """End a node: its caches are gone, and so is what it had not yet sent to others."""
        node.die(self._clock.monotonic_s())
        self._copies = deque(copy for copy in self._copies if node not in (copy.source, copy.target))

    # What the caches hold.

    def tick(self) -> int:
        """Return a number higher than every one before: when a read began, or a write was done."""
        self._ticks += 1
        return self._ticks

    def filled(self, node: Node, key: ItemKey, item: Item | None, *, began: int) -> None:
        """Store what a miss read, here and after the lag everywhere.

        Args:
            node: that read it.
            key: of the item.
            item: None where there is none.
            began: the tick before the read was sent.
        """

        def change(reached: Node, now_s: float) -> None:
            if reached.written.get(key, 0) < began:
                reached.store_item(key, item, now_s)

        self._spread(node, change)

    def written(self, node: Node, key: ItemKey, item: Item | None) -> None:
        """Store what a write through DAX left, here and after the lag everywhere.

        Args:
            node: that was asked to write.
            key: of the item.
            item: the new item, or None to forget what is cached: it was deleted, or it is not known what it is now.
        """
        tick = self.tick()

        def change(reached: Node, now_s: float) -> None:
            if not self._options.overtaken_fills:
                reached.note_write(key, tick)
            if item is None:
                reached.items.forget(key)
            else:
                reached.store_item(key, item, now_s)

        self._spread(node, change)

    def _spread(self, node: Node, change: Callable[[Node, float], None]) -> None:
        now_s = self._clock.monotonic_s()
        change(node, now_s)
        self._copies.extend(
            _Copy(now_s, node, other, change) for other in self.nodes if other is not node and other.alive
        )
        self.settle()

    def settle(self) -> None:
        """Let the nodes take in what has reached them by now."""
        now_s = self._clock.monotonic_s()
        while self._copies and (
            self._copies[0].sent_s + self.replication_lag_s <= now_s or len(self._copies) > MOST_COPIES
        ):
            copy = self._copies.popleft()
            copy.change(copy.target, now_s)
