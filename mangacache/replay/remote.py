"""A replay's messages by way of workers: over HTTP and WebSocket, as bots and gateways send them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from mangacache.client import Chat, WorkerClient
from mangacache.clock import SystemClock
from mangacache.replay.performing import Handled, Heard, Job, Remote, Tally, perform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.client import ChatEvent
    from mangacache.clock import Clock
    from mangacache.model import Context

_MOST_CHATS: Final = 512


class _Line:
    """A session's chat and what it was told between two messages."""

    def __init__(self, chat: Chat, stack: AsyncExitStack) -> None:
        self.chat = chat
        self.stack = stack
        self.users = 0
        self._told = 0

    def heard(self, context: Context) -> Heard:
        """Compare what was told since the last message with what is stored."""
        stored = {turn.number: (turn.role, turn.content) for turn in context.turns}
        turns = gaps = wrong = 0
        for event in self.chat.taken_events():
            gaps += event.kind == "gap"
            if event.kind == "turn":
                turns += 1
                wrong += event.number <= self._told or _said(event) != stored.get(event.number, _said(event))
                self._told = event.number
        return Heard(turns, gaps, wrong)


class RemotePerformer:
    """Handles messages by calling workers: HTTP calls go to the workers in turn, a chat stays where it is connected."""

    def __init__(self, client: WorkerClient, remote: Remote, *, clock: Clock) -> None:
        self._client = client
        self._remote = remote
        self._clock = clock
        self._lines: dict[str, _Line] = {}

    async def handle(self, job: Job) -> Handled:
        """Handle one message; the client tries again what is refused for now, and so does this."""
        if not self._remote.by_socket(job.session_id):
            session = self._client.session(job.session_id, customer_id=job.customer_id)
            return await perform(job, session, clock=self._clock, retries=True)
        line = await self._line(job)
        try:
            return await perform(job, line.chat, clock=self._clock, retries=True, heard=line.heard)
        finally:
            line.users -= 1
            if job.last and not line.users and self._lines.get(job.session_id) is line:
                del self._lines[job.session_id]
                await line.stack.aclose()

    async def _line(self, job: Job) -> _Line:
        line = self._lines.pop(job.session_id, None)
        if line is None:
            stack = AsyncExitStack()
            chat = self._client.chat(job.session_id, customer_id=job.customer_id)
            line = _Line(await stack.enter_async_context(chat), stack)
        self._lines[job.session_id] = line
        line.users += 1
        if len(self._lines) > _MOST_CHATS:
            idle = next((name for name, each in self._lines.items() if not each.users), None)
            if idle is not None:
                await self._lines.pop(idle).stack.aclose()
        return line

    async def close(self) -> None:
        """Close every chat."""
        for line in self._lines.values():
            await line.stack.aclose()
        self._lines.clear()

    @staticmethod
    def tally() -> Tally:
        """Return nothing: what is sent to DynamoDB and Redis, the workers send."""
        return Tally()


@asynccontextmanager
async def remote_performer(remote: Remote) -> AsyncIterator[RemotePerformer]:
    """Open a client for a replay, and close it and its chats at the end."""
    clock = SystemClock()
    async with WorkerClient.open(remote.urls, credential=remote.credential, in_turn=True, clock=clock) as client:
        performer = RemotePerformer(client, remote, clock=clock)
        try:
            yield performer
        finally:
            await performer.close()


def _said(event: ChatEvent) -> tuple[Any, ...]:
    return (event.turn.role, event.turn.content) if event.turn is not None else ()
