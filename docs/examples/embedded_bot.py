"""A chatbot with mangacache inside: the process that answers is the one that stores.

    mangacache local                  # in one terminal: servers, and what to export
    python docs/examples/embedded_bot.py s-1 c-1      # in another, with that exported

Each line that you type is a message of customer c-1 in session s-1. Start it again, or on another machine with the same
table, and it knows what was said.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import uuid4

import manga_shop

from mangacache import Context, MangaCache, Rejected, Settings

SUMMARISE_EVERY = 8
"""Turns: few, so that it can be seen. A context holds 32."""


class Bot:
    """Answers customers' messages."""

    def __init__(self, cache: MangaCache) -> None:
        self._cache = cache

    async def answer(self, session_id: str, customer_id: str, text: str, *, message_id: str) -> str:
        """Store a message, answer it, store the answer, and return it.

        Args:
            session_id: the chat.
            customer_id: whose chat it is; nobody else's message gets into it.
            text: what the customer says.
            message_id: of the message. Whoever delivers it may deliver it again, to any worker: it is stored once.
        """
        session = self._cache.session(session_id, customer_id=customer_id)
        try:
            # What was said before, and one unit of the customer's limit, in the same round trip to Redis.
            context = await session.context(rate_limit="messages")
        except Rejected as refused:
            return f"You type faster than I can read. Give me {refused.retry_after_s:.0f} seconds, please."
        await session.append(role="user", content=text, turn_id=message_id)
        answer = manga_shop.reply(text, context)
        stored = await session.append(role="assistant", content=answer.text, turn_id=f"{message_id}/reply")
        if answer.title is not None:
            await self._cache.trending.record(answer.title)
        summed_up = context.summary.upto if context.summary is not None else 0
        if stored.number - summed_up >= SUMMARISE_EVERY:
            await self._summarise(session_id)
        return answer.text

    async def _summarise(self, session_id: str) -> None:
        """Sum up what was said, in one worker at a time: with a model this is what costs."""
        try:
            async with self._cache.locks.session(session_id, wait_s=0) as held:
                session = self._cache.session(session_id)
                context = await session.context(turns=32)
                text = manga_shop.summary_of(context.turns, _summary(context))
                await session.summarise(text, fence=held.fence)  # refused if the lock was lost meanwhile
        except Rejected:
            return  # somebody else is at it

    async def trending(self) -> list[str]:
        """Return the names of the titles that were talked about most in the last hour."""
        return [manga_shop.SHELF[trend.title].name for trend in await self._cache.trending.top("hour", limit=3)]


def _summary(context: Context) -> str:
    return context.summary.text if context.summary is not None else ""


async def main(session_id: str, customer_id: str) -> None:
    """Answer what is typed until there is no more."""
    async with MangaCache.open(Settings.from_env()) as cache:
        bot = Bot(cache)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await bot.answer(session_id, customer_id, line.strip(), message_id=uuid4().hex), flush=True)
        print("Trending:", ", ".join(await bot.trending()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
