"""An emulator in a thread of its own, for tests that are plain functions and clients that block."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mangacache.local.dax.emulator import DaxEmulator

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from mangacache.clock import Clock
    from mangacache.local.dax.options import EmulatorOptions

T = TypeVar("T")
_WITHIN_S: Final = 60.0


class RunningEmulator:
    """A running emulator, to be used from any thread but its own. Made by `running_emulator`.

    Args:
        emulator: that runs.
        loop: that it runs on.
    """

    def __init__(self, emulator: DaxEmulator, loop: asyncio.AbstractEventLoop) -> None:
        self._emulator = emulator
        self._loop = loop

    def __repr__(self) -> str:
        return f"<RunningEmulator {self.endpoint}>"

    @property
    def endpoint(self) -> str:
        """What a client is given, `dax://127.0.0.1:8111`."""
        return self._emulator.endpoint

    @property
    def endpoints(self) -> list[str]:
        """The same for each node."""
        return self._emulator.endpoints_of_nodes

    @property
    def fault_port(self) -> int:
        """The fault port's number, 0 where there is none."""
        return self._emulator.fault_port.port if self._emulator.fault_port is not None else 0

    def status(self) -> dict[str, Any]:
        """Return what happened so far; see `DaxEmulator.status`."""
        return self._call(self._emulator.status)

    def kill(self, node: int = 0) -> None:
        """See `EmulatorFaults.kill`."""
        self._run(self._emulator.faults.kill(node))

    def restart(self, node: int = 0) -> None:
        """See `EmulatorFaults.restart`."""
        self._run(self._emulator.faults.restart(node))

    def slow(self, delay_s: float, *, node: int | None = None) -> None:
        """See `EmulatorFaults.slow`."""
        self._call(lambda: self._emulator.faults.slow(delay_s, node=node))

    def stop_replies(self, *, node: int | None = None) -> None:
        """See `EmulatorFaults.stop_replies`."""
        self._call(lambda: self._emulator.faults.stop_replies(node=node))

    def lose_replies(self, count: int = 1, *, operation: str | None = None) -> None:
        """See `EmulatorFaults.lose_replies`."""
        self._call(lambda: self._emulator.faults.lose_replies(count, operation=operation))

    def throttle(self, count: int = 1, *, operation: str | None = None) -> None:
        """See `EmulatorFaults.throttle`."""
        self._call(lambda: self._emulator.faults.throttle(count, operation=operation))

    def lag(self, seconds: float) -> None:
        """See `EmulatorFaults.lag`."""
        self._call(lambda: self._emulator.faults.lag(seconds))

    def heal(self) -> None:
        """See `EmulatorFaults.heal`."""
        self._run(self._emulator.faults.heal())

    def _call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return self._run(called())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_WITHIN_S)


@contextmanager
def running_emulator(
    options: EmulatorOptions | None = None, *, clock: Clock | None = None
) -> Iterator[RunningEmulator]:
    """Run an emulator in a thread, and end it with the block.

    Args:
        options: what it is to be like; `port=0` takes free ports.
        clock: what time is read from; TTLs and lags run by its monotonic seconds, so a test may set them.

    Raises:
        Invalid: see `DaxEmulator.open`.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="DAX emulator")
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(_WITHIN_S)

    opening = DaxEmulator.open(options, clock=clock)
    try:
        emulator = run(opening.__aenter__())
        try:
            yield RunningEmulator(emulator, loop)
        finally:
            run(opening.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
