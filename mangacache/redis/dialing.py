"""Opening connections to Redis: what all connections of a process share, and how each of them logs in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from mangacache.errors import Invalid
from mangacache.redis.iam import AwsSession, IamLogin
from mangacache.redis.link import LinkLost
from mangacache.redis.tls import tls_context

if TYPE_CHECKING:
    import ssl

    from mangacache.clock import Clock
    from mangacache.settings import RedisAddress, Settings

P = TypeVar("P", bound=asyncio.Protocol)

Login: TypeAlias = Callable[[], Awaitable[tuple[str | None, str | None]]]
"""Returns the user and the password of a connection that is being opened; None where there is none."""

RENEW_EVERY_S: Final = 10 * 3600.0
"""ElastiCache ends a connection 12 hours after it logged in by IAM."""


class Dialer:
    """Opens connections, with the one TLS context and the one login that they share.

    Args:
        settings: the address, the authorities and who logs in.
        clock: the wall clock, for logins that are signed.

    Attributes:
        address: where Redis is found.
        login: see `Login`.
        tls: shared by all connections, since it takes long to make; None where there is no TLS.
        renew_every_s: how old a connection may become; None: of any age.

    Raises:
        Invalid: `redis_ca_file` cannot be used, or the settings of the login do not go together.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        if settings.redis is None:
            raise AssertionError("a link without an address")
        self.address = settings.redis
        self.tls: ssl.SSLContext | None = tls_context(settings.redis_ca_file) if self.address.tls else None
        self.login, self.renew_every_s = _login_of(settings, self.address, clock)

    async def open(self, to: RedisAddress, made: Callable[[], P]) -> P:
        """Open a connection, its name resolved anew; nothing is sent on it yet.

        Raises:
            LinkLost: it does not open.
        """
        loop = asyncio.get_running_loop()
        try:
            if to.unix_path is not None:
                _, line = await loop.create_unix_connection(made, to.unix_path)
            else:
                _, line = await loop.create_connection(made, to.host, to.port, ssl=self.tls)
        except (OSError, UnicodeError) as error:  # a name that cannot be one is a UnicodeError
            raise LinkLost(str(error) or type(error).__name__, sent=False) from error
        return line


def _login_of(settings: Settings, address: RedisAddress, clock: Clock) -> tuple[Login, float | None]:
    user, cache = settings.redis_iam_user, settings.redis_iam_cache
    if user is None and cache is None:

        async def given() -> tuple[str | None, str | None]:
            return address.username, address.password

        return given, None
    if user is None or cache is None:
        raise Invalid("redis_iam_user and redis_iam_cache are set together, or neither is")
    if address.password is not None:
        raise Invalid(
            "redis_endpoint holds a password, and redis_iam_cache says that the login is signed: leave one out"
        )
    if not address.tls:
        raise Invalid("a login by IAM needs TLS: write redis_endpoint as rediss://host:port")
    return IamLogin(AwsSession(), user=user, cache=cache, region=settings.region, clock=clock), RENEW_EVERY_S
