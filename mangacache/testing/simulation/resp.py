"""The server's side of one connection to the simulated Redis: commands in, replies and pushes out, as RESP has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import hiredis

from mangacache.redis import LinkLost, Script, ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.testing.redis.ears import MemoryEar
    from mangacache.testing.redis.node import Node
    from mangacache.testing.simulation.network import Connection
    from mangacache.testing.simulation.redis import SimulatedRedis

_NOT_YET: Final = object()
_OK: Final = b"+OK\r\n"
_RESP_3: Final = 3


class RedisSession:
    """One connection at the server.

    Attributes:
        connection: that it is the side of.
        node: which carries out what comes.
        channels: that it has subscribed to.
        tracks: whether it asked to be told of changes.
        caching: whether it is to be told of what the next command reads.
    """

    def __init__(self, redis: SimulatedRedis, connection: Connection) -> None:
        self.connection = connection
        self.node = redis.node
        self.channels: dict[bytes, bytes] = {}
        self.tracks = False
        self.caching = False
        self.protocol = 2
        self._redis = redis
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)

    def ended(self) -> None:
        """See `Session`."""
        self._redis.sessions.pop(self, None)
        self.node.ears.pop(cast("MemoryEar", self), None)

    def received(self, data: bytes) -> None:
        """See `Session`: everything that is whole is carried out and answered at once."""
        self._reader.feed(data)
        replies, said = [], []
        while (command := self._reader.gets()) is not _NOT_YET:
            name = command[0].decode().upper()
            replies.append(self._reply(name, command))
            said.append(name)
        if replies:
            self.connection.answer(b"".join(replies), " ".join(said))

    def _reply(self, name: str, command: list[bytes]) -> bytes:
        handler = _COMMANDS.get(name)
        if handler is None:
            return f"-ERR unknown command '{name}'\r\n".encode()
        caching, self.caching = self.caching, False
        try:
            return handler(self, command, caching)
        except LinkLost as error:
            return f"-READONLY {error}\r\n".encode()
        except ScriptFailed as error:
            return f"-ERR {error}\r\n".encode()

    def push(self, what: bytes, *parts: Any) -> None:
        """Send something unasked."""
        mark = b">" if self.protocol == _RESP_3 else b"*"
        data = b"%b%d\r\n%b" % (mark, 1 + len(parts), b"".join(packed(part) for part in (what, *parts)))
        self.connection.answer(data, f"{what.decode()} {parts[0]!r}")

    # As an ear of the node

    def hear(self, channel: str, payload: bytes) -> None:
        """Be told what was published."""
        name = channel.encode()
        if name in self.channels:
            self.push(self.channels[name], name, payload)

    def catch_up(self) -> None:
        """Do nothing: what is published is sent at once."""

    def abort(self, why: str) -> None:
        """Break the connection."""
        del why
        self.connection.reset()

    # Commands

    def _hello(self, command: list[bytes], _: object) -> bytes:
        self.protocol = int(command[1])
        return b"%%1\r\n%b%b" % (packed(b"proto"), packed(self.protocol))

    def _ok(self, *_: object) -> bytes:
        return _OK

    def _ping(self, *_: object) -> bytes:
        return b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" if self.channels else b"+PONG\r\n"

    def _info(self, command: list[bytes], _: object) -> bytes:
        if command[1:] == [b"cluster"]:
            return packed(b"cluster_enabled:0\r\n")
        return packed("".join(f"{name}:{value}\r\n" for name, value in self.node.info().items()).encode())

    def _client(self, command: list[bytes], _: object) -> bytes:
        what = command[1].upper()
        if what == b"TRACKING":
            self.tracks = command[2].upper() == b"ON"
        elif what == b"CACHING":
            self.caching = self.tracks
        return _OK

    def _subscribe(self, command: list[bytes], _: object) -> bytes:
        sharded = command[0].upper().startswith(b"S") and command[0].upper() != b"SUBSCRIBE"
        for name in command[1:]:
            self.channels[name] = b"smessage" if sharded else b"message"
        self.node.ears[cast("MemoryEar", self)] = None
        return packed([b"ssubscribe" if sharded else b"subscribe", command[1], len(self.channels)])

    def _unsubscribe(self, command: list[bytes], _: object) -> bytes:
        self.channels.pop(command[1], None)
        what = b"sunsubscribe" if command[0].upper().startswith(b"S") else b"unsubscribe"
        return packed([what, command[1], len(self.channels)])

    def _publish(self, command: list[bytes], _: object) -> bytes:
        for ear in tuple(self.node.ears):
            ear.hear(command[1].decode(), command[2])
        return packed(0)

    def _evalsha(self, command: list[bytes], caching: bool) -> bytes:  # noqa: FBT001 - as every handler takes it
        sha = command[1].decode()
        if sha not in self._redis.loaded:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        return self._run(Script(sha[:8], "", sha), command, caching=caching)

    def _eval(self, command: list[bytes], caching: bool) -> bytes:  # noqa: FBT001 - as every handler takes it
        script = Script.of("eval", command[1].decode())
        self._redis.loaded.add(script.sha)
        return self._run(script, command, caching=caching)

    def _run(self, script: Script, command: list[bytes], *, caching: bool) -> bytes:
        first_argument = 3 + int(command[2])
        keys = [key.decode() for key in command[3:first_argument]]
        watched = self._redis.watched
        if not watched and not caching:
            return packed(self.node.run(script, keys, command[first_argument:]))
        before = [watched.state(self.node, key) for key in keys]
        try:
            return packed(self.node.run(script, keys, command[first_argument:]))
        finally:
            for key, state in zip(keys, before, strict=True):
                if watched.state(self.node, key) != state:
                    watched.changed(key, by=self)
                if caching:
                    watched.add(key, self)


_COMMANDS: Final[dict[str, Callable[[RedisSession, list[bytes], bool], bytes]]] = {
    "HELLO": RedisSession._hello,  # noqa: SLF001 - the table of its own methods
    "AUTH": RedisSession._ok,  # noqa: SLF001
    "SELECT": RedisSession._ok,  # noqa: SLF001
    "PING": RedisSession._ping,  # noqa: SLF001
    "INFO": RedisSession._info,  # noqa: SLF001
    "CLIENT": RedisSession._client,  # noqa: SLF001
    "SUBSCRIBE": RedisSession._subscribe,  # noqa: SLF001
    "SSUBSCRIBE": RedisSession._subscribe,  # noqa: SLF001
    "UNSUBSCRIBE": RedisSession._unsubscribe,  # noqa: SLF001
    "SUNSUBSCRIBE": RedisSession._unsubscribe,  # noqa: SLF001
    "PUBLISH": RedisSession._publish,  # noqa: SLF001
    "SPUBLISH": RedisSession._publish,  # noqa: SLF001
    "EVALSHA": RedisSession._evalsha,  # noqa: SLF001
    "EVAL": RedisSession._eval,  # noqa: SLF001
}


class Watched:
    """Which connections are to be told when a key changes, each once."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[RedisSession, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    @staticmethod
    def state(node: Node, key: str) -> Any:
        """Return what is kept under a key now, to compare."""
        value = node.db.value(key)
        return dict(value) if isinstance(value, dict) else repr(value), node.db.pttl(key)

    def add(self, key: str, session: RedisSession) -> None:
        """Have a connection told of the next change of a key."""
        self._by_key.setdefault(key, {})[session] = None

    def changed(self, key: str, *, by: RedisSession | None = None) -> None:
        """Tell of a change, but not who made it."""
        for session in self._by_key.pop(key, ()):
            if session is not by:
                session.push(b"invalidate", [key.encode()])

    def all_changed(self) -> None:
        """Tell everybody that nothing is as it was."""
        told = {session: None for sessions in self._by_key.values() for session in sessions}
        self._by_key.clear()
        for session in told:
            session.push(b"invalidate", None)


def packed(reply: Any) -> bytes:
    """Return a reply as RESP 2 has it."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, str):
        reply = reply.encode()
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n%b" % (len(reply), b"".join(map(packed, reply)))
