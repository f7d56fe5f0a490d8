"""Logging in to ElastiCache by IAM: the password is a signed request that nobody sends, good for 15 minutes.

See "Authenticating with IAM" in the Amazon ElastiCache user guide. The signature is botocore's, byte for byte.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from mangacache.errors import Invalid
from mangacache.redis.link import LinkLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.clock import Clock

SERVERLESS: Final = "serverless:"
_SERVICE: Final = "elasticache"
_GOOD_FOR_S: Final = 900
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class AwsKeys(Protocol):
    """A credential of AWS, as botocore's `ReadOnlyCredentials` is one."""

    @property
    def access_key(self) -> str:
        """The public part."""

    @property
    def secret_key(self) -> str:
        """The secret."""

    @property
    def token(self) -> str | None:
        """A temporary credential's session token."""


def connect_token(keys: AwsKeys, *, user: str, cache: str, region: str, at_s: float) -> str:
    """Return the password of a user, for a connection opened within 15 minutes.

    Args:
        keys: who asks.
        user: of ElastiCache, whose id and name are the same.
        cache: the replication group's name, or `serverless:` and the serverless cache's.
        region: where it is.
        at_s: seconds since 1970.
    """
    name = cache.removeprefix(SERVERLESS)
    second = f"{datetime.fromtimestamp(int(at_s), UTC):%Y%m%dT%H%M%SZ}"
    scope = f"{second[:8]}/{region}/{_SERVICE}/aws4_request"
    query = {"Action": "connect", "User": user}
    if name != cache:
        query["ResourceType"] = "ServerlessCache"
    query |= {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{scope}",
        "X-Amz-Date": second,
        "X-Amz-Expires": str(_GOOD_FOR_S),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token is not None:
        query["X-Amz-Security-Token"] = keys.token
    pairs = [f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in query.items()]
    canonical = f"GET\n/\n{'&'.join(sorted(pairs))}\nhost:{name}\n\nhost\n{sha256(b'').hexdigest()}"
    to_sign = f"{_ALGORITHM}\n{second}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + keys.secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{name}/?{'&'.join(pairs)}&X-Amz-Signature={signature}"


class IamLogin:
    """Signs a token for each connection: it costs less than asking whether the last one is still good.

    Args:
        keys: the credential in use, renewed by whoever gives it.
        user: see `connect_token`.
        cache: see `connect_token`.
        region: see `connect_token`.
        clock: the wall clock.
    """

    def __init__(
        self, keys: Callable[[], Awaitable[AwsKeys]], *, user: str, cache: str, region: str, clock: Clock
    ) -> None:
        self._keys = keys
        self._user = user
        self._cache = cache
        self._region = region
        self._clock = clock

    async def __call__(self) -> tuple[str | None, str | None]:
        """Return the user and the password for a connection that is being opened.

        Raises:
            LinkLost: there is no credential of AWS.
        """
        try:
            keys = await self._keys()
        except Exception as error:  # a provider may raise anything, and may quote what it was sent
            said = str(error) if isinstance(error, Invalid) else type(error).__name__
            raise LinkLost(f"the AWS credentials for the login could not be had ({said})", sent=False) from error
        token = connect_token(keys, user=self._user, cache=self._cache, region=self._region, at_s=self._clock.time_s())
        return self._user, token


class AwsSession:
    """The AWS client's own way to credentials, asked when a connection opens; it renews them itself."""

    def __init__(self) -> None:
        self._credentials: Any = None

    async def __call__(self) -> AwsKeys:
        """Return the credential in use.

        Raises:
            Invalid: there is none.
        """
        if self._credentials is None:
            from aiobotocore.session import get_session  # noqa: PLC0415 - a third of a second, for those who need it

            self._credentials = await get_session().get_credentials()
        if self._credentials is None:
            raise Invalid("redis_iam_cache is set and no AWS credentials are found")
        keys: AwsKeys = await self._credentials.get_frozen_credentials()
        return keys
