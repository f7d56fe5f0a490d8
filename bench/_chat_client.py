"""A client process of the chat bench: one peer, its load, its counts. Started by `chat.py`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _chat_load import TURNS_READ, Chat, Load, Seen
from _common import run
from _processes import serve, settle_memory
from _profile import profiled
from plain_cache_aside import PlainCacheAside, open_clients

from mangacache import MangaCache, NewTurn, Settings
from mangacache.replay import read_conversations
from mangacache.store import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from mangacache.replay.conversations import Said
    from mangacache.sessions import Session
    from mangacache.store import Transport

_APPENDED_AT_ONCE = 32


class OurBot:
    """A bot on mangacache, by its public face; where there is no room its calls wait: the load is a closed loop."""

    def __init__(self, cache: MangaCache) -> None:
        self._cache = cache

    def _session(self, chat: Chat) -> Session:
        return self._cache.session(chat.session_id, customer_id=chat.customer_id, when_full="wait")

    async def load(self, chat: Chat) -> None:
        """Store what was said before; see `Bot`."""
        session = self._session(chat)
        for start in range(0, len(chat.said), _APPENDED_AT_ONCE):
            piece = chat.said[start : start + _APPENDED_AT_ONCE]
            done = await session.append_many([NewTurn(role=said.role, content=said.content) for said in piece])
            chat.token = str(done[-1].version)

    async def handle(self, chat: Chat, message: Sequence[Said]) -> Seen:
        """Handle a message; see `Bot`."""
        session = self._session(chat)
        context = await session.context(turns=TURNS_READ, at_least=chat.token)
        for said in message:
            done = await session.append(role=said.role, content=said.content)
            chat.token = str(done.version)
        return Seen(len(context.turns), context.turns[-1].content if context.turns else "", context.source)


class PlainBot:
    """A bot on plain cache-aside."""

    def __init__(self, sessions: PlainCacheAside) -> None:
        self._sessions = sessions

    async def load(self, chat: Chat) -> None:
        """Store what was said before; see `Bot`."""
        turns = [(said.role, said.content) for said in chat.said]
        await self._sessions.load(chat.session_id, customer_id=chat.customer_id, turns=turns)

    async def handle(self, chat: Chat, message: Sequence[Said]) -> Seen:
        """Handle a message; see `Bot`."""
        context = await self._sessions.read(chat.session_id)
        if context.meta is None:
            await self._sessions.put_meta(chat.session_id, customer_id=chat.customer_id)
        for said in message:
            await self._sessions.append(chat.session_id, role=said.role, content=said.content)
        return Seen(len(context.turns), context.turns[-1]["content"] if context.turns else "", context.source)


class CountedTransport:
    """Counts requests on their way to DynamoDB; retries count again."""

    def __init__(self, inner: Transport, counts: Counter[str]) -> None:
        self._inner = inner
        self._counts = counts

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Count and pass on."""
        self._counts[operation] += 1
        return await self._inner.request(operation, parameters)


class CountedClient:
    """Counts the calls of a low-level client."""

    def __init__(self, inner: Any, counts: Counter[str]) -> None:
        self._inner = inner
        self._counts = counts

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._inner, name)
        operation = "".join(word.capitalize() for word in name.split("_"))

        def counted(**parameters: Any) -> Awaitable[Any]:
            self._counts[operation] += 1
            answer: Awaitable[Any] = call(**parameters)
            return answer

        setattr(self, name, counted)
        return counted


@asynccontextmanager
async def _ours(configuration: Mapping[str, Any], counts: Counter[str]) -> AsyncIterator[OurBot]:
    settings = Settings.from_env().replace(
        memory_sessions=configuration["memory_sessions"], max_connections=configuration["connections"]
    )
    if configuration["transport"] is not None:
        settings = settings.replace(dynamodb_transport=configuration["transport"])
    async with (
        open_transport(settings) as transport,
        MangaCache.open(settings, transport=CountedTransport(transport, counts)) as cache,
    ):
        yield OurBot(cache)


@asynccontextmanager
async def _baseline(configuration: Mapping[str, Any], counts: Counter[str]) -> AsyncIterator[PlainBot]:
    settings = Settings.from_env()
    if settings.dynamodb_endpoint is None or settings.redis_endpoint is None:
        raise RuntimeError("the servers' addresses are missing from the environment")
    async with open_clients(
        region=settings.region,
        dynamodb_url=settings.dynamodb_endpoint,
        redis_url=settings.redis_endpoint,
        connections=configuration["connections"],
        tuned=configuration["tuned_baseline"],
    ) as (dynamodb, redis):
        yield PlainBot(PlainCacheAside(CountedClient(dynamodb, counts), redis, table_name=settings.table_name))


async def main(name: str, configuration: Mapping[str, Any]) -> None:
    """Open the peer and serve the bench until it is done."""
    counts: Counter[str] = Counter()
    opened = _ours if name == "ours" else _baseline
    async with opened(configuration, counts) as bot:
        load = Load(
            bot,
            name=name,
            conversations=read_conversations(Path(configuration["chats"])),
            sessions=configuration["sessions"],
            seed=configuration["seed"],
            long_sessions=configuration["long_sessions"],
        )

        async def counted(driving: Awaitable[dict[str, Any]]) -> dict[str, Any]:
            before = counts.copy()
            result = await driving
            return {**result, "dynamodb": dict(counts - before)}

        async def prepare() -> None:
            await load.prepare()
            settle_memory()

        async def profile(**arguments: Any) -> dict[str, Any]:
            return await profiled(load.closed(**arguments))

        async def idle_cpu_s() -> float:
            return time.process_time()

        await serve(
            {
                "prepare": prepare,
                "closed": lambda **arguments: counted(load.closed(**arguments)),
                "open": lambda **arguments: counted(load.open(**arguments)),
                "profile": profile,
                "cpu_s": idle_cpu_s,
            }
        )


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(main(sys.argv[1], given), loop=given["loop"])
