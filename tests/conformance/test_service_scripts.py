"""What the services' scripts do at any time: the same on Valkey, on Debian's Redis and in the double.

The rate limit is held to an oracle that keeps every unit's time; weakened scripts show that it bites.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from servicehosts import START_US, MemoryHost, RealHost

from mangacache.ephemeral import Limit, scripts
from mangacache.ephemeral.rate_limits import arguments
from mangacache.redis import ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servicehosts import Host

HOSTS = ("memory", "shared_valkey", "debian_redis")
SMALL = Limit("small", 3, 1)
USUAL = Limit("usual", 30, 60)
LONG = Limit("long", 17, 86_400)
BRIEF = Limit("brief", 5, 0.001)
LIMITS = (SMALL, USUAL, LONG, BRIEF)


@pytest.fixture(params=HOSTS)
def host(request) -> Iterator[Host]:
    """Each server in turn."""
    if request.param == "memory":
        yield MemoryHost()
        return
    with Redis(port=request.getfixturevalue(request.param)) as client:
        yield RealHost(client)


@pytest.fixture
def key() -> str:
    return f"services:{uuid4().hex}"


class Oracle:
    """An exact sliding window: every unit's time, to the microsecond."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._window_us = round(limit.window_s * 1_000_000)
        self._late_us = 2 * arguments(limit, 1, record=True)[2] + 1  # by so much a unit may leave too late
        self._units: deque[int] = deque()

    def hold(self, reply: list[int], cost: int, *, record: bool) -> None:
        """Hold a reply to what may be said."""
        allowed, remaining, retry_us, now_us = reply
        inside = sum(at > now_us - self._window_us for at in self._units)
        lingering = sum(at > now_us - self._window_us - self._late_us for at in self._units)
        if allowed:
            assert inside + cost <= self.limit.count, f"{inside} of {self.limit.count} and {cost} more"
            assert retry_us == 0
            if record:
                self._units.extend([now_us] * cost)
        else:
            assert lingering + cost > self.limit.count, f"refused {cost} beside {lingering}"
            assert 0 < retry_us <= self._window_us + self._late_us
        taken = cost if allowed and record else 0
        assert self.limit.count - lingering - taken <= remaining <= self.limit.count - inside - taken


def ask(host: Host, key: str, limit: Limit, cost: int = 1, *, record: bool = True) -> list[int]:
    reply: list[int] = host.run(scripts.RATE_LIMIT, key, arguments(limit, cost, record=record))
    return reply


