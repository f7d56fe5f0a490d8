"""The context scripts do what they promise: on Valkey, on Debian's Redis, and in the double; and no promise is idle.

The table of cases stands in `scripttable`, the weakened scripts that it must catch in `scriptmutants`.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis, RedisCluster
from redises import SCRIPTS, MemoryHost, RealHost, debian_redis_binary, keys_for_ever, no_key_for_ever
from scriptcases import A_WHILE_MS, TTL_MS, WINDOW, assert_sound, check, commit, fill, get, meta, turn, turns
from scriptmutants import MUTANTS
from scripttable import CASES

from mangacache.context import scripts
from mangacache.context.codec import GAP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redises import ScriptHost

HOSTS = ("memory", "shared_valkey", "debian_redis", "cluster")


@pytest.fixture(scope="module")
def cluster_host(cluster) -> Iterator[ScriptHost]:
    """All nodes of the cluster, by a client that takes its time to begin."""
    with RedisCluster(host="127.0.0.1", port=cluster.ports[0]) as client:
        yield RealHost(client)


@pytest.fixture(params=HOSTS)
def host(request) -> Iterator[ScriptHost]:
    """Each server in turn."""
    if request.param == "memory":
        yield MemoryHost()
        return
    if request.param == "cluster":
        yield request.getfixturevalue("cluster_host")
        return
    with Redis(port=request.getfixturevalue(request.param)) as client:
        yield RealHost(client)


@pytest.fixture
def key() -> str:
    return f"scripts:{uuid4().hex}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_state_and_a_message_give_this_reply_and_this_state(case, host, key):
    check(case, host, key)


class Telling:
    """A host on which each COMMIT is one that listeners are told of."""

    def __init__(self, host: ScriptHost, key: str) -> None:
        self._host = host
        self._told = (b"1  s", key, f"{key}:customers")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def run(self, name: str, key: str, arguments: Any) -> Any:
        return self._host.run(name, key, (*arguments, *self._told) if name == "commit" else arguments)


@pytest.mark.parametrize("case", [case for case in CASES if str(case).startswith("COMMIT")], ids=str)
def test_telling_listeners_of_a_commit_changes_neither_reply_nor_state(case, host, key, monkeypatch):
    if isinstance(host, MemoryHost):
        monkeypatch.setitem(SCRIPTS, "commit", scripts.TOLD)
    else:
        host = RealHost(host._client, {"commit": scripts.TOLD.text})
    check(case, Telling(host, key), key)


def test_the_ring_turns_three_times_and_gives_each_reader_just_what_he_lacks(host, key):
    get("A").send(host, key)
    assert fill((1, 0, 1)).send(host, key) == b"filled"
    for newest in range(1, 101):
        assert commit((1, newest, 1), newest).send(host, key) == [b"written", 1, newest, 1]
        assert_sound(host, key)
        for behind in (1, WINDOW - 1, WINDOW, 60):
            if newest < behind:
                continue
            first = max(newest - behind, newest - WINDOW, 0) + 1
            reply = get("B", have=(1, newest - behind, 1)).send(host, key)
            assert reply[2:] == [1, newest, 1, first, None, turns(1, first, newest)], f"{behind} behind {newest}"


def test_a_gap_stands_in_the_ring_like_a_turn(host, key):
    get("A").send(host, key)
    ring = [turn(1, 4), GAP, turn(1, 6)]
    assert host.run("fill", key, (TTL_MS, WINDOW, 1, 6, 1, meta(1, 1), 4, "A", *ring)) == b"filled"
    assert get("B").send(host, key)[5:] == [4, meta(1, 1), ring]
    assert get("B", have=(1, 5, 1)).send(host, key)[5:] == [6, None, [turn(1, 6)]]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_script_that_lacks_this_is_caught(mutant, shared_valkey):
    with Redis(port=shared_valkey) as client:
        weak = RealHost(client, {mutant.script: mutant.text()})
        keys = []
        try:
            with pytest.raises(AssertionError):
                run_table(weak, keys)
        finally:
            client.delete(*keys)


def run_table(host: ScriptHost, keys: list[str]) -> None:
    """Run the cases until one does not hold; `keys` takes the keys they used."""
    for case in CASES:
        keys.append(f"mutant:{uuid4().hex}")
        check(case, host, keys[-1])


# At random, side by side

PARTS = st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 3))
LEASES = st.sampled_from("ABC")
RING = 4
LONG_LEASE_MS = 10 * A_WHILE_MS
MAX_AGE_MS = 100 * A_WHILE_MS


@st.composite
def messages(draw: Any) -> tuple[str, tuple[Any, ...]]:
    """Draw a script and its arguments, such as a worker may send at the worst moment."""
    name = draw(st.sampled_from(("get", "commit", "commit", "fill", "release", "discard")))
    i, t, r = version = draw(PARTS)
    if name == "get":
        least, have = draw(PARTS), draw(PARTS)
        return name, (
            draw(LEASES),
            LONG_LEASE_MS,
            TTL_MS,
            MAX_AGE_MS,
            RING,
            *draw(st.sampled_from((least, (0, 0, 0)))),
            *have,
        )
    if name == "commit":
        first = draw(st.integers(1, t + 1))
        sent = turns(i, first, t)[: draw(st.sampled_from((99, 99, 99, 1, 0)))]
        head = meta(i, r) if draw(st.booleans()) else b""
        return name, (TTL_MS, RING, *version, head, first, *sent)
    if name == "fill":
        first = draw(st.integers(max(1, t - RING), t + 1))
        return name, (TTL_MS, RING, *version, meta(i, r), first, draw(LEASES), *turns(i, first, t))
    return name, (draw(LEASES),) if name == "release" else ()


HAPPENINGS = ("evicted", "lease over", "too old")
LIKELY = ("fill", "late fill", "next turn", "next revision", "next life", "again", "hole", "get", "behind")
KINDS = (*("likely",) * 10, *("any",) * 6, "happens")


@st.composite
def steps(draw: Any) -> Any:
    """Draw what comes next: a message that suits, by its name; any message; something that happens."""
    kind = draw(st.sampled_from(KINDS))
    if kind == "any":
        return draw(messages())
    return draw(st.sampled_from(LIKELY if kind == "likely" else HAPPENINGS))


def happen(what: str, host: ScriptHost, key: str) -> None:
    found = host.fields(key)
    if what == "evicted":
        host.delete(key)
    elif what == "lease over" and b"l" in found:
        host.shift(key, "lx", -LONG_LEASE_MS)
    elif what == "too old" and b"i" in found:
        host.shift(key, "at", -2 * MAX_AGE_MS)


def likely(what: str, found: dict[bytes, bytes]) -> tuple[str, tuple[Any, ...]]:
    """Return a message that suits what the hash is at: most do."""
    names = (b"fi", b"ft", b"fr") if b"l" in found else (b"i", b"t", b"r")
    i, t, r = (max(0, int(found.get(name, b"0"))) for name in names)
    if what.endswith("fill"):
        t = max(0, t - what.startswith("late"))
        first = max(1, t - RING + 1)
        return "fill", (TTL_MS, RING, i, t, r, meta(i, r), first, found.get(b"l", b"A"), *turns(i, first, t))
    if what in {"get", "behind"}:
        have = (i, t, r) if what == "get" else (i, t - 1, r)
        return "get", ("B", LONG_LEASE_MS, TTL_MS, MAX_AGE_MS, RING, 0, 0, 0, *have)
    if what == "next revision":
        return "commit", (TTL_MS, RING, i, t, r + 1, meta(i, r + 1), t + 1)
    if what == "next life":
        return "commit", (TTL_MS, RING, i + 1, 1, 1, meta(i + 1, 1), 1, turn(i + 1, 1))
    number = t + {"again": 0, "next turn": 1, "hole": 2}[what]
    return "commit", (TTL_MS, RING, i, number, r, b"", number, turn(i, number))


def timeless(name: str, reply: Any) -> Any:
    """Return a reply without what depends on the time."""
    if name == "get" and reply[0] in {b"busy", b"same", b"hit"}:
        return [reply[0], *reply[2:]]
    return reply


def assert_alike(hosts: list[ScriptHost], key: str) -> None:
    """Hold the hashes to be equal but for times, which are near each other, and sound."""
    found = [host.fields(key) for host in hosts]
    for fields in found[1:]:
        times = {name: abs(int(fields[name]) - int(found[0][name])) for name in (b"lx", b"at") if name in fields}
        assert all(off < A_WHILE_MS for off in times.values()), times
        assert {**fields, **{name: found[0][name] for name in times}} == found[0]
    left = [host.ttl_ms(key) for host in hosts]
    assert max(left) - min(left) < A_WHILE_MS, left
    for host in hosts:
        assert_sound(host, key, RING)


def test_any_messages_in_any_order_do_the_same_everywhere(shared_valkey, debian_redis):
    said: Counter[str] = Counter()
    keys = map("random:{}".format, count())

    with Redis(port=shared_valkey) as valkey, Redis(port=debian_redis) as debian:
        hosts: list[ScriptHost] = [MemoryHost(), RealHost(valkey), RealHost(debian)]

        @settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(st.lists(steps(), min_size=10, max_size=60))
        def same_everywhere(drawn: list[Any]) -> None:
            key = next(keys)
            for step in drawn:
                if step in HAPPENINGS:
                    for host in hosts:
                        happen(step, host, key)
                    continue
                name, arguments = likely(step, hosts[0].fields(key)) if isinstance(step, str) else step
                replies = [timeless(name, host.run(name, key, arguments)) for host in hosts]
                assert replies[1:] == replies[:1] * 2, (name, arguments)
                assert_alike(hosts, key)
                said[f"{name} {replies[0][0] if isinstance(replies[0], list) else replies[0]}"] += 1

        same_everywhere()

    assert said.total() > 3_000
    commits = {f"commit {what}" for what in (b"absent", b"filling", b"known", b"written", b"deleted")}
    fills = {f"fill {what}" for what in (b"filled", b"overtaken", b"refused")}
    gets = {f"get {what}" for what in (b"lease", b"busy", b"same", b"hit")}
    assert said.keys() == commits | fills | gets | {"release 0", "release 1", "discard 0", "discard 1"}, said
    assert min(said.values()) > 10, said


# The looks at the end, and that they bite


def test_a_key_that_would_stay_for_ever_is_seen_at_the_end(shared_valkey):
    with Redis(port=shared_valkey) as client:
        client.set("brief", "1", px=A_WHILE_MS)
        assert keys_for_ever(shared_valkey) == []
        with pytest.raises(AssertionError, match="forgotten"), no_key_for_ever(shared_valkey):
            client.set("forgotten", "1")
        client.delete("forgotten", "brief")


def test_a_machine_without_redis_server_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="redis-server is not on PATH"):
        debian_redis_binary()
