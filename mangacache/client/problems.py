"""Problem details (RFC 9457) become the one tree of errors again, as the library would have raised them."""

from __future__ import annotations

from typing import Final

import msgspec

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


class Refused(Invalid):
    """The worker does not know the credential, or the credential may not do this (401, 403); nothing was done."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of a request that it did not do, or does not know to have done.

    Attributes:
        type: a URI reference whose last part names the kind of problem.
        status: of the HTTP answer.
        detail: what happened, to what, and what to do.
        retry_after_s: seconds to wait before the next try.
        request_id: by which the worker's log names the request.
    """

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    retry_after_s: float | None = None
    request_id: str | None = None


_BY_TYPE: Final[dict[str, type[MangaCacheError]]] = {
    "transient": Transient,
    "rejected": Rejected,
    "conflict": Conflict,
    "versiongone": VersionGone,
    "invalid": Invalid,
    "notfound": NotFound,
    "closed": Closed,
    "corrupt": Corrupt,
    "unauthenticated": Refused,
    "forbidden": Refused,
}
_BY_STATUS: Final[dict[int, type[MangaCacheError]]] = {
    401: Refused,
    403: Refused,
    404: NotFound,
    408: Transient,
    409: Conflict,
    412: Conflict,
    429: Rejected,
    500: Transient,
    502: Transient,
    503: Transient,
    504: Transient,
}
_decoder: Final = msgspec.json.Decoder(Problem)


def read_problem(status: int, body: bytes, *, retry_after: str | None = None) -> Problem:
    """Return the problem of an answer; what stands between client and worker may have given it, so any body will do."""
    try:
        problem = _decoder.decode(body)
    except msgspec.MsgspecError:
        problem = Problem(detail=f"HTTP {status} without problem details")
    after_s = problem.retry_after_s
    if after_s is None and retry_after is not None and retry_after.isdecimal():
        after_s = float(retry_after)
    return msgspec.structs.replace(problem, status=status or problem.status, retry_after_s=after_s)


def error_of(problem: Problem) -> MangaCacheError:
    """Return the error that a problem stands for: by its type, and where that says nothing by its status."""
    name = problem.type.rstrip("/").rpartition("/")[2].rpartition(":")[2].rpartition("#")[2]
    kind = _BY_TYPE.get(name.lower().replace("-", "").replace("_", ""))
    if kind is None:
        kind = _BY_STATUS.get(problem.status, Invalid)
    text = problem.detail or problem.title or f"HTTP {problem.status}"
    if problem.request_id is not None:
        text = f"{text} (request {problem.request_id})"
    if issubclass(kind, Transient | Rejected):
        return kind(text, retry_after_s=problem.retry_after_s if problem.retry_after_s is not None else 1.0)
    return kind(text)
