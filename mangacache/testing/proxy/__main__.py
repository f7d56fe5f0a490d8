"""A proxy as a process: `python -m mangacache.testing.proxy --target 127.0.0.1:6379`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from mangacache.testing.proxy.control import ControlPort
from mangacache.testing.proxy.dynamodb import DynamoProxy
from mangacache.testing.proxy.tcp import Proxy


def main(arguments: list[str] | None = None) -> int:
    """Run a proxy until it is interrupted; one line of JSON says where it listens."""
    parser = argparse.ArgumentParser(
        prog="python -m mangacache.testing.proxy",
        description="A proxy on loopback on whose way everything may go wrong, as its control port says.",
    )
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the server behind it")
    parser.add_argument("--port", type=int, default=0, help="to listen at; 0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="of the control port; 0 takes a free one")
    parser.add_argument("--dynamodb", action="store_true", help="understand DynamoDB's requests, over plain HTTP")
    given = parser.parse_args(arguments)
    host, _, port = given.target.rpartition(":")
    if not host or not port.isdecimal():
        parser.error(f"--target is HOST:PORT, not {given.target!r}")
    try:
        asyncio.run(_serve(host, int(port), given))
    except KeyboardInterrupt:
        return 0
    return 0


async def _serve(host: str, port: int, given: argparse.Namespace) -> None:
    opening = DynamoProxy.open if given.dynamodb else Proxy.open
    async with opening(port, target_host=host, port=given.port) as proxy:
        control = ControlPort(proxy)
        await control.start(given.control_port)
        sys.stdout.write(json.dumps({"port": proxy.port, "control_port": control.port}) + "\n")
        sys.stdout.flush()
        try:
            await asyncio.Event().wait()
        finally:
            await control.stop()


if __name__ == "__main__":
    sys.exit(main())
