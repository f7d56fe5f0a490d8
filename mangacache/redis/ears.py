"""Opens the connections on which a process hears what is published."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mangacache.redis.link import LinkLost
from mangacache.redis.listening import ListeningLine
from mangacache.redis.reconnecting import said
from mangacache.redis.tls import tls_context

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.redis.listening import Hearer
    from mangacache.redis.subscriptions import Place
    from mangacache.settings import Settings


class Dialler:
    """Opens connections to where the settings lead, or to a node that a cluster has named.

    Raises:
        Invalid: `redis_ca_file` cannot be used.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        address = settings.redis
        if address is None:
            raise AssertionError("a connection without an address")
        self._to = address
        self._clock = clock
        self._within_s = settings.connect_timeout_s
        self._tls = tls_context(settings.redis_ca_file) if address.tls else None

    async def __call__(self, hearer: Hearer, place: Place) -> ListeningLine:
        """See `Dial`."""
        to, loop = self._to, asyncio.get_running_loop()
        host, port = place if place is not None else ("", to.port)
        line = ListeningLine(hearer, clock=self._clock)
        try:
            async with self._clock.timeout(self._within_s):
                if to.unix_path is not None:
                    await loop.create_unix_connection(lambda: line, to.unix_path)
                else:
                    await loop.create_connection(lambda: line, host or to.host, port, ssl=self._tls)
                await line.begin(to.username, to.password)
        except (OSError, UnicodeError, TimeoutError, LinkLost) as error:
            line.abort("it could not be opened")
            raise LinkLost(f"no connection to {place or to}: {said(error)}", sent=False) from error
        except BaseException:
            line.abort("it could not be opened")
            raise
        return line
