"""What the shared connection does with many callers at once, against a server that does what a test says."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import hiredis
import pytest
from mangatest import HANG_GUARD_S

from mangacache import Settings
from mangacache.clock import SystemClock
from mangacache.errors import Transient
from mangacache.redis import LinkLost, Moved, MultiplexedLink, Script, ScriptFailed, multiplexed, pipeline
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mangacache.redis import Server

STORM_CALLS = int(os.environ.get("LINK_CALLS", "20000"))
"""A million by `LINK_CALLS=1000000`, in a minute or two."""

ECHO = Script.of("echo", "return ARGV[1]")


class NoJitter(random.Random):
    """Tries at once."""

    def random(self) -> float:
        return 0.0


class Wire(asyncio.Protocol):
    """The server's side of a connection."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._reader = hiredis.Reader(notEnoughData=self)
        self.owed: deque[bytes] = deque()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._redis.wires.append(self)
        self._redis.made += 1

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        commands = []
        while (command := self._reader.gets()) is not self:
            commands.append(command)
        self._redis.turns.append(len(commands))
        for command in commands:
            self._redis.asked.append(command)
            self.owed.append(self._redis.answer(command))
        if self._redis.answers or commands[-1][0] in {b"HELLO", b"SELECT", b"INFO"}:
            self.pay()  # a new connection is always greeted

    def pay(self, count: int | None = None) -> None:
        count = len(self.owed) if count is None else min(count, len(self.owed))
        self.transport.write(b"".join(self.owed.popleft() for _ in range(count)))

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._redis.wires.remove(self)


class Redis:
    """Answers a script with its first argument, at once or when told.

    Attributes:
        wires: the connections that are open.
        made: how many there have been.
        asked: every command.
        turns: how many commands came in each piece.
    """

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.made = self.port = 0
        self.asked: list[list[bytes]] = []
        self.turns: list[int] = []
        self.answers = True
        self.known: set[bytes] = {ECHO.sha.encode()}
        self.done: Counter[bytes] = Counter()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Redis]:
        redis = cls()
        server = await asyncio.get_running_loop().create_server(lambda: Wire(redis), "127.0.0.1", 0)
        redis.port = server.sockets[0].getsockname()[1]
        try:
            yield redis
        finally:
            server.close()
            redis.reset()

    def answer(self, command: list[bytes]) -> bytes:  # noqa: PLR0911 - one for each command
        match command:
            case [b"HELLO", b"3"]:
                return b"%1\r\n$5\r\nproto\r\n:3\r\n"
            case [b"HELLO", b"3", b"AUTH", _, password]:
                return b"%0\r\n" if password == b"right" else b"-WRONGPASS invalid username-password pair\r\n"
            case [b"SELECT", _]:
                return b"+OK\r\n"
            case [b"INFO", b"replication"]:
                return b"$13\r\nrole:master\r\n\r\n"
            case [b"INFO", _]:
                return b"$0\r\n\r\n"
            case [b"EVALSHA", sha, *_] if sha not in self.known:
                return b"-NOSCRIPT No matching script.\r\n"
            case [b"EVALSHA" | b"EVAL", _, _, b"a list", *_]:
                return b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
            case [b"EVALSHA" | b"EVAL", _, _, b"of a replica", *_]:
                return b"-READONLY You can't write against a read only replica.\r\n"
            case [b"EVALSHA" | b"EVAL", _, _, _, said, *_]:
                self.done[said] += 1
                return b"$%d\r\n%b\r\n" % (len(said), said)
        raise AssertionError(command)

    def pay(self) -> None:
        """Answer what is owed, and what comes, at once."""
        self.answers = True
        for wire in self.wires:
            wire.pay()

    def reset(self) -> None:
        for wire in self.wires:
            wire.transport.abort()

    def scripts(self) -> list[bytes]:
        """Return what each script that was asked for has as its argument."""
        return [command[4] for command in self.asked if command[0] in {b"EVAL", b"EVALSHA"}]


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis.open() as redis:
        yield redis


@asynccontextmanager
async def linked(redis: Redis, *, login: str = "", timeout_s: float = 10.0) -> AsyncIterator[MultiplexedLink]:
    settings = Settings(
        redis_endpoint=f"redis://{login}127.0.0.1:{redis.port}/0", redis_timeout_s=timeout_s, connect_timeout_s=10.0
    )
    link = MultiplexedLink(settings, clock=SystemClock(), random=NoJitter(), telemetry=Telemetry())
    try:
        yield link
    finally:
        async with asyncio.timeout(HANG_GUARD_S):
            await link.close()
        assert len(link._tasks) == 0
        assert not link._lines


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        while not condition():  # noqa: ASYNC110 - the link has no event for it
            await asyncio.sleep(0)


