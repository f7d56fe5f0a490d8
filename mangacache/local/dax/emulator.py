"""An emulator put together: the cluster's semantics, its nodes' ports, the way to DynamoDB, the fault port."""

from __future__ import annotations

import math
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.local.dax.answering import Answering
from mangacache.local.dax.attribute_lists import AttributeLists
from mangacache.local.dax.control import FaultPort
from mangacache.local.dax.faults import EmulatorFaults
from mangacache.local.dax.options import EmulatorOptions
from mangacache.local.dax.server import NodeServer, endpoints_of, resolve
from mangacache.local.dax.upstream import open_upstream
from mangacache.tasks import TaskOwner
from mangacache.telemetry import logger
from mangacache.testing.dax.cluster import Cluster
from mangacache.testing.dax.faults import DaxFaults
from mangacache.testing.dax.lru import CacheCounts
from mangacache.testing.dax.serving import Serving
from mangacache.testing.dax.tables import Tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.clock import Clock
    from mangacache.local.dax.replies import Endpoint
    from mangacache.local.dax.upstream import Upstream
    from mangacache.testing.dax.lru import LruCache
    from mangacache.testing.dax.node import Node

_SESSION_BITS: Final = 40


class DaxEmulator:
    """A running emulator. Made by `open`.

    The semantics are those of `mangacache.testing.MemoryDax`, whose documentation says what it chooses where DAX's is
    silent. Here the real client does for itself what the double does for it: routes, retries, projections' form.

    Args:
        options: what it is to be like.
        upstream: the way to DynamoDB.
        clock: what time is read from; TTLs and lags run by its monotonic seconds.
        address: the advertised one, None for the address that each client came by.

    Attributes:
        options: see above.
        upstream: see above.
        clock: see above.
        faults: what can go wrong, on purpose.
        servers: the nodes as clients meet them.
    """

    def __init__(self, options: EmulatorOptions, upstream: Upstream, *, clock: Clock, address: str | None) -> None:
        self.options = options
        self.upstream = upstream
        self.clock = clock
        self.log = logger()
        self.tasks = TaskOwner(on_failure=self._survived)
        random = system_random()
        self.cluster = Cluster(options.cluster(), clock=clock, random=random)
        self.plans = DaxFaults(self.cluster)
        self._tables = Tables(clock)
        self._lists = AttributeLists(file=options.lists)
        serving = Serving(self.cluster, self._tables, clock, whole=True)
        self._door = serving.door
        self.answering = Answering(
            self.cluster, serving, self._tables, lists=self._lists, faults=self.plans, log=self.log
        )
        self.faults = EmulatorFaults(self)
        self.servers: list[NodeServer] = []
        self.fault_port: FaultPort | None = None
        self._address = address
        self._session = random.getrandbits(_SESSION_BITS)
        self._began_s = clock.monotonic_s()

    def __repr__(self) -> str:
        return f"<DaxEmulator {self.endpoint}, {len(self.servers)} nodes, before {self.upstream.url}>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: EmulatorOptions | None = None, *, clock: Clock | None = None
    ) -> AsyncIterator[DaxEmulator]:
        """Start an emulator, and end it with the block.

        Raises:
            Invalid: a port that is taken, no DynamoDB behind it, a certificate that cannot be used; the message says
                which, and what to do.
        """
        options = options if options is not None else EmulatorOptions()
        tls = _tls(options)
        address = await resolve(options.advertise) if options.advertise is not None else None
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(
                open_upstream(
                    options.dynamodb_endpoint,
                    region=options.region,
                    credentials=options.credentials,
                    on_failure=lambda what, error: logger().warning(what, reason=str(error)),
                )
            )
            emulator = cls(options, upstream, clock=clock if clock is not None else SystemClock(), address=address)
            stack.push_async_callback(emulator.tasks.cancel)
            if options.fault_port is not None:
                emulator.fault_port = FaultPort(emulator)
                await emulator.fault_port.start(options.fault_port)
                stack.push_async_callback(emulator.fault_port.stop)
            ports = options.ports()
            emulator.servers = [
                NodeServer(emulator, node, host=options.host, port=ports[node.number], tls=tls)
                for node in emulator.cluster.nodes
            ]
            for server in reversed(emulator.servers):  # whoever reaches the first node finds the whole cluster
                await server.start()
                stack.push_async_callback(server.stop)
            yield emulator

    @property
    def endpoint(self) -> str:
        """What a client is given, `dax://127.0.0.1:8111`."""
        host = self.options.advertise or self.options.host
        return f"{'daxs' if self.options.tls else 'dax'}://{host}:{self.servers[0].port if self.servers else 0}"

    @property
    def endpoints_of_nodes(self) -> list[str]:
        """The same for each node; a client that is given all of them finds the cluster while one is alive."""
        host = self.options.advertise or self.options.host
        return [f"{'daxs' if self.options.tls else 'dax'}://{host}:{server.port}" for server in self.servers]

    @property
    def leader(self) -> int:
        """The number of the node that takes writes."""
        if any(node.alive for node in self.cluster.nodes):
            self.cluster.route(write=True)
        return self.cluster.leader.number

    def endpoints(self, reached: str) -> list[Endpoint]:
        """Return the nodes as a client is told of them.

        Args:
            reached: this machine's address as the client knows it.
        """
        leader = self.leader
        return endpoints_of(
            self.servers,
            leader=leader,
            session=self._session + leader,
            hostname=self.options.advertise or reached,
            address=self._address or reached,
        )

    def status(self) -> dict[str, Any]:
        """Return what happened so far, in plain values."""
        nodes = self.cluster.nodes
        return {
            "endpoint": self.endpoint,
            "dynamodb": self.upstream.url,
            "uptime_s": round(self.clock.monotonic_s() - self._began_s, 3),
            "leader": self.leader,
            "item_ttl_s": self.options.item_ttl_s or math.inf,
            "query_ttl_s": self.options.query_ttl_s or math.inf,
            "replication_lag_s": self.cluster.replication_lag_s,
            "items": asdict(reduce(add, (node.items.counts for node in nodes), CacheCounts())),
            "queries": asdict(reduce(add, (node.queries.counts for node in nodes), CacheCounts())),
            "passed_on": dict(sorted(self._door.passed_on.items())),
            "received": dict(sorted(self.answering.received.items())),
            "attribute_lists": len(self._lists),
            "nodes": [self._node_status(server) for server in self.servers],
        }

    def _node_status(self, server: NodeServer) -> dict[str, Any]:
        node: Node = server.node
        return {
            "node": node.number,
            "port": server.port,
            "alive": node.alive,
            **server.load(),
            "ended": dict(server.refusals),
            "cut_off": server.cut_off,
            "items": _cache_status(node.items),
            "queries": _cache_status(node.queries),
        }

    def _survived(self, name: str, error: BaseException) -> None:
        self.log.error("dax_task_failed", task=name, reason=f"{type(error).__name__}: {error}")


def _cache_status(cache: LruCache[Any]) -> dict[str, int]:
    return {**asdict(cache.counts), "entries": len(cache), "bytes": cache.used_bytes}


def _tls(options: EmulatorOptions) -> ssl.SSLContext | None:
    if options.certificate is None or options.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(
            f"the certificate {options.certificate} with the key {options.key} cannot be used ({error}): both are PEM, "
            "and the key is the certificate's and without a password"
        ) from error
    return context
