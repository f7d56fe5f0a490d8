"""A link to a cluster: one link a node, each key's commands to the node that has its slot.

Whose slots they are is read from any node that answers, when something shows that it has changed: MOVED, or a node that
cannot be asked. Commands that were not sent go to whoever has the slot by then; what may have been carried out does
not. While a node is away those of its keys fail at once, and the others' go on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from mangacache.redis.link import LinkLost, Redirected, ScriptFailed
from mangacache.redis.nodes import told_slots
from mangacache.redis.reconnecting import said
from mangacache.redis.slots import SLOTS, slot_of
from mangacache.settings import RedisAddress
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mangacache.clock import Clock, Random
    from mangacache.redis.dialing import Dialer
    from mangacache.redis.link import Admission, Argument, Changes, Script
    from mangacache.redis.nodes import NodeLink
    from mangacache.redis.slots import Owned
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

_MOST_HOPS: Final = 8
_READ_AGAIN_AFTER_S: Final = 0.1
_FOLLOW_BASE_S: Final = 0.05
_FOLLOW_CAP_S: Final = 0.5


class ClusterLink:
    """A `Link` to all nodes of a cluster.

    Args:
        dialer: where the cluster is found, and how its nodes are asked who has which slot.
        node: makes the link to a node.
        settings: the time-outs.
        clock: deadlines and pauses.
        random: jitter, and which node is asked.
        telemetry: says when a node is lost and reached again.

    Attributes:
        clustered: see `FindingLink`.
    """

    clustered: Final = True

    def __init__(
        self,
        dialer: Dialer,
        node: Callable[[RedisAddress], NodeLink],
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        self._dialer = dialer
        self._node = node
        self._within_s = settings.connect_timeout_s
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._admission: Admission | None = None
        self._changes: Changes | None = None
        self._nodes: dict[tuple[str, int], NodeLink] = {}
        self._owners: list[NodeLink | None] = [None] * SLOTS
        self._reading: asyncio.Task[LinkLost | None] | None = None
        self._read_at_s = float("-inf")
        self._following: asyncio.Task[None] | None = None
        self._down = ""
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"down: {self._down}" if self._down else "up"
        return f"<ClusterLink {self._dialer.address}, {state}, nodes {list(self._nodes.values())}>"

    def admit_with(self, admission: Admission) -> None:
        """See `Link`."""
        self._admission = admission
        for node in self._nodes.values():
            node.admit_with(admission)

    def watch_with(self, changes: Changes) -> None:
        """See `Link`."""
        self._changes = changes
        for node in self._nodes.values():
            node.watch_with(changes)

    @property
    def up(self) -> bool:
        """See `Link`: whether any node can be asked."""
        return not self._closed and not self._down and (not self._nodes or any(n.up for n in self._nodes.values()))

    async def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
    ) -> Any:
        """See `Link`."""
        slot = slot_of(key)
        node = self._owners[slot] or await self._located(slot)
        try:
            return await node.run(
                script, key, arguments, more_keys=more_keys, tag=tag, repeatable=repeatable, watch=watch
            )
        except LinkLost as lost:

            def send(to: NodeLink, asking: bool) -> Awaitable[Any]:  # noqa: FBT001 - a function of its own
                return to.run(
                    script,
                    key,
                    arguments,
                    more_keys=more_keys,
                    tag=tag,
                    repeatable=repeatable,
                    watch=watch,
                    asking=asking,
                )

            return await self._elsewhere(slot, node, lost, send)

    async def call(
        self, *command: Argument, key: str | None = None, tag: int | None = None, repeatable: bool = False
    ) -> Any:
        """See `Link`."""
        slot = slot_of(key) if key is not None else int(self._random.random() * SLOTS)
        node = self._owners[slot] or await self._located(slot)
        try:
            return await node.call(*command, tag=tag, repeatable=repeatable)
        except LinkLost as lost:

            def send(to: NodeLink, asking: bool) -> Awaitable[Any]:  # noqa: FBT001 - a function of its own
                return to.call(*command, tag=tag, repeatable=repeatable, asking=asking)

            return await self._elsewhere(slot, node, lost, send)

    async def _elsewhere(
        self, slot: int, node: NodeLink, lost: LinkLost, send: Callable[[NodeLink, bool], Awaitable[Any]]
    ) -> Any:
        """Send what was not carried out to the node that has the slot by now.

        Raises:
            LinkLost: it may have been carried out, or no other node has the slot.
        """
        for _ in range(_MOST_HOPS):
            asking = False
            if isinstance(lost, Redirected):
                to, asking = self._node_at(lost.host or self._host_of(node), lost.port), lost.ask
                if not asking:
                    self._owners[slot] = to
                    self._follow()
            else:
                self._follow()
                if lost.sent or await self._read() is not None:
                    raise lost
                found = self._owners[slot]
                if found is None or found is node:
                    raise lost
                to = found
            node = to
            try:
                return await send(to, asking)
            except LinkLost as again:
                lost = again
        raise lost

    def drop(self) -> None:
        """See `Link`."""
        for node in self._nodes.values():
            node.drop()

    async def close(self) -> None:
        """See `Link`."""
        self._closed = True
        for task in (self._reading, self._following):
            if task is not None:
                task.cancel()
        for node in self._nodes.values():
            self._tasks.start(node.close(), name="close the link to a node of Redis")
        await self._tasks.settle()

    # The nodes

    def _node_at(self, host: str, port: int) -> NodeLink:
        node = self._nodes.get((host, port))
        if node is None:
            seed = self._dialer.address
            node = self._node(
                RedisAddress(host=host, port=port, tls=seed.tls, username=seed.username, password=seed.password)
            )
            node.stand = self._stands
            if self._admission is not None:
                node.admit_with(self._admission)
            if self._changes is not None:
                node.watch_with(self._changes)
            self._nodes[host, port] = node
        return node

    def _host_of(self, node: NodeLink) -> str:
        return next((host for (host, _), each in self._nodes.items() if each is node), self._dialer.address.host)

    def _stands(self, up: float) -> None:
        """Hear of a node: the cluster is whole where all are up."""
        self._telemetry.redis_up.set(float(bool(up) and all(node.up for node in self._nodes.values())))

    # Who has which slot

    async def _located(self, slot: int) -> NodeLink:
        """Return the node that has a slot, having asked the cluster.

        Raises:
            LinkLost: nobody has it, or no node answers.
        """
        if self._closed:
            raise LinkLost("closed", sent=False)
        if self._down:
            raise LinkLost(self._down, sent=False, down=True)
        lost = await self._read()
        node = self._owners[slot]
        if node is None:
            self._follow()
            raise lost or LinkLost(f"no node of the cluster serves slot {slot}", sent=False)
        return node

    def _follow(self) -> None:
        """Have the slots read again, and again until every node that has some can be asked."""
        if not self._closed and (self._following is None or self._following.done()):
            self._following = self._tasks.start(self._follow_on(), name="follow Redis's cluster")

    async def _follow_on(self) -> None:
        tries = 0
        while True:
            ceiling_s = min(_FOLLOW_CAP_S, _FOLLOW_BASE_S * 2 ** min(tries, 10))
            await self._clock.sleep(self._random.random() * ceiling_s)
            tries += 1
            if await self._read() is None and all(node is not None and node.up for node in set(self._owners)):
                return

    async def _read(self) -> LinkLost | None:
        """Read who has which slot; callers at the same time share one, as do those who come right after.

        Returns:
            Why it could not be read; None where it was.
        """
        if self._clock.monotonic_s() - self._read_at_s < _READ_AGAIN_AFTER_S:
            return None
        if self._reading is None:
            self._reading = self._tasks.start(self._read_slots(), name="ask who has which slot", awaited=True)
        reading = self._reading
        await asyncio.wait((reading,))
        return LinkLost("closed", sent=False) if reading.cancelled() else reading.result()

    async def _read_slots(self) -> LinkLost | None:
        why: LinkLost | None = None
        try:
            for address in self._whom_to_ask():
                try:
                    async with self._clock.timeout(self._within_s):
                        found = await told_slots(self._dialer, address, clock=self._clock)
                except (LinkLost, ScriptFailed, TimeoutError) as error:
                    why = LinkLost(f"no slots from {address}: {said(error)}", sent=False)
                else:
                    self._take(found, address.host)
                    self._read_at_s = self._clock.monotonic_s()
                    self._say_down("")
                    return None
        finally:
            self._reading = None
        self._say_down(str(why) if not any(node.up for node in self._nodes.values()) else "")
        return why

    def _say_down(self, why: str) -> None:
        if why and not self._down:
            self._telemetry.redis_up.set(0)
            self._telemetry.log.warning("redis_cluster_down", why=why)
            self._follow()
        self._down = why

    def _whom_to_ask(self) -> list[RedisAddress]:
        """Return the nodes, those first that are up, then the address that the settings name."""
        seed = self._dialer.address
        nodes = sorted(self._nodes.items(), key=lambda item: (not item[1].up, self._random.random()))
        return [RedisAddress(host=host, port=port, tls=seed.tls) for (host, port), _ in nodes] + [seed]

    def _take(self, found: list[Owned], asked: str) -> None:
        """Take in who has which slot. Who is no primary any more is let go of.

        A node that has slots of one that is gone is admitted anew: somebody may still be talking to that one.
        """
        before, owners = self._owners, [None] * SLOTS  # type: list[NodeLink | None], list[NodeLink | None]
        primaries: dict[NodeLink, None] = {}
        for part in found:
            node = self._node_at(part.host or asked, part.port)
            primaries[node] = None
            owners[part.first : part.last + 1] = [node] * (part.last - part.first + 1)
        self._owners = owners
        heirs = {
            now
            for was, now in zip(before, owners, strict=True)
            if was is not now and now is not None and was is not None and was not in primaries
        }
        for node in heirs:
            node.drop()
        for place, node in list(self._nodes.items()):
            if node not in primaries:
                del self._nodes[place]
                self._tasks.start(node.close(), name="close the link to a node of Redis")
