"""The worker's public application on doubles, in this process: for tests of what it answers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, web
from instances import Instances
from yarl import URL

from mangacache.clock import SystemClock
from mangacache.worker.app import build_app
from mangacache.worker.auth.gate import OpenGate
from mangacache.worker.caller import Unauthenticated
from mangacache.worker.readiness import Readiness
from mangacache.worker.serving import Runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache import MangaCache
    from mangacache.worker.caller import Caller

JSON = {"Content-Type": "application/json"}


class NamedGate:
    """Lets in who is known by the word in `Authorization`."""

    def __init__(self, callers: dict[str, Caller]) -> None:
        self._callers = callers

    async def authenticate(self, headers: Any, remote: str | None) -> Caller:
        del remote
        caller = self._callers.get(headers.get("Authorization", ""))
        if caller is None:
            raise Unauthenticated("who are you?")
        return caller


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        import json

        return json.loads(self.body)


class HttpWorld:
    """One worker's application and a client of it.

    Attributes:
        cache: what answers.
        port: where.
        runner: of the application.
    """

    def __init__(self, cache: MangaCache, runner: Runner, http: ClientSession) -> None:
        self.cache = cache
        self.runner = runner
        self.http = http
        self.port = runner.addresses[0][1]
        self.base = f"http://127.0.0.1:{self.port}"

    async def __call__(self, method: str, path: str, **more: Any) -> Answer:
        async with self.http.request(method, URL(self.base + path, encoded=True), **more) as response:
            return Answer(response.status, response.headers, await response.read())


@asynccontextmanager
async def http_world(
    *, instances: Instances | None = None, gate: Any = None, clock: Any = None, wrap: Any = None, **changes: Any
) -> AsyncIterator[HttpWorld]:
    """A worker's application, listening on a free port."""
    if instances is None:
        async with (
            Instances.open() as made,
            http_world(instances=made, gate=gate, clock=clock, wrap=wrap, **changes) as world,
        ):
            yield world
        return
    clock = clock if clock is not None else SystemClock()
    async with instances.cache(clock=clock, wrap=wrap, **changes) as cache:
        app = build_app(
            cache,
            gate=gate if gate is not None else OpenGate(),
            readiness=Readiness(clock=clock),
            settings=cache.settings,
            clock=clock,
        )
        runner = Runner(
            app,
            receive_timeout_s=cache.settings.worker_receive_timeout_s,
            clock=clock,
            telemetry=cache.telemetry,
            shutdown_timeout_s=5,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with ClientSession() as http:
                yield HttpWorld(cache, runner, http)
        finally:
            await runner.cleanup()
