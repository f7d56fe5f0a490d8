"""The chat pattern: many sessions open at once, each message a read of the context and the turns it is made of.

As many chats are open as the load has places. A chat that has been said to its end makes room for the next recorded
one, under a new session id; or, with long sessions, goes on with it, so that every context is full. Within a session
the next message comes when the last has been answered.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mangacache.replay.conversations import Conversation, Said

TURNS_READ = 20
_LOADS_AT_ONCE = 32


class Chat:
    """One open session.

    Attributes:
        session_id, customer_id: new ones for each time a recording is said.
        said: what has been stored so far.
        left: the messages to come.
        token: what the client holds from the message before.
        begun: whether anything is stored.
    """

    __slots__ = ("begun", "customer_id", "left", "said", "session_id", "token")

    def __init__(self, session_id: str, conversation: Conversation) -> None:
        self.session_id = session_id
        self.customer_id = conversation.customer_id
        self.said: list[Said] = []
        self.left = deque(conversation.messages())
        self.token: str | None = None
        self.begun = False


class Seen(NamedTuple):
    """What a bot saw of the context: how many turns, the newest one's content, and the tier that answered."""

    turns: int
    newest: str
    source: str


class Bot(Protocol):
    """One of the peers."""

    async def load(self, chat: Chat) -> None:
        """Store what a chat has said before the measurement."""

    async def handle(self, chat: Chat, message: Sequence[Said]) -> Seen:
        """Read the context, then append each turn of the message."""


class Round:
    """What a round of messages came to."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.sources: dict[str, int] = {}
        self.first_messages = 0
        self.turns = 0
        self.wrong_reads = 0
        self.unserved = 0

    def note(self, chat: Chat, message: Sequence[Said], seen: Seen) -> None:
        """Count a message, and compare what was read with what had been said."""
        newest = chat.said[-1].content if chat.said else ""
        if (seen.turns, seen.newest) != (min(TURNS_READ, len(chat.said)), newest):
            self.wrong_reads += 1
        if chat.begun:
            self.sources[seen.source] = self.sources.get(seen.source, 0) + 1
        else:
            self.first_messages += 1
        self.turns += len(message)

    def leave(self, waited_ms: Sequence[float]) -> None:
        """Count arrivals that were not served; they have waited at least so long."""
        self.unserved = len(waited_ms)
        self.latencies_ms += waited_ms

    def figures(self, *, elapsed_s: float, cpu_s: float) -> dict[str, Any]:
        """Return the round as the parent takes it."""
        return {
            "messages": len(self.latencies_ms) - self.unserved,
            "unserved": self.unserved,
            "first_messages": self.first_messages,
            "turns": self.turns,
            "wrong_reads": self.wrong_reads,
            "sources": self.sources,
            "elapsed_s": elapsed_s,
            "cpu_s": cpu_s,
            "latencies_ms": [round(latency, 3) for latency in self.latencies_ms],
        }


class Load:
    """The open chats of one peer, and the ways to drive them.

    Args:
        name: begins every session id, so that peers share a table without meeting.
        conversations: said over and over.
        sessions: how many are open at once.
        seed: where in its recording each chat stands at the start.
        long_sessions: sessions hold a full context at the start, and never end.
    """

    def __init__(
        self,
        bot: Bot,
        *,
        name: str,
        conversations: Sequence[Conversation],
        sessions: int,
        seed: int,
        long_sessions: bool,
    ) -> None:
        self._bot = bot
        self._name = name
        self._recorded = itertools.cycle(conversations)
        self._sessions = sessions
        self._random = random.Random(seed)
        self._long_sessions = long_sessions
        self._begun = 0
        self._ready: deque[Chat] = deque()

    async def prepare(self) -> None:
        """Open the chats, each somewhere in the middle of its recording, with what came before stored."""
        for _ in range(self._sessions):
            self._ready.append(self._opened())
        room = asyncio.Semaphore(_LOADS_AT_ONCE)

        async def load(chat: Chat) -> None:
            async with room:
                await self._bot.load(chat)

        async with asyncio.TaskGroup() as tasks:
            for chat in self._ready:
                if chat.begun:
                    tasks.create_task(load(chat))

    async def closed(
        self, *, in_flight: int, seconds: float | None = None, messages: int | None = None
    ) -> dict[str, Any]:
        """Keep `in_flight` messages under way, for so many seconds or messages: how much goes through.

        The session that has waited longest speaks next, which is the order that suits a memory tier least.
        """
        result = Round()
        left = iter(range(messages)) if messages is not None else itertools.count()
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        until_s = started_s + seconds if seconds is not None else float("inf")

        async def speak() -> None:
            while time.perf_counter() < until_s and next(left, None) is not None:
                chat = self._ready.popleft()
                sent_s = time.perf_counter()
                await self._message(chat, result, since_s=sent_s)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(speak())
        return result.figures(elapsed_s=time.perf_counter() - started_s, cpu_s=time.process_time() - started_cpu_s)

    async def open(self, *, rate: float, seconds: float, seed: int) -> dict[str, Any]:
        """Let messages arrive by a schedule that waits for nobody: how long they take at that rate.

        Arrivals are a Poisson process. Latency counts from the scheduled time, so a stall is felt by every message
        that was due in it. Where no session is free, an arrival waits for one, and that wait counts, too.
        What still waits `seconds` after the last arrival is given up, and counted.
        """
        result = Round()
        dues = deque(_arrivals(rate, seconds, seed))
        waiting: deque[float] = deque()
        started_s, started_cpu_s = time.perf_counter(), time.process_time()

        async def speak(chat: Chat, due_s: float) -> None:
            await self._message(chat, result, since_s=due_s)
            if waiting and time.perf_counter() < started_s + 2 * seconds:
                tasks.create_task(speak(self._ready.popleft(), waiting.popleft()))

        async with asyncio.TaskGroup() as tasks:
            while dues:
                due_s = started_s + dues.popleft()
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                if self._ready:
                    tasks.create_task(speak(self._ready.popleft(), due_s))
                else:
                    waiting.append(due_s)
        ended_s = time.perf_counter()
        result.leave([1e3 * (ended_s - due_s) for due_s in waiting])
        return result.figures(elapsed_s=ended_s - started_s, cpu_s=time.process_time() - started_cpu_s)

    async def _message(self, chat: Chat, result: Round, *, since_s: float) -> None:
        message = chat.left.popleft()
        seen = await self._bot.handle(chat, message)
        result.latencies_ms.append(1e3 * (time.perf_counter() - since_s))
        result.note(chat, message, seen)
        chat.said.extend(message)
        chat.begun = True
        if not chat.left and self._long_sessions:
            chat.left.extend(next(self._recorded).messages())
        self._ready.append(chat if chat.left else self._new())

    def _new(self) -> Chat:
        self._begun += 1
        return Chat(f"{self._name}-{self._begun}", next(self._recorded))

    def _opened(self) -> Chat:
        """Return a chat in the middle of its recording, and with long sessions a full context before that."""
        chat = self._new()
        before: list[Said] = []
        while self._long_sessions and len(before) < TURNS_READ:
            before.extend(next(self._recorded).turns)
        already = [chat.left.popleft() for _ in range(self._random.randrange(len(chat.left)))]
        chat.said = [*before, *(turn for message in already for turn in message)]
        chat.begun = bool(chat.said)
        return chat


def _arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield the times, from the start, at which messages arrive."""
    source = random.Random(seed)
    at_s = source.expovariate(rate)
    while at_s < seconds:
        yield at_s
        at_s += source.expovariate(rate)
