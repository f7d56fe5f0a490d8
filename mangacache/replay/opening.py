"""Opens what handles a replay's messages in one process: a MangaCache, or a client of workers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from mangacache.replay.performing import performer
from mangacache.replay.remote import remote_performer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.replay.performing import Conditions, Handled, Job, Tally


class Performs(Protocol):
    """Handles messages, and knows afterwards what it sent."""

    async def handle(self, job: Job) -> Handled:
        """Handle one message."""

    def tally(self) -> Tally:
        """Return what has been sent so far."""


@asynccontextmanager
async def opened(conditions: Conditions) -> AsyncIterator[Performs]:
    """Open what `conditions` ask for; its tally can be read after it is closed, too."""
    if conditions.remote is not None:
        async with remote_performer(conditions.remote) as remote:
            yield remote
    else:
        async with performer(conditions) as local:
            yield local
