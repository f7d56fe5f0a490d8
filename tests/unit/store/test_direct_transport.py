"""The direct transport as a whole: which way a call goes, whose clock counts, whom TLS trusts."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dynamodb_server import Answer, ToxicServer, echo

from mangacache import Invalid, MangaCache, Settings
from mangacache.clock import SystemClock
from mangacache.store import open_transport
from mangacache.store.direct import DirectTransport
from mangacache.store.requests import Requests
from mangacache.store.transport import AioTransport, Unanswered
from mangacache.telemetry import Telemetry

KEY = {"PK": {"S": "p"}, "SK": {"S": "s"}}
READ = ("GetItem", {"TableName": "some-table", "Key": KEY})
HANG_GUARD_S = 20.0


def _settings(url, **changes):
    return Settings(dynamodb_endpoint=url, dynamodb_transport="direct", retry_base_s=0.001).replace(**changes)


@pytest.fixture(autouse=True)
def _guarded(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


# Which way


async def test_the_setting_names_the_transport():
    async with open_transport(_settings("http://127.0.0.1:1")) as transport:
        assert isinstance(transport, DirectTransport)
        assert repr(transport).startswith("<DirectTransport <Pool of 127.0.0.1:1, 0 of 64 open")
    async with open_transport(_settings("http://127.0.0.1:1", dynamodb_transport="aioboto3")) as transport:
        assert isinstance(transport, AioTransport)


async def test_a_call_that_is_rare_goes_through_the_aws_client():
    async with ToxicServer.open(echo) as server, open_transport(_settings(server.url)) as transport:
        await transport.request(*READ)
        await transport.request("DescribeTable", {"TableName": "some-table"})
        agents = [(received.operation, "mangacache" in received.headers["user-agent"]) for received in server.received]
        assert agents == [("GetItem", True), ("DescribeTable", True)]
        assert "amz-sdk-request" not in server.received[0].headers
        assert "amz-sdk-request" in server.received[1].headers


@pytest.mark.parametrize(("variable", "used"), [("http_proxy", True), ("https_proxy", False)])
async def test_through_a_proxy_the_aws_client_goes_alone_and_the_log_says_so(monkeypatch, caplog, variable, used):
    caplog.set_level(logging.WARNING, "mangacache")
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    async with open_transport(_settings("http://dynamodb.example:8000")) as transport:
        assert isinstance(transport, AioTransport if used else DirectTransport)
    said = [(record.message, record.why) for record in caplog.records]
    assert said == ([("dynamodb_transport_not_direct", "a proxy")] if used else [])


async def test_where_the_environment_says_no_proxy_the_way_is_direct(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with ToxicServer.open(echo) as server, open_transport(_settings(server.url)) as transport:
        assert (await transport.request(*READ))["Item"] == KEY


async def test_an_address_that_is_more_than_a_host_is_left_to_the_aws_client(monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "mangacache")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1/a/path")
    async with open_transport(_settings(None)) as transport:
        assert isinstance(transport, AioTransport)
    assert [record.why for record in caplog.records] == ["an endpoint with a path"]


async def test_without_an_endpoint_the_regions_own_is_asked():
    async with open_transport(_settings(None, region="eu-central-1")) as transport:
        assert "dynamodb.eu-central-1.amazonaws.com:443" in repr(transport)
        assert transport._pool._tls.verify_mode is ssl.CERT_REQUIRED
        assert transport._pool._tls.check_hostname


# Whose clock


class Service:
    """Refuses what is signed for a time that is not its own, as DynamoDB does; its clock is `offset_s` from ours."""

    def __init__(self, offset_s, code="InvalidSignatureException"):
        self.offset_s = offset_s
        self.code = code
        self.seen_s = []

    def plan(self, received, _noise):
        async def judged(exchange):
            now_s = time.time() + self.offset_s
            signed_s = datetime.strptime(received.headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
            self.seen_s.append(round(signed_s - now_s))
            well = abs(signed_s - now_s) < 300
            answer = await exchange.apply() if well else Answer.error(self.code, prefix="com.amazon.coral.service#")
            await exchange.write(answer.head(Date=formatdate(now_s, usegmt=True)) + answer.body)

        return judged


@pytest.mark.parametrize("code", ["InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired"])
@pytest.mark.parametrize("offset_s", [3_600, -3_600, 86_400 * 400, -320, 320])
async def test_a_clock_that_is_wrong_costs_one_try_in_which_nothing_was_done_and_then_is_right(offset_s, code):
    service = Service(offset_s, code)
    async with ToxicServer.open(echo) as server, open_transport(_settings(server.url)) as transport:
        server.plan = service.plan
        with pytest.raises(Unanswered, match=f"{code}: this machine's clock is wrong by") as raised:
            await transport.request(*READ)
        assert not raised.value.sent
        for _ in range(3):
            await transport.request(*READ)
        service.offset_s = 0  # the machine's clock is set right meanwhile
        with pytest.raises(Unanswered):
            await transport.request(*READ)
        await transport.request(*READ)
        assert all(abs(seen_s) <= 2 for seen_s in [*service.seen_s[1:4], service.seen_s[-1]])


async def test_many_calls_that_hear_at_once_of_a_wrong_clock_set_it_right_once():
    service = Service(3_600)
    async with ToxicServer.open(echo) as server, open_transport(_settings(server.url)) as transport:
        server.plan = service.plan
        heard = await asyncio.gather(*(transport.request(*READ) for _ in range(20)), return_exceptions=True)
        assert [type(error) for error in heard] == [Unanswered] * 20
        await transport.request(*READ)


async def test_a_store_with_a_wrong_clock_notices_nothing():
    service = Service(-7_200)
    async with ToxicServer.open(echo) as server, open_transport(_settings(server.url)) as transport:
        server.plan = service.plan
        telemetry = Telemetry()
        requests = Requests(
            transport, settings=_settings(server.url), clock=SystemClock(), random=_Half(), telemetry=telemetry
        )
        answer = await requests.send(*READ)
        assert (answer.body, answer.in_doubt) == ({"Item": KEY}, False)


class _Half:
    def random(self):
        return 0.5


@pytest.mark.parametrize("date", [None, "", "yesterday", "now"])
async def test_a_signature_that_is_refused_at_the_right_time_is_an_error_of_credentials(date):
    async with ToxicServer.open(echo) as server, open_transport(_settings(server.url)) as transport:

        async def refuse(exchange):
            answer = Answer.error("InvalidSignatureException")
            await exchange.write(answer.head(Date=formatdate(usegmt=True) if date == "now" else date) + answer.body)

        server.plan = lambda _received, _noise: refuse
        for _ in range(2):
            with pytest.raises(Invalid, match=r"InvalidSignatureException.*Check the credentials"):
                await transport.request(*READ)


# Whom TLS trusts


def _certificate(folder):
    """Write a certificate for localhost that trusts itself; return the files of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, hidden = folder / "certificate.pem", folder / "key.pem"
    shown.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    hidden.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return shown, hidden


