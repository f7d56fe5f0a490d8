"""What the DAX client raises and what becomes of it; what is wrong with a configuration, in one line each."""

from __future__ import annotations

import asyncio
import random
import socketserver
import threading
from contextlib import contextmanager
from functools import partial

import pytest
from amazondax.DaxError import DaxClientError, DaxErrorCode, DaxServiceError, DaxValidationError
from botocore.exceptions import NoCredentialsError
from daxes import emulated

from mangacache import Closed, Invalid, MangaCache, NotFound, Rejected, Settings
from mangacache.clock import SystemClock
from mangacache.store.dax import client as client_module
from mangacache.store.dax import dax_transport
from mangacache.store.dax import transport as transport_module
from mangacache.store.dax.client import connect
from mangacache.store.dax.failures import failure_of
from mangacache.store.dax.transport import Stalled
from mangacache.store.transport import ConditionFailed, Throttled, Unanswered
from mangacache.telemetry import Telemetry

DYNAMODB = [4, 37, 38, 39]


def _service(codes, *, code=None, status=400, message="as the server says"):
    return DaxServiceError("GetItem", message, codes, None, code, status)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_service([*DYNAMODB, 40]), Throttled),
        (_service([*DYNAMODB, 49]), Throttled),
        (_service([*DYNAMODB, 50]), Throttled),
        (_service([*DYNAMODB, 61]), Throttled),
        (_service([*DYNAMODB, 41]), NotFound),
        (_service([4, 23, 24]), NotFound),
        (_service([*DYNAMODB, 43]), ConditionFailed),
        (_service([*DYNAMODB, 46]), Invalid),
        (_service([4, 37, 38, 42]), Invalid),
        (_service([4, 37, 38, 44]), Invalid),  # whose code the client makes a pair
        (_service([4, 23, 31]), Invalid),
        (_service([*DYNAMODB, 47]), Unanswered),
        (_service([3, 37, 54], status=500), Unanswered),
        (_service([1, 2], status=500), Unanswered),
        (_service([2, 9, 9], code="SomethingNew"), Unanswered),
        (DaxServiceError.from_no_more_data_exception("GetItem", EOFError()), Unanswered),
        (DaxClientError("No cluster endpoints available", DaxErrorCode.NoRoute), Unanswered),
        (DaxClientError("cannot be decoded", DaxErrorCode.Decoder), Unanswered),
        (DaxClientError("cannot be decoded", DaxErrorCode.MalformedResult), Unanswered),
        (DaxValidationError("Key: unknown parameter"), Invalid),
        (ConnectionRefusedError(111, "Connection refused"), Unanswered),
        (ConnectionResetError(104, "Connection reset by peer"), Unanswered),
        (BrokenPipeError(32, "Broken pipe"), Unanswered),
        (TimeoutError("timed out"), Unanswered),
        (OSError(113, "No route to host"), Unanswered),
        (EOFError(), Unanswered),
        (NoCredentialsError(), Invalid),
        (TypeError("unhashable type: 'dict'"), Unanswered),  # the client at a path of codes that ends early
        (AttributeError("'NoneType' object has no attribute 'sendall'"), Unanswered),
    ],
)
def test_whatever_the_client_raises_is_one_of_the_transports_errors(error, kind):
    failure = failure_of("GetItem", error)
    assert type(failure) is kind
    assert "\n" not in str(failure)


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (ConnectionRefusedError(111, "Connection refused"), False),
        (DaxClientError("No cluster endpoints available", DaxErrorCode.NoRoute), False),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (DaxServiceError.from_no_more_data_exception("PutItem", EOFError()), True),
        (TimeoutError("timed out"), True),
    ],
)
def test_only_what_cannot_have_been_sent_counts_as_unsent(error, sent):
    assert failure_of("PutItem", error).sent is sent


@pytest.mark.parametrize("error", [Rejected("full"), Closed("gone"), Unanswered("lost")])
def test_our_own_errors_stay_what_they_are(error):
    assert failure_of("GetItem", error) is error


# Servers that are no DAX


