"""Credentials that are short-lived, wrong, missing or expired, on both transports; signatures are worked out anew."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from dynamodb_credentials import GRACE_S, CredentialEndpoint, is_signed_by
from dynamodb_server import Answer, ToxicServer, upstream

from mangacache import Invalid, MangaCache
from mangacache.store import open_transport
from mangacache.store.transport import Unanswered

LIFE_S = 1.5
HANG_GUARD_S = 30.0
TRANSPORTS = pytest.mark.parametrize("transport_name", ["aioboto3", "direct"])


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    """An environment in which no provider finds anything, nor waits long between its own tries."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return monkeypatch


class Judging:
    """An engine that is asked only what is rightly signed.

    Attributes:
        refused: why requests were refused.
    """

    def __init__(self, url, judge):
        self._apply = upstream(url)
        self._judge = judge
        self.refused = []

    async def __call__(self, received):
        reason = self._judge(received)
        if reason is None:
            return await self._apply(received)
        self.refused.append(reason)
        return Answer.error(reason, prefix="com.amazon.coral.service#")


@asynccontextmanager
async def _opened(world, transport_name, judge):
    """Open a cache on a server that judges signatures; yields the cache, the judging, and the server."""
    judging = Judging(world.settings.dynamodb_endpoint, judge)
    async with ToxicServer.open(judging) as server:
        settings = world.settings.replace(dynamodb_endpoint=server.url, dynamodb_transport=transport_name)
        async with asyncio.timeout(HANG_GUARD_S), MangaCache.open(settings) as cache:
            yield cache, judging, server


@TRANSPORTS
async def test_credentials_that_end_again_and_again_are_renewed_and_no_call_fails(
    real_world, no_credentials, transport_name
):
    async with CredentialEndpoint.open(LIFE_S) as endpoint:
        no_credentials.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url)
        async with _opened(real_world, transport_name, endpoint.judge) as (cache, judging, server):
            sessions = [cache.session(f"s{i}") for i in range(4)]
            until_s = time.monotonic() + 2 * LIFE_S + GRACE_S
            appended = 0
            while time.monotonic() < until_s:
                await asyncio.gather(*(session.append(role="user", content="x") for session in sessions))
                appended += len(sessions)
            signed_by = {received.access_key for received in server.received}
            assert judging.refused == []
            assert len(signed_by) >= 3
            for session in sessions:
                assert (await session.append(role="user", content="x")).number == appended // len(sessions) + 1


@pytest.mark.parametrize(("transport_name", "error"), [("aioboto3", Unanswered), ("direct", Invalid)])
async def test_an_endpoint_that_fails_for_a_while_is_survived(real_world, no_credentials, transport_name, error):
    """The AWS client asks within a call, and in each call towards the end; ours asks beside the calls."""
    key = {"TableName": real_world.settings.table_name, "Key": {"PK": {"S": "x"}, "SK": {"S": "META"}}}
    async with CredentialEndpoint.open(LIFE_S) as endpoint, AsyncExitStack() as stack:
        no_credentials.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url)
        judging = Judging(real_world.settings.dynamodb_endpoint, endpoint.judge)
        server = await stack.enter_async_context(ToxicServer.open(judging))
        settings = real_world.settings.replace(dynamodb_endpoint=server.url, dynamodb_transport=transport_name)
        await stack.enter_async_context(asyncio.timeout(HANG_GUARD_S))
        transport = await stack.enter_async_context(open_transport(settings))
        await transport.request("GetItem", key)
        endpoint.works = False
        with pytest.raises(error, match=r"the AWS credentials.* could not be renewed") as raised:
            await _again_and_again(transport, key)
        assert transport_name == "direct" or not raised.value.sent
        used = endpoint.issued[server.received[-1].access_key]
        assert transport_name == "aioboto3" or used.expires_at_s <= time.time()
        endpoint.works = True
        await _until_answered(transport, key)
        assert judging.refused == []


async def _again_and_again(transport, key):
    while True:
        await transport.request("GetItem", key)


async def _until_answered(transport, key):
    while True:
        try:
            return await transport.request("GetItem", key)
        except (Invalid, Unanswered):
            await asyncio.sleep(0.01)


@TRANSPORTS
async def test_credentials_that_have_ended_before_they_are_handed_out_are_one_clear_error(
    real_world, no_credentials, transport_name
):
    async with CredentialEndpoint.open(-60) as endpoint:
        no_credentials.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url)
        with pytest.raises(Invalid, match="credentials"):
            async with _opened(real_world, transport_name, endpoint.judge) as (cache, _, _):
                await cache.session("s").append(role="user", content="x")


@TRANSPORTS
async def test_an_endpoint_that_does_not_answer_is_one_clear_error(real_world, no_credentials, transport_name):
    async with CredentialEndpoint.open(LIFE_S) as endpoint:
        no_credentials.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url)
        endpoint.works = False
        with pytest.raises(Invalid, match="credentials"):
            async with _opened(real_world, transport_name, endpoint.judge):
                raise AssertionError("opened without credentials")


@TRANSPORTS
async def test_no_credentials_at_all_are_one_clear_error_that_says_what_to_do(
    real_world, no_credentials, transport_name
):
    assert no_credentials is not None
    with pytest.raises(Invalid, match="no AWS credentials were found: give the task a role"):
        async with _opened(real_world, transport_name, lambda _: None):
            raise AssertionError("opened without credentials")


@TRANSPORTS
@pytest.mark.parametrize("code", ["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"])
async def test_credentials_that_the_service_does_not_take_are_one_clear_error_and_are_not_tried_again(
    real_world, monkeypatch, transport_name, code
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    refuse = False
    async with _opened(real_world, transport_name, lambda _: code if refuse else None) as (cache, judging, _):
        session = cache.session("s")
        await session.append(role="user", content="x")
        refuse = True
        with pytest.raises(Invalid, match=rf"was refused: {code}.*Check the credentials"):
            await session.append(role="user", content="x")
        assert judging.refused == [code]


@TRANSPORTS
async def test_each_request_is_signed_by_the_secret_that_is_set_and_no_other_would_do(
    real_world, monkeypatch, transport_name
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASOME")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "some/secret+key")
    async with _opened(real_world, transport_name, lambda _: None) as (cache, _, server):
        await cache.session("s").append(role="user", content="Übung 漫画")
        await cache.session("s").history()
        assert {"TransactWriteItems", "Query"} <= {received.operation for received in server.received}
        for received in server.received:
            assert received.access_key == "AKIASOME"
            assert is_signed_by(received, "some/secret+key")
            assert not is_signed_by(received, "another secret")
