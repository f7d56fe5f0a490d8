"""A chatbot beside the workers: it hears what customers say by WebSocket, and answers by it.

    mangacache serve                                                  # with what `mangacache local` prints exported
    python docs/examples/websocket_bot.py http://127.0.0.1:8080 s-1   # the bot of session s-1
    python docs/examples/customer.py http://127.0.0.1:8080 s-1 c-1    # a customer who types into it

The customer's connection and the bot's may be at different workers, and either may be moved to another one in the
middle: the client connects again and goes on where it was. Several bots may serve one session by mistake; each message
is answered once all the same, because the answer's `turn_id` is made from the message's.
"""

from __future__ import annotations

import asyncio
import os
import sys

import manga_shop

from mangacache import Context
from mangacache.client import Chat, WorkerClient


class Bot:
    """Answers one session's messages as they come."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def run(self) -> None:
        """Answer whatever is said, until the chat is closed."""
        await self._answer(await self._chat.context())  # what was said before this bot was there
        async for event in self._chat:
            # A turn of the customer's; or a gap, when something may have been missed: the context has it.
            if event.kind in {"turn", "gap"}:
                await self._answer(await self._chat.context())

    async def _answer(self, context: Context) -> None:
        """Answer each of the customer's messages that nobody has answered yet."""
        stored = {turn.turn_id for turn in context.turns}
        for message in context.turns:
            reply_id = f"{message.turn_id}/reply"
            if message.role == "user" and reply_id not in stored:
                answer = manga_shop.reply(message.content, context)
                await self._chat.append(role="assistant", content=answer.text, turn_id=reply_id)


async def serve(client: WorkerClient, session_id: str) -> None:
    """Be the bot of a session."""
    async with client.chat(session_id) as chat:
        print(f"serving {session_id}", flush=True)
        await Bot(chat).run()


async def main(urls: str, *session_ids: str) -> None:
    """Serve sessions at workers, whose addresses stand with commas between them; or at a load balancer."""
    key = os.environ.get("BOT_KEY")  # never on a command line, which everybody on the machine can read
    async with WorkerClient.open(urls.split(","), credential=key) as client, asyncio.TaskGroup() as tasks:
        for session_id in session_ids:
            tasks.create_task(serve(client, session_id))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
