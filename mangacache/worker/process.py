"""The worker's process: opens the tiers and both ports, serves until it is asked to leave, and leaves in order."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import msgspec
from aiohttp import web

from mangacache import MangaCache
from mangacache.clock import SystemClock
from mangacache.errors import Closed, Invalid
from mangacache.worker.admitting import GateAdmission
from mangacache.worker.app import build_app
from mangacache.worker.auth.gate import gate_of
from mangacache.worker.draining import CUT_OFF_S, PORT, REQUESTS, REST, SESSIONS, SOCKETS, TRACES, Ending, plan
from mangacache.worker.health import HealthPages
from mangacache.worker.memory import MemoryPage
from mangacache.worker.metrics import WorkerMetrics
from mangacache.worker.monitor import Monitor
from mangacache.worker.operator import OperatorPages, operator_app
from mangacache.worker.readiness import Phase, Readiness
from mangacache.worker.requests import Requests
from mangacache.worker.serving import Runner
from mangacache.worker.signals import Signals, Stop
from mangacache.worker.sockets.registry import Sockets
from mangacache.worker.tracing import open_tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mangacache.clock import Clock, Random
    from mangacache.redis import Link
    from mangacache.settings import Settings
    from mangacache.store import Transport
    from mangacache.worker.auth.gate import Gate
    from mangacache.worker.tracing import Tracing

_CUT_OFF_WITHIN_S: Final = 0.25
"""How long who is still connected when a port is closed may take, first to finish, then to be cut off."""
_TRACES_WITHIN_S: Final = 1.5
DONE: Final = 0
UNDONE: Final = 1


def say(event: dict[str, Any]) -> None:
    """Write one line of JSON to the standard output: what whoever started the process waits for."""
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


async def serve(
    settings: Settings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    transport: Transport | None = None,
    link: Link | None = None,
    dax: Transport | None = None,
    tracing: Tracing | None = None,
    stop: Stop | None = None,
    warmed_up: Callable[[], object] | None = None,
    say: Callable[[dict[str, Any]], None] = say,
) -> int:
    """Serve until asked to leave.

    Args:
        settings: the worker's and the library's.
        clock: where time comes from; the machine's own by default.
        random: where randomness comes from.
        transport: the door to DynamoDB; see `MangaCache.open`, as for the next two.
        link: the way to Redis.
        dax: the way to DAX.
        tracing: traces; by default those that `traces_endpoint` asks for.
        stop: who asks it to leave; by default SIGTERM and SIGINT of this process do.
        warmed_up: called when both ports listen.
        say: told when it can be talked to, and how the end went.

    Returns:
        0 where all that had begun was finished, else 1.

    Raises:
        Invalid: a port is taken, or whatever `MangaCache.open` refuses.
        NotFound, Transient: see `MangaCache.open`.
    """
    clock = clock if clock is not None else SystemClock()
    within = plan(settings)
    opening = MangaCache.open(
        settings.replace(drain_timeout_s=within.sessions_s),
        clock=clock,
        random=random,
        transport=transport,
        link=link,
        dax=dax,
    )
    async with AsyncExitStack() as stack:
        if stop is None:
            stop = Stop()
            stack.enter_context(Signals(stop))
        cache = await stack.enter_async_context(_unless(stop, opening))
        if cache is None:
            return DONE
        tracing = tracing if tracing is not None else open_tracing(settings)
        worker = await stack.enter_async_context(Worker.open(cache, settings, clock=clock, tracing=tracing))
        if warmed_up is not None:
            warmed_up()
        say({"event": "listening", "public": worker.public, "operator": worker.operator})
        await stop.wait()
        cache.telemetry.log.info("leaving", why=stop.why)
        open_still = stack.pop_all()
        try:
            undone = await worker.leave(open_still.aclose)
        except BaseException:
            await open_still.aclose()
            raise
        say({"event": "left", "undone": undone})
        return UNDONE if undone else DONE


@asynccontextmanager
async def _unless(stop: Stop, opening: Any) -> AsyncIterator[MangaCache | None]:
    """Open, unless asked to leave before that is done: then there is nothing to finish."""
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("a coroutine outside of a task")
    opened = False

    def hear() -> None:
        if not opened:
            task.cancel()

    stop.on_asked(hear)
    try:
        cache = await opening.__aenter__()
        opened = True
    except asyncio.CancelledError:
        if not stop.asked or task.uncancel():
            raise
        yield None
        return
    try:
        yield cache
    finally:
        await opening.__aexit__(None, None, None)


class Worker:
    """Both ports of a worker, and its end.

    Attributes:
        metrics: what it counts.
    """

    def __init__(
        self, cache: MangaCache, settings: Settings, *, clock: Clock, gate: Gate, tracing: Tracing | None = None
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._tracing = tracing
        cache.telemetry.tracer = tracing
        self._clock = clock
        self._readiness = Readiness(clock=clock)
        self.metrics = metrics = WorkerMetrics(cache, clock=clock)
        self._monitor = Monitor(cache, self._readiness, settings=settings, clock=clock, metrics=metrics)
        self._requests = Requests(
            self._readiness, metrics=metrics, telemetry=cache.telemetry, clock=clock, port="public"
        )
        admit = partial(GateAdmission, gate, settings.worker_origins)
        self._sockets = Sockets(cache, admit=admit, settings=settings, clock=clock)
        cache.telemetry.watch_depth("sockets", lambda: len(self._sockets))
        health = HealthPages(self._monitor, self._readiness)
        rings = [self._requests.middleware] + ([tracing.middleware] if tracing is not None else [])
        public = build_app(
            cache,
            gate=gate,
            readiness=self._readiness,
            settings=settings,
            outer=rings,
            further=[*health.public_routes(), web.get("/v1/ws", self._sockets.handle, allow_head=False)],
            clock=clock,
        )
        pages = [*health.operator_routes(), *OperatorPages(cache, metrics).routes(), *MemoryPage(cache).routes()]
        operator = operator_app(pages, gate=gate, telemetry=cache.telemetry)
        runner = partial(
            Runner,
            receive_timeout_s=settings.worker_receive_timeout_s,
            clock=clock,
            telemetry=cache.telemetry,
            shutdown_timeout_s=_CUT_OFF_WITHIN_S,
        )
        self._public = _Port(runner(public), host=settings.worker_host, port=settings.worker_port)
        self._operator = _Port(runner(operator), host=settings.operator_host, port=settings.operator_port)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        cache: MangaCache,
        settings: Settings,
        *,
        clock: Clock,
        gate: Gate | None = None,
        tracing: Tracing | None = None,
    ) -> AsyncIterator[Worker]:
        """Open both ports, and close them at the end of the block.

        Raises:
            Invalid: a port is taken, or nobody would be asked who he is on an address that others reach.
        """
        if gate is None:
            telemetry = cache.telemetry
            refused = partial(telemetry.log.debug, "not_let_in")
            gate = gate_of(
                settings, clock=clock, on_failure=telemetry.count_survived, on_refused=lambda why: refused(why=why)
            )
        worker = cls(cache, settings, clock=clock, gate=gate, tracing=tracing)
        try:
            await worker._operator.open()
            await worker._public.open()
            worker._readiness.phase = Phase.SERVING
            worker._monitor.start()
            with worker.metrics.pauses():
                yield worker
        finally:
            await worker._monitor.close()
            await worker._sockets.close()
            await worker._public.close()
            await worker._operator.close()

    @property
    def public(self) -> str:
        """Where bots and gateways ask."""
        return self._public.url

    @property
    def operator(self) -> str:
        """Where operators and Prometheus ask."""
        return self._operator.url

    async def leave(self, close: Callable[[], Awaitable[object]]) -> list[str]:
        """Leave in order, close all that is open still, and return what could not be done.

        Args:
            close: ends the block of `open`, and what is around it.
        """
        within, telemetry, cache = plan(self._settings), self._cache.telemetry, self._cache
        ending = Ending(within.shares, before_s=within.notice_s, clock=self._clock, telemetry=telemetry)
        self._readiness.phase = Phase.LEAVING
        await self._clock.sleep(within.notice_s)
        self._readiness.phase = Phase.DRAINING
        until_s = self._clock.monotonic_s() + within.requests_s + CUT_OFF_S
        await ending.step(SOCKETS, partial(self._sockets.drain, within.requests_s))
        left_s = max(CUT_OFF_S, until_s - self._clock.monotonic_s())
        await ending.step(REQUESTS, self._requests.settle, within_s=left_s)
        cut_off = self._requests.under_way
        await ending.step(PORT, self._public.close)
        await ending.step(SESSIONS, cache.close)
        if self._tracing is not None:
            send = partial(anyio.to_thread.run_sync, self._tracing.close, abandon_on_cancel=True)
            await ending.step(TRACES, send, within_s=_TRACES_WITHIN_S)
        report = cache.supervisor.state().drain
        if report is not None and not report.complete:
            ending.undone.append(f"sessions: {msgspec.json.encode(report).decode()}")
        await ending.step(REST, close)
        log = telemetry.log.warning if ending.undone else telemetry.log.info
        log("left", seconds=ending.seconds, requests_cut_off=cut_off, undone=ending.undone)
        return ending.undone


class _Port:
    """One port of the worker.

    Attributes:
        url: where it is, once it is open.
    """

    def __init__(self, runner: Runner, *, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._runner: Runner | None = runner
        self.url = ""

    async def open(self) -> None:
        """Listen.

        Raises:
            Invalid: the address is taken, or is not this machine's.
        """
        runner = self._runner
        if runner is None:
            raise Closed("this port was closed")
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            raise Invalid(f"cannot listen at {self._host} port {self._port}: {error.strerror or error}") from error
        host, port = runner.addresses[0][:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Listen no more, and cut off what is still connected; to close again does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
