"""What the link to a cluster asks of its nodes: a link to each, and from any who has which slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mangacache.redis.link import LinkLost
from mangacache.redis.pipeline import PipelinedLine, heard
from mangacache.redis.slots import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mangacache.clock import Clock
    from mangacache.redis.dialing import Dialer
    from mangacache.redis.link import Admission, Argument, Changes, Script
    from mangacache.redis.slots import Owned
    from mangacache.settings import RedisAddress


class NodeLink(Protocol):
    """A `Link` to one node of a cluster; `asking` says that the slot is on its way there.

    Attributes:
        stand: told 1 when it is up again and 0 when it is down.
    """

    stand: Callable[[float], None]

    def admit_with(self, admission: Admission) -> None:
        """See `Link`."""

    def watch_with(self, changes: Changes) -> None:
        """See `Link`."""

    @property
    def up(self) -> bool:
        """See `Link`."""

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
        asking: bool = False,
    ) -> Any:
        """See `Link`."""

    async def call(
        self,
        *command: Argument,
        key: str | None = None,
        tag: int | None = None,
        repeatable: bool = False,
        asking: bool = False,
    ) -> Any:
        """See `Link`."""

    def drop(self) -> None:
        """See `Link`."""

    async def close(self) -> None:
        """See `Link`."""


async def told_slots(dialer: Dialer, address: RedisAddress, *, clock: Clock) -> list[Owned]:
    """Ask a node who has which slot, on a connection of its own: a replica is admitted to nothing else.

    Raises:
        LinkLost: it does not answer.
        ScriptFailed: it is no node of a cluster, or refuses.
    """
    username, password = await dialer.login()
    line = await dialer.open(address, lambda: PipelinedLine(clock=clock, gone=lambda _: None))
    try:
        await line.log_in(username, password, 0)
        found = owned(heard(await line.ask("CLUSTER", "SLOTS"), "who has which slot"))
    finally:
        line.abort()
    if not found:
        raise LinkLost("it knows of no slots", sent=False)
    return found
