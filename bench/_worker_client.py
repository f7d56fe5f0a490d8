"""A client process of the worker's bench: the chat pattern by HTTP, by WebSocket, or on a MangaCache of its own."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from _chat_client import OurBot
from _chat_load import TURNS_READ, Chat, Load, Seen
from _common import latencies_ms, run
from _processes import serve, settle_memory

from mangacache import MangaCache, NewTurn, Settings
from mangacache.client import WorkerClient
from mangacache.replay import SAMPLE, read_conversations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mangacache.client import Chat as Line
    from mangacache.replay.conversations import Said

APPENDED_AT_ONCE = 32
OPENED_AT_ONCE = 64
QUESTION = "What should I read after Berserk? " * 4
ANSWER = "If you liked its art, try Vagabond; if you liked its mood, Claymore. " * 8


class WorkerBot:
    """A bot that talks to a worker: by a request each, or by a session's socket.

    Args:
        client: of the worker.
        sockets: talk by sockets.
        stack: closes them.
    """

    def __init__(self, client: WorkerClient, *, sockets: bool, stack: AsyncExitStack) -> None:
        self._client = client
        self._sockets = sockets
        self._stack = stack
        self._lines: dict[str, Line] = {}

    async def _talker(self, chat: Chat) -> Any:
        if not self._sockets:
            return self._client.session(chat.session_id, customer_id=chat.customer_id)
        line = self._lines.get(chat.session_id)
        if line is None:
            opened = self._client.chat(chat.session_id, customer_id=chat.customer_id)
            line = self._lines[chat.session_id] = await self._stack.enter_async_context(opened)
        return line

    async def load(self, chat: Chat) -> None:
        """Store what was said before; see `Bot`."""
        talker = await self._talker(chat)
        for start in range(0, len(chat.said), APPENDED_AT_ONCE):
            piece = chat.said[start : start + APPENDED_AT_ONCE]
            done = await talker.append_many([NewTurn(role=said.role, content=said.content) for said in piece])
            chat.token = str(done[-1].version)

    async def handle(self, chat: Chat, message: Sequence[Said]) -> Seen:
        """Handle a message; see `Bot`."""
        talker = await self._talker(chat)
        context = await talker.context(turns=TURNS_READ, at_least=chat.token)
        for said in message:
            done = await talker.append(role=said.role, content=said.content)
            chat.token = str(done.version)
        return Seen(len(context.turns), context.turns[-1].content if context.turns else "", context.source)


class Loads:
    """A load for each number of clients."""

    def __init__(self, bot: Any, name: str, seed: int) -> None:
        self._bot = bot
        self._name = name
        self._seed = seed
        self._loads: dict[int, Load] = {}

    async def prepare(self, clients: int) -> None:
        """Open so many chats, each with a full context behind it."""
        load = self._loads[clients] = Load(
            self._bot,
            name=f"{self._name}-{clients}",
            conversations=read_conversations(SAMPLE),
            sessions=clients,
            seed=self._seed,
            long_sessions=True,
        )
        await load.prepare()
        settle_memory()

    async def closed(self, clients: int, seconds: float) -> dict[str, Any]:
        """Have each of the clients say one thing after the other."""
        return await self._loads[clients].closed(in_flight=clients, seconds=seconds)


class Crowd:
    """Many open sessions, some of them with a socket, and messages that come when they come."""

    def __init__(self, client: WorkerClient, stack: AsyncExitStack, seed: int) -> None:
        self._client = client
        self._stack = stack
        self._random = random.Random(seed)
        self._ids: list[str] = []
        self._lines: dict[str, Line] = {}

    async def open(self, sessions: int) -> dict[str, Any]:
        """Begin so many sessions, with two turns each."""
        began_s = time.perf_counter()
        self._ids = [f"crowd-{number:06d}" for number in range(sessions)]
        left = iter(self._ids)

        async def opener() -> None:
            for session_id in left:
                turns = [NewTurn(role="user", content=QUESTION), NewTurn(role="assistant", content=ANSWER)]
                await self._client.session(session_id, customer_id=f"c-{session_id}").append_many(turns)

        await asyncio.gather(*(opener() for _ in range(OPENED_AT_ONCE)))
        return {"sessions": sessions, "seconds": round(time.perf_counter() - began_s, 1)}

    async def connect(self, sockets: int) -> dict[str, Any]:
        """Open a socket for each of the first so many sessions."""
        began_s = time.perf_counter()
        left = iter(self._ids[:sockets])

        async def opener() -> None:
            for session_id in left:
                chat = self._client.chat(session_id, customer_id=f"c-{session_id}")
                self._lines[session_id] = await self._stack.enter_async_context(chat)

        await asyncio.gather(*(opener() for _ in range(OPENED_AT_ONCE)))
        settle_memory()
        return {"sockets": len(self._lines), "seconds": round(time.perf_counter() - began_s, 1)}

    async def run(self, per_s: float, seconds: float) -> dict[str, Any]:
        """Let messages come at a rate, half of them by sockets; latency counts from when each was due."""
        took: dict[str, list[float]] = {"http": [], "websocket": []}
        failed: list[str] = []
        silent = self._ids[len(self._lines) :]
        talking = list(self._lines)

        async def message(due_s: float) -> None:
            by = self._random.choice(("http", "websocket"))
            session_id = self._random.choice(talking if by == "websocket" else silent)
            talker: Any = self._lines.get(session_id) or self._client.session(session_id, customer_id=f"c-{session_id}")
            try:
                context = await talker.context(turns=TURNS_READ)
                await talker.append(role="user", content=QUESTION)
                done = await talker.append(role="assistant", content=ANSWER)
                if done.number < context.version.number + 2:
                    failed.append("a turn is missing")
            except Exception as error:  # noqa: BLE001 - counted, and named in the figures
                failed.append(f"{type(error).__name__}: {error}")
            took[by].append(1e3 * (time.perf_counter() - due_s))

        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        due_s = started_s
        async with asyncio.TaskGroup() as tasks:
            while (due_s := due_s + self._random.expovariate(per_s)) < started_s + seconds:
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                tasks.create_task(message(due_s))
        elapsed_s = time.perf_counter() - started_s
        messages = sum(map(len, took.values()))
        return {
            "messages": messages,
            "elapsed_s": round(elapsed_s, 2),
            "messages_per_s": round(messages / elapsed_s, 1),
            "failed": len(failed),
            "first_failures": failed[:3],
            "latency_ms": {by: latencies_ms(times) for by, times in took.items()},
            "reconnections": sum(line.connections - 1 for line in self._lines.values()),
            "cpu_s": time.process_time() - started_cpu_s,
        }


async def main(name: str, configuration: Mapping[str, Any]) -> None:
    """Open a peer and serve the bench until it is done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    async with AsyncExitStack() as stack:
        commands: dict[str, Any] = {}
        if name == "embedded":
            bot: Any = OurBot(await stack.enter_async_context(MangaCache.open(Settings.from_env())))
        else:
            client = await stack.enter_async_context(WorkerClient.open(configuration["urls"]))
            crowd = Crowd(client, stack, configuration["seed"])
            commands = {"open": crowd.open, "connect": crowd.connect, "run": crowd.run}
            bot = WorkerBot(client, sockets=name == "websocket", stack=stack)
        loads = Loads(bot, name, configuration["seed"])
        await serve({"prepare": loads.prepare, "closed": loads.closed, **commands})


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(main(sys.argv[1], given), loop=given["loop"])
