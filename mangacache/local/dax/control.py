"""The fault port: HTTP on loopback, for tests in any language and for `--status`.

`GET /status` gives the counters. `POST /kill?node=1` and its like have something go wrong; see `_ACTIONS`. Everything
is answered in JSON, a refusal with status 400 and a line that says why.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final
from urllib.request import ProxyHandler, build_opener

from aiohttp import web

from mangacache.errors import Invalid, NotFound
from mangacache.testing.dax.serving import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mangacache.local.dax.emulator import DaxEmulator

HOST: Final = "127.0.0.1"
_STATUS_WITHIN_S: Final = 5.0


class FaultPort:
    """Serves the fault port of one emulator.

    Args:
        emulator: that it acts upon.

    Attributes:
        port: that it listens at.
    """

    def __init__(self, emulator: DaxEmulator) -> None:
        self.port = 0
        self._emulator = emulator
        application = web.Application()
        application.router.add_get("/status", self._status)
        application.router.add_post("/{action}", self._act)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, port: int) -> None:
        """Listen; 0 takes a free port.

        Raises:
            Invalid: the port is taken.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            raise Invalid(
                f"port {port} cannot be used for the fault port ({error}): end what listens there, or choose another"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._emulator.status())

    async def _act(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        try:
            done = await self._do(action, request.query)
        except Invalid as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"done": action, **done})

    async def _do(self, action: str, query: Mapping[str, str]) -> dict[str, Any]:
        known = _ACTIONS.get(action)
        if known is None:
            raise Invalid(f"there is no {action!r}: there are {', '.join(sorted(_ACTIONS))}")
        unknown = query.keys() - known.keys()
        if unknown:
            raise Invalid(f"{action} takes {', '.join(known) or 'nothing'}, not {', '.join(sorted(unknown))}")
        values = {name: known[name](text) for name, text in query.items()}
        faults = self._emulator.faults
        match action:
            case "kill":
                await faults.kill(values.get("node", 0))
            case "restart":
                await faults.restart(values.get("node", 0))
            case "slow":
                faults.slow(values.get("seconds", 1.0), node=values.get("node"))
            case "stop":
                faults.stop_replies(node=values.get("node"))
            case "lose-replies":
                faults.lose_replies(values.get("count", 1), operation=values.get("operation"))
            case "throttle":
                faults.throttle(values.get("count", 1), operation=values.get("operation"))
            case "lag":
                faults.lag(values.get("seconds", 0.0))
            case "heal":
                await faults.heal()
        return {name: str(value) if value == math.inf else value for name, value in values.items()}


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise Invalid(f"{text!r} is no whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise Invalid(f"{text!r} is no number of seconds: write 0.5, or inf")
    return seconds


def _operation(text: str) -> str:
    if text not in OPERATIONS:
        raise Invalid(f"there is no operation {text!r}: there are {', '.join(sorted(OPERATIONS))}")
    return text


_ACTIONS: Final[dict[str, dict[str, Callable[[str], Any]]]] = {
    "kill": {"node": _count},
    "restart": {"node": _count},
    "slow": {"seconds": _seconds, "node": _count},
    "stop": {"node": _count},
    "lose-replies": {"count": _count, "operation": _operation},
    "throttle": {"count": _count, "operation": _operation},
    "lag": {"seconds": _seconds},
    "heal": {},
}


def fetch_status(port: int) -> dict[str, Any]:
    """Return the status of an emulator, by its fault port.

    Raises:
        NotFound: there is none.
    """
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/status", timeout=_STATUS_WITHIN_S) as answer:
            status: dict[str, Any] = json.load(answer)
    except (OSError, ValueError) as error:
        raise NotFound(
            f"no DAX emulator has its fault port at {HOST}:{port} ({error}): it prints the port when it starts"
        ) from error
    return status
