"""How a promise of the context scripts is written down: messages to a session's hash, replies, states of it.

A case is data: messages that lead to a state, one more message, its reply, and the whole of the hash after it. So the
same cases run on the double, on each real server, and on scripts that were weakened on purpose. The contents say what
they are (`i1t7` is turn 7 of life 1), so that a look at the hash shows whether it holds what it claims (I2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from redises import ScriptHost

WINDOW = 32
LEASE_MS = 2_000
TTL_MS = 300_000
MAX_AGE_MS = 3_600_000
NOBODY = (-1, -1, -1)
A_WHILE_MS = 60_000
"""Times that are compared may differ by this much: no machine is so slow that a case takes longer."""

At: TypeAlias = tuple[int, int, int]


def turn(i: int, number: int) -> bytes:
    return f"i{i}t{number}".encode()


def meta(i: int, revision: int) -> bytes:
    return f"i{i}r{revision}".encode()


def turns(i: int, first: int, last: int) -> list[bytes]:
    return [turn(i, number) for number in range(first, last + 1)]


# Messages


@dataclass(frozen=True)
class Message:
    """A script and its arguments, or something that happens to the hash."""

    name: str
    arguments: tuple[Any, ...] = ()
    act: Callable[[ScriptHost, str], None] | None = None

    def __str__(self) -> str:
        return f"{self.name} {' '.join(map(str, self.arguments))}".strip()

    def send(self, host: ScriptHost, key: str) -> Any:
        if self.act is not None:
            return self.act(host, key)
        return host.run(self.name, key, self.arguments)


def get(lease: str = "A", *, least: At = NOBODY, have: At = NOBODY, max_age_ms: int = MAX_AGE_MS) -> Message:
    return Message("get", (lease, LEASE_MS, TTL_MS, max_age_ms, WINDOW, *least, *have))


def commit(version: At, first: int | None = None, *, r: int | None = None, given: int | None = None) -> Message:
    """Commit turns `first`..t and, where `r` is given, META; `given` lies about how many turns there are."""
    i, t, _ = version
    sent = turns(i, first, t if given is None else first + given - 1) if first is not None else []
    return Message(
        "commit",
        (TTL_MS, WINDOW, *version, meta(i, r) if r is not None else b"", t + 1 if first is None else first, *sent),
    )


def observe(version: At) -> Message:
    return commit(version)


def fill(version: At, lease: str = "A", *, first: int = 1) -> Message:
    i, t, r = version
    return Message("fill", (TTL_MS, WINDOW, *version, meta(i, r), first, lease, *turns(i, first, t)))


def release(lease: str = "A") -> Message:
    return Message("release", (lease,))


def discard() -> Message:
    return Message("discard")


def evicted() -> Message:
    return Message("evicted", act=lambda host, key: host.delete(key))


def aged(by_ms: int) -> Message:
    """A context that was filled so much longer ago, or in the future where it is negative."""
    return Message("aged", act=lambda host, key: host.shift(key, "at", -by_ms))


def lease_over(by_ms: int = LEASE_MS) -> Message:
    """A lease that is so much nearer its end, or further from it where that is negative."""
    return Message("lease over", act=lambda host, key: host.shift(key, "lx", -by_ms))


# Replies and states


class About:
    """A number that depends on the time."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and self.low <= other <= self.high

    def __hash__(self) -> int:
        return hash((self.low, self.high))

    def __repr__(self) -> str:
        return f"{self.low}..{self.high}"


YOUNG = About(0, A_WHILE_MS)
LEASE = [b"lease"]
BUSY = [b"busy", About(1, LEASE_MS)]


def same(version: At, age: About = YOUNG) -> list[Any]:
    return [b"same", age, *version]


def hit(version: At, first: int, *, with_meta: bool = True, age: About = YOUNG) -> list[Any]:
    i, t, r = version
    return [b"hit", age, *version, first, meta(i, r) if with_meta else None, turns(i, first, t)]


