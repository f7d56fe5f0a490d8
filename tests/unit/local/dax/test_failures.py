"""Refusals reach the real client as the errors it has for them, and never as bytes that crash it."""

from __future__ import annotations

import pytest
from amazondax.DaxError import DaxServiceError, is_retryable, is_retryable_with_backoff
from botocore.exceptions import ClientError
from daxwire import Wire, schema

from mangacache.local.dax.calls import Call
from mangacache.local.dax.failures import (
    Failure,
    failure_of,
    failure_of_response,
    reply_failure,
    unauthorized,
    unreachable,
)
from mangacache.local.dax.items import decode_values

CODES = {
    "ProvisionedThroughputExceededException": ("ProvisionedThroughputExceededException", (4, 37, 38, 39, 40)),
    "ResourceNotFoundException": ("ResourceNotFoundException", (4, 37, 38, 39, 41)),
    "ConditionalCheckFailedException": ("ConditionalCheckFailedException", (4, 37, 38, 39, 43)),
    "ResourceInUseException": ("ResourceInUseException", (4, 37, 38, 39, 45)),
    "ValidationException": ("ValidationException", (4, 37, 38, 39, 46)),
    "InternalServerError": ("InternalServerErrorException", (4, 37, 38, 39, 47)),
    "ItemCollectionSizeLimitExceededException": (
        "ItemCollectionSizeLimitExceededException",
        (4, 37, 38, 39, 48),
    ),
    "LimitExceededException": ("LimitExceededException", (4, 37, 38, 39, 49)),
    "ThrottlingException": ("ThrottlingException", (4, 37, 38, 39, 50)),
    "TransactionConflictException": ("TransactionConflictException", (4, 37, 38, 39, 57)),
    "TransactionCanceledException": ("TransactionCanceledException", (4, 37, 38, 39, 58)),
    "TransactionInProgressException": ("TransactionInProgressException", (4, 37, 38, 39, 59)),
    "IdempotentParameterMismatchException": ("IdempotentParameterMismatchException", (4, 37, 38, 39, 60)),
    "RequestLimitExceeded": ("RequestLimitExceededException", (4, 37, 38, 39, 61)),
    "AccessDeniedException": ("AccessDeniedException", (4, 37, 38, 42)),
    "SomethingNewException": ("SomethingNewException", (3, 37, 38, 39)),
}


def raised(failure):
    """Return what the real client raises."""
    wire = Wire({"t": schema(pk="S")})
    wire.answer = lambda _: failure
    with pytest.raises(DaxServiceError) as caught:
        wire.client().get_item(TableName="t", Key={"pk": {"S": "x"}})
    assert isinstance(caught.value, ClientError)
    return caught.value


@pytest.mark.parametrize("given", CODES)
def test_each_code_of_dynamodbs_has_its_name_and_its_path(given):
    name, codes = CODES[given]
    error = raised(failure_of(given, "why: é", status=418, request_id="r-1"))
    assert error.response == {
        "Error": {"Code": name, "Message": "why: é"},
        "ResponseMetadata": {"RequestId": "r-1", "HTTPStatusCode": 418},
    }
    assert tuple(error.codes) == codes
    assert error.cancellation_reasons is None


def test_no_path_is_the_beginning_of_one_that_the_client_knows():
    """Such a path makes the client raise TypeError."""
    known = [codes for _, codes in CODES.values()] + [(4, 23, 24), (4, 23, 35), (4, 37, 38, 44)]
    ours = [failure_of(code, "").codes for code in [*CODES, ""]] + [unreachable("").codes, unauthorized("").codes]
    for codes in ours:
        assert not any(len(codes) < len(path) and path[: len(codes)] == codes for path in known)
        assert codes != (4, 37, 38, 44), "the client makes a tuple of it"


def test_what_is_throttled_is_tried_again_after_a_pause_and_what_is_unknown_is_not():
    assert is_retryable_with_backoff(raised(failure_of("ThrottlingException", "slow down")))
    assert is_retryable(raised(failure_of("ConditionalCheckFailedException", "no")))
    assert not is_retryable(raised(failure_of("SomethingNewException", "what")))


def test_a_server_without_an_answer_says_so():
    error = raised(unreachable("DynamoDB did not answer"))
    assert error.codes == [3, 37, 54]
    assert error.response["Error"]["Code"] == "InternalServerErrorException"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert is_retryable(error)


def test_a_wrong_signature_is_an_error_of_authentication():
    error = raised(unauthorized("who are you"))
    assert error.auth_error
    assert error.response["Error"] == {"Code": "UnrecognizedClientException", "Message": "who are you"}


def test_a_refusal_may_say_nothing_but_its_path():
    error = raised(Failure(codes=(3, 1), message=""))
    assert error.response == {}
    assert reply_failure(Failure(codes=(3, 1), message="")).hex() == "820301 60 83f6f6f6".replace(" ", "")


WRITES = [{"Put": {"TableName": "t"}}, {"Delete": {"TableName": "u"}}, {"Update": {"TableName": "t"}}]


def test_a_cancelled_transaction_gives_the_reason_of_each_operation():
    response = {
        "Error": {"Code": "TransactionCanceledException", "Message": "cancelled"},
        "CancellationReasons": [
            {"Code": "None"},
            {"Code": "ConditionalCheckFailed", "Message": "failed", "Item": {"h": {"N": "1"}, "a": {"S": "x"}}},
            {"Code": "ConditionalCheckFailed", "Message": "failed", "Item": {"pk": {"S": "k"}}},
        ],
        "ResponseMetadata": {"HTTPStatusCode": 400, "RequestId": "r"},
    }
    schemas = {"t": schema(pk="S"), "u": schema(h="N")}
    call = Call("TransactWriteItems", {"TransactItems": WRITES}, {})
    error = raised(failure_of_response(response, call, schemas.__getitem__, lambda _: 9))
    assert error.code == "TransactionCanceledException"
    reasons = error.cancellation_reasons
    assert [reasons[start : start + 2] for start in (0, 3, 6)] == [
        ["None", None],
        ["ConditionalCheckFailed", "failed"],
        ["ConditionalCheckFailed", "failed"],
    ]
    assert reasons[2] is None
    assert decode_values(reasons[5], {9: ("a",)}.__getitem__) == {"a": {"S": "x"}}
    assert decode_values(reasons[8], {}.__getitem__) == {}, "an item of its key alone is there, and empty"


def test_a_refusal_of_botocores_is_taken_as_it_is():
    response = {
        "Error": {"Code": "ValidationException", "Message": "wrong"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    failure = failure_of_response(response, Call("GetItem", {}, {}), {}.__getitem__, len)
    assert failure == failure_of("ValidationException", "wrong")
    assert failure_of_response({}, Call("GetItem", {}, {}), {}.__getitem__, len).codes == (3, 37, 38, 39)
