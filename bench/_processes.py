"""A client of a bench as a process of its own, so that its CPU time is its own and its garbage, too.

The parent asks one thing at a time, a line of JSON out and a line back, and sleeps meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

_LONGEST_LINE = 64 * 1024 * 1024


class ClientFailed(Exception):
    """A client process met an error or has died; the message is its own."""


class ClientProcess:
    """A client process, as the bench sees it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Have the client do something, and return what came of it.

        Raises:
            ClientFailed: it met an error, or has died.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("a client without pipes")
        line = b""
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            raise ClientFailed(f"the client process {self.name!r} has died")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientFailed(f"the client process {self.name!r} failed: {answer['error']}")
        return answer["result"]


@asynccontextmanager
async def client_process(
    name: str, script: Path, configuration: Mapping[str, Any], *, variables: Mapping[str, str]
) -> AsyncIterator[ClientProcess]:
    """Start `script NAME CONFIGURATION` and end it with the block, in good order where that is possible.

    Args:
        name: the script's first argument.
        script: calls `serve`.
        configuration: the script's second argument, as JSON.
        variables: added to the environment.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), name, json.dumps(configuration),
        env=os.environ | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )  # fmt: skip
    try:
        yield ClientProcess(name, process)
        if process.stdin is not None:
            process.stdin.close()
        async with asyncio.timeout(30):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def serve(commands: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Be a client process: do what the parent asks until it closes the pipe. Ctrl-C is the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command, arguments = json.loads(line)
        try:
            answer = {"result": await commands[command](**arguments)}
        except Exception:  # noqa: BLE001 - the parent reports it, whatever it is
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def settle_memory() -> None:
    """Take what has been built up out of the collector's sight, as a worker does when it is warm."""
    gc.collect()
    gc.freeze()
