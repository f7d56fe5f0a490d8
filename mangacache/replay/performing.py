"""One message of a replay, as a bot would handle it: read the context, append the user's turn, append the reply."""

from __future__ import annotations

import zlib
from contextlib import asynccontextmanager
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from mangacache.clock import AcceleratedClock, SystemClock
from mangacache.model import WINDOW, NewTurn, Version
from mangacache.replay.counting import CountingTransport, first_message
from mangacache.service import MangaCache
from mangacache.settings import Settings, specs
from mangacache.store import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

WINDOW_READ = 20


class Job(msgspec.Struct, frozen=True):
    """A message to handle.

    Attributes:
        turns: (turn_id, role, content), the user's turn first.
        token: what the client holds from the message before; empty at the first.
    """

    session_id: str
    customer_id: str
    turns: tuple[tuple[str, str, str], ...]
    token: str
    first: bool


class Handled(msgspec.Struct, frozen=True):
    """What became of a message.

    Attributes:
        numbers: the turns' numbers, in order.
        duplicates: appends that were answered as stored before; none is expected.
        read_digest: `digest` of the turns that the context held.
        source: which tier answered.
        read_s, append_s: seconds of the read and of each append.
    """

    token: str
    numbers: tuple[int, ...]
    duplicates: int
    read_digest: int
    source: str
    read_s: float
    append_s: tuple[float, ...]


class Tally(msgspec.Struct, frozen=True):
    """What a process sent to DynamoDB, by operation; `steady` leaves first messages out."""

    requests: dict[str, int]
    steady: dict[str, int]


class Conditions(msgspec.Struct, frozen=True):
    """How a replay's processes open their MangaCache.

    Attributes:
        settings: field values of `Settings`.
        speed: how much faster than life the sessions age; 0 is real time.
        origin_s: from when on.
    """

    settings: dict[str, str | int | float | None]
    speed: float = 0.0
    origin_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings, *, speed: float, origin_s: float) -> Conditions:
        """Return the conditions that `settings` amount to."""
        return cls({spec.name: getattr(settings, spec.name) for spec in specs()}, speed, origin_s)


def digest(turns: Iterable[tuple[str, str]]) -> int:
    """Return a checksum of (role, content) pairs."""
    checksum = 0
    for role, content in turns:
        checksum = zlib.crc32(f"{role}\0{content}\0".encode(), checksum)
    return checksum


class Performer:
    """Handles messages on one MangaCache."""

    def __init__(self, cache: MangaCache, counts: CountingTransport) -> None:
        self._cache = cache
        self._counts = counts

    async def handle(self, job: Job) -> Handled:
        """Handle one message."""
        first_message.set(job.first)
        session = self._cache.session(job.session_id, customer_id=job.customer_id)
        started = perf_counter()
        context = await session.context(turns=WINDOW_READ, at_least=job.token or None)
        times = [perf_counter()]
        done = []
        user, *replies = job.turns
        done.append(await session.append(turn_id=user[0], role=user[1], content=user[2]))
        times.append(perf_counter())
        if len(replies) == 1:
            (turn_id, role, content) = replies[0]
            done.append(await session.append(turn_id=turn_id, role=role, content=content))
            times.append(perf_counter())
        elif replies:
            new = [NewTurn(turn_id=turn_id, role=role, content=content) for turn_id, role, content in replies]
            for first in range(0, len(new), WINDOW):
                done.extend(await session.append_many(new[first : first + WINDOW]))
            times.append(perf_counter())
        version = context.version
        for appended in done:
            version = Version.parse(appended.version).join(version)
        return Handled(
            token=str(version),
            numbers=tuple(appended.number for appended in done),
            duplicates=sum(appended.duplicate for appended in done),
            read_digest=digest((turn.role, turn.content) for turn in context.turns),
            source=context.source,
            read_s=times[0] - started,
            append_s=tuple(after - before for before, after in pairwise(times)),
        )

    def tally(self) -> Tally:
        """Return what has been sent so far."""
        return Tally(dict(self._counts.requests), dict(self._counts.steady))


@asynccontextmanager
async def performer(conditions: Conditions) -> AsyncIterator[Performer]:
    """Open a MangaCache for a replay; the performer's tally can be read after it is closed, too."""
    settings = Settings(**conditions.settings)  # type: ignore[arg-type] # checked by Settings itself
    clock = AcceleratedClock(conditions.speed, origin_s=conditions.origin_s) if conditions.speed else SystemClock()
    async with open_transport(settings) as transport:
        counts = CountingTransport(transport)
        async with MangaCache.open(settings, clock=clock, transport=counts) as cache:
            yield Performer(cache, counts)
