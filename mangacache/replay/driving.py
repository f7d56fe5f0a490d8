"""The clients of a replay: conversations interleaved, each message sent when its turn has come."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from mangacache.replay.performing import WINDOW_READ, Handled, Job, digest
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from mangacache.replay.conversations import Conversation, Said

MIN_OPEN: Final = 256
"""Conversations that are open at once, where there are as many: chats interleave, they do not queue up."""


class Handler(Protocol):
    """Handles a message: a MangaCache in this process, or a worker process."""

    async def handle(self, job: Job) -> Handled:
        """Handle one message."""


class Observed(msgspec.Struct):
    """What the clients saw, times in seconds. First messages are in `latencies`, not in `sources`."""

    messages: int = 0
    steady_messages: int = 0
    turns: int = 0
    wrong_reads: int = 0
    wrong_numbers: int = 0
    duplicates: int = 0
    elapsed_s: float = 0.0
    read_s: list[float] = []
    append_s: list[float] = []
    message_s: list[float] = []
    sources: dict[str, int] = {}
    degraded: int = 0
    repeats: int = 0
    heard_turns: int = 0
    heard_gaps: int = 0
    heard_wrong: int = 0


class Client:
    """One conversation's client: it holds the token and knows what it has said and heard."""

    def __init__(self, conversation: Conversation, prefix: str, place: int) -> None:
        self.session_id = prefix + conversation.session_id
        self.conversation = conversation
        self._messages = deque(conversation.messages())
        self._token = ""
        self._said: list[tuple[str, str]] = []
        self._turn = place

    @property
    def due_at(self) -> int | None:
        """Seconds after the conversation's start at which its next message was sent; None when there is none."""
        return (self._messages[0][0].at or 0) if self._messages else None

    async def send(self, handlers: Sequence[Handler], observed: Observed) -> None:
        """Send the next message, to the next worker, and check the answer against what was said."""
        message = self._messages.popleft()
        expected = digest(self._said[-WINDOW_READ:])
        first_number = len(self._said) + 1
        job = Job(
            session_id=self.session_id,
            customer_id=self.conversation.customer_id,
            turns=self._turns(message, first_number),
            token=self._token,
            first=first_number == 1,
            last=not self._messages,
        )
        handler = handlers[self._turn % len(handlers)]
        self._turn += 1
        started = perf_counter()
        handled = await handler.handle(job)
        observed.message_s.append(perf_counter() - started)
        observed.messages += 1
        observed.turns += len(message)
        observed.duplicates += handled.duplicates
        observed.degraded += handled.degraded
        observed.repeats += handled.repeats
        observed.heard_turns += handled.heard.turns
        observed.heard_gaps += handled.heard.gaps
        observed.heard_wrong += handled.heard.wrong
        observed.read_s.append(handled.read_s)
        observed.append_s.extend(handled.append_s)
        observed.wrong_reads += handled.read_digest != expected
        observed.wrong_numbers += handled.numbers != tuple(range(first_number, first_number + len(message)))
        if not job.first:
            observed.steady_messages += 1
            observed.sources[handled.source] = observed.sources.get(handled.source, 0) + 1
        self._token = handled.token
        self._said.extend((said.role, said.content) for said in message)

    def _turns(self, message: tuple[Said, ...], first_number: int) -> tuple[tuple[str, str, str], ...]:
        return tuple((f"t{first_number + i}", said.role, said.content) for i, said in enumerate(message))


async def drive(
    clients: Sequence[Client],
    handlers: Sequence[Handler],
    *,
    concurrency: int,
    speed: float,
    advance: Callable[[], None],
) -> Observed:
    """Replay all conversations.

    Args:
        clients: one a conversation.
        handlers: a conversation's messages go to them in turn.
        concurrency: messages under way at once.
        speed: 0 sends as fast as it goes; else the recorded seconds are followed, so many times as fast.
        advance: called after each message.
    """
    observed = Observed()
    failures: list[BaseException] = []
    tasks = TaskOwner(on_failure=lambda _, error: failures.append(error))
    started = perf_counter()
    run: _Recorded | _Full
    if speed:
        run = _Recorded(clients, handlers, observed, advance, concurrency=concurrency, speed=speed)
    else:
        run = _Full(clients, handlers, observed, advance, concurrency=concurrency)
    try:
        for lane in run.lanes():
            tasks.start(lane, name="replay conversations")
        while len(tasks) and not failures:
            await tasks.step()
    finally:
        await tasks.cancel()
    if failures:
        raise failures[0]
    observed.elapsed_s = perf_counter() - started
    return observed


class _Full:
    """As fast as it goes: so many lanes, each taking the open conversation that has waited longest."""

    def __init__(
        self,
        clients: Sequence[Client],
        handlers: Sequence[Handler],
        observed: Observed,
        advance: Callable[[], None],
        *,
        concurrency: int,
    ) -> None:
        self._coming = deque(clients)
        self._handlers = handlers
        self._observed = observed
        self._advance = advance
        self._concurrency = concurrency
        self._open: deque[Client] = deque()
        for _ in range(min(max(MIN_OPEN, 2 * concurrency), len(clients))):
            self._open.append(self._coming.popleft())

    def lanes(self) -> list[Coroutine[Any, Any, None]]:
        return [self._lane() for _ in range(self._concurrency)]

    async def _lane(self) -> None:
        while self._open:
            client = self._open.popleft()
            await client.send(self._handlers, self._observed)
            self._advance()
            if client.due_at is not None:
                self._open.append(client)
            elif self._coming:
                self._open.append(self._coming.popleft())


class _Recorded:
    """At the recorded pace: a lane for each conversation that is open, a bound on the messages under way."""

    def __init__(
        self,
        clients: Sequence[Client],
        handlers: Sequence[Handler],
        observed: Observed,
        advance: Callable[[], None],
        *,
        concurrency: int,
        speed: float,
    ) -> None:
        self._coming = deque(clients)
        self._handlers = handlers
        self._observed = observed
        self._advance = advance
        self._room = asyncio.Semaphore(concurrency)
        self._speed = speed
        self._lanes = min(max(MIN_OPEN, concurrency), len(clients))

    def lanes(self) -> list[Coroutine[Any, Any, None]]:
        return [self._lane(i / self._lanes) for i in range(self._lanes)]

    async def _lane(self, offset: float) -> None:
        # Lanes begin spread over a recorded minute: customers do not arrive all in one instant.
        await asyncio.sleep(offset * 60 / self._speed)
        while self._coming:
            client = self._coming.popleft()
            began = perf_counter()
            while (due_at := client.due_at) is not None:
                await asyncio.sleep(max(0.0, began + due_at / self._speed - perf_counter()))
                async with self._room:
                    await client.send(self._handlers, self._observed)
                self._advance()
