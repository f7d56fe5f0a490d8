"""Every error as problem details (RFC 9457): what a client is told, by the kind of error it was."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from mangacache.errors import (
    Closed,
    Conflict,
    Corrupt,
    Invalid,
    MangaCacheError,
    NotFound,
    Rejected,
    Transient,
    VersionGone,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/problem+json"
TYPES: Final = "urn:mangacache:problem:"
"""What the kind of a problem follows in its `type`."""
_MOST_DETAIL: Final = 1_000
_CLOSED_RETRY_S: Final = 1.0
_FAILED: Final = "the worker failed at this request: its log says why, under the request id"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was not done, and why.

    Attributes:
        type: a URI whose last part names the kind; clients decide by it.
        title: the kind in words.
        status: of the answer.
        detail: what happened, to what, and what to do.
        instance: the path that was asked.
        retry_after_s: seconds to wait before the next try, where another try may help.
        request_id: by which the worker's log names the request.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    retry_after_s: float | None = None
    request_id: str | None = None


class HttpError(Invalid):
    """A request that is refused for what it is as HTTP, with the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Malformed(HttpError):
    """A request that cannot be read."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, message)


class PreconditionFailed(Conflict):
    """What `If-Match` names is not what is there; nothing was changed."""


class TimedOut(Transient):
    """The worker's own time for a request was over; an append or a change may have been made all the same."""


class _Kind(msgspec.Struct, frozen=True):
    status: int
    name: str
    title: str


# The first that fits counts, so a kind stands above the one that it is a kind of.
KINDS: Final[Mapping[type[Exception], _Kind]] = {
    PreconditionFailed: _Kind(412, "precondition-failed", "It is not what If-Match names"),
    VersionGone: _Kind(409, "version-gone", "The version is newer than what is stored"),
    Conflict: _Kind(409, "conflict", "Somebody else changed what this builds on"),
    Rejected: _Kind(429, "rejected", "A limit is reached"),
    Transient: _Kind(503, "transient", "It may succeed when tried again"),
    Closed: _Kind(503, "closed", "This worker is leaving"),
    Corrupt: _Kind(502, "corrupt", "What is stored cannot be read"),
    NotFound: _Kind(404, "not-found", "There is no such thing"),
    Invalid: _Kind(422, "invalid", "The request cannot be carried out as it is"),
}
# Python's own phrases are not the same in each of its versions.
_STATUSES: Final[Mapping[int, _Kind]] = {
    kind.status: kind
    for kind in (
        _Kind(400, "bad-request", "The request cannot be read"),
        _Kind(401, "unauthenticated", "There is no credential, or it is not good"),
        _Kind(403, "forbidden", "Who asks may not do this"),
        _Kind(404, "not-found", "There is no such path"),
        _Kind(405, "method-not-allowed", "This path does not take this method"),
        _Kind(408, "too-slow", "The body did not come in time"),
        _Kind(413, "too-large", "The body is too large"),
        _Kind(415, "unsupported-media-type", "The body is not application/json"),
    )
}
_INTERNAL: Final = _Kind(500, "internal", "The worker failed")
_encoder: Final = msgspec.json.Encoder()


def problem_of(error: BaseException, *, instance: str | None = None, request_id: str | None = None) -> Problem:
    """Return the problem that an error is; of one that should not happen, nothing but that is said."""
    return msgspec.structs.replace(_problem_of(error), instance=instance, request_id=request_id)


def _problem_of(error: BaseException) -> Problem:
    if isinstance(error, web.HTTPException):
        return _of_status(error.status, _words(error))
    if isinstance(error, HttpError):
        return _of_status(error.status, str(error))
    if isinstance(error, ClientPayloadError | HttpProcessingError | web.RequestPayloadError):
        return _of_status(HTTPStatus.BAD_REQUEST, "the body does not come as its headers say")
    kind = next((found for type_, found in KINDS.items() if isinstance(error, type_)), _INTERNAL)
    detail = str(error) if kind is not _INTERNAL else _FAILED
    return _problem(kind, detail, retry_after_s=_retry_after_s(error))


def response_of(problem: Problem, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the answer that tells of a problem; `Retry-After` is in whole seconds, never too early."""
    said = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", **(headers or {})}
    if problem.retry_after_s is not None:
        said["Retry-After"] = str(max(0, math.ceil(problem.retry_after_s)))
    return web.Response(status=problem.status, body=_encoder.encode(problem), headers=said)


def is_declared(error: BaseException) -> bool:
    """Tell whether an error is one that happens, and not a mistake in the worker."""
    return isinstance(error, MangaCacheError | web.HTTPException | ClientPayloadError | web.RequestPayloadError)


def _problem(kind: _Kind, detail: str, *, retry_after_s: float | None = None) -> Problem:
    return Problem(
        type=TYPES + kind.name,
        title=kind.title,
        status=kind.status,
        detail=detail[:_MOST_DETAIL],
        retry_after_s=retry_after_s,
    )


def _of_status(status: int, detail: str) -> Problem:
    kind = _STATUSES.get(status)
    if kind is None:
        phrase = HTTPStatus(status).phrase
        kind = _Kind(status, phrase.lower().replace(" ", "-").replace("'", ""), phrase)
    return _problem(kind, detail)


def _retry_after_s(error: BaseException) -> float | None:
    if isinstance(error, Transient | Rejected):
        return round(max(0.0, error.retry_after_s), 3)
    return _CLOSED_RETRY_S if isinstance(error, Closed) else None


def _words(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"this path takes {', '.join(sorted(error.allowed_methods))}"
    if isinstance(error, web.HTTPNotFound):
        return "there is no such path: /v1/openapi.json says which there are"
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"the body is too large: {error.text}"
    return error.text or error.reason
