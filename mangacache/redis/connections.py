"""A link over redis-py's connections: a bounded number of them, each used by one command at a time.

redis-py opens, authenticates and reads; what it would do on its own is turned off, because each of it does harm
here: sending a command again after a time-out (a script would run twice), waiting through ten retries, building a
TLS context for each connection (a stall of 37 ms), asking for maintenance notices that Valkey does not know.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from mangacache.errors import MangaCacheError
from mangacache.redis.link import LinkLost, Moved, ScriptFailed
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Admission, Argument, Script
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

_RECONNECT_BASE_S: Final = 0.02
_RECONNECT_CAP_S: Final = 0.25
_LOST: Final = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError, asyncio.IncompleteReadError)
_NOT_NOW: Final = (ReadOnlyError, BusyLoadingError, MasterDownError, ClusterDownError, TryAgainError)


class _Open:
    """An open connection and the tag it was admitted under."""

    __slots__ = ("_connection", "generation", "tag")

    def __init__(self, connection: AbstractConnection, generation: int) -> None:
        self._connection = connection
        self.generation = generation
        self.tag = 0

    async def info(self) -> dict[str, str]:
        text = b""
        for section in ("server", "replication"):
            await self._connection.send_command("INFO", section, check_health=False)
            text += await self._connection.read_response(disable_decoding=True)
        lines = text.decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def run(self, script: Script, key: str, arguments: Sequence[Argument]) -> Any:
        try:
            return await self._call("EVALSHA", script.sha, 1, key, *arguments)
        except NoScriptError:
            return await self._call("EVAL", script.text, 1, key, *arguments)

    async def _call(self, *command: Argument) -> Any:
        await self._connection.send_command(*command, check_health=False)
        return await self._connection.read_response(disable_decoding=True)

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)


class RedisPyLink:
    """A `Link` by redis-py: as many connections as commands are under way, up to a bound."""

    def __init__(self, settings: Settings, *, clock: Clock, random: Random, telemetry: Telemetry) -> None:
        address = settings.redis
        if address is None:
            raise AssertionError("a link without an address")
        self._address = address
        self._connect_timeout_s = settings.connect_timeout_s
        self._timeout_s = settings.redis_timeout_s
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._slots = asyncio.Semaphore(settings.redis_connections)
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._admission: Admission | None = None
        self._tls: Any = None
        self._idle: list[_Open] = []
        self._generation = 0
        self._down = ""
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"down: {self._down}" if self._down else "up"
        return f"<RedisPyLink {self._address}, {state}, {len(self._idle)} idle connections>"

    def admit_with(self, admission: Admission) -> None:
        """See `Link`."""
        self._admission = admission

    @property
    def up(self) -> bool:
        """See `Link`."""
        return not self._down and not self._closed

    async def run(self, script: Script, key: str, arguments: Sequence[Argument], *, tag: int) -> Any:
        """See `Link`."""
        async with self._connection() as connection:
            if connection.tag != tag:
                raise Moved
            self._telemetry.redis_calls.labels(script.name).inc()
            try:
                async with self._clock.timeout(self._timeout_s):
                    return await connection.run(script, key, arguments)
            except _NOT_NOW as error:
                self._give_up(connection)
                raise LinkLost(f"{script.name}: {error}", sent=False) from error
            except ResponseError as error:
                raise ScriptFailed(f"{script.name} of {key}: {error}") from error
            except (*_LOST, RedisError) as error:
                self._give_up(connection)
                raise LinkLost(f"{script.name}: {_said(error)}", sent=True) from error
            except BaseException:  # cancelled: its reply must reach nobody else
                connection.generation = -1
                raise

    def drop(self) -> None:
        """See `Link`."""
        self._generation += 1
        for connection in self._idle:
            self._tasks.start(connection.close(), name="close a connection to Redis")
        self._idle.clear()

    async def close(self) -> None:
        """See `Link`."""
        self._closed = True
        await self._tasks.cancel()
        self.drop()
        await self._tasks.settle()

    # Connections

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Open]:
        """Lend a connection; whatever does not come back sound is closed."""
        if not self.up:
            raise LinkLost(self._down or "closed", sent=False)
        try:
            async with self._clock.timeout(self._timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise LinkLost("every connection is in use (redis_connections)", sent=False) from error
        connection: _Open | None = None
        try:
            connection = self._idle.pop() if self._idle else await self._opened()
            yield connection
        finally:
            self._slots.release()
            if connection is not None:
                if connection.generation == self._generation and not self._closed:
                    self._idle.append(connection)
                else:
                    await connection.close()

    async def _opened(self) -> _Open:
        try:
            return await self._open()
        except LinkLost as lost:
            self._fell(str(lost))
            raise

    async def _open(self) -> _Open:
        """Open a connection and have it admitted.

        Raises:
            LinkLost: it does not open, or is refused.
        """
        if self._down == "" and self._closed:
            raise LinkLost("closed", sent=False)
        raw = self._made()
        opened = _Open(raw, self._generation)
        try:
            async with self._clock.timeout(self._connect_timeout_s):
                await raw.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            if self._admission is not None:
                async with self._clock.timeout(self._connect_timeout_s + self._timeout_s):
                    opened.tag = await self._admission(opened)
        except (*_LOST, RedisError, MangaCacheError, LinkLost) as error:
            await opened.close()
            raise LinkLost(f"no connection to {self._address}: {_said(error)}", sent=False) from error
        except BaseException:
            await opened.close()
            raise
        return opened

    def _made(self) -> AbstractConnection:
        address = self._address
        options: dict[str, Any] = {
            "db": address.db,
            "username": address.username,
            "password": address.password,
            "socket_timeout": None,
            "socket_connect_timeout": self._connect_timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "protocol": 2,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        if address.unix_path is not None:
            return UnixDomainSocketConnection(path=address.unix_path, **options)
        if not address.tls:
            return Connection(host=address.host, port=address.port, **options)
        secured = SSLConnection(host=address.host, port=address.port, **options)
        if self._tls is None:
            self._tls = secured.ssl_context
        secured.ssl_context = self._tls
        return secured

    def _give_up(self, connection: _Open) -> None:
        """Use neither this connection nor the ones opened before it any more: what broke one may have broken all."""
        connection.generation = -1
        self.drop()

    # Being down

    def _fell(self, why: str) -> None:
        if self._down or self._closed:
            return
        self._down = why
        self._telemetry.redis_up.set(0)
        self._telemetry.log.warning("redis_down", why=why)
        self.drop()
        self._tasks.start(self._reconnect(), name="reconnect to Redis")

    async def _reconnect(self) -> None:
        """Try until a connection is admitted: exponential back-off with full jitter, one probe at a time."""
        tries = 0
        while True:
            ceiling_s = min(_RECONNECT_CAP_S, _RECONNECT_BASE_S * 2 ** min(tries, 10))
            await self._clock.sleep(self._random.random() * ceiling_s)
            tries += 1
            try:
                opened = await self._open()
            except LinkLost as lost:
                self._down = str(lost)
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, giving up would end the cache for good
                self._telemetry.count_survived("redis_reconnect_failed", error)
                continue
            if opened.generation != self._generation:
                await opened.close()
                continue
            self._idle.append(opened)
            self._down = ""
            self._telemetry.redis_up.set(1)
            self._telemetry.log.info("redis_up", tries=tries)
            return


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
