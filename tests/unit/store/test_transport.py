"""Foreign errors are mapped once: what is definite, what is open, what was never done, what is refused for good."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiohttp import ClientConnectorError
from botocore import exceptions as foreign

from mangacache import Invalid, MangaCacheError, NotFound
from mangacache.store.transport import AioTransport, ConditionFailed, Throttled, TransactionCanceled, Unanswered

NO_ROUTE = ClientConnectorError(SimpleNamespace(host="x", port=1, ssl=False), OSError(111, "refused"))


class Client:
    """A client whose every call ends the same way."""

    def __init__(self, end):
        self.end = end
        self.calls = []

    def __getattr__(self, name):
        async def call(**parameters):
            self.calls.append((name, parameters))
            if isinstance(self.end, BaseException):
                raise self.end
            return self.end

        return call


def refused(code, *, status=400, message="why", **more):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return foreign.ClientError(response, "PutItem")


async def mapped(error, operation="PutItem"):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is mapped to is what is asked
        await AioTransport(Client(error)).request(operation, {})
    assert caught.value.__cause__ is error
    return caught.value


async def test_an_operation_is_the_clients_method_of_that_name():
    client = Client({"Item": {}})
    transport = AioTransport(client)
    assert await transport.request("GetItem", {"Key": 1}) == {"Item": {}}
    await transport.request("TransactWriteItems", {})
    await transport.request("DescribeTimeToLive", {})
    assert client.calls == [("get_item", {"Key": 1}), ("transact_write_items", {}), ("describe_time_to_live", {})]


async def test_a_failed_condition_brings_the_item_that_stood_there():
    error = await mapped(refused("ConditionalCheckFailedException", Item={"PK": {"S": "a"}}))
    assert isinstance(error, ConditionFailed)
    assert error.item == {"PK": {"S": "a"}}
    assert (await mapped(refused("ConditionalCheckFailedException"))).item == {}


async def test_a_cancelled_transaction_says_why_place_by_place():
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"PK": {"S": "a"}}}, {}]
    error = await mapped(refused("TransactionCanceledException", CancellationReasons=reasons))
    assert isinstance(error, TransactionCanceled)
    assert error.reasons == (("None", {}), ("ConditionalCheckFailed", {"PK": {"S": "a"}}), ("None", {}))


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
async def test_a_transaction_cancelled_for_load_or_a_conflict_is_to_be_tried_again(code):
    reasons = [{"Code": "None"}, {"Code": code}]
    error = await mapped(refused("TransactionCanceledException", CancellationReasons=reasons))
    assert isinstance(error, Throttled), "a conflict is no collision"


async def test_a_failed_condition_goes_before_a_conflict_in_the_same_transaction():
    reasons = [{"Code": "TransactionConflict"}, {"Code": "ConditionalCheckFailed"}]
    assert isinstance(
        await mapped(refused("TransactionCanceledException", CancellationReasons=reasons)), TransactionCanceled
    )


@pytest.mark.parametrize("reasons", [[{"Code": "ValidationError"}], [{"Code": "None"}], None])
async def test_a_transaction_cancelled_for_something_else_is_refused_for_good(reasons):
    assert isinstance(await mapped(refused("TransactionCanceledException", CancellationReasons=reasons)), Invalid)


@pytest.mark.parametrize(
    "code",
    [
        *("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "Throttling"),
        *("TransactionConflictException", "TransactionInProgressException", "LimitExceededException"),
    ],
)
@pytest.mark.parametrize("status", [400, 503])
async def test_what_was_refused_for_load_was_not_done(code, status):
    assert isinstance(await mapped(refused(code, status=status)), Throttled)


@pytest.mark.parametrize(
    "error",
    [
        refused("InternalServerError", status=500),
        refused("ServiceUnavailable", status=503),
        refused("InternalServerError"),
        refused("", status=502),
        foreign.ReadTimeoutError(endpoint_url="http://x"),
        foreign.ConnectionClosedError(endpoint_url="http://x"),
        foreign.HTTPClientError(error="broken"),
        ConnectionResetError("reset"),
        TimeoutError("late"),
        foreign.BotoCoreError(),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}",
)
async def test_what_leaves_the_outcome_open_may_have_been_done(error):
    error = await mapped(error)
    assert isinstance(error, Unanswered)
    assert error.sent


@pytest.mark.parametrize(
    "error",
    [
        foreign.ConnectTimeoutError(endpoint_url="http://x"),
        foreign.EndpointConnectionError(endpoint_url="http://x", error=NO_ROUTE),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_never_reached_the_server_was_not_done(error):
    error = await mapped(error)
    assert isinstance(error, Unanswered)
    assert not error.sent


@pytest.mark.parametrize(
    "code",
    [
        *("UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "AccessDeniedException"),
        *("MissingAuthenticationTokenException", "IncompleteSignatureException", "InvalidClientTokenId"),
    ],
)
async def test_refused_credentials_say_so(code):
    error = await mapped(refused(code))
    assert isinstance(error, Invalid)
    assert f"PutItem was refused: {code}: why. Check the credentials" in str(error)


@pytest.mark.parametrize(
    "error",
    [foreign.NoCredentialsError(), foreign.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY")],
    ids=lambda error: type(error).__name__,
)
async def test_missing_credentials_say_where_to_get_them(error):
    error = await mapped(error)
    assert isinstance(error, Invalid)
    assert str(error).startswith("no AWS credentials were found")


async def test_a_missing_table_says_how_to_make_it():
    error = await mapped(refused("ResourceNotFoundException"))
    assert isinstance(error, NotFound)
    assert "run `mangacache tables create`" in str(error)


@pytest.mark.parametrize("error", [refused("ValidationException"), foreign.ParamValidationError(report="PK missing")])
async def test_what_dynamodb_or_its_client_calls_invalid_is_invalid(error):
    assert isinstance(await mapped(error), Invalid)


async def test_a_refusal_that_nobody_knows_is_ours_and_says_all_there_is():
    error = await mapped(refused("FeatureOfTheFutureException"))
    assert type(error) is MangaCacheError
    assert str(error) == "PutItem failed: FeatureOfTheFutureException: why"


async def test_a_fault_of_our_own_is_not_dressed_up():
    with pytest.raises(ZeroDivisionError):
        await AioTransport(Client(ZeroDivisionError())).request("PutItem", {})
