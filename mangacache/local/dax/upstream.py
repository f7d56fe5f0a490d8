"""The way to DynamoDB: the package's own signed HTTP, for every operation that a node asks.

The AWS client would cost 0.7 ms of processor time a request, more than everything else that a node does for it.
"""

from __future__ import annotations

import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
from aiobotocore.session import get_session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.store.direct.credentials import Keyring
from mangacache.store.direct.endpoint import Endpoint, parse_endpoint
from mangacache.store.direct.pool import Pool
from mangacache.store.direct.wire import OPERATIONS, Capacity, Item, Operation, check_sum
from mangacache.store.transport import Throttled, Unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from mangacache.clock import Clock
    from mangacache.store.direct.answers import Answer

DEFAULT_REGION: Final = "us-east-1"
_CONNECTIONS: Final = 128
_CONNECT_TIMEOUT_S: Final = 3.0
_TIMEOUT_S: Final = 30.0
_OK: Final = 200
_SAID: Final = 120
_PROBE: Final = "mangacache-dax-emulator-probe"
_READS: Final = frozenset({"GetItem", "BatchGetItem", "Query", "Scan", "TransactGetItems", "DescribeTable"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Scanned(TypedDict, total=False):
    Items: list[Item]
    Count: int
    ScannedCount: int
    LastEvaluatedKey: Item
    ConsumedCapacity: Capacity


class _Response(TypedDict, total=False):
    Item: Item


class _TransactGot(TypedDict, total=False):
    Responses: list[_Response]
    ConsumedCapacity: list[Capacity]


class _Reason(TypedDict, total=False):
    Code: str | None
    Message: str | None
    Item: Item | None


class _Refusal(msgspec.Struct):
    type_: str = msgspec.field(name="__type", default="")
    message: str | None = None
    other_message: str | None = msgspec.field(name="Message", default=None)
    reasons: list[_Reason] | None = msgspec.field(name="CancellationReasons", default=None)


_OPERATIONS: Final = OPERATIONS | {
    "DescribeTable": Operation("DescribeTable", dict[str, Any]),
    "Scan": Operation("Scan", _Scanned),
    "TransactGetItems": Operation("TransactGetItems", _TransactGot),
}
_decode_refusal: Final = msgspec.json.Decoder(_Refusal).decode


class Upstream:
    """Asks DynamoDB; made by `open_upstream`.

    Args:
        url: for messages.
        pool: of connections.
        keyring: the credential in use.
        clock: the wall clock, by which requests are signed.
    """

    def __init__(self, url: str, pool: Pool, keyring: Keyring, clock: Clock) -> None:
        self.url = url
        self._pool = pool
        self._keyring = keyring
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Upstream {self.url}, {self._pool!r}>"

    async def ask(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer, in the form of the AWS client's.

        A read that was not answered is sent once more, and so is a write that did not go out.

        Raises:
            ClientError: DynamoDB refused.
            ConnectionError: it did not answer; a write may or may not be done.
        """
        kind = _OPERATIONS[operation]
        body = kind.body(parameters)
        try:
            answer = await self._exchange(kind, body)
        except Unanswered as error:
            if error.sent and operation not in _READS:
                raise ConnectionError(str(error)) from error
            try:
                answer = await self._exchange(kind, body)
            except Unanswered as again:
                raise ConnectionError(str(again)) from again
        if answer.status == _OK:
            try:
                return kind.answer(answer)
            except Unanswered as error:
                raise ConnectionError(str(error)) from error
        raise refusal(operation, answer)

    async def _exchange(self, kind: Operation, body: bytes) -> Answer:
        now_s = self._clock.time_s()
        signer = self._keyring.current(now_s) or await self._keyring.renewed()
        try:
            return await self._pool.exchange(signer.signed(kind.target, body, now_s))
        except Throttled as error:
            raise Unanswered(str(error), sent=False) from error

    async def check(self) -> None:
        """Have somebody there who speaks DynamoDB's protocol.

        Raises:
            Invalid: nobody is there, or it is something else.
        """
        try:
            await self.ask("DescribeTable", {"TableName": _PROBE})
        except ClientError as error:
            if error.response["Error"]["Code"].isdigit():
                raise Invalid(
                    f"what answers at {self.url} is not DynamoDB: it said {error.response['Error']['Code']} "
                    f"{error.response['Error']['Message']!r}: name DynamoDB's endpoint"
                ) from error
        except ConnectionError as error:
            raise Invalid(f"DynamoDB at {self.url} does not answer ({error}): start it, or name another") from error


def refusal(operation: str, answer: Answer) -> ClientError:
    """Return what an answer of another status than 200 says.

    Raises:
        ConnectionError: its bytes have come to harm.
    """
    try:
        check_sum(answer)
        said = _decode_refusal(answer.body)
    except Unanswered as error:
        raise ConnectionError(str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = _Refusal(message=answer.body[:_SAID].decode(errors="replace"))
    code = said.type_.split(":", 1)[0].rpartition("#")[2] or str(answer.status)
    response: Any = {
        "Error": {"Code": code, "Message": said.message or said.other_message or ""},
        "ResponseMetadata": {"HTTPStatusCode": answer.status},
    }
    if said.reasons is not None:
        response["CancellationReasons"] = said.reasons
    return ClientError(response, operation)


@asynccontextmanager
async def open_upstream(
    url: str | None,
    *,
    region: str | None = None,
    credentials: tuple[str, str] | None = None,
    on_failure: Callable[[str, BaseException], None],
) -> AsyncIterator[Upstream]:
    """Open the way to DynamoDB.

    Args:
        url: DynamoDB's endpoint; None for AWS's own in `region`.
        region: by default what AWS_REGION or AWS_DEFAULT_REGION says, else us-east-1.
        credentials: access key and secret; by default what the AWS tools would find. Where they find none, an endpoint
            on this machine is asked with made-up ones.
        on_failure: hears of what is survived.

    Raises:
        Invalid: an address that is none, no credentials, or no DynamoDB there.
    """
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    url = url or f"https://dynamodb.{region}.amazonaws.com"
    endpoint = _endpoint(url, region)
    clock = SystemClock()
    pool = Pool(
        endpoint,
        tls=_tls() if endpoint.tls else None,
        limit=_CONNECTIONS,
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        timeout_s=_TIMEOUT_S,
        clock=clock,
        on_failure=on_failure,
    )
    found = _Fixed(credentials) if credentials is not None else await _found(endpoint)
    keyring = Keyring(found, endpoint=endpoint, clock=clock, random=system_random(), on_failure=on_failure)
    try:
        await keyring.renewed()
        upstream = Upstream(url, pool, keyring, clock)
        await upstream.check()
        yield upstream
    finally:
        await keyring.close()
        await pool.close()


class _Fixed:
    """Credentials that do not change, with the one method that is asked of a session's."""

    def __init__(self, pair: tuple[str, str]) -> None:
        self._frozen = ReadOnlyCredentials(*pair, None)

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return self._frozen


async def _found(endpoint: Endpoint) -> Any:
    try:
        credentials = await get_session().get_credentials()
    except BotoCoreError as error:
        raise Invalid(f"the AWS credentials could not be had: {error}") from error
    if credentials is not None:
        return credentials
    if endpoint.name in _LOOPBACK:
        return _Fixed(("local", "local"))
    raise Invalid(
        f"no AWS credentials were found for DynamoDB at {endpoint}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or give the task a role"
    )


def _endpoint(url: str, region: str) -> Endpoint:
    try:
        endpoint = parse_endpoint(url, region)
    except ValueError:
        endpoint = None
    if endpoint is None:
        raise Invalid(f"{url!r} is no endpoint of DynamoDB: write it like http://127.0.0.1:8000")
    return endpoint


def _tls() -> ssl.SSLContext:
    path = os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True)
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} cannot be used as a file of certificates ({error})") from error
