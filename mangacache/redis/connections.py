"""A link over redis-py's connections.

redis-py opens, authenticates and reads; what it would do on its own is turned off, because each of it does harm
here: sending a command again after a time-out (a script would run twice), opening a closed connection again (nobody
would have admitted it), waiting through ten retries, building a TLS context for each connection (a stall of 37 ms),
asking for maintenance notices that Valkey does not know.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from mangacache.redis.dialing import Dialer
from mangacache.redis.link import LinkLost, Redirected, ScriptFailed
from mangacache.redis.pipeline import own_slots, parsed_info
from mangacache.redis.pool import PooledLink
from mangacache.redis.reconnecting import said

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Argument, Script
    from mangacache.settings import RedisAddress, Settings
    from mangacache.telemetry import Telemetry

_LOST: Final = (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError)
_NOT_NOW: Final = (ReadOnlyError, BusyLoadingError, MasterDownError, ClusterDownError, TryAgainError)
_END_WITHIN_S: Final = 1.0


class RedisPyLink(PooledLink):
    """A `Link` by redis-py: as many connections as commands are under way, up to a bound.

    Args:
        settings: where Redis is, the bound, and the time-outs.
        clock: deadlines, and the pauses between tries to reconnect.
        random: their jitter.
        telemetry: counts, and says when Redis is lost and reached again.
        dialer: what connections share; its own by default.
        address: another node than the one that the settings name.

    Raises:
        Invalid: `redis_ca_file` cannot be used, or the login's settings do not go together.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        dialer: Dialer | None = None,
        address: RedisAddress | None = None,
    ) -> None:
        dialer = dialer if dialer is not None else Dialer(settings, clock=clock)
        self._connector = _Connector(address if address is not None else dialer.address, dialer, settings, clock=clock)
        super().__init__(
            self._connector.address,
            self._connector.connect,
            connections=settings.redis_connections,
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.redis_timeout_s,
            clock=clock,
            random=random,
            telemetry=telemetry,
            renew_every_s=dialer.renew_every_s,
        )


class _Connector:
    """Opens connections, and holds what they share."""

    def __init__(self, address: RedisAddress, dialer: Dialer, settings: Settings, *, clock: Clock) -> None:
        self.address = address
        self._dialer = dialer
        self._clock = clock
        self._options: dict[str, Any] = {
            "db": address.db,
            "socket_timeout": None,
            "socket_connect_timeout": settings.connect_timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "protocol": 3,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }

    async def connect(self) -> _RedisPyLine:
        """Open a connection, log in and choose the database.

        Raises:
            LinkLost: it cannot be done.
        """
        line = _RedisPyLine(self._made(*await self._dialer.login()), clock=self._clock)
        try:
            await line.open()
        except (*_LOST, RedisError) as error:
            line.abort()
            raise LinkLost(said(error), sent=False) from error
        except BaseException:
            line.abort()
            raise
        return line

    def _made(self, username: str | None, password: str | None) -> AbstractConnection:
        address = self.address
        options = {**self._options, "username": username, "password": password}
        if address.unix_path is not None:
            return UnixDomainSocketConnection(path=address.unix_path, **options)
        if self._dialer.tls is None:
            return Connection(host=address.host, port=address.port, **options)
        secured = SSLConnection(host=address.host, port=address.port, **options)
        secured.ssl_context.context = self._dialer.tls
        return secured


class _RedisPyLine:
    """A connection of redis-py's, seen as a `Line`: its errors are mapped here."""

    def __init__(self, connection: AbstractConnection, *, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._writer: asyncio.StreamWriter | None = None
        connection.redis_connect_func = self._begin

    async def open(self) -> None:
        """Connect and log in, by redis-py's own errors."""
        await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    async def _begin(self, connection: AbstractConnection) -> None:
        self._writer = connection._writer  # noqa: SLF001 - redis-py forgets it when it closes, and cannot abort
        await connection.on_connect()

    async def info(self) -> dict[str, str]:
        """See `Server`."""
        text = b""
        for section in ("server", "replication", "cluster"):
            text += await self._call("info", "INFO", section)
        found = parsed_info(text)
        if found.get("cluster_enabled") == "1":
            found["cluster_slots"] = own_slots(await self._call("info", "CLUSTER", "NODES"))
        return found

    async def run(
        self, script: Script, key: str, arguments: Sequence[Argument], *, more_keys: Sequence[str] = ()
    ) -> Any:
        """See `Server`."""
        what, to = f"{script.name} of {key}", (1 + len(more_keys), key, *more_keys, *arguments)
        try:
            return await self._call(what, "EVALSHA", script.sha, *to)
        except NoScriptError:
            return await self._call(what, "EVAL", script.text, *to)

    async def call(self, *command: Argument) -> Any:
        """See `Server`."""
        return await self._call(str(command[0]), *command)

    async def _call(self, what: str, *command: Argument) -> Any:
        if not self._connection.is_connected:  # it would open itself again
            raise LinkLost(f"{what}: the connection is closed", sent=False, broke=True)
        try:
            # Packed by hiredis: redis-py's own packing is twice the cost of all the rest of a call.
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub forgets tuples of many types
            await self._connection.send_packed_command(packed, check_health=False)
            return await self._connection.read_response(disable_decoding=True)
        except NoScriptError:
            raise
        except AskError as error:  # MOVED too, by inheritance
            ask = not isinstance(error, MovedError)
            raise Redirected(f"{what}: {said(error)}", host=error.host, port=error.port, ask=ask) from error
        except _NOT_NOW as error:
            raise LinkLost(f"{what}: {said(error)}", sent=False) from error
        except ResponseError as error:
            raise ScriptFailed(f"{what}: {said(error)}") from error
        except _LOST as error:
            raise LinkLost(f"{what}: {said(error)}", sent=True, broke=True) from error

    def abort(self) -> None:
        """See `Line`: what is unsent is not waited for, since a stalled server would never take it."""
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - the public way needs a task
        if self._writer is not None:
            self._writer.transport.abort()

    async def ended(self) -> None:
        """See `Line`."""
        if self._writer is None:
            return
        with contextlib.suppress(OSError, TimeoutError):  # how it ended is of no interest: it was given up
            async with self._clock.timeout(_END_WITHIN_S):
                await self._writer.wait_closed()
