"""One message of a replay, as a bot would handle it: read the context, append the user's turn, append the reply."""

from __future__ import annotations

import functools
from collections import Counter
from contextlib import asynccontextmanager
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from zlib import crc32

import msgspec

from mangacache.clock import AcceleratedClock, SystemClock, system_random
from mangacache.errors import Invalid, Rejected, Transient
from mangacache.model import WINDOW, Appended, NewTurn
from mangacache.redis import open_link
from mangacache.replay.counting import CountingLink, CountingTransport, first_message
from mangacache.service import MangaCache
from mangacache.settings import Settings, specs
from mangacache.store import open_transport
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from mangacache.clock import Clock
    from mangacache.model import Context

T = TypeVar("T")

WINDOW_READ = 20
_PATIENCE_S: Final = 120.0
BY: Final = ("both", "http", "websocket")


class Job(msgspec.Struct, frozen=True):
    """A message to handle.

    Attributes:
        turns: (turn_id, role, content), the user's turn first.
        token: what the client holds from the message before; empty at the first.
        last: whether the conversation ends with it.
    """

    session_id: str
    customer_id: str
    turns: tuple[tuple[str, str, str], ...]
    token: str
    first: bool
    last: bool = False


class Heard(msgspec.Struct, frozen=True):
    """What a chat was told of turns that others appended, since the message before.

    Attributes:
        turns: how many it was told of.
        gaps: how often it was told that something is missing.
        wrong: turns that were told twice, out of order, or otherwise than they are stored.
    """

    turns: int = 0
    gaps: int = 0
    wrong: int = 0


class Handled(msgspec.Struct, frozen=True):
    """What became of a message.

    Attributes:
        numbers: the turns' numbers, in order.
        duplicates: appends that were answered as stored before; none is expected.
        read_digest: `digest` of the turns that the context held.
        source: which tier answered.
        degraded: an answer says that Redis was away.
        repeats: calls that were refused for the time being and repeated.
        read_s, append_s: seconds of the read and of each append.
        heard: by the session's WebSocket, where it has one.
    """

    token: str
    numbers: tuple[int, ...]
    duplicates: int
    read_digest: int
    source: str
    degraded: bool
    repeats: int
    read_s: float
    append_s: tuple[float, ...]
    heard: Heard = Heard()


class Tally(msgspec.Struct, frozen=True):
    """What a process sent.

    Attributes:
        requests: to DynamoDB, by operation.
        steady: the same without what first messages caused.
        round_trips: to Redis, without first messages.
        commit_bytes, turn_bytes, turns: of COMMIT commands, of the encoded turns in them, and how many these are.
        dax: requests that DAX was to answer, by what became of them.
    """

    requests: dict[str, int] = {}
    steady: dict[str, int] = {}
    round_trips: int = 0
    commit_bytes: int = 0
    turn_bytes: int = 0
    turns: int = 0
    dax: dict[str, int] = {}


class Remote(msgspec.Struct, frozen=True):
    """Where the workers are, and how they are talked to.

    Attributes:
        urls: their public addresses.
        by: `http`, `websocket`, or `both`: half of the sessions by each.
        credential: an API key; None where the workers take anybody.
    """

    urls: tuple[str, ...]
    by: str = "both"
    credential: str | None = None

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise Invalid(f"--by takes {', '.join(BY)}, not {self.by!r:.40}")

    def by_socket(self, session_id: str) -> bool:
        """Tell whether a session's messages go by WebSocket."""
        return self.by == "websocket" or (self.by == "both" and crc32(session_id.encode()) % 2 == 0)


class Conditions(msgspec.Struct, frozen=True):
    """How a replay's processes open their MangaCache, or reach the workers that have one.

    Attributes:
        settings: field values of `Settings`.
        speed: how much faster than life the sessions age; 0 is real time.
        origin_s: from when on.
        remote: the workers; None for a MangaCache of the process's own.
    """

    settings: dict[str, str | int | float | None]
    speed: float = 0.0
    origin_s: float = 0.0
    remote: Remote | None = None

    @classmethod
    def of(cls, settings: Settings, *, speed: float, origin_s: float) -> Conditions:
        """Return the conditions that `settings` amount to."""
        return cls({spec.name: getattr(settings, spec.name) for spec in specs()}, speed, origin_s)


def digest(turns: Iterable[tuple[str, str]]) -> int:
    """Return a checksum of (role, content) pairs."""
    checksum = 0
    for role, content in turns:
        checksum = crc32(f"{role}\0{content}\0".encode(), checksum)
    return checksum


class Talks(Protocol):
    """A session that can be read and appended to: the library's, or one by way of a worker."""

    async def context(self, *, turns: int, at_least: str | None) -> Context:
        """Return the context."""

    async def append(self, *, role: str, content: str, turn_id: str | None) -> Appended:
        """Store a turn."""

    async def append_many(self, turns: Iterable[NewTurn], /) -> tuple[Appended, ...]:
        """Store several."""


