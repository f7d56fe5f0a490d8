"""The server under the application: what cannot be read as HTTP gets problem details too, and slow headers end.

aiohttp answers what its parser refuses before any application sees it, and bounds how long a connection may be idle,
not how long a request's headers may trickle in. Both belong to the connection, so this is one of aiohttp's with
those two things changed.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mangacache.clock import random_id, system_random
from mangacache.tasks import TaskOwner
from mangacache.worker.door import REQUEST_ID_HEADER
from mangacache.worker.problems import HttpError, Malformed, TimedOut, problem_of, response_of

if TYPE_CHECKING:
    from aiohttp.web_protocol import _RequestHandler
    from aiohttp.web_request import BaseRequest

    from mangacache.clock import Clock
    from mangacache.telemetry import Telemetry

KEEPALIVE_S: Final = 75.0
"""Longer than load balancers keep idle connections (60 s), so that they never send into one that is being closed."""
_CONTINUE: Final = "100-continue"
_LINGER_S: Final = 1.0
"""How long the rest of a refused body is read, so that its sender sees the answer and no reset."""
LOOK_EVERY_S: Final = 1.0
_random: Final = system_random()


class Connection(RequestHandler):
    """One connection.

    Attributes:
        waiting_since_s: since when headers have been coming that are not whole yet; None where none are.
    """

    __slots__ = ("_clock", "waiting_since_s")

    def __init__(self, *arguments: Any, clock: Clock, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._clock = clock
        self.waiting_since_s: float | None = None

    def data_received(self, data: bytes) -> None:
        """Take in what came; see `waiting_since_s`."""
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done() or self._messages:
            self.waiting_since_s = None
        elif self.waiting_since_s is None:
            self.waiting_since_s = self._clock.monotonic_s()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's; it repeats what was sent
    ) -> web.StreamResponse:
        """Return problem details for what is no HTTP, or where the application itself failed."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already: a second one would be read as a part of it")
        error: BaseException | None = exc
        if status == HTTPStatus.BAD_REQUEST:
            error = Malformed("this cannot be read as HTTP")
        elif status == HTTPStatus.GATEWAY_TIMEOUT:
            error = TimedOut("there was no answer in time; whether it was done is unknown")
        elif error is None:
            error = HttpError(status, HTTPStatus(status).phrase)
        request_id = random_id(_random)
        response = response_of(problem_of(error, request_id=request_id), headers={REQUEST_ID_HEADER: request_id})
        response.force_close()
        return response


def _told(handler: _RequestHandler) -> _RequestHandler:
    """Return a handler that answers with problems too where aiohttp looks before any ring: at `Expect`.

    Its own refusal repeats what it does not know, and fails where that is no UTF-8.
    """

    async def handle(request: BaseRequest) -> web.StreamResponse:
        try:
            if request.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:
                raise HttpError(HTTPStatus.EXPECTATION_FAILED, "nothing else than 100-continue can be expected here")
            return await handler(request)
        except (web.HTTPException, HttpError) as error:
            request_id = random_id(_random)
            problem = problem_of(error, instance=request.rel_url.raw_path, request_id=request_id)
            response = response_of(problem, headers={REQUEST_ID_HEADER: request_id})
            response.force_close()
            return response

    return handle


class _Server(web.Server):
    """Makes such connections."""

    def __init__(self, *arguments: Any, clock: Clock, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._clock = clock

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, clock=self._clock, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on such connections.

    Args:
        app: what answers.
        receive_timeout_s: how long the headers of a request may take to come.
        clock: by which that is measured.
        telemetry: where a look that failed is counted.
        shutdown_timeout_s: how long what is under way may go on when it is closed.
    """

    __slots__ = ("_clock", "_receive_timeout_s", "_tasks")

    def __init__(
        self,
        app: web.Application,
        *,
        receive_timeout_s: float,
        clock: Clock,
        telemetry: Telemetry,
        shutdown_timeout_s: float,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=shutdown_timeout_s,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=_LINGER_S,
        )
        self._receive_timeout_s = receive_timeout_s
        self._clock = clock
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            _told(made.request_handler),
            request_factory=made.request_factory,
            clock=self._clock,
            **made._kwargs,  # noqa: SLF001
        )
        self._tasks.start(self._look(server), name="look for headers that are late")
        return server

    async def _look(self, server: web.Server) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            late_s = self._clock.monotonic_s() - self._receive_timeout_s
            for each in server.connections:
                if isinstance(each, Connection) and each.waiting_since_s is not None and each.waiting_since_s <= late_s:
                    each.force_close()

    async def cleanup(self) -> None:
        """See `web.AppRunner`."""
        await self._tasks.cancel()
        await super().cleanup()
