"""The worker's public application on doubles, in this process: for tests of what it answers."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, web
from instances import Instances
from jsonschema import Draft202012Validator
from yarl import URL

from mangacache.clock import SystemClock
from mangacache.worker.app import api_routes, build_app
from mangacache.worker.auth.gate import OpenGate
from mangacache.worker.caller import Unauthenticated
from mangacache.worker.openapi.document import document, operations
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
        return json.loads(self.body)


class Told:
    """What the OpenAPI document says of an answer; each that a test gets is held to it."""

    def __init__(self) -> None:
        told = operations(api_routes())
        self._document = document(told, version="0")
        self._paths = [(re.compile(re.sub(r"\{\w+:([^{}]+)\}", r"\1", each.path)), each) for each in told]
        self._validators: dict[Any, Draft202012Validator] = {}

    def check(self, method: str, path: str, answer: Answer) -> None:
        for pattern, each in self._paths:
            if each.method == method and pattern.fullmatch(path.partition("?")[0]):
                self._check(re.sub(r":[^{}]+\}", "}", each.path), method.lower(), answer)
                return

    def _check(self, path: str, method: str, answer: Answer) -> None:
        said = self._document["paths"][path][method]["responses"][str(answer.status)]
        if "$ref" in said:
            said = self._document["components"]["responses"][str(answer.status)]
        if "content" not in said:
            assert answer.body == b""
            return
        ((kind, shape),) = said["content"].items()
        assert answer.headers["Content-Type"] == kind
        key = (path, method, answer.status)
        if key not in self._validators:
            schema = {**shape["schema"], "components": self._document["components"]}
            self._validators[key] = Draft202012Validator(schema)
        self._validators[key].validate(answer.json)


TOLD = Told()


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
            answer = Answer(response.status, response.headers, await response.read())
        TOLD.check(method, path, answer)
        return answer


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
