"""Whatever becomes of a request on its way: what the transports say of it, and that it harms no later call.

Both transports are held to the same. Each has one connection here, so that one that is lost to a fault is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import dynamodb_faults as faults
import pytest
from dynamodb_server import Answer, ToxicServer, echo, reset

from mangacache import Invalid, MangaCacheError, NotFound, Settings, Transient
from mangacache.clock import SystemClock
from mangacache.store import open_transport
from mangacache.store.requests import Requests
from mangacache.store.transport import ConditionFailed, Throttled, TransactionCanceled, Unanswered
from mangacache.telemetry import Telemetry

HANG_GUARD_S = 20.0
TABLE = "some-table"
TRANSPORTS = pytest.mark.parametrize("transport_name", ["aioboto3", "direct"])

THROTTLING = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "LimitExceededException",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
]
PREFIXES = ["com.amazonaws.dynamodb.v20120810#", "com.amazon.coral.availability#", ""]
CREDENTIALS = [
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "AccessDeniedException",
    "MissingAuthenticationTokenException",
    "IncompleteSignatureException",
]


def _settings(transport_name, url, **changes):
    return Settings(
        table_name=TABLE, dynamodb_endpoint=url, dynamodb_transport=transport_name, max_connections=1,
        connect_timeout_s=HANG_GUARD_S / 2, request_timeout_s=HANG_GUARD_S / 2, request_deadline_s=HANG_GUARD_S,
        retry_base_s=0.001, retry_cap_s=0.01,
    ).replace(**changes)  # fmt: skip


class Wire:
    """A transport and the server that it talks to; calls are tagged, and bounded by the hang guard as its end is."""

    def __init__(self, transport, server):
        self._transport = transport
        self._tags = itertools.count()
        self.server = server

    @classmethod
    @asynccontextmanager
    async def open(cls, transport_name, apply=echo, **changes):
        async with asyncio.timeout(2 * HANG_GUARD_S), AsyncExitStack() as stack:
            server = await stack.enter_async_context(ToxicServer.open(apply))
            settings = _settings(transport_name, server.url, **changes)
            yield cls(await stack.enter_async_context(open_transport(settings)), server)

    async def call(self, operation, parameters):
        async with asyncio.timeout(HANG_GUARD_S):
            return await self._transport.request(operation, parameters)

    async def get(self):
        """Read something, and see that the answer is the one to this."""
        key = {"PK": {"S": f"tag-{next(self._tags)}"}, "SK": {"S": "META"}}
        answer = await self.call("GetItem", {"TableName": TABLE, "Key": key, "ConsistentRead": True})
        assert answer["Item"] == key

    async def get_at_last(self):
        """Read something; once it may find that its connection has ended."""
        try:
            await self.get()
        except Unanswered:
            await self.get()

    async def put(self):
        item = {"PK": {"S": f"tag-{next(self._tags)}"}, "SK": {"S": "META"}, "blob": {"B": b"\x00\xff"}}
        assert "Item" not in await self.call("PutItem", {"TableName": TABLE, "Item": item})


@TRANSPORTS
@pytest.mark.parametrize("fault", faults.UNANSWERED)
async def test_a_request_that_gets_no_good_answer_is_of_open_outcome_and_was_sent_once(transport_name, fault):
    async with Wire.open(transport_name) as wire:
        for call in (wire.get, wire.put):
            await wire.get()
            wire.server.once(faults.UNANSWERED[fault])
            with pytest.raises(Unanswered) as raised:
                await call()
            assert raised.value.sent
            await wire.put()
        assert len(wire.server.received) == 6


@TRANSPORTS
@pytest.mark.parametrize("form", faults.ODD)
async def test_an_answer_of_an_unusual_form_is_taken_and_the_next_call_gets_its_own(transport_name, form):
    async with Wire.open(transport_name) as wire:
        for call in (wire.get, wire.put):
            wire.server.once(faults.ODD[form])
            await call()
            await wire.get_at_last()


@TRANSPORTS
async def test_an_answer_too_many_ends_its_connection_so_that_nobody_reads_the_rest_of_it(transport_name):
    async with Wire.open(transport_name) as wire:
        wire.server.once(faults.answered_twice)
        await wire.get()
        await wire.get()
        assert wire.server.connections == 2


@TRANSPORTS
async def test_a_connection_that_breaks_as_the_next_request_comes_leaves_its_outcome_open(transport_name):
    """Whether a server that resets has read the request, nobody can tell; so it is not sent again by itself."""
    async with Wire.open(transport_name) as wire:
        wire.server.once(faults.reset_on_next)
        await wire.get()
        with pytest.raises(Unanswered) as raised:
            await wire.put()
        assert raised.value.sent
        assert wire.server.connections == len(wire.server.received) == 1
        await wire.put()
        assert len(wire.server.received) == 2


@TRANSPORTS
async def test_what_a_proxy_breaks_before_it_reads_is_unanswered_and_the_next_call_goes_through(transport_name):
    async with Wire.open(transport_name) as wire:
        refusals = iter([True, True])
        wire.server.refuses = lambda _noise: next(refusals, False)
        for _ in range(2):
            with pytest.raises(Unanswered):
                await wire.put()
        assert wire.server.received == []
        await wire.put()
        assert wire.server.connections == 3


@TRANSPORTS
async def test_where_nobody_listens_a_request_was_certainly_not_sent(transport_name):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings = _settings(transport_name, f"http://127.0.0.1:{probe.getsockname()[1]}")
        async with open_transport(settings) as transport:
            for _ in range(3):
                with pytest.raises(Unanswered) as raised:
                    await transport.request("GetItem", {"TableName": TABLE, "Key": {"PK": {"S": "x"}}})
                assert not raised.value.sent


@TRANSPORTS
async def test_a_server_that_takes_no_connections_costs_the_connect_time_out_and_was_sent_nothing(transport_name):
    """The system's queue of new connections is full, so that nothing answers one more."""
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            queued = waiting.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(full.getsockname())
        settings = _settings(transport_name, f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_s=0.2)
        async with open_transport(settings) as transport:
            with pytest.raises(Unanswered) as raised:
                async with asyncio.timeout(HANG_GUARD_S / 4):
                    await transport.request("GetItem", {"TableName": TABLE, "Key": {"PK": {"S": "x"}}})
            assert not raised.value.sent


