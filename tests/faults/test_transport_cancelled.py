"""Thousands of callers who leave at any moment: none leaves its answer to the next call, or takes a place away."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import zlib
from collections import Counter, deque
from contextlib import AsyncExitStack

import pytest
from dynamodb_server import ToxicServer, echo

from mangacache import Settings
from mangacache.store import open_transport
from mangacache.store.transport import Unanswered

CALLS = int(os.environ.get("CANCELLED_CALLS", "5000"))
"""How many calls a transport gets, half of them on few connections; a long run sets CANCELLED_CALLS=100000."""

AT_ONCE = 32
CANCELLED_SHARE = 0.4
LONGEST_MS = 4.0
LONGEST_TURNS = 12
HANG_GUARD_S = 30.0


class Callers:
    """So many callers at once, each of whom asks for its own tag; some leave before they are answered.

    Attributes:
        outcomes: how many calls ended how: `answered`, `left`, `another's` or `unanswered`.
    """

    def __init__(self, transport, *, seed):
        self._transport = transport
        self._random = random.Random(seed)
        self._tags = itertools.count()
        self._impatient = deque()
        self.outcomes = Counter()

    async def call(self, *, may_leave=True):
        key = {"PK": {"S": f"tag-{next(self._tags)}"}, "SK": {"S": "META"}}
        asking = asyncio.ensure_future(self._ask(key))
        if may_leave and self._random.random() < CANCELLED_SHARE:
            self._leave(asking)
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                answer = await asking
        except asyncio.CancelledError:
            self.outcomes["left"] += 1
        except Unanswered:
            self.outcomes["unanswered"] += 1
        else:
            self.outcomes["answered" if answer["Item"] == key else "another's"] += 1

    async def _ask(self, key):
        answer = await self._transport.request("GetItem", {"TableName": "some-table", "Key": key})
        if self._impatient:
            self._impatient.popleft().cancel()
        return answer

    def _leave(self, asking):
        """Cancel a call after some turns of the event loop, after some time, or as another is answered.

        The last of these is when a call may have been given what the other needs no more, and not have heard of it.
        """
        loop, turns = asyncio.get_running_loop(), self._random.randrange(LONGEST_TURNS)

        def leave(turns):
            if turns:
                loop.call_soon(leave, turns - 1)
            else:
                asking.cancel()

        kind = self._random.randrange(3)
        if kind == 0:
            leave(turns)
        elif kind == 1:
            loop.call_later(self._random.random() * LONGEST_MS / 1e3, asking.cancel)
        else:
            self._impatient.append(asking)

    async def run(self, calls):
        left = iter(range(calls))

        async def keep_calling():
            while next(left, None) is not None:
                await self.call()

        await asyncio.gather(*(keep_calling() for _ in range(AT_ONCE)))

    async def stay(self, calls):
        await asyncio.gather(*(self.call(may_leave=False) for _ in range(calls)))


async def _late_echo(received):
    """Answer after a moment that differs, so that callers leave at every stage."""
    answer = await echo(received)
    await asyncio.sleep(zlib.crc32(received.body) % 16 / 16 * LONGEST_MS / 1e3)
    return answer


def _answered_when_all_have_come(meeting):
    async def meet(exchange):
        await meeting.wait()
        await exchange.answer()

    return meet


@pytest.mark.parametrize("transport_name", ["aioboto3", "direct"])
@pytest.mark.parametrize("connections", [AT_ONCE, AT_ONCE // 4])
async def test_a_call_that_is_cancelled_never_leaves_its_answer_to_the_next_one(transport_name, connections):
    """Where there are fewer connections than callers, most leave while they wait for one."""
    async with ToxicServer.open(_late_echo) as server:
        settings = Settings(
            dynamodb_endpoint=server.url, dynamodb_transport=transport_name, max_connections=connections,
            request_timeout_s=HANG_GUARD_S / 2, request_deadline_s=HANG_GUARD_S, connect_timeout_s=HANG_GUARD_S / 2,
        )  # fmt: skip
        async with AsyncExitStack() as stack:
            callers = Callers(await stack.enter_async_context(open_transport(settings)), seed=1)
            await callers.run(CALLS // 2)
            meeting = asyncio.Barrier(
                connections
            )  # it waits for ever for a connection that somebody who left has taken along
            server.plan = lambda _received, _noise: _answered_when_all_have_come(meeting)
            await callers.stay(connections)
            async with asyncio.timeout(HANG_GUARD_S):
                await stack.aclose()
        print(transport_name, dict(callers.outcomes), f"on {connections}, opened {server.connections}")
    outcomes = callers.outcomes
    assert outcomes["another's"] == outcomes["unanswered"] == 0, outcomes
    assert outcomes.total() == CALLS // 2 + connections
    assert outcomes["left"] > CALLS / 2 * CANCELLED_SHARE / 4
    assert outcomes["answered"] > CALLS / 4


class Careless:
    """A transport as it must not be: answers come in order, and one whose caller has left goes to the next."""

    def __init__(self):
        self._waiting = deque()
        self._answers = deque()

    async def request(self, _operation, parameters):
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        asyncio.get_running_loop().call_later(0.001, self._answer, {"Item": parameters["Key"]})
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def _answer(self, answer):
        self._answers.append(answer)
        while self._waiting and self._answers:
            self._waiting.popleft().set_result(self._answers.popleft())


async def test_the_callers_find_a_transport_that_gives_one_the_answer_of_another_who_left():
    callers = Callers(Careless(), seed=1)
    await callers.run(200)
    assert callers.outcomes["another's"] > 10
