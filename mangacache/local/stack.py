"""The embedded stack: Valkey, a local DynamoDB and a DAX emulator, up together and down together."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from mangacache.errors import Invalid
from mangacache.local.dax.process import dax_process
from mangacache.local.dynamodb import Engine, EngineName, dynamodb_process, find_engine
from mangacache.local.process import free_port
from mangacache.local.valkey import valkey_process, valkey_version
from mangacache.tasks import both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.local.process import ServerProcess

TABLE_NAME: Final = "manga-assist-sessions"


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to start the stack.

    Attributes:
        engine: which DynamoDB; `auto` takes dynoxide where it is found, else moto.
        redis: start Valkey too.
        data_folder: keep the data there; None keeps nothing.
        redis_port, dynamodb_port: None takes free ones.
        unix_socket: reach Valkey by a unix socket instead of a port.
        redis_memory: Valkey's `maxmemory`.
        dax: start a DAX emulator in front of DynamoDB.
        dax_port: of its first node; None takes a free one.
        dax_options: further arguments of `mangacache dax-emulator`, `("--nodes", "3")`.
    """

    engine: EngineName = "auto"
    redis: bool = True
    data_folder: Path | None = None
    redis_port: int | None = None
    dynamodb_port: int | None = None
    unix_socket: bool = False
    redis_memory: str = "256mb"
    dax: bool = False
    dax_port: int | None = None
    dax_options: tuple[str, ...] = ()


class LocalStack:
    """A running stack. Made by `open`; its servers end with the block, or with this process, however it ends.

    Attributes:
        engine: the DynamoDB engine.
        dynamodb, valkey, dax: their processes; None for one that was not wanted.
        dax_fault_port: of the DAX emulator, 0 where there is none.
    """

    def __init__(
        self,
        engine: Engine,
        dynamodb: ServerProcess,
        *,
        valkey: ServerProcess | None = None,
        dax: ServerProcess | None = None,
        dax_fault_port: int = 0,
        unix_socket: Path | None = None,
    ) -> None:
        self.engine = engine
        self.dynamodb = dynamodb
        self.valkey = valkey
        self.dax = dax
        self.dax_fault_port = dax_fault_port
        self._unix_socket = unix_socket

    @property
    def dynamodb_url(self) -> str:
        """The endpoint of DynamoDB."""
        return f"http://127.0.0.1:{self.dynamodb.port}"

    @property
    def redis_url(self) -> str | None:
        """The address of Valkey, None where there is none."""
        if self.valkey is None:
            return None
        return (
            f"unix://{quote(str(self._unix_socket))}" if self._unix_socket else f"redis://127.0.0.1:{self.valkey.port}"
        )

    @property
    def dax_url(self) -> str | None:
        """The address of the DAX emulator, None where there is none."""
        return None if self.dax is None else f"dax://127.0.0.1:{self.dax.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables by which `Settings.from_env` and the AWS tools find the stack."""
        variables = {
            "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "SESSION_TABLE": TABLE_NAME,
        }
        if self.redis_url is not None:
            variables["REDIS_ENDPOINT"] = self.redis_url
        if self.dax_url is not None:
            variables["DAX_ENDPOINT"] = self.dax_url
        return variables

    def describe(self) -> dict[str, Any]:
        """Return what is running, for reports."""
        return {
            "dynamodb": f"{self.engine.name} {self.engine.version}",
            "redis": f"valkey {valkey_version()}" if self.valkey is not None else None,
            **({"dax": "emulator"} if self.dax is not None else {}),
        }

    @classmethod
    @asynccontextmanager
    async def open(cls, options: LocalOptions | None = None) -> AsyncIterator[LocalStack]:
        """Start the servers, and end them with the block.

        Raises:
            NotFound: a server is not installed; the message says how to install it.
            Invalid: a port that is in use, a folder that cannot be made.
            Transient: a server did not come up.
        """
        options = options if options is not None else LocalOptions()
        engine = find_engine(options.engine)
        with tempfile.TemporaryDirectory(prefix="mangacache-") as temporary:
            folder = _made(options.data_folder) if options.data_folder is not None else Path(temporary)
            keep = options.data_folder is not None
            unix_socket = Path(temporary, "valkey.sock") if options.unix_socket else None
            dynamodb = dynamodb_process(engine, port=options.dynamodb_port, folder=folder, keep=keep)
            valkey = None
            if options.redis:
                valkey = valkey_process(
                    folder=folder,
                    port=options.redis_port,
                    unix_socket=unix_socket,
                    keep=keep,
                    memory=options.redis_memory,
                )
            dax, dax_fault_port = None, 0
            try:
                await both(dynamodb.start(), valkey.start() if valkey is not None else _nothing())
                if options.dax:
                    dax_fault_port = free_port()
                    dax = dax_process(
                        f"http://127.0.0.1:{dynamodb.port}",
                        folder=folder,
                        port=options.dax_port,
                        fault_port=dax_fault_port,
                        options=options.dax_options,
                    )
                    await dax.start()
                yield cls(
                    engine,
                    dynamodb,
                    valkey=valkey,
                    dax=dax,
                    dax_fault_port=dax_fault_port,
                    unix_socket=unix_socket,
                )
            finally:
                if dax is not None:
                    await dax.stop()
                if valkey is not None:
                    await valkey.stop()
                await dynamodb.stop()


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"the data folder {folder} cannot be made: {error}") from error
    return folder.resolve()


async def _nothing() -> None:
    pass
