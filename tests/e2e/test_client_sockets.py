"""Chats at the sockets of real workers, in this process: what a lost connection leaves behind is stored once."""

from __future__ import annotations

import asyncio

from mangatest import HANG_GUARD_S
from sockets import eventually, made_table, some_id, worker

from mangacache.client import WorkerClient
from mangacache.model import Consistency
from mangacache.testing import Proxy

MANY = 45  # more than a worker knows of before it writes


async def test_many_appends_whose_acknowledgements_were_lost_are_stored_once_and_in_order(shared_valkey):
    """So many that the first of them have left the window when they are sent again."""
    session_id, database = some_id(), await made_table()
    async with (
        worker(database, redis_port=shared_valkey, key_prefix=f"{session_id}:") as one,
        Proxy.open(one.port) as proxy,
        WorkerClient.open([f"http://127.0.0.1:{proxy.port}"]) as client,
        client.chat(session_id) as chat,
    ):
        session = one.cache.session(session_id)
        proxy.stall(way="down")
        appends = [asyncio.create_task(chat.append(role="user", content=str(n))) for n in range(MANY)]

        async def stored():
            return (await session.context(turns=1, consistency=Consistency.STRONG)).version.number

        async with asyncio.timeout(HANG_GUARD_S):
            while await stored() < MANY:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        proxy.sever()
        proxy.restore()
        async with asyncio.timeout(HANG_GUARD_S):
            done = await asyncio.gather(*appends)
        assert [each.number for each in done] == list(range(1, MANY + 1))
        page = await session.history(limit=1_000)
        assert [turn.content for turn in page.turns] == [str(n) for n in range(MANY)]
        await eventually(lambda: chat.version.number == MANY)