@TRANSPORTS
async def test_a_request_that_is_cut_in_the_middle_is_unanswered(transport_name):
    read = []

    async def cut(reader, writer):
        read.append(len(await reader.readexactly(5_000)))
        reset(writer)

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_transport(_settings(transport_name, url)) as transport:
        item = {"PK": {"S": "x"}, "SK": {"S": "META"}, "content": {"S": "x" * 300_000}}
        for _ in range(2):
            with pytest.raises(Unanswered):
                async with asyncio.timeout(HANG_GUARD_S):
                    await transport.request("PutItem", {"TableName": TABLE, "Item": item})
    assert len(read) == 2


@TRANSPORTS
async def test_what_is_refused_for_load_was_not_done_and_may_be_tried_again(transport_name):
    async with Wire.open(transport_name) as wire:
        for code, prefix in itertools.product(THROTTLING, PREFIXES):
            wire.server.once(faults.saying(Answer.error(code, prefix=prefix)))
            with pytest.raises(Throttled, match=code):
                await wire.put()
            await wire.get()
        assert wire.server.connections == 1


@TRANSPORTS
async def test_what_the_service_says_of_credentials_is_one_clear_error(transport_name):
    async with Wire.open(transport_name) as wire:
        for code in CREDENTIALS:
            wire.server.once(faults.saying(Answer.error(code, prefix="com.amazon.coral.service#")))
            with pytest.raises(Invalid, match=rf"PutItem was refused: {code}.*credentials"):
                await wire.put()


@TRANSPORTS
async def test_a_refusal_that_is_for_good_is_mapped_and_its_connection_kept(transport_name):
    async with Wire.open(transport_name) as wire:
        for code, error in (
            ("ResourceNotFoundException", NotFound),
            ("ValidationException", Invalid),
            ("ItemCollectionSizeLimitExceededException", MangaCacheError),
            ("SomethingThatIsNotThoughtOfYet", MangaCacheError),
        ):
            wire.server.once(faults.saying(Answer.error(code)))
            with pytest.raises(error) as raised:
                await wire.put()
            assert not isinstance(raised.value, Transient)
            await wire.get()
        assert wire.server.connections == 1


@TRANSPORTS
async def test_a_condition_that_fails_brings_the_item_that_stood_there(transport_name):
    stood = {"PK": {"S": "x"}, "n": {"N": "12345678901234567890123456789012345678"}, "blob": {"B": "AP8="}}
    held = {**stood, "blob": {"B": b"\x00\xff"}}
    writes = {"TransactItems": [{"Put": {"TableName": TABLE, "Item": held}}] * 2}
    async with Wire.open(transport_name) as wire:
        wire.server.once(faults.saying(Answer.error("ConditionalCheckFailedException", Item=stood)))
        with pytest.raises(ConditionFailed) as raised:
            await wire.put()
        assert raised.value.item == held
        reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": stood}]
        canceled = Answer.error("TransactionCanceledException", CancellationReasons=reasons)
        wire.server.once(faults.saying(canceled))
        with pytest.raises(TransactionCanceled) as several:
            await wire.call("TransactWriteItems", writes)
        assert several.value.reasons == (("None", {}), ("ConditionalCheckFailed", held))
        reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
        canceled = Answer.error("TransactionCanceledException", CancellationReasons=reasons)
        wire.server.once(faults.saying(canceled))
        with pytest.raises(Throttled):
            await wire.call("TransactWriteItems", writes)
        await wire.get()


class Patient:
    """Requests with their retries, on a server whose faults outlast a time-out."""

    def __init__(self, transport, settings):
        self.telemetry = Telemetry()
        self._requests = Requests(
            transport, settings=settings, clock=SystemClock(), random=random.Random(1), telemetry=self.telemetry
        )

    async def get(self):
        key = {"PK": {"S": uuid4().hex}, "SK": {"S": "META"}}
        async with asyncio.timeout(HANG_GUARD_S):
            answer = await self._requests.send("GetItem", {"TableName": TABLE, "Key": key})
        assert answer.body["Item"] == key
        return answer

    @property
    def tries(self):
        return int(
            self.telemetry.registry.get_sample_value("mangacache_dynamodb_requests_total", {"operation": "GetItem"})
        )


@TRANSPORTS
@pytest.mark.parametrize("fault", faults.TOO_LATE)
async def test_what_comes_too_late_is_given_up_in_time_and_is_nobody_elses_answer(transport_name, fault):
    async with ToxicServer.open(echo) as server:
        settings = _settings(transport_name, server.url, request_timeout_s=0.2)
        async with open_transport(settings) as transport:
            patient = Patient(transport, settings)
            hasty = Patient(transport, settings.replace(request_deadline_s=0.6))
            await patient.get()
            server.once(faults.TOO_LATE[fault])
            assert (await patient.get()).in_doubt
            server.plan = lambda _received, _noise: faults.TOO_LATE[fault]
            with pytest.raises(Transient, match="whether it was done is unknown"):
                await hasty.get()
            server.plan = lambda _received, _noise: None
            for _ in range(10):
                await patient.get()
            assert 2 < len(server.received) <= patient.tries + hasty.tries
