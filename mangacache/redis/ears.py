"""Opens the connections on which a process hears what is published."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mangacache.redis.dialing import Dialer
from mangacache.redis.link import LinkLost
from mangacache.redis.listening import ListeningLine
from mangacache.redis.reconnecting import said

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.redis.listening import Hearer
    from mangacache.redis.subscriptions import Place
    from mangacache.settings import Settings


class EarDialer:
    """Opens connections to where the settings lead, or to a node that a cluster has named.

    A login by IAM ends after twelve hours, and the server ends the connection with it: that is a loss like any other.

    Raises:
        Invalid: `redis_ca_file` cannot be used, or the settings of the login do not go together.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._dialer = Dialer(settings, clock=clock)
        self._clock = clock
        self._within_s = settings.connect_timeout_s

    async def __call__(self, hearer: Hearer, place: Place) -> ListeningLine:
        """See `Dial`."""
        to = self._dialer.address
        if place is not None:
            to = replace(to, host=place[0] or to.host, port=place[1])
        line = ListeningLine(hearer, clock=self._clock)
        try:
            async with self._clock.timeout(self._within_s):
                username, password = await self._dialer.login()
                await self._dialer.open(to, lambda: line)
                await line.begin(username, password)
        except (TimeoutError, LinkLost) as error:
            line.abort("it could not be opened")
            raise LinkLost(f"no connection to {to}: {said(error)}", sent=False) from error
        except BaseException:
            line.abort("it could not be opened")
            raise
        return line