def written(version: At) -> list[Any]:
    return [b"written", *version]


def known(version: At) -> list[Any]:
    return [b"known", *version]


SAID_FILLING = [b"filling", -1, -1, -1]
SAID_ABSENT = [b"absent", -1, -1, -1]
DELETED = [b"deleted", -1, -1, -1]

KEPT = About(1, A_WHILE_MS)
RENEWED = About(TTL_MS - A_WHILE_MS, TTL_MS)
LEASED = About(1, 4 * LEASE_MS)


@dataclass(frozen=True)
class State:
    """The whole of a hash; None stands for no key."""

    fields: dict[bytes, Any]
    ttl: About


def filling(lease: str = "A", floor: At = NOBODY, *, ttl: About = LEASED, ends: About | None = None) -> State:
    names = dict(zip((b"fi", b"ft", b"fr"), (str(part).encode() for part in floor), strict=True))
    return State({b"l": lease.encode(), b"lx": ends, **names}, ttl)


def full(version: At, *, lo: int = 1, ttl: About = KEPT) -> State:
    i, t, r = version
    ring = {str(number % WINDOW).encode(): turn(i, number) for number in range(lo, t + 1)}
    names = {b"i": i, b"t": t, b"r": r, b"lo": lo}
    head = {name: str(value).encode() for name, value in names.items()}
    return State({**head, b"at": None, b"m": meta(i, r), **ring}, ttl)


@dataclass(frozen=True)
class Case:
    """One promise: a state, a message, its reply, the state after it."""

    name: str
    given: tuple[Message, ...]
    message: Message
    reply: Any
    after: State | None
    also: tuple[tuple[Message, Any], ...] = field(default=())

    def __str__(self) -> str:
        return self.name


def check(case: Case, host: ScriptHost, key: str) -> None:
    """Run a case; raises AssertionError where it does not hold."""
    for message in case.given:
        message.send(host, key)
        assert_sound(host, key)
    host.expire(key, A_WHILE_MS)
    reply = case.message.send(host, key)
    assert reply == case.reply, f"{case.name}: replied {reply}"
    assert_state(case, host, key)
    for message, wanted in case.also:
        reply = message.send(host, key)
        assert reply == wanted, f"{case.name}, then {message.name}: replied {reply}"
        assert_sound(host, key)


def assert_state(case: Case, host: ScriptHost, key: str) -> None:
    found = host.fields(key)
    if case.after is None:
        assert found == {}, f"{case.name}: left {found}"
        return
    times = {name for name, value in case.after.fields.items() if value is None}
    assert found.keys() == case.after.fields.keys(), f"{case.name}: left {found}"
    wrong = {name: found[name] for name in found.keys() - times if found[name] != case.after.fields[name]}
    assert wrong == {}, f"{case.name}: left {wrong}"
    assert case.after.ttl == host.ttl_ms(key), f"{case.name}: lives {host.ttl_ms(key)} ms more"
    assert_sound(host, key)


def assert_sound(host: ScriptHost, key: str, window: int = WINDOW) -> None:
    """Hold the hash to I2 and G8: what it says is what it holds, and it expires."""
    found = host.fields(key)
    if not found:
        return
    assert host.ttl_ms(key) > 0, f"{found} stays for ever"
    assert (b"i" in found) != (b"l" in found), f"both FULL and FILLING, or neither: {found}"
    if b"i" not in found:
        assert found.keys() == {b"l", b"lx", b"fi", b"ft", b"fr"}
        return
    i, t, r, lo = (int(found[name]) for name in (b"i", b"t", b"r", b"lo"))
    assert max(1, t - window + 1) <= lo <= t + 1, f"{lo}..{t} is no window"
    assert found[b"m"] == meta(i, r), f"META is {found[b'm']!r} at {i}.{t}.{r}"
    ring = {name: value for name, value in found.items() if name.isdigit()}
    assert ring == {str(number % window).encode(): turn(i, number) for number in range(lo, t + 1)}, f"at {i}.{t}.{r}"
