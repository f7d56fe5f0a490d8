"""A fuzzer of DAX's wire: changed bytes go in, and nothing but the one error of malformed bytes may come out.

Beside crashes it looks for contradictions: pieces that make other requests than the whole, an item or a key that reads
otherwise after it was written, an expression's text with something in it that is no placeholder.
"""

from __future__ import annotations

import re
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from daxwire import schema

from mangacache.local.dax.calls import call_of
from mangacache.local.dax.expressions import Placeholders, condition_text, update_text
from mangacache.local.dax.items import decode_values, encode_values
from mangacache.local.dax.keys import decode_key, encode_key
from mangacache.local.dax.limits import Limits, Malformed
from mangacache.local.dax.projections import decode_projection
from mangacache.local.dax.reader import Reader
from mangacache.local.dax.requests import DataRequest
from mangacache.local.dax.scanning import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

CORPUS = Path(__file__).parents[1] / "fuzz" / "dax"
MAX_BYTES = 8192
HANG_S = 20.0
"""An input that takes more of the processor's time is a hang; each takes less than a thousandth of it."""
LIMITS = Limits(request_bytes=64 * 1024, string_bytes=32 * 1024, elements=5_000)
SCHEMAS = [schema(**dict(zip(("pk", "sk"), kinds, strict=False))) for kinds in ("S", "N", "B", "SS", "SN", "NB", "BN")]
NAMES = ("a", "b.c", "AND", "x[0]")
SAFE = re.compile(r"(?:#n\d+|:v\d+|\[\d+\]|[a-z_]+(?=\()|AND|OR|NOT|BETWEEN|IN|SET|ADD|DELETE|REMOVE|[-+<>=(),. ])*")


class Contradiction(AssertionError):
    """Two ways that must lead to the same do not."""


class Hang(BaseException):
    """An input takes too long."""


def _names_of(list_id: int) -> tuple[str, ...]:
    return NAMES[: list_id % (len(NAMES) + 1)]


def _same(left: Any, right: Any, what: str) -> None:
    if left != right:
        raise Contradiction(f"{what}: {left!r:.300} and {right!r:.300}")


# What is tried. Each takes bytes and a generator; it raises Malformed for what it does not take.


def requests_of(pieces: Iterator[bytes]) -> tuple[list[Any], Malformed | None]:
    """Return the requests of a connection that comes in such pieces, and the error that ended it."""
    reader = Reader(LIMITS)
    taken: list[Any] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (one := reader.next()) is not None:
                taken.append(one)
    except Malformed as error:
        return taken, error
    return taken, None


def _pieces(data: bytes, random: Random) -> Iterator[bytes]:
    largest = random.choice((1, 3, 50, 2000))
    start = 0
    while start < len(data):
        size = random.randint(1, largest)
        yield data[start : start + size]
        start += size


def connection(data: bytes, random: Random) -> None:
    """Take all bytes of a connection at once and in pieces, and make calls of the requests."""
    taken, error = requests_of(iter([data]))
    again, _ = requests_of(_pieces(data, random))
    _same(taken, again, "the requests of the whole and of its pieces")
    table = random.choice(SCHEMAS)
    for one in taken:
        if isinstance(one, DataRequest):
            call_of(one, lambda _: table, _names_of, LIMITS).whole()
    if error is not None:
        raise error


def condition(data: bytes, _: Random) -> None:
    """Take a condition, filter or key condition."""
    _expression(condition_text, data)


def update(data: bytes, _: Random) -> None:
    """Take an update."""
    _expression(update_text, data)


def _expression(text_of: Callable[..., str], data: bytes) -> None:
    placeholders = Placeholders()
    text = text_of(data, placeholders, LIMITS)
    if not SAFE.fullmatch(text):
        raise Contradiction(f"something of the outside stands in the text {text!r:.300}")
    used = set(re.findall(r"[#:][nv]\d+", text))
    _same(used, placeholders.names.keys() | placeholders.values.keys(), "placeholders used and given")


def projection(data: bytes, _: Random) -> None:
    """Take a projection."""
    decode_projection(data, LIMITS)


def values(data: bytes, _: Random) -> None:
    """Take an item's values, write them and take them again."""
    item = decode_values(data, _names_of, LIMITS)
    written = encode_values(item, SCHEMAS[0], lambda names: len(names) or 1)
    again = decode_values(written, lambda _: tuple(sorted(item)), LIMITS)
    _same(again, item, "an item before and after it was written")


def key(data: bytes, random: Random) -> None:
    """Take a key, write it and take it again."""
    table = random.choice(SCHEMAS)
    written = encode_key(decode_key(data, table, LIMITS), table)
    again = encode_key(decode_key(written, table, LIMITS), table)
    _same(again, written, "a key before and after it was written")


TARGETS: dict[str, Callable[[bytes, Random], None]] = {
    "connection": connection,
    "condition": condition,
    "update": update,
    "projection": projection,
    "values": values,
    "key": key,
}


# How bytes are changed.

