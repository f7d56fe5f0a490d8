"""The edge: carries out what conversations and nodes ask for, with coroutines or with a thread that blocks."""

from __future__ import annotations

import asyncio
import inspect
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from mangacache.errors import Invalid
from mangacache.tasks import TaskOwner
from mangacache.testing.dax.conversation import Serve, Wait
from mangacache.testing.dax.requests import method_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mangacache.clock import Clock
    from mangacache.testing.dax.conversation import Effect
    from mangacache.testing.dax.door import Answer, Ask
    from mangacache.testing.dax.faults import DaxFaults


class Driver:
    """Drives generators of effects to their end.

    A step of a generator, and a request to a `MemoryDynamoDB`, happen under one lock, so threads may call at once.

    Args:
        backend: DynamoDB: a `MemoryDynamoDB`, or a client with the methods of boto3's or aioboto3's.
        clock: what waits by.
        faults: whose healing ends the waits of threads.
    """

    def __init__(self, backend: object, clock: Clock, faults: DaxFaults) -> None:
        self._backend = backend
        self._clock = clock
        self._faults = faults
        self._lock = threading.RLock()
        self._served = TaskOwner(on_failure=lambda _name, _error: None)

    async def close(self) -> None:
        """Cancel what is still served; its callers are gone."""
        await self._served.cancel()

    async def drive(self, steps: Generator[Effect, Any, Answer]) -> Answer:
        """Run `steps` to their end on the running event loop."""
        step: Callable[[], Effect] = partial(steps.send, None)
        while True:
            try:
                with self._lock:
                    effect = step()
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            try:
                step = partial(steps.send, await self._perform(effect))
            except Exception as error:  # noqa: BLE001 - whatever it is, the generator decides about it
                step = partial(steps.throw, error)

    async def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Wait):
            await self._clock.sleep(effect.seconds)
            return None
        if isinstance(effect, Serve):
            # A node ends what it was asked for, also when the caller was cancelled.
            served = self._served.start(self.drive(effect.steps), name=f"dax {effect.operation}", awaited=True)
            return await asyncio.shield(served)
        # A request takes its way, and so does the answer: others run in between.
        await self._clock.sleep(0)
        answer = self._send(effect)
        if inspect.isawaitable(answer):
            return await answer
        await self._clock.sleep(0)
        return answer

    def drive_now(self, steps: Generator[Effect, Any, Answer]) -> Answer:
        """Run `steps` to their end in this thread, which blocks meanwhile."""
        step: Callable[[], Effect] = partial(steps.send, None)
        while True:
            try:
                with self._lock:
                    effect = step()
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            try:
                step = partial(steps.send, self._perform_now(effect))
            except Exception as error:  # noqa: BLE001 - whatever it is, the generator decides about it
                step = partial(steps.throw, error)

    def _perform_now(self, effect: Effect) -> object:
        if isinstance(effect, Wait):
            self._faults.healed.wait(effect.seconds)
            return None
        if isinstance(effect, Serve):
            return self.drive_now(effect.steps)
        answer = self._send(effect)
        if inspect.iscoroutine(answer):
            answer.close()
            raise Invalid("this backend has coroutines only: give sync_client the event loop that they are to run on")
        return answer

    def _send(self, ask: Ask) -> object:
        call = getattr(self._backend, "call", None)
        if call is None:
            return getattr(self._backend, method_of(ask.operation))(**ask.parameters)
        with self._lock:
            return call(ask.operation, ask.parameters)
