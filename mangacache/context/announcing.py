"""What a customer's listeners are told where the script that writes cannot tell them: in a cluster, at another node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.redis import LinkLost, ScriptFailed

if TYPE_CHECKING:
    from mangacache.redis import Link
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

MOST_UNDER_WAY: Final = 1_024


class Announcer:
    """Publishes beside the scripts, without being waited for; beyond a bound, not at all."""

    def __init__(self, link: Link, *, tasks: TaskOwner, telemetry: Telemetry) -> None:
        self._link = link
        self._tasks = tasks
        self._telemetry = telemetry
        self._under_way = 0

    @property
    def is_needed(self) -> bool:
        """Whether a script may publish on channels of its own slot alone."""
        return getattr(self._link, "clustered", False)

    def announce(self, channel: str, notice: bytes) -> None:
        """Begin to publish a notice."""
        if self._under_way >= MOST_UNDER_WAY:
            self._telemetry.survived.labels("notice_dropped").inc()
            return
        self._under_way += 1
        self._tasks.start(self._announced(channel, notice), name="tell a customer's listeners")

    async def _announced(self, channel: str, notice: bytes) -> None:
        try:
            await self._link.call("SPUBLISH", channel, notice, key=channel)
        except (LinkLost, ScriptFailed) as error:
            self._telemetry.count_survived("notice_lost", error)
        finally:
            self._under_way -= 1
