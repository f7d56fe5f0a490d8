"""A server as a child process that ends with its parent; its life is driven from any event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from mangacache.errors import Invalid, Transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_WATCHDOG: Final = Path(__file__).with_name("watchdog.py")
_READY_WITHIN_S: Final = 30.0
_MAX_PORTS: Final = 5
_LOG_TAIL: Final = 2_000


class ServerProcess:
    """A server on a loopback port, or on a unix socket where the port is 0.

    Args:
        name: what to call it in messages.
        command: given the port, returns the command line.
        ready: given the port, tells whether the server answers.
        port: None takes a free one.
        log: the file its output goes to.
    """

    def __init__(
        self,
        name: str,
        *,
        command: Callable[[int], Sequence[str]],
        ready: Callable[[int], Awaitable[bool]],
        port: int | None,
        log: Path,
    ) -> None:
        self.name = name
        self._command = command
        self._ready = ready
        self._fixed = port is not None
        self.port = port or 0
        self._log = log
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self.pid = 0

    def __repr__(self) -> str:
        return f"<ServerProcess {self.name}, pid {self.pid or None}, port {self.port}>"

    @property
    def running(self) -> bool:
        """Whether the server is there."""
        return self._watchdog is not None and self._watchdog.poll() is None

    @property
    def watchdog_pid(self) -> int:
        """The process id of its watchdog."""
        return self._watchdog.pid if self._watchdog is not None else 0

    async def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            Invalid: the given port is in use.
            Transient: it did not answer in time, or died; the message ends with what it said.
        """
        if self._fixed:
            if self.port:
                _check_port(self.name, self.port)
            if not await self._try():
                raise self._failed()
            return
        for _ in range(_MAX_PORTS):  # a free port may be taken by somebody else before the server has it
            self.port = free_port()
            if await self._try():
                return
        raise self._failed()

    async def restart(self) -> None:
        """Start it again, where it was, after `stop` or `kill`."""
        await self.stop()
        if not await self._try():
            raise self._failed()

    async def stop(self) -> None:
        """End it in good order: SIGTERM, and SIGKILL after 2 s."""
        if self._watchdog is None:
            return
        self._drop_lifeline()
        while self._watchdog.poll() is None:  # noqa: ASYNC110 - nothing on this loop hears of a child's end
            await asyncio.sleep(0.005)
        self._watchdog = None

    def kill(self) -> None:
        """End the server at once, without a chance to write anything down."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Let the server stand still: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # it has just ended: nothing is left to signal

    async def _try(self) -> bool:
        """Start once; tell whether the server came up, having cleaned up if it did not."""
        self._spawn()
        deadline = time.monotonic() + _READY_WITHIN_S
        pause_s = 0.002
        while self.running and time.monotonic() < deadline:
            if await self._ready(self.port) and self.running:
                return True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)
        await self.stop()
        return False

    def _spawn(self) -> None:
        lifeline_end, self._lifeline = os.pipe()
        report, report_end = os.pipe()
        arguments = [sys.executable, "-I", "-S", str(_WATCHDOG), str(lifeline_end), str(report_end), "--"]
        try:
            with _opened(self._log) as log:
                self._watchdog = subprocess.Popen(  # noqa: S603 - our own interpreter and a server found by name
                    [*arguments, *self._command(self.port)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lifeline_end, report_end),
                )
        finally:
            os.close(lifeline_end)
            os.close(report_end)
        with os.fdopen(report) as reported:
            self.pid = int(reported.readline() or 0)

    def _drop_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _failed(self) -> Transient:
        said = self._log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip() if self._log.exists() else ""
        return Transient(f"{self.name} did not come up on port {self.port}; it said: {said or 'nothing'}")


def _opened(log: Path) -> BinaryIO:
    try:
        return log.open("ab")
    except OSError as error:
        raise Invalid(f"{log} cannot be written ({error.strerror}): choose another folder") from error


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _check_port(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise Invalid(
                f"port {port} cannot be used for {name} ({error}): end what listens there, or choose another port"
            ) from error


async def answers(
    opening: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]], ask: bytes, sign: bytes
) -> bool:
    """Tell whether a server answers `ask` with something that begins with `sign`."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await opening
            try:
                writer.write(ask)
                return (await reader.read(len(sign))) == sign
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
