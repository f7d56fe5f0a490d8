"""A session's WebSocket that outlives its connections: the I/O around `Talk`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import msgspec

from mangacache.client.attempts import Attempts
from mangacache.client.problems import error_of, read_problem
from mangacache.client.sessions import append_body
from mangacache.client.talk import ChatEvent, Frame, Talk, event_of
from mangacache.client.values import WireAppends, WireContext, read
from mangacache.errors import Closed, Rejected, Transient, VersionGone
from mangacache.model import Consistency, NewTurn, Version, checked_id
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from types import TracebackType

    from mangacache.client.calling import Caller
    from mangacache.client.problems import Problem
    from mangacache.client.tokens import Tokens
    from mangacache.model import Appended, Attribute, Context

_MOST_WAITING: Final = 1_024
_MOST_FRAME_BYTES: Final = 16 * 1024 * 1024
_SILENT_BEATS: Final = 3
_SHORTEST_BEAT_S: Final = 0.05
_CLOSE_WITHIN_S: Final = 1.0
_AWAY_S: Final = 5.0
_LEAVING: Final = 1012
_NOT_TAKEN_IN: Final = frozenset({429, 503})


class Chat:
    """A session's WebSocket: appends and reads by it, and the events of the session. Made by `WorkerClient.chat`.

    It connects on entering the `async with` block, and again, to another worker, whenever a connection ends. What was
    not acknowledged is then sent again with the same turn_ids. Each turn of others is told once and in order, or a
    `gap` says that something is missing.
    """

    def __init__(
        self,
        caller: Caller,
        tokens: Tokens,
        *,
        session_id: str,
        customer_id: str | None,
        seen: Version | str | None,
        content: bool,
    ) -> None:
        self.session_id = checked_id(session_id, what="session id")
        self._customer_id = checked_id(customer_id, what="customer id") if customer_id is not None else None
        self._caller = caller
        self._tokens = tokens
        self._content = content
        self._talk = Talk(seen=Version.parse(seen) if seen is not None else None)
        self._futures: dict[int, asyncio.Future[str]] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._events: list[ChatEvent] = []
        self._news = asyncio.Event()
        self._ended: BaseException | None = None
        self._tasks = TaskOwner(on_failure=lambda _, error: self._end(error))
        self._heard_at_s = 0.0
        self._return_at_s = 0.0
        self._wanted = asyncio.Event()
        self.connection_id = ""
        self.worker = ""
        self.connections = 0

    def __repr__(self) -> str:
        state = "ended" if self._ended is not None else "open" if self._socket is not None else "connecting"
        return f"<Chat of {self.session_id!r}, {state}, connection {self.connections} at {self.worker or 'none'}>"

    async def __aenter__(self) -> Self:
        """Connect; raises what a worker answers, or that none did until the deadline."""
        loop = asyncio.get_running_loop()
        self._opened, self._over = loop.create_future(), loop.create_future()
        self._tasks.start(self._run(), name="keep a chat connected")
        try:
            await self._opened
        except BaseException:
            await self._tasks.cancel()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; whoever still waits for an answer hears that it is closed."""
        self._end(Closed("this chat is closed"))
        await self._tasks.cancel()

    @property
    def version(self) -> Version | None:
        """The version up to which everything has been told or acknowledged."""
        return self._talk.told

    async def append(
        self,
        *,
        role: str,
        content: str,
        turn_id: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        after: Version | str | None = None,
        rate_limit: str | None = None,
    ) -> Appended:
        """Store one turn, durably, in order, once, by whichever connection acknowledges it."""
        turn = NewTurn(role=role, content=content, turn_id=turn_id, attributes=attributes or {})
        (appended,) = await self.append_many([turn], after=after, rate_limit=rate_limit)
        return appended

    async def append_many(
        self, turns: Iterable[NewTurn], *, after: Version | str | None = None, rate_limit: str | None = None
    ) -> tuple[Appended, ...]:
        """Store up to 32 turns: all of them or none; see `Session.append_many` of the library."""
        body = append_body(turns, after=after, rate_limit=rate_limit, random=self._caller.random)
        ids = frozenset(turn["turn_id"] for turn in body.get("turns", (body,)))
        text = await self._ask({"type": "append", **body}, ids)
        done = tuple(each.value() for each in read(WireAppends, text).turns)
        for appended in done:
            self._tokens.see(self.session_id, appended.version)
        return done

    async def context(
        self,
        *,
        turns: int = 20,
        at_least: Version | str | None = None,
        consistency: Consistency = Consistency.SESSION,
        rate_limit: str | None = None,
    ) -> Context:
        """Return what a bot needs before it answers, never older than what this client has seen."""
        message: dict[str, Any] = {"type": "context", "turns": turns}
        least = self._tokens.of(self.session_id)
        if at_least is not None:
            given = Version.parse(at_least)
            least = given if least is None else least.join(given)
        if least is not None:
            message["at_least"] = str(least)
        if consistency != Consistency.SESSION:
            message["consistency"] = consistency.name
            if consistency.max_age_s is not None:
                message["age_s"] = consistency.max_age_s
        if rate_limit is not None:
            message["rate_limit"] = rate_limit
        try:
            text = await self._ask(message)
        except VersionGone:
            self._tokens.forget(self.session_id)
            raise
        context = read(WireContext, text).value(self.session_id)
        self._tokens.see(self.session_id, context.version)
        return context

    async def __aiter__(self) -> AsyncIterator[ChatEvent]:
        """Iterate over what happens to the session, until the chat is closed.

        Raises:
            MangaCacheError: why the chat could not go on.
        """
        while True:
            event = await self.next_event()
            if event is None:
                return
            yield event

    async def next_event(self) -> ChatEvent | None:
        """Return the next event, when there is one; None when the chat was closed."""
        while not self._events:
            if self._ended is not None:
                if isinstance(self._ended, Closed):
                    return None
                raise self._ended
            self._news.clear()
            await self._news.wait()
        return self._events.pop(0)

    def taken_events(self) -> list[ChatEvent]:
        """Return what has been told and was not taken yet, without waiting."""
        events, self._events = self._events, []
        return events

    # Asking

    async def _ask(self, message: dict[str, Any], turn_ids: frozenset[str] = frozenset()) -> str:
        """Return the answer to a message; it is sent again where a connection is lost or a worker has to wait."""
        self._check()
        clock, patience = self._caller.clock, self._caller.patience
        deadline_s = clock.monotonic_s() + patience.deadline_s
        number = self._talk.ask(message, turn_ids)
        failures = 0
        try:
            while True:
                future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                self._futures[number] = future
                self._talk.resume(number)
                try:
                    async with clock.timeout(deadline_s - clock.monotonic_s()):
                        await self._send(number)
                        return await future
                except TimeoutError:
                    future.cancel()
                    raise Transient(
                        "no worker has answered by the WebSocket in time; whether it was done is unknown: "
                        "try again with the same turn_id"
                    ) from None
                except (Transient, Rejected, Closed) as error:
                    if self._ended is not None:
                        raise
                    failures += 1
                    wait_s = getattr(error, "retry_after_s", 0.0) + patience.wait_s(failures, self._caller.random)
                    if clock.monotonic_s() + wait_s >= deadline_s:
                        raise
                    self._talk.rest(number)
                    await self._wait(wait_s)
        finally:
            self._futures.pop(number, None)
            self._tell(self._talk.withdraw(number))

    async def _wait(self, seconds: float) -> None:
        """Wait before something is sent again, but not beyond the end of the chat, which is raised."""
        sleeping = self._tasks.start(self._caller.clock.sleep(seconds), name="wait before it is sent again")
        try:
            await asyncio.wait({sleeping, self._over or sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
        self._check()

    async def _send(self, number: int) -> None:
        if self._socket is None:
            self._wanted.set()
        else:
            with suppress(ConnectionError, RuntimeError, aiohttp.ClientError):  # the next connection sends it again
                await self._say(self._socket, number)

    async def _say(self, socket: aiohttp.ClientWebSocketResponse, number: int) -> None:
        message = self._talk.said(number)
        if message is not None:
            await socket.send_str(msgspec.json.encode(message).decode())

    async def _catch_up(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what is not answered in the order in which it was said, and from then on what is new at once.

        Beside the listening: a worker reads nothing more from those who do not read its answers.
        """
        with suppress(ConnectionError, RuntimeError, aiohttp.ClientError):  # the next connection sends it again
            while left := self._talk.unsent():
                for number in left:
                    await self._say(socket, number)
            self._socket = socket

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _end(self, error: BaseException) -> None:
        if self._ended is None:
            self._ended = error
        for future in (self._opened, *self._futures.values()):
            if future is not None and not future.done():
                future.set_exception(error)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        self._news.set()

    # Being connected

    async def _run(self) -> None:
        """Connect, and again whenever a connection ends, until what is met says that it is of no use."""
        attempts = self._attempts()
        while True:
            clock = self._caller.clock
            url, wait_s = attempts.next(clock.monotonic_s())
            if wait_s > 0:
                await clock.sleep(wait_s)
            before = self.connections
            try:
                stood = await self._connection(url, attempts)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if self.connections > before:  # it stood, maybe for longer than another one may take to be found
                    attempts = self._attempts()
                attempts.lost(url, clock.monotonic_s(), sent=True, why=f"{type(error).__name__}: {error}")
                continue
            if stood:
                await self._pause()
                attempts = self._attempts()

    async def _pause(self) -> None:
        """Come back when the worker that left has asked for it: the others do at theirs. Or with something to say."""
        clock = self._caller.clock
        left_s = self._return_at_s - clock.monotonic_s()
        if left_s > 0 and not self._talk.unanswered():
            self._wanted.clear()
            with suppress(TimeoutError):
                async with clock.timeout(left_s):
                    await self._wanted.wait()

    def _attempts(self) -> Attempts:
        caller = self._caller
        return Attempts(
            caller.workers,
            key=self.session_id,
            repeatable=True,
            patience=caller.patience,
            random=caller.random,
            now_s=caller.clock.monotonic_s(),
        )

    async def _connection(self, url: str, attempts: Attempts) -> bool:
        """Be connected to a worker until that ends; tells whether it was."""
        caller, clock = self._caller, self._caller.clock
        try:
            async with clock.timeout(attempts.left_s(clock.monotonic_s())):
                socket = await caller.sockets.ws_connect(
                    url + "/v1/ws",
                    headers=caller.credential_headers,
                    max_msg_size=_MOST_FRAME_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_WITHIN_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            after = error.headers.get("Retry-After") if error.headers is not None else None
            problem = read_problem(error.status, b"", retry_after=after)
            if error.status in _NOT_TAKEN_IN:  # said of this worker alone: it leaves, or has all the sockets it may
                attempts.turned_away(url, error_of(problem), clock.monotonic_s(), retry_after_s=problem.retry_after_s)
            else:
                self._refused(url, attempts, problem)
            return False
        try:
            async with clock.timeout(attempts.left_s(clock.monotonic_s())):
                ready = await self._open(socket, url, attempts)
            if ready is None:
                return False
            await self._talking(socket, url, ready)
            return True
        finally:
            with suppress(TimeoutError):  # who reads nothing does not even take the word that it ends
                async with clock.timeout(2 * _CLOSE_WITHIN_S):
                    await socket.close()

    async def _open(self, socket: aiohttp.ClientWebSocketResponse, url: str, attempts: Attempts) -> Frame | None:
        """Say which session this is for; returns what the worker says, None where it refuses for now."""
        first: dict[str, Any] = {"type": "open", "session_id": self.session_id, "content": self._content}
        if self._customer_id is not None:
            first["customer_id"] = self._customer_id
        if self._talk.told is not None:
            first["seen"] = str(self._talk.told)
        await socket.send_str(msgspec.json.encode(first).decode())
        while True:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionResetError(f"closed with code {socket.close_code} before it was open")
            frame = read(Frame, message.data)
            if frame.type == "error":
                self._refused(url, attempts, read_problem(0, bytes(frame.problem)))
                return None
            if frame.type == "ready":
                return frame

    def _refused(self, url: str, attempts: Attempts, problem: Problem) -> None:
        error = error_of(problem)
        attempts.refused(url, error, self._caller.clock.monotonic_s(), retry_after_s=problem.retry_after_s)

    async def _talking(self, socket: aiohttp.ClientWebSocketResponse, url: str, ready: Frame) -> None:
        """Take in what comes until the connection ends, or the worker has asked to leave it."""
        clock = self._caller.clock
        self._caller.workers.answered(url)
        self._talk.ready(Version.parse(ready.version or ""))
        self.connection_id, self.worker = ready.connection_id, url
        self.connections += 1
        self._heard_at_s = clock.monotonic_s()
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        beating = self._tasks.start(self._beat(socket, ready.heartbeat_s), name="say that a chat lives")
        if self._talk.unanswered():
            self._catching_up = self._tasks.start(self._catch_up(socket), name="send again what has no answer")
        else:
            self._socket = socket
        try:
            await self._listen(socket, url)
        finally:
            beating.cancel()
            self._talk_to_nobody()

    def _talk_to_nobody(self) -> None:
        """Have what is said wait for the next connection."""
        self._socket = None
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        clock = self._caller.clock
        leave_at_s: float | None = None
        while True:
            left_s = None if leave_at_s is None else max(0.0, leave_at_s - clock.monotonic_s())
            try:
                async with clock.timeout(left_s):
                    message = await socket.receive()
            except TimeoutError:
                return
            if message.type is not aiohttp.WSMsgType.TEXT:
                if socket.close_code == _LEAVING:
                    self._caller.workers.leaves(url, clock.monotonic_s(), after_s=_AWAY_S)
                else:
                    self._caller.workers.lost(url, clock.monotonic_s())
                return
            self._heard_at_s = clock.monotonic_s()
            frame = read(Frame, message.data)
            if frame.type == "draining":
                # What is under way is still answered here; what is new waits for the next worker.
                self._talk_to_nobody()
                away_s = max(_AWAY_S, frame.reconnect_after_s)
                self._caller.workers.leaves(url, self._heard_at_s, after_s=away_s)
                leave_at_s = self._return_at_s = self._heard_at_s + frame.reconnect_after_s
            else:
                self._take(frame, message.data)

    def _take(self, frame: Frame, text: str) -> None:
        future = self._futures.get(frame.id) if isinstance(frame.id, int) else None
        match frame.type:
            case "appended" | "context" if isinstance(frame.id, int):
                appended = read(WireAppends, text).turns if frame.type == "appended" else ()
                self._tell(self._talk.answered(frame.id, appended))
                if future is not None and not future.done():
                    future.set_result(text)
            case "error":
                if future is not None and not future.done():
                    future.set_exception(error_of(read_problem(0, bytes(frame.problem))))
            case _:
                event = event_of(frame)
                if event is not None:
                    self._tell(self._talk.heard(event))

    def _tell(self, events: list[ChatEvent]) -> None:
        for event in events:
            if event.kind == "turn" and event.version is not None:
                self._tokens.see(self.session_id, event.version)
            self._events.append(event)
        if len(self._events) > _MOST_WAITING:
            self._events = [ChatEvent(kind="gap", version=self._talk.told, why="these events were not taken in time")]
        if events:
            self._news.set()

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse, heartbeat_s: float) -> None:
        """Give signs of life, and end a connection whose other end gives none."""
        clock, every_s = self._caller.clock, max(heartbeat_s, _SHORTEST_BEAT_S)
        with suppress(ConnectionError, aiohttp.ClientError):
            while clock.monotonic_s() - self._heard_at_s < _SILENT_BEATS * every_s:
                await clock.sleep(every_s)
                with suppress(
                    TimeoutError
                ):  # what is said before it has not been read yet: that is no silence by itself
                    async with clock.timeout(every_s):
                        await socket.send_str('{"type":"ping"}')
        await socket.close()
