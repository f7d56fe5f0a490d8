"""One call over HTTP: sent to a worker, and again, to this or another one, as `Attempts` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
from yarl import URL

from mangacache.client.attempts import Attempts
from mangacache.client.problems import error_of, read_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.client.attempts import Patience, Workers
    from mangacache.clock import Clock, Random

_FAILED_FROM: Final = 400


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a worker.

    Attributes:
        method, path: of the request; the path is percent-encoded.
        key: whom it is about: a session's or a customer's id; it decides which worker is asked first.
        query: parameters, None where one is left out.
        headers: besides the credential.
        body: to be sent as JSON; None for none.
        again: what is sent instead once an attempt may have been done.
        repeatable: whether it may be done twice.
    """

    method: str
    path: str
    key: str
    query: dict[str, str | int | float | None] = {}
    headers: dict[str, str] = {}
    body: Any = None
    again: Any = None
    repeatable: bool = True


class Answer(msgspec.Struct, frozen=True):
    """What a worker answered.

    Attributes:
        worker: which one.
        unsure: an attempt before may have been done already.
    """

    status: int
    body: bytes
    etag: str
    worker: str
    unsure: bool


class Caller:
    """Sends requests over one pool of connections, and opens sockets beside it.

    Args:
        http: whose pool bounds the requests that are under way.
        sockets: opens as many connections as there are chats.
        workers: whom to ask.
        credential: see `WorkerClient.open`, as for the rest.
        patience: how long a call is tried.
        clock: where time comes from.
        random: where randomness comes from.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        sockets: aiohttp.ClientSession,
        workers: Workers,
        *,
        credential: str | None,
        patience: Patience,
        clock: Clock,
        random: Random,
    ) -> None:
        self._http = http
        self.sockets = sockets
        self.workers = workers
        self.patience = patience
        self.clock = clock
        self.random = random
        self._headers = {"Authorization": f"Bearer {credential}"} if credential is not None else {}

    @property
    def credential_headers(self) -> Mapping[str, str]:
        """The headers that say who calls."""
        return self._headers

    def begin(self, request: Request, *, deadline_s: float | None = None) -> Attempts:
        """Return the attempts of a request, none of which is made yet; `deadline_s` is another call's that it is of."""
        return Attempts(
            self.workers,
            key=request.key,
            repeatable=request.repeatable,
            patience=self.patience,
            random=self.random,
            now_s=self.clock.monotonic_s(),
            deadline_s=deadline_s,
        )

    async def call(self, request: Request, attempts: Attempts | None = None) -> Answer:
        """Return the answer to a request.

        Args:
            request: what is asked.
            attempts: as `begin` gave them, for who asks afterwards how sure it is; one's own otherwise.

        Raises:
            MangaCacheError: what the worker answered, or that none did until the deadline.
        """
        attempts = attempts if attempts is not None else self.begin(request)
        while True:
            url, wait_s = attempts.next(self.clock.monotonic_s())
            if wait_s > 0:
                await self.clock.sleep(wait_s)
            answer = await self._attempt(request, url, attempts)
            if answer is not None:
                return answer

    async def _attempt(self, request: Request, url: str, attempts: Attempts) -> Answer | None:
        """Return the answer, None where it is to be tried again."""
        now_s = self.clock.monotonic_s
        query = {name: str(value) for name, value in request.query.items() if value is not None}
        headers = {**self._headers, **request.headers}
        said = request.again if attempts.unsure and request.again is not None else request.body
        body = msgspec.json.encode(said) if said is not None else None
        if body is not None:
            headers["Content-Type"] = "application/json"
        target = URL(url + request.path, encoded=True).with_query(query)
        try:
            async with (
                self.clock.timeout(attempts.left_s(now_s())),
                self._http.request(
                    request.method, target, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                content = await response.read()
        except aiohttp.ClientConnectorError as error:
            attempts.lost(url, now_s(), sent=False, why=_why(error))
            return None
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            attempts.lost(url, now_s(), sent=True, why=_why(error))
            return None
        if response.status < _FAILED_FROM:
            self.workers.answered(url)
            etag = response.headers.get("ETag", "")
            return Answer(response.status, content, etag, url, attempts.unsure)
        problem = read_problem(response.status, content, retry_after=response.headers.get("Retry-After"))
        attempts.refused(url, error_of(problem), now_s(), retry_after_s=problem.retry_after_s)
        return None


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
