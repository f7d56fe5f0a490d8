"""A customer: what is typed goes to a worker by WebSocket, what the bot says is printed. See websocket_bot.py."""

from __future__ import annotations

import asyncio
import os
import sys
from uuid import uuid4

from mangacache.client import Chat, WorkerClient


async def reply_of(chat: Chat, message_id: str) -> str:
    """Return what the bot answers to a message, once it has."""
    async for event in chat:
        if event.kind == "turn" and event.turn.turn_id == f"{message_id}/reply":
            return event.turn.content
    return "(the chat was closed)"


async def main(urls: str, session_id: str, customer_id: str) -> None:
    """Send what is typed, line by line, and print each reply before the next line is read."""
    credential = os.environ.get("CUSTOMER_TOKEN")  # `mangacache token` mints one; none is needed on loopback
    async with (
        WorkerClient.open(urls.split(","), credential=credential) as client,
        client.chat(session_id, customer_id=customer_id) as chat,
    ):
        while line := await asyncio.to_thread(sys.stdin.readline):
            message_id = uuid4().hex
            await chat.append(role="user", content=line.strip(), turn_id=message_id)
            print(await reply_of(chat, message_id), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
