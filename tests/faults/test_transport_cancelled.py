"""Thousands of callers who leave at any moment: none leaves its answer to the next call, or takes a place away."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import zlib
from collections import Counter, deque

import pytest
from dynamodb_server import ToxicServer, echo

from mangacache import Settings
from mangacache.store import open_transport
from mangacache.store.transport import Unanswered

CALLS = int(os.environ.get("CANCELLED_CALLS", "5000"))
"""How many calls; a long run sets the variable: CANCELLED_CALLS=100000."""

AT_ONCE = 32
CONNECTIONS = 12  # fewer than callers, so that some leave while they wait for one
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
        self.outcomes = Counter()

    async def call(self, *, may_leave=True):
        key = {"PK": {"S": f"tag-{next(self._tags)}"}, "SK": {"S": "META"}}
        asking = asyncio.ensure_future(self._transport.request("GetItem", {"TableName": "some-table", "Key": key}))
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

    def _leave(self, asking):
        """Cancel a call after some turns of the event loop, or after some time: at any of its awaits."""
        loop, turns = asyncio.get_running_loop(), self._random.randrange(2 * LONGEST_TURNS)

        def leave(turns):
            if turns:
                loop.call_soon(leave, turns - 1)
            else:
                asking.cancel()

        if turns < LONGEST_TURNS:
            leave(turns)
        else:
            loop.call_later(self._random.random() * LONGEST_MS / 1e3, asking.cancel)

    async def run(self, calls):
        left = iter(range(calls))

        async def keep_calling():
            while next(left, None) is not None:
                await self.call()

        await asyncio.gather(*(keep_calling() for _ in range(AT_ONCE)))
        await asyncio.gather(*(self.call(may_leave=False) for _ in range(AT_ONCE)))


async def _late_echo(received):
    """Answer after a moment that differs, so that callers leave at every stage."""
    answer = await echo(received)
    await asyncio.sleep(zlib.crc32(received.body) % 16 / 16 * LONGEST_MS / 1e3)
    return answer


@pytest.mark.parametrize("transport_name", ["aioboto3", "direct"])
async def test_a_call_that_is_cancelled_never_leaves_its_answer_to_the_next_one(transport_name):
    async with ToxicServer.open(_late_echo) as server:
        settings = Settings(
            dynamodb_endpoint=server.url, dynamodb_transport=transport_name, max_connections=CONNECTIONS,
            request_timeout_s=HANG_GUARD_S / 2, request_deadline_s=HANG_GUARD_S, connect_timeout_s=HANG_GUARD_S / 2,
        )  # fmt: skip
        async with open_transport(settings) as transport:
            callers = Callers(transport, seed=1)
            await callers.run(CALLS)
        print(transport_name, dict(callers.outcomes), "connections:", server.connections)
    outcomes = callers.outcomes
    assert outcomes["another's"] == outcomes["unanswered"] == 0, outcomes
    assert outcomes.total() == CALLS + AT_ONCE
    assert outcomes["left"] > CALLS * CANCELLED_SHARE / 4
    assert outcomes["answered"] > CALLS / 2


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