def arrive(host: Host, key: str, limit: Limit, seed: int, arrivals: int) -> list[list[int]]:
    """Ask again and again at the worst of times, and hold each reply to the oracle."""
    draw = random.Random(seed)
    oracle, replies = Oracle(limit), []
    window_us = round(limit.window_s * 1_000_000)
    for _ in range(arrivals):
        cost = draw.choice([1, 1, 1, 2, limit.count])
        record = draw.random() < 0.8
        replies.append(ask(host, key, limit, cost, record=record))
        oracle.hold(replies[-1], cost, record=record)
        steps = [0, 0, 1, window_us // limit.count, window_us // 3, draw.randrange(window_us + 1)]
        if replies[-1][2]:
            steps += [replies[-1][2], replies[-1][2] - 1]
        host.now_us += draw.choice([*steps, window_us * 3]) if draw.random() < 0.02 else draw.choice(steps)
    return replies


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_no_window_has_more_than_the_limit_and_nobody_is_refused_without_need(host, key, limit):
    replies = arrive(host, key, limit, seed=5, arrivals=600)
    assert sum(reply[0] for reply in replies) > 100
    assert sum(not reply[0] for reply in replies) > 100


def test_each_server_says_the_same_of_the_same_arrivals(shared_valkey, debian_redis, key):
    with Redis(port=shared_valkey) as valkey, Redis(port=debian_redis) as debian:
        hosts: list[Host] = [MemoryHost(), RealHost(valkey), RealHost(debian)]
        for limit in LIMITS:
            first, *others = (arrive(host, f"{key}:{limit.name}", limit, seed=9, arrivals=300) for host in hosts)
            assert all(replies == first for replies in others)
            for host in hosts:
                host.now_us = START_US


def test_a_window_lives_one_window_from_the_last_unit_on(shared_valkey, debian_redis, key):
    """The scripts as they are: everywhere else here, keys are kept."""
    given = arguments(USUAL, 1, record=True)
    double = MemoryHost()
    for _ in range(2):
        double.run(scripts.RATE_LIMIT, key, given)
        assert double.ttl_ms(key) == 60_001
        double.now_us += 5_000_000
    for port in (shared_valkey, debian_redis):
        with Redis(port=port) as client:
            for _ in range(2):
                client.eval(scripts.RATE_LIMIT.text, 1, key, *given)
                assert 30_000 < client.pttl(key) <= 60_001
                client.pexpire(key, 30_000)


def test_who_waits_as_long_as_he_is_told_is_let_through_and_not_before(host, key):
    for _ in range(3):
        assert ask(host, key, SMALL)[0]
        host.now_us += 1000
    refused = ask(host, key, SMALL)
    unit_us = arguments(SMALL, 1, record=True)[2]
    host.now_us += refused[2] - 2 * unit_us
    assert not ask(host, key, SMALL)[0]
    host.now_us += 2 * unit_us
    assert ask(host, key, SMALL)[0]


def test_what_is_refused_or_only_asked_is_not_counted(host, key):
    assert ask(host, key, SMALL, 2)[:2] == [1, 1]
    for _ in range(10):
        assert ask(host, key, SMALL, 2)[:2] == [0, 1]
        assert ask(host, key, SMALL, 1, record=False)[:2] == [1, 1]
    assert ask(host, key, SMALL)[:2] == [1, 0]


def test_a_clock_that_goes_back_stands_still_until_it_has_caught_up(host, key):
    assert ask(host, key, SMALL, 3)[0]
    host.now_us -= 400_000
    refused = ask(host, key, SMALL)
    assert not refused[0]
    assert 1_400_000 <= refused[2] <= 1_401_000
    host.now_us += refused[2]
    assert ask(host, key, SMALL)[0]


def test_a_clock_that_goes_back_by_more_than_a_window_begins_it_anew(host, key):
    assert ask(host, key, SMALL, 3)[0]
    host.now_us -= 1_500_000
    assert ask(host, key, SMALL)[:2] == [1, 2]


@pytest.mark.parametrize("value", [b"", b"x", b"\xff" * 13, b"\x00\x01\x00\x09" + b"\x00" * 9])
def test_a_text_of_somebody_elses_is_refused_and_left_alone(shared_valkey, key, value):
    with Redis(port=shared_valkey) as client:
        client.set(key, value, px=60_000)
        host = RealHost(client)
        if value:
            with pytest.raises(ResponseError, match="FOREIGN not a window"):
                ask(host, key, SMALL)
            assert client.get(key) == value
        else:  # Redis cannot tell it from nothing
            assert ask(host, key, SMALL)[0]


def test_the_double_refuses_what_the_servers_refuse():
    host = MemoryHost()
    host.run(scripts.PRESENCE_SEEN, "k", ["a", 1000, 1])
    with pytest.raises(ScriptFailed, match="WRONGTYPE"):
        ask(host, "k", SMALL)
    ask(host, "rate", SMALL)
    with pytest.raises(ScriptFailed, match="FOREIGN"):
        ask(host, "rate", USUAL)
    with pytest.raises(ScriptFailed, match="WRONGTYPE"):
        host.run(scripts.PRESENCE_SEEN, "rate", ["a", 1000, 1])


def test_a_window_of_sixty_units_takes_at_most_310_bytes(shared_valkey, debian_redis):
    for port in (shared_valkey, debian_redis):
        with Redis(port=port) as client:
            host = RealHost(client)
            key = f"mc:rate:{{{uuid4().hex}}}:messages:60/60"
            for _ in range(61):
                ask(host, key, Limit("messages", 60, 60))
            assert client.memory_usage(key) <= 310


# What the oracle must catch: each is a mistake that is easily made

ENTER = """redis.call('SETRANGE', key, HEAD + SLOT * position, struct.pack('>I3', now))
redis.call('SETRANGE', key, 0, struct.pack('>I2I2', (position + 1) % limit, math.min(limit, live + 1)))"""
WEAKER = {
    "the window is a little shorter": ("math.ceil(window_us / unit_us)", "math.floor(window_us / unit_us * 0.999)"),
    "a unit leaves at the very end of its window": ("age(0) > window", "age(0) >= window - 1"),
    "what is refused is counted": ("if live + cost > limit then", f"if live + cost > limit then {ENTER}"),
    "cost counts as one": ("string.rep(entry, straight)", "entry"),
    "a ring that begins again is written past its end": ("math.min(cost, limit - position)", "cost"),
    "what has left is still counted": ("live = known - low", "live = known - low + 1"),
    "each unit begins a window": ("if length == 0 then", "if length == 0 or cost == 1 then position, live = 0, 0"),
    "peeking takes": ("if ARGV[5] == '0' then", "if ARGV[5] == 'x' then"),
}


@pytest.mark.parametrize("mutant", WEAKER)
def test_a_window_that_lacks_this_is_caught(mutant, shared_valkey, key):
    place, instead = WEAKER[mutant]
    assert place in scripts.RATE_LIMIT.text
    with Redis(port=shared_valkey) as client:
        host = RealHost(client, {place: instead})
        try:
            with pytest.raises((AssertionError, ResponseError)):
                arrive_at_all(host, key)
        finally:
            client.delete(*(f"{key}:{limit.name}" for limit in LIMITS))


def arrive_at_all(host: Host, key: str) -> None:
    for limit in LIMITS:
        arrive(host, f"{key}:{limit.name}", limit, seed=5, arrivals=600)


# The other scripts, at random

FOR_LONG_MS = 1_000_000_000
IDS = [f"c{number}" for number in range(12)]


def presence_step(draw: random.Random) -> tuple[Any, str, list[Any]]:
    customer = draw.choice(IDS)
    return draw.choice(
        [
            (scripts.PRESENCE_SEEN, "online", [customer, 1000, draw.choice([1, 100])]),
            (scripts.PRESENCE_GONE, "online", [customer]),
            (scripts.PRESENCE_LOOK, "online", [draw.choice([300, 1000]), draw.choice([customer, ""])]),
            (scripts.PRESENCE_PAGE, "online", [1000, -1, "", draw.choice([1, 5, 100])]),
            (scripts.PRESENCE_PAGE, "online", [1000, START_US // 1000 + draw.randrange(3000), customer, 3]),
            (scripts.WORKERS_SEEN, "workers", [customer, 700, draw.choice([1, 1, 0])]),
        ]
    )


def connection_step(draw: random.Random) -> tuple[Any, str, list[Any]]:
    connection, session = draw.choice(IDS[:3]), draw.choice(["s1", "s2"])
    entries = [f"t{draw.randrange(4)} {connection}" for _ in range(draw.choice([1, 2]))]
    return draw.choice(
        [
            (
                scripts.CONNECTION_PUT,
                connection,
                [f"t{draw.randrange(4)}", session, draw.choice(["", "c"]), "e", FOR_LONG_MS],
            ),
            (scripts.CONNECTION_GET, connection, [draw.choice([0, FOR_LONG_MS]), 500]),
            (scripts.CONNECTION_DROP, connection, [draw.choice(["", session])]),
            (scripts.CONNECTIONS_LIST, session, ["enter", 1500, 3, *entries]),
            (scripts.CONNECTIONS_LIST, session, ["remove", 1500, 3, *entries]),
            (scripts.CONNECTIONS_LIST, session, ["prune", 1500, 200, *entries]),
            (scripts.CONNECTIONS_LIST, session, ["read", 1500, 0]),
        ]
    )


def trending_step(draw: random.Random) -> tuple[Any, str, list[Any]]:
    title = f"title {min(int(draw.expovariate(0.2)), 30)}"
    return draw.choice(
        [
            (scripts.TRENDING_ADD, "bucket", [title, draw.choice([1, 1, 5]), 8, 60_000]),
            (scripts.TRENDING_ADD, "bucket", [title, 1, 8, 60_000]),
            (scripts.TRENDING_TOP, "bucket", [8, draw.choice([1, 3, 8, 100])]),
            (scripts.TRENDING_TOP, "bucket", [8, 0, title, "title 0", "nobody"]),
        ]
    )


COUNTS_REMOVED = {"presence_seen", "presence_gone", "connections_list"}
"""Their replies count what the double has forgotten with its key, which expires by the clock that was set."""


@pytest.mark.parametrize("step", [presence_step, connection_step, trending_step])
def test_any_calls_in_any_order_do_the_same_everywhere(shared_valkey, debian_redis, step, key):
    with Redis(port=shared_valkey) as valkey, Redis(port=debian_redis) as debian:
        hosts: list[Host] = [MemoryHost(), RealHost(valkey), RealHost(debian)]
        draw, replied = random.Random(3), set()
        for _ in range(700):
            script, name, given = step(draw)
            replies = [host.run(script, f"{key}:{name}", given) for host in hosts]
            if script.name not in COUNTS_REMOVED or given[0] in {"enter", "read"}:
                assert replies[1:] == replies[:1] * 2, (script.name, given)
            replied.add((script.name, bool(replies[0])))
            for host in hosts:
                assert host.ttl_ms(f"{key}:{name}") != -1
            passed_us = draw.choice([0, 0, 1000, 40_000, 200_000])
            for host in hosts:
                host.now_us += passed_us
        assert {name for name, _ in replied} == {script.name for script in SCRIPTS_OF[step]}


SCRIPTS_OF = {
    presence_step: [
        scripts.PRESENCE_SEEN,
        scripts.PRESENCE_GONE,
        scripts.PRESENCE_LOOK,
        scripts.PRESENCE_PAGE,
        scripts.WORKERS_SEEN,
    ],
    connection_step: [
        scripts.CONNECTION_PUT,
        scripts.CONNECTION_GET,
        scripts.CONNECTION_DROP,
        scripts.CONNECTIONS_LIST,
    ],
    trending_step: [scripts.TRENDING_ADD, scripts.TRENDING_TOP],
}
