"""What other clocks say, and how long it took them to say so."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import aiohttp

from mangacache.diagnosis.facts import ClockFacts, Offset, Unseen
from mangacache.diagnosis.gathering.redis import unseen
from mangacache.diagnosis.reading import LinkLost, ScriptFailed, reading_node
from mangacache.errors import MangaCacheError
from mangacache.redis import Dialer
from mangacache.tasks import both

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.clock import Clock
    from mangacache.settings import Settings

_TRIES: Final = 3
"""The answer that came soonest bounds the offset most closely."""
_WITHIN_S: Final = 5.0


async def look_at_clocks(settings: Settings, *, clock: Clock) -> ClockFacts:
    """Return how this machine's clock stands to DynamoDB's and to Redis's."""
    wall_s, steady_s = clock.time_s(), clock.monotonic_s()
    dynamodb, redis = await both(_dynamodb(settings, clock), _redis(settings, clock))
    stepped_s = (clock.time_s() - wall_s) - (clock.monotonic_s() - steady_s)
    return ClockFacts(dynamodb=dynamodb, redis=redis, stepped_s=stepped_s)


async def _dynamodb(settings: Settings, clock: Clock) -> Offset | Unseen:
    """Ask the endpoint for nothing, unsigned: its answer carries a date, whoever asks."""
    url = settings.dynamodb_endpoint or f"https://dynamodb.{settings.region}.amazonaws.com"
    found: list[Offset] = []
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_WITHIN_S)) as session:
            for _ in range(_TRIES):
                sent_s = clock.time_s()
                async with session.get(url) as answer:
                    heard_s = clock.time_s()
                    at_s = parsedate_to_datetime(answer.headers["Date"]).timestamp()
                found.append(Offset.of(at_s, step_s=1.0, sent_s=sent_s, heard_s=heard_s))
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        return Unseen(f"{url}: {str(error) or type(error).__name__}")
    except (KeyError, ValueError) as error:
        return Unseen(f"{url} gave no date ({error})")
    return narrowest(found)


async def _redis(settings: Settings, clock: Clock) -> Offset | Unseen | None:
    address = settings.redis
    if address is None:
        return None
    found: list[Offset] = []
    try:
        dialer = Dialer(settings, clock=clock)
        async with reading_node(dialer, address, clock=clock, within_s=settings.connect_timeout_s) as node:
            for _ in range(_TRIES):
                sent_s = clock.time_s()
                seconds, micros = await node.ask("TIME")
                at_s = int(seconds) + int(micros) / 1e6
                found.append(Offset.of(at_s, step_s=0.0, sent_s=sent_s, heard_s=clock.time_s()))
    except (LinkLost, ScriptFailed, MangaCacheError) as error:
        return unseen(error)
    return narrowest(found)


def narrowest(offsets: Iterable[Offset]) -> Offset:
    """Return what several offsets of one clock say together: each bounds it, so the closest bounds do."""
    known = list(offsets)
    least_s, most_s = max(one.least_s for one in known), min(one.most_s for one in known)
    if least_s > most_s:  # a clock was set in between
        return min(known, key=lambda one: one.most_s - one.least_s)
    return Offset(least_s=least_s, most_s=most_s)