def call(link: MultiplexedLink, said: str = "x", *, key: str = "k", tag: int = 0) -> asyncio.Task[Any]:
    return asyncio.create_task(link.run(ECHO, key, [said], tag=tag))


async def outcomes(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(HANG_GUARD_S):
        return await asyncio.gather(*tasks, return_exceptions=True)


# One connection


async def test_what_is_asked_for_in_one_turn_leaves_as_one_write_on_one_connection(redis):
    async with linked(redis) as link:
        await call(link)
        redis.turns.clear()
        assert await outcomes([call(link, str(n)) for n in range(20)]) == [b"%d" % n for n in range(20)]
        assert redis.turns == [20]
        assert redis.made == 1


async def test_so_many_of_a_turn_do_not_wait_for_its_end(redis, monkeypatch):
    monkeypatch.setattr(pipeline, "GATHERED", 8)
    async with linked(redis) as link:
        await call(link)
        line = link._current.line
        asked = [line.ask("EVALSHA", ECHO.sha, 1, "k", str(n)) for n in range(20)]
        assert (line.sent, line.waiting) == (16, 4), "the loop has not turned"
        assert await asyncio.gather(*asked) == [b"%d" % n for n in range(20)]


async def test_all_who_need_a_connection_wait_for_the_same_and_it_is_nobodys_who_leaves(redis):
    admitting, admitted = asyncio.Event(), asyncio.Event()

    async def admit(server: Server) -> int:
        assert (await server.info())["role"] == "master"
        admitting.set()
        await admitted.wait()
        return 0

    async with linked(redis) as link:
        link.admit_with(admit)
        tasks = [call(link, str(n)) for n in range(20)]
        await until(admitting.is_set)
        for task in tasks[:5]:
            task.cancel()
        admitted.set()
        heard = await outcomes(tasks)
        assert [type(each) for each in heard[:5]] == [asyncio.CancelledError] * 5
        assert heard[5:] == [b"%d" % n for n in range(5, 20)]
        assert redis.scripts() == heard[5:], "who had left was not asked for"
        assert redis.made == 1


async def test_no_more_wait_for_a_connection_than_may(redis, monkeypatch):
    monkeypatch.setattr(multiplexed, "MOST_WAITING", 3)
    async with linked(redis) as link:
        heard = await outcomes([call(link, str(n)) for n in range(5)])
        assert heard[:3] == [b"0", b"1", b"2"]
        assert all(isinstance(each, LinkLost) and not each.sent for each in heard[3:])


async def test_a_connection_that_the_server_has_closed_costs_no_call(redis):
    async with linked(redis) as link:
        await call(link)
        redis.reset()
        await until(lambda: not link._lines)
        assert await call(link) == b"x"
        assert redis.made == 2


async def test_the_login_comes_first_and_a_wrong_one_is_not_repeated_in_words(redis):
    async with linked(redis, login=":right@") as link:
        await call(link)
        assert redis.asked[0] == [b"HELLO", b"3", b"AUTH", b"default", b"right"]
    async with linked(redis, login="shop:secret@") as link:
        with pytest.raises(LinkLost, match="WRONGPASS") as lost:
            await call(link)
        assert "secret" not in str(lost.value)
        assert not link.up


# Callers who leave


async def test_a_cancelled_callers_reply_is_thrown_away_in_its_place(redis):
    async with linked(redis) as link:
        await call(link)
        redis.answers = False
        tasks = [call(link, str(n)) for n in range(30)]
        await until(lambda: len(redis.scripts()) == 31)
        for task in tasks[::3]:
            task.cancel()
        redis.pay()
        heard = await outcomes(tasks)
        for n, each in enumerate(heard):
            assert isinstance(each, asyncio.CancelledError) if n % 3 == 0 else each == b"%d" % n
        assert await call(link, "after") == b"after"
        assert redis.made == 1


async def test_who_leaves_before_the_turn_ends_is_not_sent(redis):
    async with linked(redis) as link:
        await call(link)
        asked = link.run(ECHO, "k", ["left"], tag=0)
        asked.send(None)
        asked.close()
        task = call(link, "left too")
        await asyncio.sleep(0)
        task.cancel()
        assert await call(link, "stayed") == b"stayed"
        assert b"left too" not in redis.scripts()


# Bounds and deadlines


async def test_what_is_under_way_is_bounded_and_the_rest_waits_its_turn(redis, monkeypatch):
    monkeypatch.setattr(pipeline, "MOST_SENT", 4)
    monkeypatch.setattr(pipeline, "MOST_WAITING", 6)
    async with linked(redis) as link:
        await call(link)
        redis.answers = False
        first = [call(link, str(n)) for n in range(4)]
        await until(lambda: len(redis.scripts()) == 5)
        then = [call(link, str(n)) for n in range(4, 13)]
        refused = await outcomes(then[6:])
        assert all(isinstance(each, LinkLost) and not each.sent for each in refused)
        assert len(redis.scripts()) == 5
        assert (sum(line.sent for line in link._lines), sum(line.waiting for line in link._lines)) == (4, 6)
        redis.pay()
        assert await outcomes(first + then[:6]) == [b"%d" % n for n in range(10)]
        assert redis.made == 1, "a refusal for want of room breaks nothing"


async def test_a_reply_that_is_late_ends_the_connection_and_says_what_may_have_been_carried_out(redis, monkeypatch):
    monkeypatch.setattr(pipeline, "MOST_SENT", 4)
    async with linked(redis, timeout_s=2.0) as link:
        await call(link)
        redis.answers, patient_s, link._timeout_s = False, link._timeout_s, 0.1
        heard = await outcomes([call(link, str(n)) for n in range(10)])
        assert all(isinstance(each, LinkLost) for each in heard)
        assert [each.sent for each in heard] == [True] * 4 + [False] * 6
        assert "no answer within 0.1 s" in str(heard[0])
        assert redis.scripts() == [b"x", b"0", b"1", b"2", b"3"]
        redis.answers, link._timeout_s = True, patient_s
        assert await call(link) == b"x"
        assert redis.made == 2


async def test_nothing_looks_for_what_is_late_while_nothing_is_under_way(redis):
    async with linked(redis, timeout_s=1.0) as link:
        await call(link)
        assert link._looking
        await until(lambda: not link._looking)
        await until(lambda: len(link._tasks) == 0)
        redis.answers, link._timeout_s = False, 0.05
        with pytest.raises(LinkLost, match="no answer"):
            await call(link)


async def test_commands_gather_where_the_server_does_not_read(redis):
    async with linked(redis, timeout_s=2.0) as link:
        await call(link)
        link._timeout_s = 0.3
        redis.wires[0].transport.pause_reading()
        large = call(link, "y" * 20_000_000)
        await until(lambda: any(line._paused for line in link._lines))
        small = call(link, "small")
        heard = await outcomes([large, small])
        assert [(type(each), each.sent) for each in heard] == [(LinkLost, True), (LinkLost, False)]


@pytest.mark.parametrize("repeatable", [False, True])
async def test_what_was_sent_on_a_connection_that_broke_is_sent_again_only_where_it_may_be(redis, repeatable):
    async with linked(redis) as link:
        await call(link)
        redis.answers = False
        asked = asyncio.create_task(link.run(ECHO, "k", ["said"], repeatable=repeatable))
        await until(lambda: len(redis.scripts()) == 2)
        redis.answers = True
        redis.reset()
        if repeatable:
            assert await asked == b"said"
        else:
            with pytest.raises(LinkLost) as lost:
                await asked
            assert (lost.value.sent, lost.value.broke) == (True, True)
        assert redis.scripts() == [b"x"] + [b"said"] * (2 if repeatable else 1)


async def test_it_is_sent_again_once_and_not_where_it_was_late(redis):
    async with linked(redis, timeout_s=2.0) as link:
        await call(link)
        redis.answers = False
        asked = asyncio.create_task(link.run(ECHO, "k", ["broke"], repeatable=True))
        for sent in (2, 3):
            await until(lambda sent=sent: len(redis.scripts()) == sent)
            redis.reset()
        with pytest.raises(LinkLost):
            await asked
        await until(lambda: not link._looking)
        link._timeout_s = 0.2
        with pytest.raises(LinkLost, match="no answer within") as lost:
            await link.run(ECHO, "k", ["late"], repeatable=True)
        assert (lost.value.sent, lost.value.broke) == (True, False)
        assert redis.scripts() == [b"x", b"broke", b"broke", b"late"]


# Replies that are none


async def test_each_script_that_is_answered_is_timed_at_first_and_when_it_was_forgotten(redis):
    async with linked(redis) as link:
        await call(link)
        redis.known.clear()
        await call(link)
        await outcomes([call(link, key="a list")])
        assert link._telemetry.value("mangacache_redis_call_seconds_count", script="echo") == 2


async def test_a_script_that_was_forgotten_is_told_again_to_all_who_ask(redis):
    async with linked(redis) as link:
        redis.known.clear()
        assert await outcomes([call(link, str(n)) for n in range(5)]) == [b"%d" % n for n in range(5)]
        assert [command[1] for command in redis.asked if command[0] == b"EVAL"] == [ECHO.text.encode()] * 5


async def test_a_refusal_fails_alone(redis):
    async with linked(redis) as link:
        heard = await outcomes([call(link, "0"), call(link, "1", key="a list"), call(link, "2")])
        assert (heard[0], heard[2]) == (b"0", b"2")
        assert isinstance(heard[1], ScriptFailed)
        assert redis.made == 1


async def test_a_server_that_is_no_primary_any_more_is_left_and_what_it_has_is_heard_out(redis):
    async with linked(redis) as link:
        await call(link)
        redis.answers = False
        tasks = [call(link, "0"), call(link, "1", key="of a replica"), call(link, "2")]
        await until(lambda: len(redis.scripts()) == 4)
        redis.wires[0].pay(2)
        with pytest.raises(LinkLost, match="read only replica") as lost:
            await tasks[1]
        assert not lost.value.sent
        redis.wires[0].pay()
        assert await tasks[2] == b"2"
        await until(lambda: not redis.wires)
        redis.answers = True
        assert await call(link) == b"x"
        assert redis.made == 2


@pytest.mark.parametrize(
    "refusal",
    [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "NOAUTH Authentication required.",
    ],
)
def test_what_a_server_cannot_do_now_it_has_not_done(refusal):
    with pytest.raises(LinkLost) as lost:
        pipeline.heard(hiredis.ReplyError(refusal), "echo of k")
    assert not lost.value.sent
    assert refusal in str(lost.value)


@pytest.mark.parametrize("garbage", [b"?what\r\n", b"+unasked\r\n"])
async def test_a_server_that_says_what_is_no_reply_is_left(redis, garbage):
    async with linked(redis) as link:
        await call(link)
        redis.wires[0].transport.write(garbage)
        await until(lambda: not link._lines)
        assert await call(link) == b"x"
        redis.answers = False
        asked = call(link)
        await until(lambda: len(redis.scripts()) == 3)
        redis.wires[0].transport.write(b"?what\r\n")
        with pytest.raises(LinkLost, match="no reply") as lost:
            await asked
        assert lost.value.sent


# Connections given up


async def test_after_drop_what_was_sent_is_answered_and_what_was_not_is_asked_of_the_next_connection(
    redis, monkeypatch
):
    monkeypatch.setattr(pipeline, "MOST_SENT", 2)
    tags = iter((1, 2))

    async def admit(_: Server) -> int:
        return next(tags)

    async with linked(redis) as link:
        link.admit_with(admit)
        await call(link, tag=1)
        redis.answers = False
        sent = [call(link, str(n), tag=1) for n in range(2)]
        await until(lambda: len(redis.scripts()) == 3)
        unsent = call(link, "under the old tag", tag=1)
        await asyncio.sleep(0)
        link.drop()
        with pytest.raises(Moved):
            await unsent
        redis.pay()
        assert await outcomes(sent) == [b"0", b"1"]
        assert await call(link, tag=2) == b"x"
        await until(lambda: len(redis.wires) == 1)
        assert b"under the old tag" not in redis.scripts()


async def test_a_connection_dropped_while_it_is_admitted_is_not_used(redis):
    tags = iter((1, 2))

    async def admit(_: Server) -> int:
        tag = next(tags)
        if tag == 1:
            link.drop()
        return tag

    async with linked(redis) as link:
        link.admit_with(admit)
        with pytest.raises(Moved):
            await call(link, tag=1)
        assert await call(link, tag=2) == b"x"
        assert redis.scripts() == [b"x"]
        await until(lambda: len(redis.wires) == 1)


async def test_connections_that_are_dropped_as_fast_as_they_open_end_in_an_error(redis):
    async def admit(_: Server) -> int:
        link.drop()
        return 0

    async with linked(redis) as link:
        link.admit_with(admit)
        async with asyncio.timeout(HANG_GUARD_S):
            with pytest.raises(LinkLost, match="as fast as they open") as lost:
                await call(link)
        assert not lost.value.sent


async def test_a_refused_connection_is_tried_again_until_it_is_admitted_and_calls_fail_at_once_meanwhile(redis):
    refuses = True

    async def admit(_: Server) -> int:
        if refuses:
            raise Transient("not now")
        return 0

    async with linked(redis) as link:
        link.admit_with(admit)
        heard = await outcomes([call(link, str(n)) for n in range(3)])
        assert all(isinstance(each, LinkLost) and "not now" in str(each) and not each.sent for each in heard)
        assert not link.up
        with pytest.raises(LinkLost):
            link.run(ECHO, "k", ["x"], tag=0).send(None)
        refuses = False
        await until(lambda: link.up)
        made = redis.made
        assert await call(link) == b"x"
        assert redis.made == made, "the probe's connection is used"


async def test_close_lets_go_of_those_who_wait_for_a_connection_or_a_reply(redis):
    admitting = asyncio.Event()

    async def never(_: Server) -> int:
        admitting.set()
        await asyncio.Event().wait()
        return 0

    async with linked(redis) as link:
        await call(link)
        redis.answers = False
        asked = call(link, "asked")
        await until(lambda: len(redis.scripts()) == 2)
        link.drop()
        link.admit_with(never)
        joining = call(link, "joining")
        await until(admitting.is_set)
        await link.close()
        heard = await outcomes([asked, joining])
        assert [(type(each), each.sent) for each in heard] == [(LinkLost, True), (LinkLost, False)]
        assert str(heard[1]) == "closed", "and not: it took too long"
        with pytest.raises(LinkLost, match="closed"):
            await call(link)
    await until(lambda: not redis.wires)


# All at once


class Weather:
    """Has the server stall, answer in pieces, forget scripts and reset connections, by chance."""

    def __init__(self, redis: Redis, chance: random.Random) -> None:
        self._redis = redis
        self._chance = chance
        self.seen: Counter[str] = Counter()

    async def blow(self) -> None:
        redis, chance = self._redis, self._chance
        while True:
            what = chance.choices(
                ("pieces", "calm", "forgets", "reset", "stall", "half a reply"), weights=(40, 25, 10, 6, 2, 4)
            )[0]
            self.seen[what] += 1
            redis.answers = what == "calm"
            if what == "forgets":
                redis.known.clear()
            else:
                redis.known.add(ECHO.sha.encode())
            if what == "reset":
                redis.reset()
            for _ in range(chance.randrange(1, 30)):
                await asyncio.sleep(0.08 if what == "stall" and not redis.answers else 0)
                for wire in tuple(redis.wires):
                    if what != "stall":
                        wire.pay(chance.randrange(40))
                if what == "stall" and self._chance.random() < 0.5:
                    break
            if what == "half a reply":
                for wire in tuple(redis.wires):
                    if wire.owed:
                        wire.transport.write(wire.owed.popleft()[:-3])
                        wire.transport.close()


async def test_no_reply_reaches_another_caller_and_nothing_hangs_whatever_happens(redis):
    """Tagged calls among random cancellations, stalls and resets; nothing is carried out twice either."""
    chance = random.Random(11)
    weather = Weather(redis, chance)
    kinds: Counter[str] = Counter()
    unsent_but_done = []
    numbers = iter(range(STORM_CALLS))

    async with linked(redis, timeout_s=0.06) as link:

        async def ask(number: int) -> None:
            said = b"%d:" % number + b"z" * chance.choice((0, 10, 3000))
            try:
                heard = await link.run(ECHO, "k", [said], tag=0)
            except LinkLost as lost:
                kinds[f"lost, sent {lost.sent}"] += 1
                if not lost.sent and redis.done[said]:
                    unsent_but_done.append(said)
            else:
                kinds["right" if heard == said else "WRONG"] += 1

        async def caller() -> None:
            for number in numbers:
                task = asyncio.create_task(ask(number))
                if chance.random() < 0.2:
                    for _ in range(chance.randrange(8)):
                        await asyncio.sleep(0)
                    task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    kinds["cancelled"] += 1

        blowing = asyncio.create_task(weather.blow())
        async with asyncio.timeout(HANG_GUARD_S + STORM_CALLS / 500):
            await asyncio.gather(*(caller() for _ in range(64)))
        blowing.cancel()
        redis.pay()
        heard: list[Any] = [None]
        while not isinstance(heard[0], bytes):  # what the weather did last may still be on its way
            heard = await outcomes([call(link, "calm again")])
        assert heard == [b"calm again"]
    print(dict(kinds), dict(weather.seen), "connections", redis.made)
    assert kinds.pop("WRONG", 0) == 0
    assert kinds.total() == STORM_CALLS
    assert unsent_but_done == []
    assert max(redis.done.values()) == 1
    assert min(kinds[kind] for kind in ("right", "cancelled", "lost, sent True", "lost, sent False")) > 0
    assert min(weather.seen.values()) > 0
