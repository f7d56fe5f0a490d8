"""The event loop: virtual time, several processes on one thread, and an order that a seed decides.

What is decided by the seed is only what asyncio and a network leave open. Each process keeps the order that its own
loop would keep: callbacks run in the order in which they were registered, and what they register runs after all that
is ready. Events from outside, which are timers and what comes over connections, join that queue at its end, at the
beginning of a turn of the loop: connections first, in any order among themselves and each one's data in its own, then
the timers by their time. In between, the seed decides how long a turn takes, so where in the queue an event finds its
place; which of several processes, which run side by side in life, has its next turn; and when one waits for the
processor. So every order here is one that real processes may run in. (Not every order of theirs is one here: within
one turn nothing comes in, and a turn of one process is not cut in two by another's. Processes share nothing but what
they send each other, which takes time, so that would make no difference that one could see.)
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from mangacache.testing.simulation.processes import OF, Process, awaiting

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextvars import Context

    from mangacache.clock import Random
    from mangacache.testing.simulation.network import Network

_TICK_S: Final = 1e-6
_TURN_S: Final = 50e-6
_STALLED: Final = 0.002
_STALL_S: Final = 0.03
_CLEAN_FROM: Final = 4096
_MOST_STEPS: Final = 3_000_000
_END_STEPS: Final = 200_000
_ENDS_WITHIN_S: Final = 600.0
_CANCELS_AGAIN_S: Final = 30.0


class Stuck(Exception):
    """The simulation cannot go on, or does not come to an end; the message shows where each task stands."""


class _Handle(asyncio.Handle):
    """A handle that is made in half the time: it does not ask for the debug mode, which the simulation has not."""

    __slots__ = ()

    def __init__(  # asyncio's own would ask the loop
        self,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs several processes in virtual time.

    There are no sockets but the simulated network's, no threads, no signals and no subprocesses: what asks for one is
    refused.

    Args:
        random: decides the order.
        begins_at_s: what `time` reads at first.
        ends_within_s: how much virtual time may pass before the run counts as hanging.
        most_steps: how many callbacks may run until then.
        stalls: how often a process waits for the processor, by turns.

    Attributes:
        network: where `create_connection` leads; None where nothing listens.
        outside: the process of whoever drives the simulation.
        steps: callbacks run so far.
    """

    def __init__(
        self,
        random: Random,
        *,
        begins_at_s: float = 1000.0,
        ends_within_s: float = 3600.0,
        most_steps: int = _MOST_STEPS,
        stalls: float = _STALLED,
    ) -> None:
        super().__init__()
        self.get_debug = bool  # type: ignore[method-assign]  # every future asks, and nothing says no sooner
        self.network: Network | None = None
        self.steps = 0
        self._random = random
        self._now_s = begins_at_s
        self._ends_at_s = begins_at_s + ends_within_s
        self._most_steps = most_steps
        self._stalls = stalls
        self._serials = count()
        self._events: list[tuple[float, int, asyncio.Handle | None, Process, object | None]] = []
        self._clean_at = _CLEAN_FROM
        self._runnable: list[Process] = []
        self._processes: list[Process] = []
        self.outside = self.process("outside")
        self._failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self._failures.append(context))

    # Processes

    def process(self, name: str) -> Process:
        """Return a new process."""
        process = Process(name, self)
        self._processes.append(process)
        return process

    @property
    def current(self) -> Process:
        """The process whose callback runs now; `outside` where none does."""
        return OF.get(self.outside)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """What callbacks and tasks raised that nobody heard, as handed to asyncio's exception handlers."""
        return self._failures

    def start(self, process: Process, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Start a task in a process."""
        return self.create_task(coroutine, name=name, context=process.context.copy())

    def create_task(  # type: ignore[override]  # typeshed's is generic in the result
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """See asyncio; the task belongs to the process of its context."""
        self._check_closed()  # type: ignore[attr-defined]
        task = asyncio.Task(coro, loop=self, name=cast("str | None", name), context=context)
        process = OF.get(self.outside) if context is None else context.get(OF) or self.outside
        process.note(task)
        return task

    def queue(self, process: Process) -> None:
        """Have a process take its turns again."""
        if not process.queued and not process.stands_still and process.alive:
            process.queued = True
            self._runnable.append(process)

    def forget(self, process: Process) -> None:
        """Have a process take no turns."""
        if process.queued:
            process.queued = False
            self._runnable.remove(process)

    def wake_at(self, when_s: float, process: Process) -> None:
        """End a stall at its time."""
        heappush(self._events, (when_s, next(self._serials), None, process, None))

    # Time

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def deliver_at(
        self, when_s: float, process: Process, callback: Callable[..., object], *args: Any, by: object | None
    ) -> None:
        """Have something come to a process from outside.

        Args:
            when_s: when it is there.
            process: whose loop takes it in.
            callback: what takes it.
            args: with what.
            by: the connection that brings it; what one connection brings stays in order.
        """
        handle = _Handle(callback, args, self, process.context)
        heappush(self._events, (when_s, next(self._serials), handle, process, by))

    # What asyncio asks of a loop

    def call_soon(  # type: ignore[override]  # typeshed's is generic in the arguments
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio; the callback belongs to the process of its context."""
        handle = _Handle(callback, args, self, context)
        process: Process = handle._context.get(OF) or self.outside  # noqa: SLF001
        process.ready.append(handle)
        if not process.queued:
            self.queue(process)
        return handle

    def call_at(  # type: ignore[override]  # typeshed's is generic in the arguments
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        process: Process = timer._context.get(OF) or self.outside  # type: ignore[attr-defined]  # noqa: SLF001
        heappush(self._events, (when, next(self._serials), timer, process, None))
        if len(self._events) > self._clean_at:
            self._clean()
        return timer

    def call_later(  # type: ignore[override]  # typeshed's is generic in the arguments
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it where it is: it is passed over when its time comes."""

    def call_soon_threadsafe(  # type: ignore[override]  # typeshed's is generic in the arguments
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio: from this thread, which is the only one. Generators that were left are closed by this."""
        if self._thread_id != get_ident():  # type: ignore[attr-defined]  # asyncio's own
            raise NotImplementedError("the simulation has one thread: what needs another cannot run on it")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]  # it is refused
        """Refuse: there are no threads."""
        raise NotImplementedError("the simulation has one thread: what needs another cannot run on it")

    async def create_connection(  # type: ignore[override]  # only what the simulated network can do
        self,
        protocol_factory: Callable[[], asyncio.Protocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to a server of the simulated network."""
        if self.network is None or any(options.values()):
            raise NotImplementedError(f"the simulated network has no connection to {host}:{port} with {options}")
        return await self.network.connect(protocol_factory, f"{host}:{port}")

    # A turn

    def _run_once(self) -> None:
        """Give one process its turn, having moved time on to the next event where nobody has anything to do."""
        if self._now_s > self._ends_at_s or self.steps > self._most_steps:
            raise Stuck(f"no end in sight after {self.steps} callbacks, at {self._now_s:.0f} s:\n{self.where()}")
        runnable = self._runnable
        if not runnable:
            self._pass_time()
            if not runnable:
                return
        process = runnable[int(self._random.random() * len(runnable))] if len(runnable) > 1 else runnable[0]
        if process.inbox:
            self._take_in(process)
        ready = process.ready
        for _ in range(len(ready)):
            if not process.alive:  # it was killed in its own turn
                break
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001
                self.steps += 1
                self._now_s += _TICK_S
                try:  # as the handle runs itself, without a call more for each callback
                    handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]  # noqa: SLF001
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is told to the loop's handler
                    self._tell(handle, error)
        handle = None  # type: ignore[assignment]  # keeps nothing alive
        if not ready and not process.inbox:
            self.forget(process)
        chance = self._random.random()
        self._now_s += chance * _TURN_S
        if chance < self._stalls and process is not self.outside:
            process.stall(self._random.random() * _STALL_S)
        if self._events and self._events[0][0] <= self._now_s:
            self._take_due()

    def _tell(self, handle: asyncio.Handle, error: BaseException) -> None:
        context = {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
        self.call_exception_handler(context)

    def _take_in(self, process: Process) -> None:
        """Put what has come at the end of the queue: connections in any order, each in its own, then timers."""
        inbox, process.inbox = process.inbox, []
        if len(inbox) == 1:
            process.ready.append(inbox[0][1])
            return
        by_connection: dict[int, list[asyncio.Handle]] = {}
        timers: list[asyncio.Handle] = []
        for by, handle in inbox:
            (timers if by is None else by_connection.setdefault(id(by), [])).append(handle)
        brought = list(by_connection.values())
        while brought:
            process.ready.extend(brought.pop(int(self._random.random() * len(brought))))
        process.ready.extend(timers)

    def _take_due(self) -> None:
        events, now_s = self._events, self._now_s
        while events and events[0][0] <= now_s:
            _, _, handle, process, by = heappop(events)
            if handle is None:
                if process.stands_still and process.resumes_at_s <= now_s:
                    process.go_on()
            elif not handle._cancelled:  # noqa: SLF001
                process.inbox.append((by, handle))
                if not process.queued:
                    self.queue(process)

    def _pass_time(self) -> None:
        events = self._events
        while events and self._is_void(events[0]):
            heappop(events)
        if not events:
            raise Stuck(f"nothing is ready, and nothing will be:\n{self.where()}")
        self._now_s = max(self._now_s, events[0][0])
        self._take_due()

    @staticmethod
    def _is_void(event: tuple[float, int, asyncio.Handle | None, Process, object | None]) -> bool:
        handle = event[2]
        return handle is not None and handle._cancelled  # noqa: SLF001

    def _clean(self) -> None:
        """Throw cancelled timers away: most are time-outs that did not come."""
        self._events = [event for event in self._events if not self._is_void(event)]
        heapify(self._events)
        self._clean_at = max(_CLEAN_FROM, 2 * len(self._events))

    # Ends

    def where(self) -> str:
        """Return where each task of each process stands, as text."""
        lines = []
        for process in self._processes:
            for task in sorted(process.tasks(), key=lambda task: task.get_name()) if process.alive else ():
                frames = [_place(awaited) for awaited in awaiting(task)]
                lines.append(f"  {process.name}: {task.get_name()}: {' > '.join(frames)}")
        return "\n".join(lines) or "  no task is left"

    def close(self) -> None:
        """See asyncio; whatever has not ended is cancelled first, and ends where nobody hears of it."""
        if self.is_closed():
            return
        if self.network is not None:
            self.network.end()
        self.set_exception_handler(lambda *_: None)
        self._ends_at_s, self._most_steps = self._now_s + _ENDS_WITHIN_S, self.steps + _END_STEPS
        with contextlib.suppress(Stuck):
            self.run_until_complete(self._wind_up())
        self._events.clear()
        super().close()

    async def _wind_up(self) -> None:
        me = asyncio.current_task(self)
        while tasks := [task for process in self._processes for task in process.wind_up(but=me)]:
            await asyncio.wait(tasks, timeout=_CANCELS_AGAIN_S)


def _place(awaited: Any) -> str:
    frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
    return f"{awaited.__qualname__}:{frame.f_lineno if frame is not None else 'ended'}"