async def perform(
    job: Job,
    session: Talks,
    *,
    clock: Clock,
    retries: bool = False,
    heard: Callable[[Context], Heard] | None = None,
) -> Handled:
    """Handle one message; what is refused for the time being is tried again, as a bot would.

    Args:
        job: the message.
        session: its session.
        clock: for the waits between tries.
        retries: whether `session` tries again by itself, so that an append may have been stored by a try before.
        heard: given the context, tells what the session's WebSocket was told since the message before.
    """
    started = perf_counter()
    context, repeats = await _patiently(
        lambda: session.context(turns=WINDOW_READ, at_least=job.token or None), clock=clock
    )
    times = [perf_counter()]
    done: list[Appended] = []
    duplicates = 0
    user, *replies = (NewTurn(turn_id=turn_id, role=role, content=content) for turn_id, role, content in job.turns)
    batches = [replies[first : first + WINDOW] for first in range(0, len(replies), WINDOW)]
    for batch in ([user], *batches):
        results, tries = await _patiently(functools.partial(_append, session, batch), clock=clock)
        done.extend(results)
        repeats += tries
        if not tries and not retries:  # an append that was tried again may have been stored by the first try
            duplicates += sum(appended.duplicate for appended in results)
        times.append(perf_counter())
    version = context.version
    for appended in done:
        version = appended.version.join(version)
    return Handled(
        token=str(version),
        numbers=tuple(appended.number for appended in done),
        duplicates=duplicates,
        read_digest=digest((turn.role, turn.content) for turn in context.turns),
        source=context.source,
        degraded=context.degraded or context.stale or any(appended.degraded for appended in done),
        repeats=repeats,
        read_s=times[0] - started,
        append_s=tuple(after - before for before, after in pairwise(times)),
        heard=heard(context) if heard is not None else Heard(),
    )


async def _patiently(call: Callable[[], Awaitable[T]], *, clock: Clock) -> tuple[T, int]:
    """Return the result of a call, and how often it had to be repeated.

    Raises:
        Transient, Rejected: for two minutes.
    """
    deadline_s = clock.monotonic_s() + _PATIENCE_S
    repeats = 0
    while True:
        try:
            return await call(), repeats
        except (Transient, Rejected) as error:
            if clock.monotonic_s() >= deadline_s:
                raise
            repeats += 1
            await clock.sleep(error.retry_after_s)


class Performer:
    """Handles messages on one MangaCache."""

    def __init__(
        self, cache: MangaCache, counts: CountingTransport, link: CountingLink | None, *, clock: Clock
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._counts = counts
        self._link = link

    async def handle(self, job: Job) -> Handled:
        """Handle one message."""
        first_message.set(job.first)
        session = self._cache.session(job.session_id, customer_id=job.customer_id)
        return await perform(job, session, clock=self._clock)

    def tally(self) -> Tally:
        """Return what has been sent so far."""
        tally = Tally(dict(self._counts.requests), dict(self._counts.steady), dax=self._asked_of_dax())
        if (link := self._link) is None:
            return tally
        return msgspec.structs.replace(
            tally,
            round_trips=link.round_trips.total(),
            commit_bytes=link.commit_bytes,
            turn_bytes=link.turn_bytes,
            turns=link.turns,
        )

    def _asked_of_dax(self) -> dict[str, int]:
        outcomes: Counter[str] = Counter()
        for metric in self._cache.telemetry.dax_requests.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    outcomes[sample.labels["outcome"]] += int(sample.value)
        return dict(outcomes)


async def _append(session: Talks, batch: Sequence[NewTurn]) -> tuple[Appended, ...]:
    if len(batch) > 1:
        return await session.append_many(batch)
    (one,) = batch
    return (await session.append(turn_id=one.turn_id, role=one.role, content=one.content),)


@asynccontextmanager
async def performer(conditions: Conditions) -> AsyncIterator[Performer]:
    """Open a MangaCache for a replay; the performer's tally can be read after it is closed, too."""
    settings = Settings(**conditions.settings)  # type: ignore[arg-type] # checked by Settings itself
    clock = AcceleratedClock(conditions.speed, origin_s=conditions.origin_s) if conditions.speed else SystemClock()
    async with open_transport(settings) as transport:
        counts, link = CountingTransport(transport), None
        if settings.redis_endpoint is not None:
            link = CountingLink(open_link(settings, clock=clock, random=system_random(), telemetry=Telemetry()))
        async with MangaCache.open(settings, clock=clock, transport=counts, link=link) as cache:
            yield Performer(cache, counts, link, clock=clock)