@asynccontextmanager
async def _tls_server(folder):
    """A server that talks TLS, as localhost; yields its port, the server behind it, and the certificate."""
    certificate, key = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with ToxicServer.open(echo) as behind:
        front = await asyncio.start_server(behind._serve, "127.0.0.1", 0, ssl=context)
        try:
            yield front.sockets[0].getsockname()[1], behind, certificate
        finally:
            front.close()
            await front.wait_closed()


async def test_calls_go_encrypted_to_whom_the_authorities_of_the_environment_vouch_for(tmp_path, monkeypatch):
    async with _tls_server(tmp_path) as (port, server, certificate):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        async with open_transport(_settings(f"https://localhost:{port}")) as transport:
            await asyncio.gather(*(transport.request(*READ) for _ in range(5)))
            call = asyncio.create_task(transport.request(*READ))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
            large = {"PK": {"S": "x" * 300_000}}
            answer = await transport.request("GetItem", {"TableName": "some-table", "Key": large})
            assert answer["Item"] == large
        assert server.received[0].headers["host"] == f"localhost:{port}"


@pytest.mark.parametrize(("host", "trusted"), [("localhost", False), ("127.0.0.1", True)])
async def test_nothing_is_sent_to_whom_nobody_vouches_for(tmp_path, monkeypatch, host, trusted):
    """Neither to an unknown authority's, nor to one whose certificate has another name."""
    async with _tls_server(tmp_path) as (port, server, certificate):
        if trusted:
            monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        async with open_transport(_settings(f"https://{host}:{port}")) as transport:
            with pytest.raises(Unanswered, match="certificate") as raised:
                async with asyncio.timeout(HANG_GUARD_S):
                    await transport.request(*READ)
            assert not raised.value.sent
        assert server.received == []


async def test_a_file_of_authorities_that_is_none_is_said_to_be_none(tmp_path, monkeypatch):
    (tmp_path / "none.pem").write_text("nothing")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(Invalid, match=r"AWS_CA_BUNDLE.*none\.pem"):
        async with open_transport(_settings("https://localhost:1")):
            raise AssertionError("opened")


# What is told


async def test_what_a_cache_survives_at_its_transport_is_counted_in_its_own_metrics(real_world, monkeypatch):
    seen = []

    @asynccontextmanager
    async def spied(settings, *, telemetry=None):
        seen.append(telemetry)
        async with open_transport(settings) as transport:
            yield transport

    monkeypatch.setattr("mangacache.service.open_transport", spied)
    async with MangaCache.open(real_world.settings) as cache:
        assert seen == [cache.telemetry]
