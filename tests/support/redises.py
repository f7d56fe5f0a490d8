"""Real servers for the suites, what must hold of their keys at the end, and one way to run scripts on any of them."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from mangatest import LoopThread
from redis import Redis

from mangacache.context import scripts
from mangacache.local.valkey import valkey_process
from mangacache.testing import MemoryRedis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mangacache.clock import Clock
    from mangacache.redis import Argument

SCRIPTS = {script.name: script for script in scripts.ALL}


def debian_redis_binary() -> Path:
    """Return Debian's redis-server; without it the tests that need it fail, and say so."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.fail(
            "redis-server is not on PATH, and this test needs it beside Valkey: `make test` installs it, as root on"
            " Debian and Ubuntu; elsewhere install the package redis-server",
            pytrace=False,
        )
    return Path(found)


@contextmanager
def serving(binary: Path | None = None) -> Iterator[int]:
    """Run a server, Valkey by default, and give its port; at the end no key is there that would stay for ever."""
    loop = LoopThread()
    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        server = valkey_process(folder=Path(folder), binary=binary)
        loop.run(server.start())
        try:
            with no_key_for_ever(server.port):
                yield server.port
        finally:
            loop.run(server.stop())
            loop.close()


@contextmanager
def no_key_for_ever(port: int) -> Iterator[None]:
    """Have every key in a Redis expire that is there at the end."""
    yield
    found = keys_for_ever(port)
    assert not found, f"keys without a time to live: {found}"


def keys_for_ever(port: int) -> list[bytes]:
    """Return the keys that no time to live ends."""
    with Redis(port=port) as client:
        return [key for key in client.scan_iter(count=1000) if client.pttl(key) == -1]


class ScriptHost(Protocol):
    """A server that scripts run on, and a look at what they leave there."""

    def run(self, name: str, key: str, arguments: Sequence[Argument]) -> Any: ...

    def fields(self, key: str) -> dict[bytes, bytes]: ...

    def ttl_ms(self, key: str) -> int: ...

    def expire(self, key: str, ttl_ms: int) -> None: ...

    def shift(self, key: str, field: str, by_ms: int) -> None:
        """Move a time in the hash, as if so many milliseconds more or less had passed."""

    def delete(self, key: str) -> None: ...


class RealHost:
    """A real server.

    Args:
        client: of it.
        texts: scripts that stand in for the package's, by name.
    """

    def __init__(self, client: Redis, texts: Mapping[str, str] | None = None) -> None:
        self._client = client
        sources = {name: script.text for name, script in SCRIPTS.items()} | dict(texts or {})
        self._shas = {name: client.script_load(text) for name, text in sources.items()}

    def run(self, name: str, key: str, arguments: Sequence[Argument]) -> Any:
        return self._client.evalsha(self._shas[name], 1, key, *arguments)

    def fields(self, key: str) -> dict[bytes, bytes]:
        return self._client.hgetall(key)

    def ttl_ms(self, key: str) -> int:
        return self._client.pttl(key)

    def expire(self, key: str, ttl_ms: int) -> None:
        self._client.pexpire(key, ttl_ms)

    def shift(self, key: str, field: str, by_ms: int) -> None:
        self._client.hincrby(key, field, by_ms)

    def delete(self, key: str) -> None:
        self._client.delete(key)


class MemoryHost:
    """The double, asked without a link."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.redis = MemoryRedis(clock=clock)
        self._node = self.redis._primary

    def run(self, name: str, key: str, arguments: Sequence[Argument]) -> Any:
        return self._node.run(SCRIPTS[name], [key], arguments)

    def fields(self, key: str) -> dict[bytes, bytes]:
        return self.redis.hash(key)

    def ttl_ms(self, key: str) -> int:
        return self.redis.ttl_ms(key)

    def expire(self, key: str, ttl_ms: int) -> None:
        self._node.db.pexpire(key, ttl_ms)

    def shift(self, key: str, field: str, by_ms: int) -> None:
        before = self._node.db.hget(key, field)
        assert before is not None, f"{key} has no {field}"
        self._node.db.hset(key, {field: int(before) + by_ms})

    def delete(self, key: str) -> None:
        self.redis.evict(key)
