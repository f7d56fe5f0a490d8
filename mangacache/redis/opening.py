"""Which link a process has, and whether it leads to one server or to a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mangacache.errors import Transient
from mangacache.redis.cluster import ClusterLink
from mangacache.redis.connections import RedisPyLink
from mangacache.redis.dialing import Dialer
from mangacache.redis.link import LinkLost
from mangacache.redis.multiplexed import MultiplexedLink
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Admission, Argument, Changes, Link, Script, Server
    from mangacache.redis.nodes import NodeLink
    from mangacache.settings import RedisAddress, Settings
    from mangacache.telemetry import Telemetry


def open_link(settings: Settings, *, clock: Clock, random: Random, telemetry: Telemetry) -> Link:
    """Return the link that `redis_link` and `redis_cluster` name; it connects when something is asked of it.

    Raises:
        Invalid: `redis_ca_file` cannot be used, or the login's settings do not go together.
    """
    kind = MultiplexedLink if settings.redis_link == "multiplexed" else RedisPyLink
    dialer = Dialer(settings, clock=clock)

    def node(address: RedisAddress) -> NodeLink:
        return kind(settings, clock=clock, random=random, telemetry=telemetry, dialer=dialer, address=address)

    def cluster() -> ClusterLink:
        return ClusterLink(dialer, node, settings=settings, clock=clock, random=random, telemetry=telemetry)

    if settings.redis_cluster == "on":
        return cluster()
    if settings.redis_cluster == "off" or dialer.address.unix_path is not None:
        return node(dialer.address)
    return FindingLink(node(dialer.address), cluster, clock=clock, telemetry=telemetry)


class FindingLink:
    """A `Link` that finds out at its first connection whether a server is a node of a cluster.

    Args:
        one: the link to the server that the settings name.
        cluster: makes the link to the cluster, where it is one.
        clock: lets the one link end before the other begins.
        telemetry: says so.
    """

    def __init__(
        self, one: NodeLink, cluster: Callable[[], ClusterLink], *, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._link: Link = one
        self._cluster = cluster
        self._clock = clock
        self._telemetry = telemetry
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._admission: Admission | None = None
        self._changes: Changes | None = None
        one.admit_with(self._look)

    def __repr__(self) -> str:
        return f"<FindingLink {self._link!r}>"

    @property
    def link(self) -> Link:
        """The link that was found."""
        return self._link

    @property
    def clustered(self) -> bool:
        """Whether keys are on several nodes, so that what one script touches has to be on one of them."""
        return isinstance(self._link, ClusterLink)

    def admit_with(self, admission: Admission) -> None:
        """See `Link`."""
        self._admission = admission
        if isinstance(self._link, ClusterLink):
            self._link.admit_with(admission)

    def watch_with(self, changes: Changes) -> None:
        """See `Link`."""
        self._changes = changes
        self._link.watch_with(changes)

    @property
    def up(self) -> bool:
        """See `Link`."""
        return self._link.up

    def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """See `Link`."""
        return self._found(
            lambda link: link.run(
                script, key, arguments, more_keys=more_keys, tag=tag, repeatable=repeatable, watch=watch
            )
        )

    def call(
        self, *command: Argument, key: str | None = None, tag: int | None = None, repeatable: bool = False
    ) -> Coroutine[Any, Any, Any]:
        """See `Link`."""
        return self._found(lambda link: link.call(*command, key=key, tag=tag, repeatable=repeatable))

    def drop(self) -> None:
        """See `Link`."""
        self._link.drop()

    async def close(self) -> None:
        """See `Link`."""
        await self._link.close()
        await self._tasks.settle()

    async def _found(self, send: Callable[[Link], Coroutine[Any, Any, Any]]) -> Any:
        link = self._link
        try:
            return await send(link)
        except LinkLost as lost:
            if lost.sent or self._link is link:
                raise
        return await send(self._link)  # to the cluster that it turned out to be

    def _settle(self) -> None:
        """Have calls be the found link's own from now on: to pass them on is a tenth of their cost."""
        self.run = self._link.run  # type: ignore[method-assign]  # that is what is meant
        self.call = self._link.call  # type: ignore[method-assign]

    async def _look(self, server: Server) -> int:
        """Admit a connection to a server by itself; one to a node of a cluster is given up, for the cluster's."""
        if (await server.info()).get("cluster_enabled") == "1":
            await self._go_over()
            raise Transient("it is a node of a cluster")
        self._settle()
        return 0 if self._admission is None else await self._admission(server)

    async def _go_over(self) -> None:
        if isinstance(self._link, ClusterLink):  # another connection was first to find it out
            return
        one, self._link = self._link, self._cluster()
        if self._admission is not None:
            self._link.admit_with(self._admission)
        if self._changes is not None:
            self._link.watch_with(self._changes)
        self._settle()
        self._telemetry.log.info("redis_is_a_cluster", link=repr(self._link))
        self._tasks.start(one.close(), name="close the link to one node of Redis")
        await self._clock.sleep(0)  # it is closed from now on, and not down
