"""Races of real worker processes: what each is to do, what is done to it meanwhile, and what must hold of the reports.

The times in the reports are of one clock, so that it is known which call had ended before which began.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mangatest import HANG_GUARD_S

from mangacache import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mangatest import World

    from mangacache import Turn

WORKER = Path(__file__).parent.parent / "faults" / "race_worker.py"
APPENDS = frozenset({"append", "append_many"})
CHANGES = frozenset({"update", "summarise"})
_SILENCE_S = 0.5
FAULT_SEEDS = range(int(os.environ.get("FAULT_SEEDS", "2")))
"""Seeds of each race; a long run sets the variable: FAULT_SEEDS=50."""


@dataclass
class Plan:
    """What one worker does.

    Attributes:
        strands: each a list of (call, argument), done one after the other; the strands run at once.
        after: the token that goes with every append, for turns that may be retried after more than a window.
        loss: share of requests that are lost, unanswered, late or throttled.
        late_s: the most by which a late request comes late.
        dies: (operation, n, `before` or `after`): the process is killed at its nth request of this kind.
        clock_s: how far off its wall clock is.
        clock_jumps: (n, seconds): how far off it is from the nth call on.
    """

    strands: Sequence[Sequence[tuple[str, Any]]]
    after: str | None = None
    loss: float = 0.0
    late_s: float = 0.0
    dies: tuple[str, int, str] | None = None
    clock_s: float = 0.0
    clock_jumps: Sequence[tuple[int, float]] = ()
    seed: int = 0
    session_id: str = "race"
    customer_id: str | None = None


@dataclass(frozen=True)
class Done:
    """A call that has returned, as its worker reported it."""

    call: str
    begun: float
    ended: float
    name: Any = None
    number: int = 0
    again: bool = False
    existed: bool = False
    level: str = ""
    said: str = ""
    why: str = ""
    incarnation: int = 0
    meta: list[str] | None = None
    summary: str | None = None
    version: Version = field(default_factory=Version)
    least: Version = field(default_factory=Version)
    turns: tuple[tuple[int, str], ...] = ()

    @classmethod
    def read(cls, report: dict[str, Any]) -> Done:
        for name in report.keys() & {"version", "least"}:
            report[name] = Version(*report[name])
        if "turns" in report:
            report["turns"] = tuple(map(tuple, report["turns"]))
        return cls(**report)


class Racer:
    """One worker process, and what it reported."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.done: list[Done] = []

    @classmethod
    async def start(cls, world: World, plan: Plan) -> Racer:
        settings = {"endpoint": world.settings.dynamodb_endpoint, "table": world.settings.table_name}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), json.dumps(settings | asdict(plan)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
        )  # fmt: skip
        return cls(process)

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self) -> None:
        """Let it go on: it starts, or a `wait` of its ends."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def fault(self, kind: str) -> None:
        """Kill, pause or resume it, or tell it to go on."""
        if kind == "tell":
            self.tell()
        elif self.process.returncode is None:
            self.process.send_signal({"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}[kind])


class Race:
    """Several workers at once.

    Args:
        faults: (reports, worker, `kill` | `pause` | `resume` | `tell`): what happens to whom, once so many reports have
            come from all of them together, or sooner if nobody reports.
        follows: (report, worker, what): what happens to whom, each once, right after the first report of which
            `report(worker, done)` holds.
    """

    def __init__(
        self,
        world: World,
        plans: Sequence[Plan],
        faults: Iterable[tuple[int, int, str]] = (),
        follows: Iterable[tuple[Callable[[int, Done], bool], int, str]] = (),
    ) -> None:
        self._world = world
        self._plans = plans
        self._follows = list(follows)
        self._faults = sorted(faults, key=lambda fault: fault[0])
        self._heard = 0
        self.racers: list[Racer] = []
        self.statuses: list[int] = []

    async def run(self) -> list[Done]:
        """Run it to its end; return every report, by the time of its end."""
        async with asyncio.timeout(HANG_GUARD_S):
            try:
                for plan in self._plans:
                    self.racers.append(await Racer.start(self._world, plan))
                for racer in self.racers:
                    assert json.loads(await racer.stdout.readline()) == {"call": "ready"}
                for racer in self.racers:
                    racer.tell()
                going = asyncio.create_task(self._keep_going())
                self.statuses = await asyncio.gather(*map(self._listen, self.racers))
                going.cancel()
            finally:
                for racer in self.racers:
                    if racer.process.returncode is None:
                        racer.process.kill()
                        await racer.process.wait()
        return sorted((done for racer in self.racers for done in racer.done), key=lambda done: done.ended)

    async def _listen(self, racer: Racer) -> int:
        while (line := await racer.stdout.readline()).endswith(b"\n"):
            done = Done.read(json.loads(line))
            racer.done.append(done)
            self._heard += 1
            worker = self.racers.index(racer)
            follow = [one for one in self._follows if one[0](worker, done)]
            self._follows = [one for one in self._follows if one not in follow]
            for _, index, kind in follow:
                self.racers[index].fault(kind)
            while self._faults and self._faults[0][0] <= self._heard:
                self._happen()
        assert racer.process.stdin is not None
        racer.process.stdin.close()
        return await racer.process.wait()

    async def _keep_going(self) -> None:
        """Let what is to happen happen early when nobody reports any more: the others may wait for it."""
        while self._faults:
            before = self._heard
            await asyncio.sleep(_SILENCE_S)
            if self._faults and self._heard == before:
                self._happen()

    def _happen(self) -> None:
        _, index, kind = self._faults.pop(0)
        self.racers[index].fault(kind)


def outlived(race: Race) -> list[int]:
    """Return the exit statuses of those that were not killed."""
    return [status for status in race.statuses if status != -signal.SIGKILL]


def check_numbers(stored: Sequence[Turn], done: Iterable[Done]) -> dict[str, int]:
    """No hole, no double, and everything acknowledged stands where it was acknowledged. Return who stands where."""
    assert [turn.number for turn in stored] == list(range(1, len(stored) + 1))
    places = {turn.turn_id: turn.number for turn in stored}
    assert len(places) == len(stored)
    acked = [one for one in done if one.call in APPENDS]
    assert [one for one in acked if places.get(one.name) != one.number] == []
    return places


def check_order(done: Sequence[Done]) -> None:
    """What began after a call had returned is not older than what that call returned.

    Each part of a version is judged by itself: an append promises the number it takes, a change of META its revision,
    a read at a level that asks the table both, any read its token.
    """
    ended = sorted(done, key=lambda one: one.ended)
    newest, position = Version(), 0
    for one in sorted(done, key=lambda one: one.begun):
        while position < len(ended) and ended[position].ended < one.begun:
            newest = newest.join(ended[position].version)
            position += 1
        if one.said or one.again:
            continue
        seen = newest if newest.incarnation == one.version.incarnation else Version()
        if one.call in APPENDS:
            assert one.version.incarnation >= newest.incarnation, (newest, one)
            assert one.number > seen.number, (newest, one)
        elif one.call in CHANGES:
            assert one.version.incarnation >= newest.incarnation, (newest, one)
            assert one.version.revision > seen.revision, (newest, one)
        elif one.call == "context":
            assert one.version.covers(one.least), one
            assert one.level not in ("strong", "latest") or one.version.covers(newest), (newest, one)


def check_places(done: Iterable[Done]) -> None:
    """One turn in each place, whoever looks: what an acknowledgement named and every read has shown agree."""
    places: dict[tuple[int, int], str] = {}
    for one in done:
        incarnation = one.incarnation or one.version.incarnation  # unknown where one page of history holds all
        shown = [(one.number, one.name)] if one.call in APPENDS else one.turns
        for number, turn_id in shown if incarnation else ():
            assert places.setdefault((incarnation, number), turn_id) == turn_id, one
        numbers = [number for number, _ in one.turns]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True, one
