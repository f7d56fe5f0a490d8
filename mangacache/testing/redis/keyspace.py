"""What a node keeps: hashes and other values that expire, by the commands the scripts use."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Clock


class ReadOnly(Exception):
    """A write on a replica."""


class WrongType(ValueError):
    """A value of another kind under the key."""


class Keyspace:
    """Hashes by key; each command is as Redis's of the same name. Fields and values are bytes.

    What is no hash is kept by `keep` and read by `value`, as whatever its script's function likes.

    Args:
        clock: its wall clock is Redis's: TIME, and when keys expire.

    Attributes:
        read_only: whether writes raise `ReadOnly`.
        published: what has been published and not yet been handed on: channels and payloads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hashes: dict[str, Any] = {}
        self._expires_ms: dict[str, int] = {}
        self.read_only = False
        self.published: list[tuple[str, bytes]] = []

    def copy(self) -> Keyspace:
        """Return what a replica has that is level with this."""
        copied = Keyspace(self._clock)
        copied._hashes = deepcopy(self._hashes)
        copied._expires_ms = dict(self._expires_ms)
        return copied

    def now_ms(self) -> int:
        """Return TIME in milliseconds."""
        return int(self._clock.time_s() * 1000)

    def now_us(self) -> int:
        """Return TIME in microseconds."""
        return int(self._clock.time_s() * 1_000_000)

    def keys(self) -> list[str]:
        """Return the keys that have not expired, oldest first."""
        return [key for key in list(self._hashes) if self.value(key) is not None]

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        """Return a copy of the hash."""
        return dict(self._live(key))

    def pttl(self, key: str) -> int:
        """Return the milliseconds a key has left; -1 where it has no expiry, -2 where there is no key."""
        if self.value(key) is None:
            return -2
        return self._expires_ms[key] - self.now_ms() if key in self._expires_ms else -1

    def hget(self, key: str, field: str) -> bytes | None:
        """Return a field."""
        return self._live(key).get(field.encode())

    def hmget(self, key: str, fields: Sequence[str | int]) -> list[bytes | None]:
        """Return fields, None where there is none."""
        found = self._live(key)
        return [found.get(str(field).encode()) for field in fields]

    def hset(self, key: str, fields: dict[str | int, bytes | int | None]) -> None:
        """Set fields; the key's expiry stays."""
        self._check_writable()
        self._live(key)  # what has expired does not come back
        kept = self._hashes.setdefault(key, {})
        for field, value in fields.items():
            if value is None:
                raise NotImplementedError(f"HSET of {key}: field {field} without a value")
            kept[str(field).encode()] = value if isinstance(value, bytes) else str(value).encode()

    def hdel(self, key: str, *fields: str) -> None:
        """Delete fields; a hash without any is no key."""
        self._check_writable()
        kept = self._live(key)
        for field in fields:
            kept.pop(field.encode(), None)
        if not kept and key in self._hashes:
            self._drop(key)

    def value(self, key: str) -> Any:
        """Return what is kept under a key, itself and not a copy; None where there is nothing."""
        self._expire(key)
        return self._hashes.get(key)

    def keep(self, key: str, value: Any) -> None:
        """Keep a value that is no hash; the key's expiry stays."""
        self._check_writable()
        self._expire(key)
        self._hashes[key] = value

    def pexpire(self, key: str, ttl_ms: int) -> None:
        """Have a key expire."""
        self._check_writable()
        if ttl_ms <= 0:
            raise NotImplementedError(f"PEXPIRE of {key} by {ttl_ms} ms")
        if self.value(key) is not None:
            self._expires_ms[key] = self.now_ms() + ttl_ms

    def delete(self, key: str) -> int:
        """Delete a key; return how many there were."""
        there = self.value(key) is not None
        if there:
            self._check_writable()
            self._drop(key)
        return int(there)

    def publish(self, channel: str, payload: bytes) -> None:
        """Publish; it changes no key."""
        self.published.append((channel, payload))

    def flush(self) -> None:
        """Forget every key."""
        self._hashes.clear()
        self._expires_ms.clear()

    def _live(self, key: str) -> dict[bytes, bytes]:
        self._expire(key)
        found = self._hashes.get(key, {})
        if not isinstance(found, dict):
            raise WrongType(f"WRONGTYPE {key} holds no hash")
        return found

    def _expire(self, key: str) -> None:
        expires_ms = self._expires_ms.get(key)
        if expires_ms is not None and expires_ms < self.now_ms():
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._hashes.pop(key, None)
        self._expires_ms.pop(key, None)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly
