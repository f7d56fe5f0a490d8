"""`mangacache serve` as a process beside the other servers of the embedded stack, which it finds by the environment."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from mangacache.local.process import ServerProcess, answers, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def worker_process(folder: Path, *, name: str) -> tuple[ServerProcess, int]:
    """Return a worker, not started yet, and the port of its operator.

    Args:
        folder: where its log and its settings go; the environment overlays them.
        name: of both, and in messages.
    """
    operator_port = free_port()
    config = folder / f"{name}.toml"

    def command(port: int) -> Sequence[str]:
        lines = (f"worker_port = {port}", f"operator_port = {operator_port}", "worker_notice_s = 0.0")
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [sys.executable, "-m", "mangacache.cli", "serve", "--config", str(config)]

    async def ready(port: int) -> bool:
        ask = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return await answers(asyncio.open_connection("127.0.0.1", port), ask, b"HTTP/1.1 200")

    return ServerProcess(name, command=command, ready=ready, port=None, log=folder / f"{name}.log"), operator_port
