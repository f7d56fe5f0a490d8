"""What the pool of connections decides, over lines that do what a test says."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from mangatest import HANG_GUARD_S

from mangacache.clock import SystemClock
from mangacache.errors import Transient
from mangacache.redis import LinkLost, Moved, Script, ScriptFailed
from mangacache.redis.pool import PooledLink
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class NoJitter(random.Random):
    """Tries at once."""

    def random(self) -> float:
        return 0.0


ANY = Script.of("any", "return 1")


class Line:
    """A connection that answers at once, when told, or not at all."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.aborted = asyncio.Event()

    async def info(self) -> dict[str, str]:
        return {}

    async def run(self, script: Script, key: str, arguments: Any, *, more_keys: Any = ()) -> Any:
        del script, more_keys
        self._server.asked += 1
        waits = [asyncio.ensure_future(event.wait()) for event in (self._server.answers, self.aborted)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.aborted.is_set():
            raise LinkLost("aborted", sent=True, broke=True)
        if key == "refused":
            raise ScriptFailed(key)
        return list(arguments)

    def abort(self) -> None:
        if not self.aborted.is_set():
            self.aborted.set()
            self._server.open -= 1

    async def ended(self) -> None:
        assert self.aborted.is_set()


class Server:
    """Makes lines, and counts them."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.connects = asyncio.Event()
        self.connects.set()
        self.is_there = True
        self.asked = self.open = self.most_open = self.made = 0

    async def connect(self) -> Line:
        await self.connects.wait()
        if not self.is_there:
            raise LinkLost("nobody there", sent=False)
        self.made += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        return Line(self)


@asynccontextmanager
async def linked(server: Server, *, connections: int = 2, timeout_s: float = 60.0) -> AsyncIterator[PooledLink]:
    link = PooledLink(
        "there",
        server.connect,
        connections=connections,
        connect_timeout_s=60.0,
        timeout_s=timeout_s,
        clock=SystemClock(),
        random=NoJitter(),
        telemetry=Telemetry(),
    )
    try:
        yield link
    finally:
        async with asyncio.timeout(HANG_GUARD_S):
            await link.close()
        assert server.open == 0
        assert len(link._tasks) == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        while not condition():  # noqa: ASYNC110 - the link has no event for it
            await asyncio.sleep(0)


def call(link: PooledLink, key: str = "k") -> asyncio.Task[Any]:
    return asyncio.create_task(link.run(ANY, key, ["x"], tag=0))


async def test_connections_are_used_again_and_no_more_are_opened_than_allowed():
    server = Server()
    async with linked(server, connections=3) as link:
        for _ in range(5):
            assert await asyncio.gather(*(call(link) for _ in range(20))) == [["x"]] * 20
    assert (server.most_open, server.made) == (3, 3)


async def test_who_waits_too_long_for_a_connection_is_told_which_setting_says_so():
    server = Server()
    server.connects.clear()
    async with linked(server, connections=1, timeout_s=0.25) as link:
        first = call(link)
        await asyncio.sleep(0)
        with pytest.raises(LinkLost, match="redis_connections") as lost:
            await link.run(ANY, "k", [], tag=0)
        assert not lost.value.sent
        assert server.asked == 0
        server.connects.set()
        assert await first == ["x"]


async def test_a_call_that_gets_no_answer_is_lost_and_may_have_been_carried_out():
    server = Server()
    server.answers.clear()
    async with linked(server, timeout_s=0.25) as link:
        with pytest.raises(LinkLost, match="no answer") as lost:
            await link.run(ANY, "k", [], tag=0)
        assert lost.value.sent
        assert server.asked == 1
        assert server.open == 0
        server.answers.set()
        link._timeout_s = 60.0
        assert await call(link) == ["x"]


async def test_what_breaks_one_connection_gives_up_those_that_are_idle():
    server = Server()
    async with linked(server, connections=3) as link:
        server.answers.clear()
        calls = [call(link) for _ in range(3)]
        await until(lambda: server.asked == 3)
        server.answers.set()
        await asyncio.gather(*calls)
        assert server.open == 3
        server.answers.clear()
        broken = call(link)
        await until(lambda: server.asked == 4)
        next(iter(link._busy)).line.abort()
        with pytest.raises(LinkLost):
            await broken
        assert server.open == 0


async def test_each_script_that_is_answered_is_timed():
    async with linked(Server()) as link:
        await call(link)
        await asyncio.gather(call(link, "refused"), return_exceptions=True)
        await call(link)
        assert link._telemetry.value("mangacache_redis_call_seconds_count", script="any") == 2


async def test_a_refusal_by_the_server_breaks_nothing():
    server = Server()
    async with linked(server) as link:
        with pytest.raises(ScriptFailed):
            await link.run(ANY, "refused", [], tag=0)
        assert await call(link) == ["x"]
    assert server.made == 1


async def test_a_cancelled_call_takes_its_connection_with_it():
    server = Server()
    async with linked(server) as link:
        server.answers.clear()
        cancelled = call(link)
        await until(lambda: server.asked == 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert server.open == 0
        server.answers.set()
        link._timeout_s = 60.0
        assert await call(link) == ["x"]
        assert server.made == 2


@pytest.mark.parametrize("moment", ["waiting for a connection", "opening one", "being admitted"])
async def test_a_call_cancelled_before_it_is_sent_leaves_its_place_to_others(moment):
    server = Server()
    admitting, opened = asyncio.Event(), asyncio.Event()

    async def admit(_: object) -> int:
        admitting.set()
        await opened.wait()
        return 0

    async with linked(server, connections=1) as link:
        link.admit_with(admit)
        ahead = None
        if moment == "opening one":
            server.connects.clear()
        if moment == "waiting for a connection":
            ahead = call(link)
            await admitting.wait()
        cancelled = call(link)
        await (admitting.wait() if moment == "being admitted" else asyncio.sleep(0))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        opened.set()
        server.connects.set()
        assert ahead is None or await ahead == ["x"]
        assert await call(link) == ["x"]
    assert server.most_open == 1


async def test_a_connection_refused_for_another_reason_than_the_server_leaves_the_others_at_work():
    """The epoch cannot be read: what was admitted is as good as before, and the server is not down."""
    server = Server()
    refuses = False

    async def admit(_: object) -> int:
        if refuses:
            raise Transient("DynamoDB is away")
        return 0

    async with linked(server) as link:
        link.admit_with(admit)
        await call(link)
        server.answers.clear()
        refuses = True
        admitted = call(link)
        await until(lambda: server.asked == 2)
        with pytest.raises(LinkLost, match="DynamoDB is away"):
            await link.run(ANY, "k", [], tag=0)
        assert link.up
        server.answers.set()
        assert await admitted == ["x"]
        link.drop()
        with pytest.raises(LinkLost, match="DynamoDB is away"):
            await link.run(ANY, "k", [], tag=0)
        assert not link.up, "nothing is left to work with"
        refuses = False
        await until(lambda: link.up)
        assert await call(link) == ["x"]


async def test_a_server_that_cannot_be_reached_is_tried_until_it_can_and_calls_fail_at_once_meanwhile():
    server = Server()
    server.is_there = False
    async with linked(server) as link:
        with pytest.raises(LinkLost, match="nobody there"):
            await link.run(ANY, "k", [], tag=0)
        assert not link.up
        with pytest.raises(LinkLost, match="nobody there"):
            link.run(ANY, "k", [], tag=0).send(None)
        server.is_there = True
        await until(lambda: link.up)
        assert link._telemetry.value("mangacache_redis_up") == 1
        assert await call(link) == ["x"]
        assert server.made == 1, "the probe's connection is used"


async def test_a_try_that_fails_in_a_way_nobody_thought_of_is_counted_and_not_the_last():
    server = Server()
    outcomes = iter([Transient("not now"), ZeroDivisionError("a slip")])

    async def admit(_: object) -> int:
        if (error := next(outcomes, None)) is not None:
            raise error
        return 0

    async with linked(server) as link:
        link.admit_with(admit)
        with pytest.raises(LinkLost, match="not now"):
            await link.run(ANY, "k", [], tag=0)
        await until(lambda: link.up)
        assert link._telemetry.value("mangacache_survived_total", what="redis_reconnect_failed") == 1
        assert await call(link) == ["x"]


async def test_a_probe_takes_a_place_like_any_other():
    server = Server()
    async with linked(server, connections=1) as link:
        server.answers.clear()
        busy = call(link)
        await until(lambda: server.asked == 1)
        link._fell("for the test")
        for _ in range(100):
            await asyncio.sleep(0)
        assert server.made == 1
        server.answers.set()
        assert await busy == ["x"]
        await until(lambda: link.up)
    assert server.most_open == 1


async def test_a_connection_dropped_while_it_is_admitted_is_not_kept():
    server = Server()
    tags = iter((0, 1))

    async def admit(_: object) -> int:
        tag = next(tags)
        link.drop()
        return tag

    async with linked(server) as link:
        link.admit_with(admit)
        assert await call(link) == ["x"]
        assert server.open == 0
        with pytest.raises(Moved):
            await link.run(ANY, "k", [], tag=0)


async def test_close_lets_those_go_who_wait_and_waits_for_those_who_open():
    server = Server()
    async with linked(server, connections=1) as link:
        admitting, opened = asyncio.Event(), asyncio.Event()

        async def admit(_: object) -> int:
            admitting.set()
            await opened.wait()
            return 0

        link.admit_with(admit)
        opening, waiting = call(link), call(link)
        await admitting.wait()
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        assert not closing.done()
        opened.set()
        await closing
        await asyncio.wait((opening, waiting))
        with pytest.raises(LinkLost, match="closed"):
            await waiting
        assert server.open == 0
