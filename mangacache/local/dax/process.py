"""The emulator as a process of its own, beside the other servers of the embedded stack."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from mangacache.local.process import ServerProcess, answers, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def dax_process(
    dynamodb_endpoint: str,
    *,
    folder: Path,
    port: int | None = None,
    fault_port: int | None = None,
    options: Sequence[str] = (),
) -> ServerProcess:
    """Return an emulator, not started yet.

    Args:
        dynamodb_endpoint: where the tables are.
        folder: where its log goes, and what it has to know again after a restart.
        port: of the first node; None takes a free one.
        fault_port: None takes a free one.
        options: further arguments of `mangacache dax-emulator`.
    """
    chosen_fault_port = fault_port if fault_port is not None else free_port()

    def command(chosen: int) -> Sequence[str]:
        places = ["--port", str(chosen), "--other-ports", "free", "--fault-port", str(chosen_fault_port)]
        return [
            *(sys.executable, "-m", "mangacache.cli", "dax-emulator"),
            *("--dynamodb-endpoint", dynamodb_endpoint),
            *places,
            *("--lists", str(folder / "dax.lists")),
            *options,
        ]

    async def ready(chosen: int) -> bool:
        # The first node listens last, so that it can be connected to says enough, with TLS or without.
        return await answers(asyncio.open_connection("127.0.0.1", chosen), b"", b"")

    return ServerProcess("DAX emulator", command=command, ready=ready, port=port, log=folder / "dax.log")
