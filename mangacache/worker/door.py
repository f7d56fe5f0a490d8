"""The rings around every route, in one: request id, problem details, time-out, who may."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from mangacache.clock import random_id
from mangacache.worker.asking import OPERATION
from mangacache.worker.keys import CALLER, REQUEST_ID
from mangacache.worker.problems import HttpError, TimedOut, is_declared, problem_of, response_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from mangacache.clock import Random
    from mangacache.telemetry import Telemetry
    from mangacache.worker.auth.gate import Gate
    from mangacache.worker.deadlines import Deadlines

REQUEST_ID_HEADER: Final = "X-Request-Id"
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/v1/ws", "/v1/openapi.json"})
"""Answered without a credential: health, the document, and the socket, which asks for its own."""
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_REQUEST_TIMEOUT: Final = 408


class Door:
    """Lets requests in to one application, and turns whatever is raised inside into problem details.

    Args:
        gate: who may.
        deadlines: how long a request may take.
        timeout_s: that of a route that says nothing else.
        random: for the ids of requests that bring none.
        telemetry: where what should not happen is logged.
    """

    def __init__(
        self, gate: Gate, deadlines: Deadlines, *, timeout_s: float, random: Random, telemetry: Telemetry
    ) -> None:
        self._gate = gate
        self._deadlines = deadlines
        self._timeout_s = timeout_s
        self._random = random
        self._telemetry = telemetry

    @property
    def middleware(self) -> Middleware:
        """The ring, for an application."""

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._around(request, handler)

        return around

    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(REQUEST_ID_HEADER)
        request_id = given if given is not None and _SANE.fullmatch(given) else random_id(self._random)
        request[REQUEST_ID] = request_id
        try:
            response = await self._let_in(request, handler)
        except Exception as error:  # noqa: BLE001 - each is an answer, and what should not happen is logged as that
            response = self._refused(request, request_id, error)
        if not response.prepared:
            response.headers[REQUEST_ID_HEADER] = request_id
        return response

    async def _let_in(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS:
            return await handler(request)
        operation = getattr(request.match_info.handler, OPERATION, None)
        timeout_s = self._timeout_s if operation is None or operation.timeout_s is None else operation.timeout_s
        try:
            with self._deadlines.within(timeout_s):
                request[CALLER] = await self._gate.authenticate(request.headers, request.remote)
                return await handler(request)
        except TimeoutError as error:
            if request.content.is_eof():
                raise TimedOut(
                    f"there was no answer within {timeout_s:g} s; whether it was done is unknown: ask again with the"
                    " same turn_id or arguments"
                ) from error
            raise HttpError(_REQUEST_TIMEOUT, f"the body did not come within {timeout_s:g} s") from error

    def _refused(self, request: web.Request, request_id: str, error: Exception) -> web.Response:
        problem = problem_of(error, instance=request.rel_url.raw_path, request_id=request_id)
        if not is_declared(error):
            self._telemetry.count_survived("request_failed", error, request_id=request_id)
        response = response_of(problem, headers=_kept(error))
        if not request.content.is_eof():
            response.force_close()  # the rest of the body is nobody's
        return response


def _kept(error: Exception) -> dict[str, str]:
    """Return the headers of an error that say something: which methods, which credentials."""
    headers = getattr(error, "headers", None) or {}
    return {name: headers[name] for name in ("Allow", "WWW-Authenticate") if name in headers}
