"""SIGTERM and SIGINT: the first asks the worker to leave in order, the second ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_BY_SIGNAL: Final = 128


class Stop:
    """Asks a worker to leave; what asks first is remembered.

    Attributes:
        why: who asked.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._heard: list[Callable[[], None]] = []
        self.why = ""

    @property
    def asked(self) -> bool:
        """Whether it is to leave."""
        return self._asked.is_set()

    def ask(self, why: str) -> None:
        """Ask it to leave; to ask again changes nothing."""
        if not self.asked:
            self.why = why
            self._asked.set()
            for hear in self._heard:
                hear()

    def on_asked(self, hear: Callable[[], None]) -> None:
        """Call `hear` in the moment in which it is asked."""
        self._heard.append(hear)

    async def wait(self) -> None:
        """Wait until it is asked."""
        await self._asked.wait()


class Signals:
    """Has the signals of this process ask, while its block runs.

    The second one ends the process where it stands, whatever hangs: a handler of the interpreter's own does that, not
    the event loop. The default action would not do: a container's first process is not ended by it.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._first, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number, before in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, before)

    def _first(self, number: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, _leave_at_once)
        self._stop.ask(number.name)


def _leave_at_once(number: int, _: FrameType | None) -> None:
    name = signal.Signals(number).name
    os.write(sys.stderr.fileno(), f"mangacache: {name} again: leaving at once\n".encode())
    os._exit(_BY_SIGNAL + number)
