"""One request as a route sees it, and what a route says about itself: the table that routing and OpenAPI share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web

from mangacache.model import checked_id
from mangacache.store.append import AnotherCustomers
from mangacache.worker.bodies import body_of, decoded, exactly, parameters
from mangacache.worker.caller import Forbidden
from mangacache.worker.keys import CACHE, CALLER, DEADLINES, SETTINGS
from mangacache.worker.problems import Malformed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mangacache import MangaCache
    from mangacache.model import Context
    from mangacache.sessions import Session
    from mangacache.worker.caller import Caller, Scope

Query = TypeVar("Query")
Body = TypeVar("Body")

PATH: Final = "/v1/sessions/{session_id:[^/]+}"
CUSTOMER_ID: Final = "Customer-Id"
NOT_YOURS: Final = "this session may not be opened with this credential"
_JSON: Final = "application/json"
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query or a body in which nothing may stand."""


_NOTHING: Final = Nothing()


class Ask(Generic[Query, Body]):
    """One request.

    Attributes:
        request: as it came.
        query: its parameters.
        body: what it says; None where it has none.
        cache: the instance.
    """

    __slots__ = ("body", "cache", "query", "request")

    def __init__(self, request: web.Request, query: Query, body: Body) -> None:
        self.request = request
        self.query = query
        self.body = body
        self.cache: MangaCache = request.app[CACHE]

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self.request[CALLER]

    def name(self, part: str) -> str:
        """Return a part of the path, an id."""
        path = self.request.rel_url.raw_path
        return self.request.match_info[part] if path.isascii() and "%" not in path else self._unescaped(part)

    def _unescaped(self, part: str) -> str:
        """Return a percent-encoded part of the path; what is no UTF-8 is nobody's id."""
        resource = self.request.match_info.route.resource
        pattern = resource.canonical if resource is not None else ""
        place = pattern.split("/").index(f"{{{part}}}")
        raw = self.request.rel_url.raw_path.split("/")[place]
        try:
            return _unescaped(raw)
        except UnicodeDecodeError as error:
            raise Malformed(f"the path's {part} is no UTF-8 when it is percent-decoded") from error

    def header(self, name: str) -> str | None:
        """Return a header that says one thing.

        Raises:
            Malformed: it is given twice: which of the two would count is anybody's guess.
        """
        given = self.request.headers.getall(name, ())
        if len(given) > 1:
            raise Malformed(f"the header {name} is given twice")
        return given[0] if given else None

    def listed(self, name: str) -> str | None:
        """Return a header whose value is a list, which may come in several lines (RFC 9110, section 5.3)."""
        given = self.request.headers.getall(name, ())
        return ", ".join(given) if given else None

    @property
    def customer_id(self) -> str | None:
        """Whose session it is, as far as the caller may say so.

        Raises:
            Malformed: `Customer-Id` is not percent-encoded UTF-8, or given twice.
            Forbidden: the caller's credential is another customer's.
        """
        said = self.header(CUSTOMER_ID)
        return self.caller.customer(_header_id(said) if said is not None else None)

    def session(self) -> Session:
        """Return the handle on the session that the path names."""
        return self.cache.session(self.name("session_id"), customer_id=self.customer_id)

    async def owned(self) -> Session:
        """Return that handle, once it is sure that a customer's own token asks for a session of that customer's.

        It is for calls that refuse by themselves a session of another customer than the handle's; see `looked_at`.
        """
        return await self.looked_at() if self.caller.customer_id is not None else self.session()

    async def looked_at(self) -> Session:
        """Return that handle, once it is sure that the session is no other customer's than whom the request names."""
        session = self.session()
        if session.customer_id is not None:
            self.check_owner(await session.context(turns=1))
        return session

    def check_owner(self, context: Context) -> None:
        """Refuse a session that is nobody's to a customer's token: another's is refused by the library already.

        Raises:
            Forbidden: it is not this customer's.
        """
        mine = self.caller.customer_id
        if mine is not None and context.meta is not None and context.meta.customer_id != mine:
            raise Forbidden(NOT_YOURS)

    def customer(self) -> str:
        """Return the customer that the path names, where the caller may ask about it."""
        given = checked_id(self.name("customer_id"), what="customer id")
        return self.caller.customer(given) or given


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a route says about itself.

    Attributes:
        method, path: of the requests that it takes.
        summary: what it does, in a line.
        scope: what a caller needs.
        query, body: what it takes.
        answers: what it answers with by status: a struct, or None for nothing.
        headers: further headers that it takes, with what they are for.
        needs_body: whether it does nothing without a body.
        timeout_s: how long it may take; None is `worker_request_timeout_s`.
    """

    method: str
    path: str
    summary: str
    scope: Scope | None
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | None = None
    answers: Mapping[int, type[msgspec.Struct] | None]
    headers: Mapping[str, str] = field(default_factory=dict)
    needs_body: bool = True
    timeout_s: float | None = None


OPERATION: Final = "operation"
"""The name under which a route's handler carries its `Operation`."""


def route(operation: Operation, does: Callable[[Ask[Any, Any]], Awaitable[web.StreamResponse]]) -> web.RouteDef:
    """Return the route of an operation: the caller's right first, then the query, then the body."""
    scope, query, needs_body = operation.scope, operation.query, operation.needs_body
    no_query = query() if query is Nothing else _default(query)
    body_decoder = msgspec.json.Decoder(operation.body, float_hook=exactly) if operation.body is not None else None

    async def handle(request: web.Request) -> web.StreamResponse:
        if scope is not None:
            request[CALLER].require(scope)
        asked = parameters(request, query, no_query)
        body = None
        if body_decoder is not None:
            raw = await _received(request)
            if raw or needs_body:
                body = decoded(raw, body_decoder)
        elif request.body_exists and await _received(request):
            raise Malformed("this takes no body")
        try:
            return await does(Ask(request, asked, body))
        except AnotherCustomers as error:
            if request[CALLER].customer_id is None:
                raise
            raise Forbidden(NOT_YOURS) from error

    setattr(handle, OPERATION, operation)
    return web.RouteDef(operation.method, operation.path, handle, {})  # where GET is taken, aiohttp takes HEAD as well


async def _received(request: web.Request) -> bytes:
    settings = request.app[SETTINGS]
    if request.content.is_eof():  # it came with its headers, as small ones do
        return await body_of(request, most_bytes=settings.worker_max_body_bytes)
    with request.app[DEADLINES].within(settings.worker_receive_timeout_s):
        return await body_of(request, most_bytes=settings.worker_max_body_bytes)


def answer(value: msgspec.Struct, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the answer that says something."""
    said = {"Content-Type": _JSON} if headers is None else {"Content-Type": _JSON, **headers}
    return web.Response(status=status, body=_encoder.encode(value), headers=said)


def _default(query: type[msgspec.Struct]) -> Any:
    """Return what no query at all says."""
    return msgspec.convert({}, query)


def _header_id(said: str) -> str:
    try:
        return _unescaped(said)
    except UnicodeDecodeError as error:
        raise Malformed(f"{CUSTOMER_ID} is no UTF-8 when it is percent-decoded") from error


def _unescaped(text: str) -> str:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
