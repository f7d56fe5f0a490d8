"""WorkerClient: the library's calls, answered by workers over HTTP and WebSocket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from mangacache.client.attempts import Patience, Workers
from mangacache.client.calling import Caller, Request
from mangacache.client.chat import Chat
from mangacache.client.sessions import WorkerSession, customer_headers, escaped
from mangacache.client.tokens import Tokens
from mangacache.client.values import Allowance, Prefetched, Seen, Trend, WireSessions, WireTrends, read
from mangacache.clock import SystemClock, system_random
from mangacache.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from mangacache.client.calling import Answer
    from mangacache.clock import Clock, Random
    from mangacache.model import SessionPage, Version

_DEFAULT_PATIENCE: Final = Patience()
_AS_MANY_AS_CHATS: Final = 0


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request once: by itself aiohttp sends a PUT or DELETE whose answer was lost again, and tells nobody."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(f"{error}") from error


def _session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(),
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_once,),
    )


class WorkerClient:
    """A client of one or several workers. Made by `open`.

    Every call is tried again, on another worker where one is lost, until its deadline; what it did is done once.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._tokens = Tokens()

    def __repr__(self) -> str:
        return f"<WorkerClient of {self._caller.workers!r}, {len(self._tokens)} sessions>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        urls: Sequence[str],
        *,
        credential: str | None = None,
        patience: Patience = _DEFAULT_PATIENCE,
        connections: int = 256,
        in_turn: bool = False,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> AsyncIterator[WorkerClient]:
        """Open a pool of connections, and close it at the end of the `async with` block.

        Args:
            urls: the workers' public addresses, `http://host:port`, or a load balancer's.
            credential: an API key or a customer's token; None where the workers take anybody.
            patience: how long a call is tried.
            connections: HTTP connections at once; a call waits for one as a part of its attempt. Chats have their own.
            in_turn: ask the workers in turn, instead of one session's calls at the same worker while it answers.
            clock: where time comes from; the machine's own by default.
            random: where randomness comes from.

        Raises:
            Invalid: no URL, or one that is none.
        """
        clock = clock if clock is not None else SystemClock()
        random = random if random is not None else system_random()
        workers = Workers(urls, patience=patience, random=random, in_turn=in_turn)
        async with _session(connections) as http, _session(_AS_MANY_AS_CHATS) as sockets:
            caller = Caller(
                http, sockets, workers, credential=credential, patience=patience, clock=clock, random=random
            )
            yield cls(caller)

    def session(self, session_id: str, *, customer_id: str | None = None) -> WorkerSession:
        """Return a handle on a session, whose calls are the library's.

        Args:
            session_id: whose handle.
            customer_id: whose session it is; a customer's token says so by itself.
        """
        return WorkerSession(self._caller, self._tokens, session_id, customer_id)

    def chat(
        self,
        session_id: str,
        *,
        customer_id: str | None = None,
        seen: Version | str | None = None,
        content: bool = True,
    ) -> Chat:
        """Return a session's WebSocket, which lives as long as the `async with` block it is entered by.

        Args:
            session_id: whose.
            customer_id: whose session it is; a customer's token says so by itself.
            seen: the version up to which the session is known: what comes after it is told. None begins with what
                happens from now on.
            content: have turns come with what was said in them.
        """
        return Chat(
            self._caller, self._tokens, session_id=session_id, customer_id=customer_id, seen=seen, content=content
        )

    async def sessions_of(self, customer_id: str, *, limit: int = 50, cursor: str | None = None) -> SessionPage:
        """Return a customer's sessions, the most recently active first."""
        query = {"limit": limit, "cursor": cursor}
        answer = await self._of_customer("GET", customer_id, "/sessions", query=query)
        return read(WireSessions, answer.body).value()

    async def forget_customer(self, customer_id: str) -> int:
        """Delete every session of a customer; returns how many there were."""
        answer = await self._of_customer("DELETE", customer_id, "")
        return int(read(dict, answer.body).get("deleted", 0))

    async def heartbeat(self, customer_id: str) -> None:
        """Say that a customer was seen now."""
        await self._of_customer("PUT", customer_id, "/presence")

    async def last_seen(self, customer_id: str) -> Seen | None:
        """Return when a customer was last seen; None where that is too long ago to be known."""
        try:
            answer = await self._of_customer("GET", customer_id, "/presence")
        except NotFound:
            return None
        return read(Seen, answer.body)

    async def count_online(self) -> int:
        """Return how many customers are online."""
        answer = await self._caller.call(Request(method="GET", path="/v1/presence", key="presence"))
        return int(read(dict, answer.body).get("count", 0))

    async def rate_limit(self, customer_id: str, limit: str = "messages", *, cost: int = 1) -> Allowance:
        """Take units of a customer's limit where they are there; what is refused is not counted.

        Raises:
            Transient: no answer: whether the units were taken is unknown.
        """
        answer = await self._of_customer(
            "POST", customer_id, f"/rate-limits/{escaped(limit)}", body={"cost": cost}, repeatable=False
        )
        return read(Allowance, answer.body)

    async def record_trending(self, title: str, *, weight: int = 1) -> None:
        """Count a title, now.

        Raises:
            Transient: no answer: whether it was counted is unknown.
        """
        body = {"title": title, "weight": weight}
        await self._caller.call(Request(method="POST", path="/v1/trending", key=title, body=body, repeatable=False))

    async def trending(self, span: str = "hour", *, limit: int = 10) -> tuple[Trend, ...]:
        """Return the titles that were counted most in the last `hour` or `day`, the first first."""
        query: dict[str, Any] = {"span": span, "limit": limit}
        answer = await self._caller.call(Request(method="GET", path="/v1/trending", key="trending", query=query))
        return read(WireTrends, answer.body).titles

    async def prefetch(self, session_ids: Iterable[str]) -> Prefetched:
        """Have contexts loaded before they are asked for."""
        body = {"session_ids": list(session_ids)}
        answer = await self._caller.call(Request(method="POST", path="/v1/prefetch", key="prefetch", body=body))
        return read(Prefetched, answer.body)

    async def _of_customer(
        self,
        method: str,
        customer_id: str,
        what: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        repeatable: bool = True,
    ) -> Answer:
        return await self._caller.call(
            Request(
                method=method,
                path=f"/v1/customers/{escaped(customer_id)}{what}",
                key=customer_id,
                query=query or {},
                headers=customer_headers(customer_id),
                body=body,
                repeatable=repeatable,
            )
        )
