"""A local DynamoDB: dynoxide where its binary is found, else moto."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from mangacache.errors import NotFound
from mangacache.local.process import ServerProcess, answers

if TYPE_CHECKING:
    from collections.abc import Sequence

EngineName = Literal["auto", "dynoxide", "moto"]

_VARIABLE: Final = "MANGACACHE_DYNOXIDE"


class Engine(msgspec.Struct, frozen=True):
    """A local DynamoDB engine.

    Attributes:
        faithful_transactions: whether its transactions and request tokens work as DynamoDB's do.
        meaning: one line for people: which engine it is, and what that means.
    """

    name: str
    version: str
    binary: str
    faithful_transactions: bool
    meaning: str


def find_engine(wanted: EngineName = "auto") -> Engine:
    """Return the engine to use.

    Raises:
        NotFound: the one that is wanted, or any, is not installed.
    """
    binary = _dynoxide() if wanted != "moto" else None
    if binary is not None:
        number = _dynoxide_version(binary)
        return Engine(
            "dynoxide",
            number,
            str(binary),
            faithful_transactions=True,
            meaning=f"dynoxide {number}, a DynamoDB engine in one binary, with faithful conditions and transactions",
        )
    if wanted == "dynoxide":
        raise NotFound(
            "the DynamoDB engine dynoxide is not installed, which this needs for its faithful transactions: run "
            f"`make test` or `make demo`, which install it, or name its binary in {_VARIABLE}"
        )
    if find_spec("moto") is None:
        raise NotFound("no local DynamoDB is installed: pip install 'mangacache[local]'")
    number = version("moto")
    why = ", because dynoxide was not found" if wanted == "auto" else ""
    return Engine(
        "moto",
        number,
        sys.executable,
        faithful_transactions=False,
        meaning=f"moto {number}{why}: slow, transactions are not atomic, repeated ones apply twice, "
        "nothing is kept; good for a look, not for load or faults",
    )


def _dynoxide() -> Path | None:
    named = os.environ.get(_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise NotFound(f"{_VARIABLE} names {named}, which is no program that can be run")
        return Path(named)
    if on_path := shutil.which("dynoxide"):
        return Path(on_path)
    installed = Path(sys.prefix, "npm", "node_modules", "@dynoxide").glob("*/dynoxide")
    return next((path for path in sorted(installed) if os.access(path, os.X_OK)), None)


def _dynoxide_version(binary: Path) -> str:
    package = binary.with_name("package.json")
    if not package.exists():
        return "of unknown version"
    return str(msgspec.json.decode(package.read_bytes())["version"])


def dynamodb_process(engine: Engine, *, port: int | None, folder: Path, keep: bool) -> ServerProcess:
    """Return a server of this engine, not started yet.

    Args:
        engine: from `find_engine`.
        port: None takes a free one.
        folder: where its log goes, and its data if they are kept.
        keep: keep the data in `folder`; moto cannot.
    """

    def command(chosen: int) -> Sequence[str]:
        if engine.name == "moto":
            return [engine.binary, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(chosen)]
        stored = ["--db-path", str(folder / "dynamodb.sqlite")] if keep else []
        return [engine.binary, "serve", "--host", "127.0.0.1", "-p", str(chosen), *stored]

    async def ready(chosen: int) -> bool:
        ask = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        return await answers(asyncio.open_connection("127.0.0.1", chosen), ask, b"HTTP/")

    return ServerProcess(engine.name, command=command, ready=ready, port=port, log=folder / "dynamodb.log")
