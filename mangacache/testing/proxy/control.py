"""The control port of proxies: HTTP on loopback, for tests in any language and for a shell.

`GET /status` gives what is in force and what was counted. `POST /delay?seconds=0.3&way=up` and its like have something
go wrong; see `ACTIONS` and `DYNAMODB_ACTIONS`. Answers are JSON, a refusal has status 400 and a line that says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiohttp import web

from mangacache.errors import Invalid
from mangacache.testing.proxy.dynamodb import DynamoProxy
from mangacache.testing.proxy.tcp import HOST, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Arguments: TypeAlias = "Mapping[str, Callable[[str], Any]]"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Invalid(f"{text!r} is no number: write 0.5") from error


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise Invalid(f"{text!r} is no whole number")
    return int(text)


ACTIONS: Final[dict[str, Arguments]] = {
    "delay": {"seconds": _number, "jitter_s": _number, "way": str},
    "throttle": {"bytes_per_s": _number, "way": str},
    "stall": {"way": str},
    "silence": {"way": str},
    "reset": {"share": _number},
    "lose_replies": {"count": _count, "mark": str},
    "sever": {"mark": str},
    "cut": {},
    "restore": {},
}
"""What can be done to a `Proxy`, by its method's name, with the arguments."""

DYNAMODB_ACTIONS: Final[dict[str, Arguments]] = {
    "throttle": {"share": _number},
    "lose_answers": {"share": _number},
    "slow": {"seconds": _number},
    "stop": {},
    "cut": {},
    "restore": {},
}
"""The same of a `DynamoProxy`."""


class ControlPort:
    """Serves the control port of one proxy.

    Args:
        proxy: that it acts upon.

    Attributes:
        port: that it listens at.
    """

    def __init__(self, proxy: Proxy | DynamoProxy) -> None:
        self.port = 0
        self._proxy = proxy
        self._actions = DYNAMODB_ACTIONS if isinstance(proxy, DynamoProxy) else ACTIONS
        application = web.Application()
        application.router.add_get("/status", self._status)
        application.router.add_post("/{action}", self._act)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, port: int = 0) -> None:
        """Listen; 0 takes a free port.

        Raises:
            Invalid: the port is taken.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            raise Invalid(f"port {port} cannot be used for the control port ({error}): choose another") from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._proxy.status())

    async def _act(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        try:
            arguments = self._arguments(action, request.query)
            getattr(self._proxy, action)(*arguments.pop("first"), **arguments["rest"])
        except Invalid as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"done": action, "status": self._proxy.status()})

    def _arguments(self, action: str, query: Mapping[str, str]) -> dict[str, Any]:
        known = self._actions.get(action)
        if known is None:
            raise Invalid(f"there is no {action!r}: there are {', '.join(sorted(self._actions))}")
        if unknown := query.keys() - known.keys():
            raise Invalid(f"{action} takes {', '.join(known) or 'nothing'}, not {', '.join(sorted(unknown))}")
        values = {name: known[name](text) for name, text in query.items()}
        names = [name for name in known if name in _FIRST]
        if missing := [name for name in names if name not in values and action not in _OPTIONAL]:
            raise Invalid(f"{action} needs {missing[0]}")
        if action == "silence" and "way" not in values:
            raise Invalid("silence needs a way: up, to the server, down, or both")
        first = [values.pop(name) for name in names if name in values]
        return {"first": first, "rest": values}


_FIRST: Final = frozenset({"seconds", "bytes_per_s", "share", "count"})
_OPTIONAL: Final = frozenset({"lose_replies"})
