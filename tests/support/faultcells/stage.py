"""All that a cell runs on: engine, Redis and workers as processes, the proxies between them, and what befalls them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

import aiohttp
from commands import clean_environ
from mangatest import HANG_GUARD_S
from redis.asyncio import Redis

from faultcells.crowd import LIMIT, LIMIT_UNITS, LIMIT_WINDOW_S
from faultcells.talk import Talk
from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.local.dax import dax_process
from mangacache.local.dynamodb import dynamodb_process, find_engine
from mangacache.local.process import free_port
from mangacache.local.valkey import valkey_process
from mangacache.settings import specs
from mangacache.store import Store, open_transport
from mangacache.telemetry import Telemetry
from mangacache.testing import DynamoProxy, Proxy

SCRIPT = Path(__file__).with_name("worker_main.py")
MARKS = {"subscription": b"SUBSCRIBE", "tracking": b"TRACKING"}


class Worker:
    """One worker process, which may be started again; each life has its own address."""

    def __init__(self, stage, number):
        self._stage = stage
        self.number = number
        self.process = None
        self.operator = ""
        self.lives = 0
        self.complaints: list[str] = []
        self._hearing: list[asyncio.Task] = []

    async def start(self):
        stage = self._stage
        settings = stage.settings.replace(redis_endpoint=f"redis://127.0.0.1:{stage.ways[self.number].port}")
        plan = {
            "settings": {spec.name: getattr(settings, spec.name) for spec in specs()},
            "points": stage.with_points,
        }
        variables = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": "us-east-1"}
        if stage.package is not None:
            variables["PYTHONPATH"] = str(stage.package)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            json.dumps(plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environ(**variables),
            limit=2**20,
        )
        self._hearing.append(asyncio.create_task(self._hear(self.process.stderr)))
        async with asyncio.timeout(HANG_GUARD_S):
            said = await self.process.stdout.readline()
        if not said:
            raise AssertionError(f"worker {self.number} did not start: {''.join(self.complaints)}")
        listening = json.loads(said)
        self._hearing.append(asyncio.create_task(self._drop(self.process.stdout)))
        self.operator = listening["operator"]
        self.lives += 1
        stage.talks[self.number] = Talk(stage.http, listening["public"])

    @property
    def runs(self):
        return self.process is not None and self.process.returncode is None

    def tell(self, **said):
        """Plan a fault point, or step the clock."""
        if self.runs:
            self.process.stdin.write(json.dumps(said).encode() + b"\n")

    def signal(self, number):
        if self.runs:
            os.kill(self.process.pid, number)

    async def ended(self):
        async with asyncio.timeout(HANG_GUARD_S):
            return await self.process.wait()

    async def end(self):
        if self.runs:
            self.signal(signal.SIGKILL)
            await self.process.wait()
        await asyncio.gather(*self._hearing)

    async def _hear(self, stream):
        async for line in stream:
            self.complaints.append(line.decode(errors="replace"))
            del self.complaints[:-200]

    async def _drop(self, stream):
        async for _ in stream:
            pass


class Stage:
    """The servers of one cell.

    Attributes:
        primary: the Redis that is the truth of the moment.
        ways: of each worker, its proxy to Redis.
        dynamodb: the proxy to the engine.
        dax: the emulator's process, where the fault has one.
        parts: what was wrong from when to when: (name, began_s, ended_s).
    """

    def __init__(self, form, fault, cell, folder, *, package=None):
        self.form = form
        self.cell = cell
        self.package = package
        self.with_points = fault.points
        self.folder = folder
        self.clock = SystemClock()
        self.talks: list[Talk | None] = [None] * form.workers
        self.workers = [Worker(self, number) for number in range(form.workers)]
        self.parts: list[list] = []
        self.notes: dict[str, object] = {}
        self.dax = None
        self.dax_faults = 0
        self._fault = fault
        self._servers = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, form, fault, cell, folder, *, package=None):
        stage = cls(form, fault, cell, folder, package=package)
        async with AsyncExitStack() as stack:
            stage.stack = stack
            await stage._open(stack)
            try:
                yield stage
            finally:
                await asyncio.gather(*(worker.end() for worker in stage.workers))

    async def _open(self, stack):
        self.http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout())
        )
        engine_folder = self._folder("engine")
        self.engine = dynamodb_process(find_engine("dynoxide"), port=None, folder=engine_folder, keep=False)
        await self.engine.start()
        stack.push_async_callback(self.engine.stop)
        self.dynamodb = await stack.enter_async_context(DynamoProxy.open(self.engine.port))
        if self._fault.faketime:
            self.clock_file = self.folder / "clock"
            self.clock_file.write_text("+0\n")
        self.primary = await self.redis_server("primary")
        self.ways = [
            await stack.enter_async_context(Proxy.open(self.primary.port, marks=MARKS))
            for _ in range(self.form.workers)
        ]
        changes = {}
        if self._fault.dax:
            port, self.dax_faults = free_port(), free_port()
            self.dax = dax_process(
                f"http://127.0.0.1:{self.engine.port}",
                folder=self._folder("dax"),
                port=port,
                fault_port=self.dax_faults,
            )
            await self.dax.start()
            stack.push_async_callback(self.dax.stop)
            changes["dax_endpoint"] = f"dax://127.0.0.1:{port}"
        self.settings = Settings(
            table_name=f"t-{uuid4().hex[:12]}",
            dynamodb_endpoint=self.dynamodb.url,
            key_prefix=f"{uuid4().hex[:8]}:",
            redis_policy=self.cell.policy,
            worker_port=0,
            operator_port=0,
            worker_notice_s=0.0,
            rate_limits=f"{LIMIT}={LIMIT_UNITS}/{LIMIT_WINDOW_S}",
            loop_lag_limit_s=60.0,  # a machine that is busy with other tests is no overload
            **changes,
        )
        async with open_transport(self.direct_settings, telemetry=Telemetry()) as transport:
            store = Store(
                transport, settings=self.settings, clock=self.clock, random=system_random(), telemetry=Telemetry()
            )
            await store.schema.create()
        await asyncio.gather(*(worker.start() for worker in self.workers))

    @property
    def direct_settings(self):
        """Settings of a cache that asks the engine itself, past everything that may be wrong."""
        return self.settings.replace(
            dynamodb_endpoint=f"http://127.0.0.1:{self.engine.port}", redis_endpoint=None, dax_endpoint=None
        )

    def _folder(self, name):
        folder = self.folder / name
        folder.mkdir()
        return folder

    async def redis_server(self, name, *, port=None, options=(), folder=None):
        """Start another Redis of the cell's kind."""
        self._servers += 1
        folder = folder or self._folder(f"{name}-{self._servers}")
        binary = Path("/usr/bin/redis-server") if self.cell.server == "redis" else None
        if self.cell.server == "redis":
            from redises import debian_redis_binary

            binary = debian_redis_binary()
        variables = self._fault.faketime_environment(self) if self._fault.faketime else {}
        server = valkey_process(
            folder=folder, port=port, options=["--repl-diskless-sync-delay", "0", *options], binary=binary
        )
        with _environment(variables):
            await server.start()
        self.stack.push_async_callback(server.stop)
        return server

    def client(self, server=None):
        return Redis(port=(server or self.primary).port, socket_timeout=5)

    def lead_to(self, server, *, workers=None):
        """Have new connections of workers lead to another server, and break those that are open."""
        for number in workers if workers is not None else range(len(self.ways)):
            self.ways[number].target_port = server.port
            self.ways[number].sever()

    # What was wrong when

    @asynccontextmanager
    async def wrong(self, name):
        """Note that something is wrong during the block."""
        part = [name, self.clock.monotonic_s(), None]
        self.parts.append(part)
        try:
            yield
        finally:
            part[2] = self.clock.monotonic_s()

    def ask_dax(self, action):
        """Have something go wrong in DAX, or right again."""
        with urlopen(Request(f"http://127.0.0.1:{self.dax_faults}/{action}", method="POST"), timeout=30) as answer:
            answer.read()


class _environment:  # noqa: N801 - used as a statement
    """Have a child process be started with variables."""

    def __init__(self, variables):
        self._variables = variables

    def __enter__(self):
        os.environ.update(self._variables)

    def __exit__(self, *_):
        for name in self._variables:
            os.environ.pop(name, None)