INTERESTING = bytes.fromhex("0017181b1f203b405b5f607b7f80829b9fa0bfc2c3c4d9d8f4f6f7f9fbff81ee")
FRAGMENTS = [
    bytes.fromhex("d90cf9"),  # sets of texts, of numbers, of byte strings
    bytes.fromhex("d90cfa"),
    bytes.fromhex("d90cfb"),
    bytes.fromhex("d90cfc00"),  # an index in a path
    bytes.fromhex("c482"),  # a decimal
    bytes.fromhex("c258ff"),  # a big number that is too big
    bytes.fromhex("1bffffffffffffffff"),
    bytes.fromhex("9bffffffffffffffff"),
    bytes.fromhex("5b000000ffffffffff"),
    bytes.fromhex("f97e00"),  # no number
    bytes.fromhex("8206"),  # operators
    bytes.fromhex("8208"),
    bytes.fromhex("830a"),
    bytes.fromhex("821100"),
    bytes.fromhex("82126161"),
    b"\xbf",  # open ends, and ends
    b"\x9f",
    b"\x5f",
    b"\x7f",
    b"\xff",
]


def mutated(data: bytes, pool: list[bytes], random: Random) -> bytes:
    """Return bytes changed in one to four ways."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change(changed, pool, random)
    return bytes(changed[:MAX_BYTES])


def _change(data: bytearray, pool: list[bytes], random: Random) -> None:
    place = random.randrange(len(data) + 1)
    end = min(len(data), place + random.choice((1, 1, 1, 2, 4, 32)))
    match random.randrange(13):
        case 0 if place < len(data):
            data[place] ^= 1 << random.randrange(8)
        case 1 if place < len(data):
            data[place] = random.choice(INTERESTING)
        case 2:
            data[place:place] = random.choice(FRAGMENTS)
        case 3:
            del data[place:end]
        case 4:
            data[place:place] = data[place:end] * random.choice((1, 1, 2, 40))
        case 5:
            other = random.choice(pool)
            start = random.randrange(len(other) + 1)
            data[place:end] = other[start : start + random.choice((1, 4, 16, 200))]
        case 6 if random.random() < 0.2:
            del data[place:]
        case 7 if place < len(data):
            data[place] = (data[place] + random.choice((-1, 1))) % 256
        case 8:
            data[place:end] = random.randbytes(end - place)
        case _:
            other = random.choice(pool)
            source = random.randrange(len(other) + 1)
            data[place : _end_of_item(data, place)] = other[source : _end_of_item(other, source)]


def _end_of_item(data: bytes | bytearray, place: int) -> int:
    """Return where the item that begins at a place ends, if one does: so that whole items are exchanged."""
    scan = Scan(LIMITS, 1, place)
    try:
        return scan.position if scan.run(data) else place
    except Malformed:
        return place


# The run.


@dataclass
class Report:
    """What a run came to."""

    executions: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    crashes: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    hangs: int = 0
    slowest_ms: float = 0.0
    kept: int = 0
    lines: int = 0

    def __str__(self) -> str:
        total = self.executions.total()
        targets = ", ".join(f"{name} {count} ({self.accepted[name]} taken)" for name, count in self.executions.items())
        return (
            f"executions {total}, crashes {len(self.crashes)}, hangs {self.hangs}, slowest {self.slowest_ms:.1f} ms; "
            f"inputs kept for new lines {self.kept}, lines seen {self.lines}; {targets}"
        )


class Fuzzer:
    """Changes inputs and tries them.

    Args:
        seed: of everything that is chosen.
        targets: what is tried, by the corpus' folders.
        traced: the part of executions in which it is watched which lines run; what reaches new ones is kept.
    """

    def __init__(
        self, seed: int, targets: dict[str, Callable[[bytes, Random], None]] = TARGETS, *, traced: float = 0.0
    ) -> None:
        self._random = Random(seed)
        self._targets = targets
        self._traced = traced
        self._seen: set[tuple[CodeType, int]] = set()
        self._reached_new = False
        self._names = [*targets, *(["connection"] * 2 if "connection" in targets else [])]
        self._pools = {name: corpus(name) for name in targets}
        self.report = Report()

    def run(self, *, executions: int | None = None, seconds: float | None = None) -> Report:
        """Go on until there were so many executions, or so many seconds are over."""
        end = time.monotonic() + seconds if seconds is not None else None
        with _alarm():
            while (executions is None or self.report.executions.total() < executions) and (
                end is None or time.monotonic() < end
            ):
                self._once()
        self.report.lines = len(self._seen)
        return self.report

    def _once(self) -> None:
        name = self._random.choice(self._names)
        pool = self._pools[name]
        data = mutated(self._random.choice(pool), pool, self._random)
        self._reached_new = False
        began = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
        try:
            self._try(name, data)
        except Malformed:
            pass
        except Hang:
            self.report.hangs += 1
            self._crashed(f"hang in {name}", data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._crashed(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}", data)
        else:
            self.report.accepted[name] += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self.report.executions[name] += 1
        self.report.slowest_ms = max(self.report.slowest_ms, (time.process_time() - began) * 1000)
        if self._reached_new:
            pool.append(data)
            self.report.kept += 1

    def _crashed(self, what: str, data: bytes) -> None:
        self.report.crashes.setdefault(what, (traceback.format_exc(), data))

    def _try(self, name: str, data: bytes) -> None:
        if self._random.random() >= self._traced:
            self._targets[name](data, self._random)
            return
        sys.settrace(self._on_call)
        try:
            self._targets[name](data, self._random)
        finally:
            sys.settrace(None)

    def _on_call(self, frame: FrameType, _event: str, _: Any) -> Any:
        return self._on_line if "/local/dax/" in frame.f_code.co_filename else None

    def _on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        spot = (frame.f_code, frame.f_lineno)
        if event == "line" and spot not in self._seen:
            self._seen.add(spot)
            self._reached_new = True
        return self._on_line


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
