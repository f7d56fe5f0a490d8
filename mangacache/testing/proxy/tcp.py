"""A TCP proxy that stands for a server: what is behind it may change, and everything may go wrong on the way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.tasks import TaskOwner
from mangacache.testing.proxy.connections import Connection
from mangacache.testing.proxy.ways import Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mangacache.clock import Clock, Random

Direction: TypeAlias = Literal["up", "down", "both"]

HOST: Final = "127.0.0.1"


class Proxy:
    """Passes connections on to a server. Made by `open`.

    Everything stays in force until `restore`. `up` is what goes to the server, `down` what comes from it.

    Attributes:
        port: where it listens.
        target_host, target_port: where new connections lead; those that are open stay where they are.
        up, down: see `Way`.
        counts: connections taken in, refused, broken by the proxy; replies lost; bytes up and down.
    """

    def __init__(
        self,
        target_port: int,
        *,
        target_host: str = HOST,
        marks: Mapping[str, bytes] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.target_host, self.target_port = target_host, target_port
        self.port = 0
        self._clock = clock or SystemClock()
        self._random = random or system_random()
        self.up, self.down = Way(self._random), Way(self._random)
        self.counts = dict.fromkeys(("accepted", "refused", "broken", "replies_lost", "bytes_up", "bytes_down"), 0)
        self._marks = dict(marks or {})
        self._tasks = TaskOwner(on_failure=_told)
        self._connections: dict[Connection, None] = {}
        self._is_cut = False
        self._reset_share = 0.0
        self._lost_replies = 0
        self._lost_mark: str | None = None
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.port} -> {self.target_host}:{self.target_port}, {len(self._connections)} connections>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        target_port: int,
        *,
        target_host: str = HOST,
        port: int = 0,
        marks: Mapping[str, bytes] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> AsyncIterator[Proxy]:
        """Listen on loopback until the end of the `async with` block.

        Args:
            target_port: of the server.
            target_host: of the server.
            port: to listen at; 0 takes a free one.
            marks: names for what may be said to the server on a connection, by which `sever` and `lose_replies` tell
                one kind of connection from another: `{"subscription": b"SUBSCRIBE"}`.
            clock: delays.
            random: jitter, and which connections break.

        Raises:
            Invalid: the port is taken.
        """
        proxy = cls(target_port, target_host=target_host, marks=marks, clock=clock, random=random)
        await proxy.start(port)
        try:
            yield proxy
        finally:
            await proxy.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, port: int = 0) -> None:
        """Listen; 0 takes a free port."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: self._taken().near, HOST, port)
        except (OSError, OverflowError) as error:
            raise Invalid(f"port {port} cannot be used for a proxy ({error}): choose another") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and break what is open."""
        if self._server is not None:
            self._server.close()
        self.sever()
        await self._tasks.cancel()
        await self._clock.sleep(0)  # transports that were aborted end with the next turn of the loop

    # What can go wrong

    def delay(self, seconds: float, *, jitter_s: float = 0.0, way: Direction = "both") -> None:
        """Have everything arrive so much later; in order."""
        for each in self._ways(way):
            each.delay(seconds, jitter_s=jitter_s)

    def throttle(self, bytes_per_s: float, *, way: Direction = "both") -> None:
        """Let no more than so many bytes a second through, on each connection and each way."""
        for each in self._ways(way):
            each.throttle(bytes_per_s)

    def stall(self, *, way: Direction = "both") -> None:
        """Let nothing through, and break nothing; new connections are taken in, and hear nothing."""
        for each in self._ways(way):
            each.stall()

    def silence(self, *, way: Direction) -> None:
        """Lose what goes one way without a sign, as a firewall does; such connections break at `restore`."""
        for each in self._ways(way):
            each.silence()

    def cut(self) -> None:
        """Break every connection and take in no new one."""
        self._is_cut = True
        self.sever()

    def sever(self, mark: str | None = None) -> int:
        """Break the connections that are open, all or those with a mark; return how many."""
        doomed = [connection for connection in self._connections if mark is None or mark in connection.marks]
        self._check(mark)
        for connection in doomed:
            self._break(connection)
        return len(doomed)

    def reset(self, share: float) -> None:
        """Break the connection instead of passing on what comes, so often of all times; 0 ends it."""
        if not 0 <= share <= 1:
            raise Invalid(f"a share is from 0 to 1, not {share!r}")
        self._reset_share = share

    def lose_replies(self, count: int = 1, *, mark: str | None = None) -> None:
        """Have the next `count` replies be lost and their connections break: the server has done what was asked."""
        if count < 0:
            raise Invalid(f"{count} replies cannot be lost: name a number from 0")
        self._check(mark)
        self._lost_replies, self._lost_mark = count, mark

    def restore(self) -> None:
        """End everything that is wrong, take in connections again, and let through what was held up."""
        self._is_cut = False
        self._reset_share = 0.0
        self._lost_replies = 0
        for way in self._ways("both"):
            way.restore()
        for connection in [connection for connection in self._connections if connection.damaged]:
            self._break(connection)

    def status(self) -> dict[str, object]:
        """Return what is in force, and what was counted."""
        return {
            "port": self.port,
            "target": f"{self.target_host}:{self.target_port}",
            "cut": self._is_cut,
            "reset_share": self._reset_share,
            "replies_to_lose": self._lost_replies,
            "up": self.up.status(),
            "down": self.down.status(),
            "connections": len(self._connections),
            "counts": dict(self.counts),
        }

    # How it passes on

    def _taken(self) -> Connection:
        connection = Connection(
            self.up, self.down, heard=self._heard, ended=self._ended, clock=self._clock, tasks=self._tasks
        )
        self._connections[connection] = None
        connection.near.pause(paused=True)  # until there is somebody to say it to
        connection.near.made = lambda: self._tasks.start(self._lead(connection), name="lead a connection on")
        return connection

    async def _lead(self, connection: Connection) -> None:
        if self._is_cut:
            self.counts["refused"] += 1
            connection.reset()
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: connection.far, self.target_host, self.target_port)
        except OSError:
            self.counts["refused"] += 1
            connection.reset()
            return
        if connection.near.gone or connection not in self._connections:  # it left meanwhile
            connection.reset()
            return
        self.counts["accepted"] += 1
        connection.near.pause(paused=False)

    def _heard(self, connection: Connection, data: bytes, up: bool) -> bool:  # noqa: FBT001 - of two ways one
        """Look at what comes; False where it is not passed on."""
        if up:
            self.counts["bytes_up"] += len(data)
            for name, word in self._marks.items():
                if word in data:
                    connection.marks.add(name)
        else:
            self.counts["bytes_down"] += len(data)
            if self._lost_replies and (self._lost_mark is None or self._lost_mark in connection.marks):
                self._lost_replies -= 1
                self.counts["replies_lost"] += 1
                self._break(connection)
                return False
        if self._reset_share and self._random.random() < self._reset_share:
            self._break(connection)
            return False
        return True

    def _break(self, connection: Connection) -> None:
        self.counts["broken"] += 1
        connection.reset()

    def _ended(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def _ways(self, way: Direction) -> tuple[Way, ...]:
        ways = {"up": (self.up,), "down": (self.down,), "both": (self.up, self.down)}
        if way not in ways:
            raise Invalid(f"there is no way {way!r}: there are up, to the server, down, and both")
        return ways[way]

    def _check(self, mark: str | None) -> None:
        if mark is not None and mark not in self._marks:
            raise Invalid(f"there is no mark {mark!r}: there are {', '.join(sorted(self._marks)) or 'none'}")


def _told(name: str, error: BaseException) -> None:
    """Have the loop report what is a mistake in the proxy itself."""
    asyncio.get_running_loop().call_exception_handler({"message": f"the proxy failed to {name}", "exception": error})
