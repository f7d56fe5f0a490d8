"""Servers on which the services' scripts run at a time that a test sets: two real ones, and the double."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from mangacache.clock import SystemClock
from mangacache.testing import MemoryRedis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis import Redis

    from mangacache.redis import Argument, Script

KEPT_MS = 3_600_000
START_US = 1_795_000_000_000_000


class Host(Protocol):
    """A server that runs scripts.

    Attributes:
        now_us: what TIME says to them.
    """

    now_us: int

    def run(self, script: Script, key: str, arguments: Sequence[Argument]) -> Any: ...

    def ttl_ms(self, key: str) -> int: ...


class HandClock(SystemClock):
    """A clock that stands still until it is moved; whoever sleeps by it sleeps for ever, or until the test ends."""

    def __init__(self) -> None:
        self.now_us = START_US

    def time_s(self) -> float:
        return self.now_us / 1_000_000

    def monotonic_s(self) -> float:
        return (self.now_us - START_US) / 1_000_000

    def age_s(self) -> float:
        return self.monotonic_s()

    def pass_s(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


class MemoryHost:
    """The double, asked without a link."""

    def __init__(self) -> None:
        self._clock = HandClock()
        self._redis = MemoryRedis(clock=self._clock)

    @property
    def now_us(self) -> int:
        return self._clock.now_us

    @now_us.setter
    def now_us(self, now_us: int) -> None:
        self._clock.now_us = now_us

    def run(self, script: Script, key: str, arguments: Sequence[Argument]) -> Any:
        return self._redis._primary.run(script, [key], arguments)

    def ttl_ms(self, key: str) -> int:
        return self._redis.ttl_ms(key)


class RealHost:
    """A real server, whose scripts are told the time; keys are kept for an hour, since they expire by the server's own.

    Args:
        client: of it.
        changes: text of scripts, and what stands in its place: to weaken them.
    """

    def __init__(self, client: Redis, changes: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._changes = changes or {}
        self._shas: dict[str, str] = {}
        self.now_us = START_US

    def run(self, script: Script, key: str, arguments: Sequence[Argument]) -> Any:
        sha = self._shas.get(script.sha)
        if sha is None:
            sha = self._shas[script.sha] = str(self._client.script_load(self._timed(script.text)))
        return self._client.evalsha(sha, 1, key, *arguments, self.now_us)

    def _timed(self, text: str) -> str:
        told = "{math.floor(NOW_US / 1000000), NOW_US % 1000000}"
        for place, instead in self._changes.items():
            text = text.replace(place, instead)
        text = re.sub(r"redis\.call\('PEXPIRE', key, [^)]*\)", f"redis.call('PEXPIRE', key, {KEPT_MS})", text)
        text = text.replace("'PX', ttl_ms)", f"'PX', {KEPT_MS})")
        return "local NOW_US = tonumber(table.remove(ARGV))\n" + text.replace("redis.call('TIME')", told)

    def ttl_ms(self, key: str) -> int:
        return int(self._client.pttl(key))
