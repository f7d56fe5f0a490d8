"""The fault port: what can go wrong with a cluster, on purpose."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mangacache.errors import Invalid
from mangacache.testing.dax.errors import throttled

if TYPE_CHECKING:
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.node import Node


@dataclass(slots=True)
class _Plan:
    """Something that is to happen to the next requests."""

    left: int
    operation: str | None

    def strikes(self, operation: str) -> bool:
        """Tell whether it happens to this request, and count it."""
        if not self.left or self.operation not in (None, operation):
            return False
        self.left -= 1
        return True


class DaxFaults:
    """Faults of one cluster, in force until `heal`.

    Args:
        cluster: that they befall.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._delays_s: dict[int, float] = {}
        self._throttles: list[_Plan] = []
        self._losses: list[_Plan] = []
        self.healed = threading.Event()
        """Ends the waits of threads; replaced at each `heal`."""

    def kill(self, node: int) -> None:
        """End a node and lose its caches; what it was at work on gets no reply, though DynamoDB may have done it."""
        self._cluster.kill(self._node(node))

    def restart(self, node: int) -> None:
        """Start a dead node again, with empty caches."""
        self._node(node).alive = True

    def slow(self, delay_s: float, *, node: int | None = None) -> None:
        """Hold each reply back by `delay_s`, of one node or of all; infinity stops them, 0 ends it."""
        for other in self._cluster.nodes if node is None else [self._node(node)]:
            self._delays_s[other.number] = delay_s

    def lose_replies(self, count: int = 1, *, operation: str | None = None) -> None:
        """Do the next `count` requests, of one operation or of any, and close the connection instead of replying."""
        self._losses.append(_Plan(count, operation))

    def throttle(self, count: int = 1, *, operation: str | None = None) -> None:
        """Refuse the next `count` requests, of one operation or of any, for load; nothing is done."""
        self._throttles.append(_Plan(count, operation))

    def heal(self) -> None:
        """End every fault: dead nodes start with empty caches, replies held back are on their way."""
        for node in self._cluster.nodes:
            node.alive = True
        self._delays_s.clear()
        self._throttles.clear()
        self._losses.clear()
        self.healed.set()
        self.healed = threading.Event()

    def check(self, operation: str) -> None:
        """Refuse a request that is to be throttled.

        Raises:
            DaxServiceError: throttled.
        """
        if any(plan.strikes(operation) for plan in self._throttles):
            raise throttled(operation)

    def loses_reply(self, operation: str) -> bool:
        """Tell whether the reply to a request is to be lost."""
        return any(plan.strikes(operation) for plan in self._losses)

    def delay_s(self, node: Node) -> float:
        """Return how long a node's replies are held back."""
        return self._delays_s.get(node.number, 0.0)

    def _node(self, number: int) -> Node:
        if not 0 <= number < len(self._cluster.nodes):
            raise Invalid(f"there is no node {number}: the cluster has {len(self._cluster.nodes)}, from 0")
        return self._cluster.nodes[number]
