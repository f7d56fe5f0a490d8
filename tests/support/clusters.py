"""A cluster of real servers, put together by hand: slots shared out, nodes introduced, replicas told whom to follow."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mangatest import HANG_GUARD_S, LoopThread
from redis import Redis
from redises import keys_for_ever

from mangacache.local.process import free_port
from mangacache.local.valkey import valkey_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mangacache.local.process import ServerProcess

SLOTS = 16384
_CALM_NODE_TIMEOUT_MS = 60_000


class Cluster:
    """Primaries that share the slots, each with as many replicas as asked for.

    Args:
        folder: holds a folder for each node.
        primaries: how many.
        replicas: of each primary.
        node_timeout_ms: after how long without an answer a node counts as failed. A busy machine is no failure, so it
            is short only where a failure is the test's subject.
        binary: another server than Valkey.

    Attributes:
        nodes: every server, the first primaries first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: int = 0,
        node_timeout_ms: int = _CALM_NODE_TIMEOUT_MS,
        binary: Path | None = None,
    ) -> None:
        self._folder = folder
        self._primaries = primaries
        self._replicas = replicas
        self._options = (
            "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1",
            "--cluster-node-timeout", str(node_timeout_ms), "--cluster-require-full-coverage", "no",
            "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0",
        )  # fmt: skip
        self._binary = binary
        self.nodes: list[ServerProcess] = []

    @property
    def ports(self) -> list[int]:
        """Of every node, the first primaries first."""
        return [node.port for node in self.nodes]

    @property
    def endpoint(self) -> str:
        """Where a client begins."""
        return f"redis://127.0.0.1:{self.ports[0]}"

    async def start(self) -> None:
        """Start the servers and wait until every one of them serves the whole cluster."""
        for number in range(self._primaries * (1 + self._replicas)):
            folder = self._folder / str(number)
            folder.mkdir()
            bus = ("--cluster-port", str(free_port()))
            node = valkey_process(folder=folder, binary=self._binary, options=(*self._options, *bus))
            await node.start()
            self.nodes.append(node)
        await asyncio.to_thread(self._put_together)

    async def stop(self) -> None:
        """End every server."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    def client(self, port: int) -> Redis:
        """Return a client of one node."""
        return Redis(port=port, decode_responses=True, socket_timeout=HANG_GUARD_S)

    def ask(self, port: int, *command: Any) -> Any:
        """Ask one node."""
        with self.client(port) as client:
            return client.execute_command(*command)

    def serving(self) -> list[ServerProcess]:
        """Return the primaries that serve slots now."""
        return list({port: self._node(port) for _, _, (_, port, *_), *_ in self._live("CLUSTER", "SLOTS")}.values())

    def primary_of(self, key: str) -> ServerProcess:
        """Return the server that has a key's slot now, by what the live nodes say."""
        slot = self._live("CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in self._live("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self._node(port)
        raise AssertionError(f"nobody has slot {slot}")

    def replica_of(self, primary: ServerProcess) -> ServerProcess:
        """Return a replica of a primary."""
        for _, _, (_, port, *_), *replicas in self._live("CLUSTER", "SLOTS"):
            if port == primary.port and replicas:
                return self._node(replicas[0][1])
        raise AssertionError(f"{primary} has no replica")

    def move_slot(self, key: str, to: ServerProcess) -> None:
        """Give a key's slot, with all that is in it, to another primary, as a resharding does."""
        begin, end = self.moving_slot(key, to)
        begin()
        end()

    def moving_slot(self, key: str, to: ServerProcess) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return the two halves of `move_slot`: between them the old primary answers ASK for what it has not."""
        old = self.primary_of(key)
        slot = self._live("CLUSTER", "KEYSLOT", key)
        ids = {node: self.ask(node.port, "CLUSTER", "MYID") for node in (old, to)}

        def begin() -> None:
            self.ask(to.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old])
            self.ask(old.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])

        def end() -> None:
            while keys := self.ask(old.port, "CLUSTER", "GETKEYSINSLOT", slot, 100):
                self.ask(old.port, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "REPLACE", "KEYS", *keys)
            for node in (to, old):
                self.ask(node.port, "CLUSTER", "SETSLOT", slot, "NODE", ids[to])

        return begin, end

    def _node(self, port: int) -> ServerProcess:
        return next(node for node in self.nodes if node.port == port)

    def _live(self, *command: Any) -> Any:
        live = next(node for node in self.nodes if node.running)
        return self.ask(live.port, *command)

    def _put_together(self) -> None:
        share = -(-SLOTS // self._primaries)
        for number, port in enumerate(self.ports):
            self.ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < self._primaries:
                self.ask(port, "CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
            if number:
                bus = self.ask(port, "CONFIG", "GET", "cluster-port")["cluster-port"]
                self.ask(self.ports[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        self._wait(
            lambda: all(len(self.ask(port, "CLUSTER", "NODES").splitlines()) == len(self.nodes) for port in self.ports)
        )
        ids = [self.ask(port, "CLUSTER", "MYID") for port in self.ports]
        for number, port in enumerate(self.ports[self._primaries :]):
            self.ask(port, "CLUSTER", "REPLICATE", ids[number % self._primaries])
        self._wait(lambda: all(self._serves(port) for port in self.ports))

    def _serves(self, port: int) -> bool:
        state = self.ask(port, "CLUSTER", "INFO")
        slots = self.ask(port, "CLUSTER", "SLOTS")
        with self.client(port) as client:
            replication = client.info("replication")
        return (
            "cluster_state:ok" in state
            and sum(last - first + 1 for first, last, *_ in slots) == SLOTS
            and all(len(nodes) == 1 + self._replicas for _, _, *nodes in slots)
            and replication.get("master_link_status", "up") == "up"
        )

    def _wait(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + HANG_GUARD_S
        while not holds():
            assert time.monotonic() < deadline_s, "the cluster does not come together"
            time.sleep(0.01)


@contextmanager
def clustered(**options: Any) -> Iterator[Cluster]:
    """Run a cluster; at the end no key is on any node that would stay for ever."""
    loop = LoopThread()
    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        cluster = Cluster(Path(folder), **options)
        try:
            loop.run(cluster.start())
            yield cluster
            there = [node for node in cluster.serving() if node.running]  # a dead one's heir may not be known yet
            found = [key for node in there for key in keys_for_ever(node.port)]
            assert not found, f"keys without a time to live: {found}"
        finally:
            loop.run(cluster.stop())
            loop.close()
