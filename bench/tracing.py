"""What traces cost a chat message (a context and two appends): off, on and not traced, and traced.

The whole service on doubles of DynamoDB and Redis in this process, so that nothing but processor time is measured; the
ways take turns. Beside it, what the question costs that each call to a service asks where nobody traces.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from _common import environment, interleave, median, options, print_table, warn_if_busy
from _main import report
from opentelemetry.sdk.trace import SpanProcessor

from mangacache import MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB, MemoryRedis
from mangacache.worker.tracing import Tracing

if TYPE_CHECKING:
    import argparse

WAYS: Final = ("off", "not_traced", "traced")
SESSIONS: Final = 50
QUESTIONS: Final = 2_000_000


def _tracing(way: str) -> Tracing | None:
    return None if way == "off" else Tracing(SpanProcessor(), share=1.0 if way == "traced" else 0.0)


async def _cpu_us(way: str, messages: int) -> float:
    """Return the processor time of one message."""
    database, redis, settings = MemoryDynamoDB(), MemoryRedis(), Settings()
    transport, tracing = AioTransport(database.client()), _tracing(way)
    clock, random = SystemClock(), system_random()
    await Store(
        transport, settings=settings, clock=clock, random=random, telemetry=Telemetry()
    ).schema.create()  # fmt: skip
    async with MangaCache.open(settings, transport=transport, link=redis.link()) as cache:
        cache.telemetry.tracer = tracing
        for number in range(SESSIONS):
            await cache.session(f"s-{number}").append(role="user", content="hello")
        began_s = time.process_time()
        for number in range(messages):
            session = cache.session(f"s-{number % SESSIONS}")
            with tracing.request("POST", "/bench") if tracing is not None else nullcontext():
                await session.context()
                await session.append(role="user", content="Is Berserk 1 in stock?")
                await session.append(role="assistant", content="It is.")
        return (time.process_time() - began_s) / messages * 1e6


def _question_ns() -> float:
    """Return what one call pays for asking whether somebody traces."""
    telemetry, found = Telemetry(), 0
    began_s = time.process_time()
    for _ in range(QUESTIONS):
        pass
    empty_s = time.process_time() - began_s
    began_s = time.process_time()
    for _ in range(QUESTIONS):
        if (tracer := telemetry.tracer) is not None:
            found += tracer is not None
    return (time.process_time() - began_s - empty_s) / QUESTIONS * 1e9


async def bench(given: argparse.Namespace) -> dict[str, Any]:
    """Measure."""
    warn_if_busy()
    rounds, messages = (1, 100) if given.quick else (7, 3_000)
    measured = await interleave(rounds, {way: partial(_cpu_us, way, messages) for way in WAYS})
    cpu_us = {way: round(median(values), 1) for way, values in measured.items()}
    return {
        "environment": environment(None, loop=given.loop),
        "rounds": rounds,
        "messages": messages,
        "cpu_us_per_message": cpu_us,
        "ratio_not_traced_to_off": round(cpu_us["not_traced"] / cpu_us["off"], 3),
        "ratio_traced_to_off": round(cpu_us["traced"] / cpu_us["off"], 3),
        "question_ns": round(_question_ns(), 1),
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    lines = [(way, [value]) for way, value in figures["cpu_us_per_message"].items()]
    print_table("traces", ["CPU us a message"], lines)
    print(f"the question whether somebody traces: {figures['question_ns']} ns")


if __name__ == "__main__":
    given = options(__doc__.splitlines()[0]).parse_args()
    sys.exit(report(bench(given), given, show=show))
