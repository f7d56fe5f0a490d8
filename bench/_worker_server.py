"""A worker whose profile can be taken: `mangacache serve`, with a thread's worth of control on its standard input."""

from __future__ import annotations

import asyncio
import cProfile
import json
import sys
from typing import Any

from _common import run
from _processes import serve as serve_bench
from _profile import shares_of

from mangacache import Settings
from mangacache.collector import freeze
from mangacache.worker.process import serve
from mangacache.worker.signals import Stop


async def main() -> None:
    """Serve, and be told when to profile."""
    listening: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    stop = Stop()
    settings = Settings.from_env().replace(worker_port=0, operator_port=0, worker_notice_s=0.0)

    def say(event: dict[str, Any]) -> None:
        if not listening.done():
            listening.set_result(event)

    serving = asyncio.create_task(serve(settings, stop=stop, warmed_up=freeze, say=say))
    profile = cProfile.Profile()

    async def where() -> dict[str, Any]:
        await asyncio.wait((listening, serving), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        return await listening

    async def begin() -> None:
        profile.clear()
        profile.enable()

    async def end() -> dict[str, Any]:
        profile.disable()
        return shares_of(profile)

    await serve_bench({"where": where, "begin": begin, "end": end})
    stop.ask("the bench is over")
    await serving


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(main(), loop=given["loop"])
