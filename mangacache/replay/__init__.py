"""Replays recorded conversations through MangaCache and reads every session back."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.client import WorkerClient
from mangacache.errors import Invalid
from mangacache.replay.conversations import SAMPLE, read_conversations
from mangacache.replay.driving import Client, drive
from mangacache.replay.opening import opened
from mangacache.replay.performing import BY, Conditions, Remote
from mangacache.replay.reporting import is_clean, report, rows
from mangacache.replay.scraping import look
from mangacache.replay.verifying import verify
from mangacache.replay.workers import worker_processes
from mangacache.service import MangaCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from mangacache.replay.driving import Handler
    from mangacache.replay.performing import Tally
    from mangacache.settings import Settings

__all__ = [
    "BY",
    "SAMPLE",
    "Options",
    "Remote",
    "is_clean",
    "read_conversations",
    "replay",
    "replay_at_workers",
    "rows",
]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to replay.

    Attributes:
        concurrency: messages under way at once.
        limit: conversations to replay, None for all.
        workers: processes; a session's messages go to them in turn.
        recorded: follow the recorded seconds instead of going as fast as it goes.
        speed: how many recorded seconds pass in one, with `recorded`.
        prefix: put before every session id, so that a replay meets no earlier one.
        redis: use Redis where it is configured.
    """

    concurrency: int = 64
    limit: int | None = None
    workers: int = 1
    recorded: bool = False
    speed: float = 60.0
    prefix: str = ""
    redis: bool = True

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.workers < 1 or (self.limit is not None and self.limit < 1):
            raise Invalid("--concurrency, --workers and --limit take a whole number of at least 1")
        if not 0 < self.speed <= 10_000:  # noqa: PLR2004 - beyond it a minute lasts less than a request
            raise Invalid("--speed takes a number over 0, at most 10000")


async def replay(
    path: Path,
    settings: Settings,
    options: Options,
    *,
    engines: Mapping[str, Any] | None = None,
    progress: Callable[[int], Callable[[], None]] | None = None,
) -> dict[str, Any]:
    """Replay a file and return the report.

    Args:
        path: `.jsonl` or `.jsonl.gz`.
        settings: where the table is.
        options: how.
        engines: what to say of the servers in the report's environment.
        progress: given the number of messages, returns what to call after each.

    Raises:
        Invalid: a malformed line, or no times to follow.
        MangaCacheError: what a message met.
    """
    conversations = read_conversations(
        path,
        limit=options.limit,
        need_times=options.recorded,
        prefix=options.prefix,
        max_content_bytes=settings.max_content_bytes,
    )
    if not options.redis:
        settings = settings.replace(redis_endpoint=None)
    speed = options.speed if options.recorded else 0.0
    conditions = Conditions.of(settings, speed=speed, origin_s=time.time())
    clients = [Client(conversation, options.prefix, i) for i, conversation in enumerate(conversations)]
    total = sum(len(conversation.messages()) for conversation in conversations)
    advance = progress(total) if progress is not None else _nothing
    async with _handlers(options.workers, conditions) as (handlers, tallies):
        observed = await drive(clients, handlers, concurrency=options.concurrency, speed=speed, advance=advance)
    async with MangaCache.open(settings) as reader:
        verdict = await verify(reader, [(client.session_id, client.conversation) for client in clients])
    return report(observed, verdict, tallies, conversations=len(conversations), engines=engines or {})


async def replay_at_workers(
    path: Path,
    remote: Remote,
    options: Options,
    *,
    operators: Sequence[str] = (),
    max_content_bytes: int = 262_144,
    engines: Mapping[str, Any] | None = None,
    progress: Callable[[int], Callable[[], None]] | None = None,
) -> dict[str, Any]:
    """Replay a file through workers, from `options.workers` client processes, and return the report.

    Every session is read back through the workers by yet another client.

    Args:
        path: `.jsonl` or `.jsonl.gz`.
        remote: where the workers are.
        options: how; sessions age in real time there.
        operators: the workers' operators' ports, which say what they sent to DynamoDB and Redis.
        max_content_bytes: the longest content of a turn that the workers take.
        engines: see `replay`.
        progress: see `replay`.

    Raises:
        Invalid: a malformed line, or no times to follow.
        MangaCacheError: what a message met.
    """
    conversations = read_conversations(
        path,
        limit=options.limit,
        need_times=options.recorded,
        prefix=options.prefix,
        max_content_bytes=max_content_bytes,
    )
    clients = [Client(conversation, options.prefix, i) for i, conversation in enumerate(conversations)]
    advance = progress(sum(len(each.messages()) for each in conversations)) if progress is not None else _nothing
    before = await look(operators)
    async with _handlers(options.workers, Conditions({}, remote=remote)) as (handlers, _):
        speed = options.speed if options.recorded else 0.0
        observed = await drive(clients, handlers, concurrency=options.concurrency, speed=speed, advance=advance)
    tally = (await look(operators)).since(before)
    async with WorkerClient.open(remote.urls, credential=remote.credential, in_turn=True) as reader:
        verdict = await verify(reader, [(client.session_id, client.conversation) for client in clients])
    return report(observed, verdict, [tally], conversations=len(conversations), engines=engines or {}, whole=True)


@asynccontextmanager
async def _handlers(workers: int, conditions: Conditions) -> AsyncIterator[tuple[Sequence[Handler], list[Tally]]]:
    """Open what handles messages; the tallies are there once it is closed, what closing sent included."""
    tallies: list[Tally] = []
    if workers == 1:
        async with opened(conditions) as performs:
            yield [performs], tallies
        tallies.append(performs.tally())
        return
    async with worker_processes(workers, conditions) as processes:
        yield processes, tallies
        tallies.extend([await process.close() for process in processes])


def _nothing() -> None:
    pass