@contextmanager
def _server(behave):
    """Serve connections by `behave(socket)`; each ends with the block."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            behave(self.request, over)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"dax://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def _silent(_connection, over):
    over.wait()


def _hangs_up(connection, _over):
    connection.close()


def _web(connection, _over):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _settings(endpoint, **changes):
    return Settings(dax_endpoint=endpoint, connect_timeout_s=0.3, dax_timeout_s=0.3, **changes)


NOBODY = "dax://127.0.0.1:1"


@pytest.mark.parametrize("behave", [_silent, _hangs_up, _web])
@pytest.mark.parametrize("scheme", ["dax", "daxs"])
def test_a_server_that_is_no_dax_is_said_to_be_none(behave, scheme):
    with _server(behave) as endpoint:
        settings = _settings(endpoint.replace("dax:", f"{scheme}:"))
        with pytest.raises(Unanswered, match="does not answer as a DAX cluster does: is it DAX's endpoint") as caught:
            connect(settings.dax, settings)
    assert not caught.value.sent


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (NOBODY, "127.0.0.1:.*Connection refused"),
        ("dax://no-such-host.invalid:8111", "no-such-host.invalid:8111: ."),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_said_to_be_away_and_why(endpoint, why):
    settings = _settings(endpoint)
    with pytest.raises(Unanswered, match=f"DAX cannot be reached at .*{why}") as caught:
        connect(settings.dax, settings)
    assert not caught.value.sent


def test_without_credentials_the_line_says_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    settings = _settings("dax://127.0.0.1:1")
    with pytest.raises(Invalid, match="no AWS credentials were found"):
        connect(settings.dax, settings)


def test_a_profile_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    settings = _settings("dax://127.0.0.1:1")
    with pytest.raises(Invalid, match="nowhere"):
        connect(settings.dax, settings)


def test_without_the_client_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "amazondax", None)
    with pytest.raises(Invalid, match=r"pip install 'mangacache\[dax\]'"):
        client_module.check_installed()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8111", "redis://127.0.0.1:8111", "dax://user:pw@host"])
def test_an_endpoint_of_another_kind_is_refused_before_anything_is_opened(endpoint):
    with pytest.raises(Invalid, match="dax_endpoint"):
        Settings(dax_endpoint=endpoint)


# The adapter, with the real client


async def test_the_adapter_gives_up_in_time_before_a_server_that_says_nothing():
    with _server(_silent) as endpoint:
        settings = _settings(endpoint)
        telemetry = Telemetry()
        adapter = dax_transport(
            lambda: connect(settings.dax, settings), settings, clock=SystemClock(), telemetry=telemetry
        )
        with pytest.raises((Stalled, Unanswered)):
            await adapter.request("GetItem", {"TableName": "t", "Key": {}})
        await adapter.close()
        with pytest.raises(Closed):
            await adapter.request("GetItem", {"TableName": "t", "Key": {}})


async def test_the_adapter_makes_its_client_anew_once_the_cluster_is_there(real_world):
    made = []

    def make():
        made.append(connect(settings.dax, settings) if made else None)
        if made[-1] is None:
            raise Unanswered("not yet", sent=False)
        return made[-1]

    with emulated(real_world.settings.dynamodb_endpoint) as emulator:
        settings = real_world.settings.replace(dax_endpoint=emulator.endpoint, dax_timeout_s=10.0)
        adapter = dax_transport(make, settings, clock=SystemClock(), telemetry=Telemetry())
        get = {"TableName": settings.table_name, "Key": {"PK": {"S": "a"}, "SK": {"S": "b"}}}
        with pytest.raises(Unanswered):
            await adapter.request("GetItem", get)
        assert "Item" not in await adapter.request("GetItem", get)
        await adapter.close()
    assert len(made) == 2


async def test_a_client_that_is_there_only_after_the_end_is_closed_again(monkeypatch):
    begun, go, closed = threading.Event(), threading.Event(), threading.Event()

    class Client:
        close = staticmethod(closed.set)

    def make():
        begun.set()
        assert go.wait(60)
        return Client()

    monkeypatch.setattr(transport_module, "_CLOSING_S", 0.01)
    adapter = dax_transport(make, Settings(), clock=SystemClock(), telemetry=Telemetry())
    waits = asyncio.ensure_future(adapter.connected())
    assert await asyncio.to_thread(begun.wait, 60)
    await adapter.close()
    assert not closed.is_set()
    go.set()
    assert await asyncio.to_thread(closed.wait, 60)
    with pytest.raises(Closed):
        await waits


async def test_answers_are_those_that_were_asked_for_whoever_leaves_meanwhile(real_world):
    """A caller who leaves must not leave a reply behind, on its connection, for the next one."""
    chance = random.Random(5)
    with emulated(real_world.settings.dynamodb_endpoint) as emulator:
        settings = real_world.settings.replace(dax_endpoint=emulator.endpoint, dax_timeout_s=10.0, dax_calls=1000)
        make = partial(connect, settings.dax, settings)
        adapter = dax_transport(make, settings, clock=SystemClock(), telemetry=Telemetry())
        items = [{"PK": {"S": "a"}, "SK": {"S": str(number)}, "n": {"N": str(number)}} for number in range(30)]
        async with real_world.transport() as table:
            for item in items:
                await table.request("PutItem", {"TableName": settings.table_name, "Item": item})

        async def get(item):
            key = {"PK": item["PK"], "SK": item["SK"]}
            answer = await adapter.request("GetItem", {"TableName": settings.table_name, "Key": key})
            assert answer["Item"] == item

        emulator.slow(0.01)  # so that there is somebody whose reply is on its way
        for _ in range(8):
            callers = [asyncio.ensure_future(get(chance.choice(items))) for _ in range(60)]
            for caller in chance.sample(callers, 20):
                await asyncio.sleep(chance.random() / 500)
                caller.cancel()
            ended = await asyncio.gather(*callers, return_exceptions=True)
            assert {type(one) for one in ended} <= {type(None), asyncio.CancelledError}
        await adapter.close()


async def test_nothing_of_the_client_is_left_when_a_service_has_closed(real_world):
    before = set(threading.enumerate())
    with emulated(real_world.settings.dynamodb_endpoint) as emulator:
        settings = real_world.settings.replace(dax_endpoint=emulator.endpoint, dax_timeout_s=10.0)
        async with MangaCache.open(settings) as cache:
            assert cache.telemetry.value("mangacache_dax_up") == 1
            its_own = {thread.name for thread in set(threading.enumerate()) - before}
            assert len(its_own) > 2
    left = {thread for thread in set(threading.enumerate()) - before if "AnyIO" not in thread.name}
    for thread in left:
        thread.join(30)
    assert not any(thread.is_alive() for thread in left)


async def test_a_way_to_dax_is_of_no_use_to_a_process_that_was_forked_from_its_own(monkeypatch):
    adapter = dax_transport(pytest.fail, Settings(), clock=SystemClock(), telemetry=Telemetry())
    monkeypatch.setattr("os.getpid", lambda: 1)
    with pytest.raises(Closed, match="forked"):
        await adapter.request("GetItem", {})
    monkeypatch.undo()
    await adapter.close()


# A service before a DAX that is none


async def _reads_from_dynamodb(settings, caplog):
    """Open a service, have it read and write, and return what it warned of DAX."""
    async with MangaCache.open(settings) as cache:
        session = cache.session("s")
        for number in range(12):
            await session.append(role="user", content=f"{number}")
        cache._sessions._actors.clear()
        context = await session.context(turns=12)
        assert (len(context.turns), context.source) == (12, "dynamodb")
    warnings = [record for record in caplog.records if record.name == "mangacache" and record.levelname == "WARNING"]
    return [record for record in warnings if record.message.startswith("dax")]  # a busy machine may be told of too


@pytest.mark.parametrize("kind", ["refused", "silent", "web"])
async def test_a_service_before_a_cluster_that_is_away_opens_warns_once_and_works(real_world, caplog, kind):
    if kind == "refused":
        (warning,) = await _reads_from_dynamodb(real_world.settings.replace(dax_endpoint=NOBODY), caplog)
    else:
        with _server({"silent": _silent, "web": _web}[kind]) as endpoint:
            changed = {"dax_endpoint": endpoint, "connect_timeout_s": 0.5}
            (warning,) = await _reads_from_dynamodb(real_world.settings.replace(**changed), caplog)
    assert warning.message == "dax_away"
    assert "DAX" in warning.why


async def test_a_service_before_a_cluster_that_knows_no_such_table_does_not_open(real_world, moto):
    with emulated(moto) as emulator:
        settings = real_world.settings.replace(dax_endpoint=emulator.endpoint, dax_timeout_s=10.0)
        with pytest.raises(NotFound, match="the DAX cluster finds no such table") as caught:
            async with MangaCache.open(settings):
                pass
    assert "\n" not in str(caught.value)


async def test_a_service_whose_credentials_the_cluster_refuses_does_not_open(real_world):
    with emulated(real_world.settings.dynamodb_endpoint, secrets={"another": "secret"}) as emulator:
        settings = real_world.settings.replace(dax_endpoint=emulator.endpoint, dax_timeout_s=10.0)
        with pytest.raises(Invalid, match=r"DAX refused .*Check the credentials"):
            async with MangaCache.open(settings):
                pass


async def test_no_region_in_the_environment_is_needed(real_world, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with emulated(real_world.settings.dynamodb_endpoint, region="us-east-1") as emulator:
        settings = real_world.settings.replace(dax_endpoint=emulator.endpoint, dax_timeout_s=10.0)
        async with MangaCache.open(settings) as cache:
            assert cache.telemetry.value("mangacache_dax_up") == 1
