"""A worker process of a cell: the real `serve`, with fault points at its doors and a wall clock that can be stepped.

Started as `python worker_main.py JSON`. Lines of JSON on the standard input plan fault points and step the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.redis import open_link
from mangacache.store import open_transport
from mangacache.telemetry import Telemetry
from mangacache.testing.points import FaultPoints, Plan
from mangacache.worker.process import serve


class SteppedClock(SystemClock):
    """The machine's clocks, of which the one on the wall may be wrong."""

    def __init__(self):
        self.wrong_s = 0.0

    def time_s(self):
        return super().time_s() + self.wrong_s


async def _listen(points, clock):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        said = json.loads(line)
        if "clock_s" in said:
            clock.wrong_s = said["clock_s"]
        elif said.get("heal"):
            points.heal()
        else:
            points.plan(Plan(**said))
    os._exit(1)  # whoever started it is gone


async def main(plan):
    settings = Settings(**plan["settings"])
    points, clock = FaultPoints(), SteppedClock()
    if plan["points"]:
        link = points.link(open_link(settings, clock=clock, random=system_random(), telemetry=Telemetry()))
        async with open_transport(settings, telemetry=Telemetry()) as transport:
            listening = asyncio.ensure_future(_listen(points, clock))
            status = await serve(settings, clock=clock, transport=points.transport(transport), link=link)
    else:
        listening = asyncio.ensure_future(_listen(points, clock))
        status = await serve(settings, clock=clock)
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening
    return status


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        sys.exit(asyncio.run(main(json.loads(sys.argv[1]))))
    else:
        sys.exit(uvloop.run(main(json.loads(sys.argv[1]))))
