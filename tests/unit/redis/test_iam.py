"""The login to ElastiCache by IAM: botocore's own presigned token, a new one for each connection."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import botocore.auth
import pytest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.model import ServiceId
from botocore.session import get_session
from botocore.signers import RequestSigner
from hypothesis import given, settings
from hypothesis import strategies as st
from mangatest import HANG_GUARD_S

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.redis import Dialer, LinkLost, MultiplexedLink, RedisPyLink, Script
from mangacache.redis.iam import SERVERLESS, IamLogin, connect_token
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_S = 1_795_000_000.25
KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
EMITTER = get_session().get_component("event_emitter")
KEY_TEXT = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def botocores(keys: ReadOnlyCredentials, *, user: str, cache: str, region: str, at_s: float) -> str:
    """Return the token as AWS's documentation makes it."""
    name = cache.removeprefix(SERVERLESS)
    query = {"Action": "connect", "User": user} | ({"ResourceType": "ServerlessCache"} if name != cache else {})
    request = {
        "method": "GET", "url": f"https://{name}/?{urlencode(query)}", "body": {}, "headers": {}, "context": {},
    }  # fmt: skip
    signer = RequestSigner(ServiceId("elasticache"), region, "elasticache", "v4", Credentials(*keys), EMITTER)
    with pytest.MonkeyPatch.context() as patch:
        moment = datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None)
        patch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment)
        url = signer.generate_presigned_url(request, operation_name="connect", expires_in=900, region_name=region)
    return url.removeprefix("https://")


@settings(deadline=None, max_examples=50)
@given(
    keys=st.builds(ReadOnlyCredentials, KEY_TEXT, KEY_TEXT, st.none() | KEY_TEXT),
    asked=st.fixed_dictionaries(
        {
            "user": st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,39}", fullmatch=True),
            "cache": st.from_regex(r"(?:serverless:)?[a-z][a-z0-9-]{0,39}", fullmatch=True),
            "region": st.sampled_from(("us-east-1", "eu-central-1", "ap-northeast-1")),
            "at_s": st.floats(1.6e9, 2.5e9),
        }
    ),
)
def test_the_token_is_botocores_byte_for_byte(keys, asked):
    assert connect_token(keys, **asked) == botocores(keys, **asked)


def test_the_token_names_the_cache_and_lasts_a_quarter_of_an_hour():
    token = connect_token(KEYS, user="shop", cache="manga", region="eu-west-1", at_s=AT_S)
    assert token.startswith("manga/?Action=connect&User=shop&X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert "&X-Amz-Expires=900&" in token
    assert "ResourceType=ServerlessCache" in connect_token(
        KEYS, user="shop", cache="serverless:manga", region="eu-west-1", at_s=AT_S
    )


async def test_each_login_is_signed_anew_with_the_credential_in_use():
    class Passing(SystemClock):
        now_s = AT_S

        def time_s(self) -> float:
            self.now_s += 1
            return self.now_s

    async def keys() -> ReadOnlyCredentials:
        return KEYS

    login = IamLogin(keys, user="shop", cache="manga", region="eu-west-1", clock=Passing())
    (user, first), (_, second) = await login(), await login()
    assert user == "shop"
    assert first == connect_token(KEYS, user="shop", cache="manga", region="eu-west-1", at_s=AT_S + 1)
    assert second == connect_token(KEYS, user="shop", cache="manga", region="eu-west-1", at_s=AT_S + 2)


async def test_what_a_provider_of_credentials_raises_is_not_quoted():
    async def failing() -> ReadOnlyCredentials:
        raise RuntimeError("could not send secret=hunter2")

    login = IamLogin(failing, user="shop", cache="manga", region="eu-west-1", clock=SystemClock())
    with pytest.raises(LinkLost, match="RuntimeError") as lost:
        await login()
    assert "hunter2" not in str(lost.value)
    assert not lost.value.sent


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"redis_iam_user": "shop"}, "together"),
        ({"redis_iam_cache": "manga"}, "together"),
        ({"redis_iam_user": "shop", "redis_iam_cache": "manga", "redis_endpoint": "redis://manga:6379"}, "TLS"),
        ({"redis_iam_user": "shop", "redis_iam_cache": "manga", "redis_endpoint": "rediss://:p@manga"}, "password"),
    ],
)
def test_settings_of_a_login_that_do_not_go_together_are_refused(changes, words):
    made = Settings(**{"redis_endpoint": "rediss://manga:6379"} | changes)
    with pytest.raises(Invalid, match=words):
        Dialer(made, clock=SystemClock())


# The connection


ECHO = Script.of("echo", "return ARGV[1]")


@pytest.fixture(params=[MultiplexedLink, RedisPyLink])
async def link(request: pytest.FixtureRequest, shared_valkey: int) -> AsyncIterator[MultiplexedLink | RedisPyLink]:
    """A link whose login ends soon."""
    of_link = Settings(redis_endpoint=f"redis://127.0.0.1:{shared_valkey}", redis_timeout_s=5.0, redis_connections=1)
    dialer = Dialer(of_link, clock=SystemClock())
    dialer.renew_every_s = 0.05
    link = request.param(of_link, clock=SystemClock(), random=system_random(), telemetry=Telemetry(), dialer=dialer)
    yield link
    await link.close()
    assert len(link._tasks) == 0


async def test_connections_are_replaced_before_their_login_ends_and_no_call_notices(link):
    admitted = 0

    async def admit(_: object) -> int:
        nonlocal admitted
        admitted += 1
        return 1

    link.admit_with(admit)
    async with asyncio.timeout(HANG_GUARD_S):
        calls = 0
        while admitted < 4:
            calls += 1
            assert await link.run(ECHO, "k", [calls], tag=1) == str(calls).encode()
            await asyncio.sleep(0.001)
    assert calls > admitted
