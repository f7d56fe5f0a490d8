"""Processes of a replay, each with a MangaCache or a client of workers, driven over standard input and output.

A frame is four bytes of length and a MessagePack value. Jobs carry a number from 1, and answers come in any order. An
empty frame asks the worker to close its MangaCache, to answer with its tally, and to end. An answer numbered 0 is about
the worker itself: its tally, or why it could not open.
"""

from __future__ import annotations

import asyncio
import signal
import struct
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.collector import freeze
from mangacache.errors import MangaCacheError
from mangacache.replay.opening import opened
from mangacache.replay.performing import Conditions, Handled, Job, Tally
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.replay.opening import Performs

_LENGTH: Final = struct.Struct(">I")


class _Answer(msgspec.Struct, frozen=True):
    number: int
    handled: Handled | None = None
    error: str = ""
    tally: Tally | None = None


class Worker:
    """A worker process, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[Handled]] = {}
        self._next = 0
        self._ended = asyncio.Event()
        self._error = ""
        self._tally: Tally | None = None

    async def handle(self, job: Job) -> Handled:
        """Have the worker handle a message.

        Raises:
            MangaCacheError: what the worker met, or that it died.
        """
        if self._ended.is_set():  # nobody listens any more, and a pipe may take a frame that nobody will read
            raise self._died()
        self._next += 1
        number = self._next
        future: asyncio.Future[Handled] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._send((number, job))
        return await future

    async def _send(self, value: Any) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise AssertionError("a worker without a pipe")
        try:
            stdin.write(_frame(value))
            await stdin.drain()
        except ConnectionError as error:
            await self._ended.wait()  # it may have said why
            raise self._died() from error

    def _died(self) -> MangaCacheError:
        return MangaCacheError(
            self._error or f"worker {self._process.pid} of the replay has died: nothing was verified"
        )

    async def listen(self) -> None:
        """Take in answers until the worker ends; whoever still waits then hears of it."""
        stdout = self._process.stdout
        if stdout is None:
            raise AssertionError("a worker without a pipe")
        try:
            while (frame := await _read_frame(stdout)) is not None:
                self._take(msgspec.msgpack.decode(frame, type=_Answer))
        finally:
            self._ended.set()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(self._died())

    def _take(self, answer: _Answer) -> None:
        if answer.number == 0:
            self._tally, self._error = answer.tally, answer.error
            return
        future = self._waiting.pop(answer.number)
        if future.done():
            return  # whoever waited was cancelled
        if answer.handled is not None:
            future.set_result(answer.handled)
        else:
            future.set_exception(MangaCacheError(answer.error))

    async def close(self) -> Tally:
        """Let the worker close, and return its tally.

        Raises:
            MangaCacheError: it died before it said what it had sent.
        """
        await self._send(None)
        await self._ended.wait()
        if self._tally is None:
            raise self._died()
        return self._tally

    def kill(self) -> None:
        """End the process at once."""
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def worker_processes(count: int, conditions: Conditions) -> AsyncIterator[list[Worker]]:
    """Start `count` workers; whatever happens, none is left at the end."""
    failures: list[BaseException] = []
    listeners = TaskOwner(on_failure=lambda _, error: failures.append(error))
    workers: list[Worker] = []
    processes: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mangacache.replay",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            processes.append(process)
            worker = Worker(process)
            listeners.start(worker.listen(), name="listen to a replay's worker")
            await worker._send(conditions)  # noqa: SLF001 - the first frame of this module's own protocol
            workers.append(worker)
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for process in processes:
            await process.wait()
        await listeners.settle()
    if failures:
        raise failures[0]


def _frame(value: Any) -> bytes:
    body = b"" if value is None else msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(body)) + body


async def _read_frame(reader: asyncio.StreamReader) -> bytes | None:
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None


async def _work() -> None:
    """Be a worker: take jobs until told to stop, or until the parent is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = await _read_frame(reader)
    if first is None:
        return
    tasks = TaskOwner(on_failure=lambda name, error: print(f"{name}: {error!r}", file=sys.stderr))  # noqa: T201
    try:
        async with opened(msgspec.msgpack.decode(first, type=Conditions)) as performs:
            freeze()  # as a process of one's own should, once it is warm
            while frame := await _read_frame(reader):
                number, job = msgspec.msgpack.decode(frame, type=tuple[int, Job])
                tasks.start(_answer(performs, number, job), name="handle a replayed message")
            await tasks.settle()
    except MangaCacheError as error:
        _write(_Answer(0, error=str(error)))
        return
    if frame is not None:
        _write(_Answer(0, tally=performs.tally()))


async def _answer(performs: Performs, number: int, job: Job) -> None:
    try:
        answer = _Answer(number, await performs.handle(job))
    except Exception as error:  # noqa: BLE001 - whatever it is: without an answer the parent would wait for ever
        answer = _Answer(number, error=f"{type(error).__name__}: {error}")
    _write(answer)


def _write(value: Any) -> None:
    sys.stdout.buffer.write(_frame(value))
    sys.stdout.buffer.flush()


def main() -> None:
    """Run one worker on the best event loop there is; Ctrl-C is the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import uvloop  # noqa: PLC0415 - an extra that need not be there
    except ImportError:
        asyncio.run(_work())
    else:
        uvloop.run(_work())
