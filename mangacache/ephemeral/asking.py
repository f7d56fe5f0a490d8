"""How the services ask Redis: keys under the installation's prefix, and Redis's failures as this package's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from mangacache.errors import Corrupt, Invalid, Transient
from mangacache.redis import LinkLost, ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.redis import Argument, Link, Script
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

_RETRY_AFTER_S: Final = 0.5
_SHOWN: Final = 60
_SHOWN_BITS: Final = 64
_FOREIGN: Final = ("WRONGTYPE", "FOREIGN")
"""What a refusal says where the key holds something that none of ours would: Redis's own word, and the scripts'."""


class Asker:
    """The way to Redis of the services of one instance.

    Args:
        link: None where no Redis is configured.
        settings: for the keys' prefix.
        telemetry: whose traces show the calls.

    Attributes:
        link: as given.
    """

    def __init__(self, link: Link | None, *, settings: Settings, telemetry: Telemetry | None = None) -> None:
        self.link = link
        self._telemetry = telemetry
        self._prefix = settings.key_prefix

    def __repr__(self) -> str:
        return f"<Asker of {self.link}, keys {self._prefix}*>"

    def key(self, kind: str, tag: str, rest: str = "") -> str:
        """Return a key, `mc:kind:{tag}rest`: in a cluster the tag alone chooses the slot."""
        return f"{self._prefix}{kind}:{{{quote(tag, safe='')}}}{rest}"

    def required(self, service: str) -> Link:
        """Return the link.

        Raises:
            Invalid: no Redis is configured.
        """
        if self.link is None:
            raise Invalid(f"{service} need Redis, and none is configured: set REDIS_ENDPOINT (redis_endpoint)")
        return self.link

    async def run(
        self,
        service: str,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        repeatable: bool = False,
    ) -> Any:
        """Run a script for a service, whose name the messages give; see `Link.run`.

        Raises:
            Invalid: no Redis is configured.
            Transient: Redis cannot be asked, or whether it did what it was asked is unknown.
            Corrupt: the key holds a value that is none of the service's.
        """
        link = self.required(service)
        try:
            if self._telemetry is None or (tracer := self._telemetry.tracer) is None:
                return await link.run(script, key, arguments, repeatable=repeatable)
            with tracer.span("redis", script.name):
                return await link.run(script, key, arguments, repeatable=repeatable)
        except LinkLost as lost:
            raise Transient(f"{service}: Redis cannot be asked now ({lost})", retry_after_s=_RETRY_AFTER_S) from lost
        except ScriptFailed as failed:
            raise refused(service, key, failed) from failed


def refused(service: str, key: str, failed: ScriptFailed) -> Corrupt | Transient:
    """Return a refusal of Redis's as an error of ours."""
    if any(word in str(failed) for word in _FOREIGN):
        return Corrupt(
            f"{service}: the key {key!r} holds a value that is none of theirs ({failed}): whose is it? Delete it, or"
            " give this installation a prefix of its own (KEY_PREFIX)"
        )
    return Transient(f"{service}: Redis refused {key!r} ({failed})", retry_after_s=_RETRY_AFTER_S)


def shown(value: object) -> str:
    """Return what a message may show of a value that is wrong, whatever it is: a number may have a million digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a huge number"
    return ascii(value)[:_SHOWN]
