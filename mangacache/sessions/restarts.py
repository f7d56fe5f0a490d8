"""Keeps background tasks alive: what dies is begun again, but not for ever.

The restart intensity of Erlang's supervisors: so many restarts within so long; beyond that whoever keeps dying is given
up, and that is told (J. Armstrong, Making reliable distributed systems in the presence of software errors, 2003).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mangacache.clock import Clock, Random
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

RESTARTS: Final = 5
WITHIN_S: Final = 60.0
_PAUSE_S: Final = 0.05


class Restarts:
    """Runs background work, again where it fails.

    Args:
        gave_up: called with the name and the error of what is not begun again.

    Attributes:
        counted: how often anything was begun again.
    """

    def __init__(
        self,
        *,
        tasks: TaskOwner,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        gave_up: Callable[[str, BaseException], None],
    ) -> None:
        self.counted = 0
        self._tasks = tasks
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._gave_up = gave_up

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        """Run `work` for as long as the instance lives."""
        self._tasks.start(self._kept(work, name), name=name)

    async def _kept(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        times_s: deque[float] = deque(maxlen=RESTARTS)
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is begun again or told
                self._telemetry.count_survived("background_died", error, work=name)
                now_s = self._clock.monotonic_s()
                if len(times_s) == RESTARTS and now_s - times_s[0] < WITHIN_S:
                    self._gave_up(name, error)
                    return
                times_s.append(now_s)
                self.counted += 1
                await self._clock.sleep(self._random.random() * _PAUSE_S * 2 ** len(times_s))
            else:
                return
