"""A client of workers: the library's calls over HTTP and WebSocket, sent again to another worker where one is lost."""

from __future__ import annotations

from mangacache.client.attempts import Patience
from mangacache.client.chat import Chat
from mangacache.client.client import WorkerClient
from mangacache.client.problems import Refused
from mangacache.client.sessions import WorkerSession
from mangacache.client.talk import ChatEvent
from mangacache.client.values import Allowance, Lock, Prefetched, Seen, Trend

__all__ = [
    "Allowance",
    "Chat",
    "ChatEvent",
    "Lock",
    "Patience",
    "Prefetched",
    "Refused",
    "Seen",
    "Trend",
    "WorkerClient",
    "WorkerSession",
]
