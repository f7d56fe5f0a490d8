"""The door to DAX: asked while it is well, passed by while it is not, and never the reason of an error."""

from __future__ import annotations

import asyncio
import random

import pytest

from mangacache import Closed, Invalid, MangaCacheError, NotFound, Rejected, Transient
from mangacache.clock import SystemClock
from mangacache.store.dax.door import RULES, DaxDoor
from mangacache.store.dax.transport import Stalled
from mangacache.store.transport import ConditionFailed, Throttled, TransactionCanceled, Unanswered
from mangacache.telemetry import Telemetry


class StillClock(SystemClock):
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic_s(self):
        return self.now_s


class Dax:
    """A transport that answers, or fails as it is told."""

    def __init__(self):
        self.asked = []
        self.failures = []
        self.always = None
        self.gate = None

    async def request(self, operation, parameters):
        self.asked.append((operation, parameters))
        if self.gate is not None:
            await self.gate.wait()
        failure = self.failures.pop(0) if self.failures else self.always
        if failure is not None:
            raise failure
        return {"Item": {}}

    def of(self, operation):
        return [parameters for name, parameters in self.asked if name == operation]


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def dax():
    return Dax()


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
async def door(clock, dax, telemetry):
    made = DaxDoor(dax, table_name="t", clock=clock, random=random.Random(1), telemetry=telemetry)
    yield made
    await made.close()


async def _settle(door):
    await door._tasks.settle()


def _outcome(telemetry, operation, outcome):
    return telemetry.value("mangacache_dax_requests_total", operation=operation, outcome=outcome)


async def test_it_hands_answers_through(door, telemetry):
    assert await door.ask("GetItem", {"a": 1}) == {"Item": {}}
    assert _outcome(telemetry, "GetItem", "answered") == 1


async def test_a_read_whose_connection_broke_is_sent_once_more(door, dax):
    dax.failures = [Unanswered("reset")]
    assert await door.ask("GetItem", {}) is not None
    dax.failures = [Unanswered("reset"), Unanswered("reset")]
    assert await door.ask("GetItem", {}) is None
    assert len(dax.asked) == 4
    assert door.ready()


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "BatchWriteItem", "DeleteItem"])
async def test_a_write_is_sent_once(door, dax, operation):
    dax.failures = [Unanswered("reset")]
    assert await door.ask(operation, {}) is None
    assert len(dax.asked) == 1


async def test_what_took_its_whole_time_is_not_sent_again_and_nobody_waits_after_it(door, dax, telemetry):
    dax.always = Stalled("nothing within 0.5 s")
    assert await door.ask("GetItem", {}) is None
    for _ in range(5):
        assert await door.ask("GetItem", {}) is None
    assert len(dax.asked) == 1
    assert _outcome(telemetry, "GetItem", "open") == 5
    assert telemetry.value("mangacache_dax_up") == 0


async def test_a_time_out_opens_it_however_many_calls_went_well_just_before(door, dax):
    for _ in range(1000):
        assert await door.ask("GetItem", {}) is not None
    dax.failures = [Stalled("nothing within 0.5 s")]
    assert await door.ask("GetItem", {}) is None
    assert not door.ready()


@pytest.mark.parametrize("error", [Rejected("full"), Closed("gone")])
async def test_too_many_calls_under_way_say_nothing_of_dax(door, dax, error, telemetry):
    dax.always = error
    for _ in range(20):
        assert await door.ask("GetItem", {}) is None
    assert door.ready()
    assert _outcome(telemetry, "GetItem", "full") == 20


@pytest.mark.parametrize("error", [Throttled("slow down"), ConditionFailed({}), TransactionCanceled(())])
async def test_a_refusal_by_what_stands_behind_dax_is_no_failure_of_dax(door, dax, error):
    dax.always = error
    for _ in range(20):
        assert await door.ask("GetItem", {}) is None
    assert door.ready()


@pytest.mark.parametrize("error", [NotFound("no table"), Invalid("credentials"), MangaCacheError("odd")])
async def test_what_is_wrong_with_the_configuration_opens_at_once(door, dax, error):
    dax.always = error
    assert await door.ask("GetItem", {}) is None
    assert not door.ready()


async def test_the_probe_is_the_doors_own_and_no_caller_waits_for_it(door, dax, clock):
    dax.always = Stalled("nothing")
    await door.ask("Query", {})
    clock.now_s += RULES.open_s
    dax.gate = asyncio.Event()
    assert await door.ask("Query", {}) is None  # which returns while the probe hangs
    assert await door.ask("Query", {}) is None
    await asyncio.sleep(0)
    assert len(dax.of("Query")) == 1
    assert [parameters["TableName"] for parameters in dax.of("GetItem")] == ["t"]
    dax.always = None
    dax.gate.set()
    await _settle(door)
    assert await door.ask("Query", {}) is not None


async def test_looking_whether_it_is_ready_sends_the_probe_that_is_due(door, dax, clock):
    """Who looks first and passes by never asks: the door would stay shut for ever."""
    dax.failures = [Stalled("nothing")]
    await door.ask("Query", {})
    assert not door.ready()
    clock.now_s += RULES.open_s
    assert not door.ready()
    await _settle(door)
    assert door.ready()


async def test_a_probe_that_fails_leaves_it_open_for_longer(door, dax, clock):
    dax.always = Stalled("nothing")
    await door.ask("Query", {})
    probes = 0
    for _ in range(400):
        clock.now_s += 0.1
        door.ready()
        await _settle(door)
        probes = len(dax.of("GetItem"))
    assert 40 / RULES.open_cap_s <= probes <= 2 * 40 / RULES.open_cap_s + 4


async def test_a_probe_that_is_throttled_shows_that_dax_is_there(door, dax, clock):
    dax.failures = [Stalled("nothing"), Throttled("slow down")]
    await door.ask("Query", {})
    clock.now_s += RULES.open_s
    door.ready()
    await _settle(door)
    assert door.ready()


async def test_one_line_tells_when_dax_goes_and_one_when_it_is_back(door, dax, clock, caplog):
    caplog.set_level("INFO", logger="mangacache")
    dax.always = Stalled("nothing within 0.5 s")
    for _ in range(3):
        await door.ask("Query", {})
        clock.now_s += RULES.open_cap_s
        door.ready()
        await _settle(door)
    dax.always = None
    clock.now_s += RULES.open_cap_s
    door.ready()
    await _settle(door)
    assert [record.message for record in caplog.records] == ["dax_away", "dax_back"]
    assert caplog.records[0].why == "nothing within 0.5 s"


async def test_a_caller_who_leaves_is_no_failure_and_leaves_no_probe_behind(door, dax):
    dax.gate = asyncio.Event()
    callers = [asyncio.ensure_future(door.ask("GetItem", {})) for _ in range(10)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert door.ready()


@pytest.mark.parametrize(
    ("failure", "done"),
    [
        (None, True),
        (Rejected("full"), False),
        (Closed("gone"), False),
        (Throttled("slow down"), False),
        (Unanswered("refused", sent=False), False),
        (Unanswered("reset"), None),
        (Stalled("nothing"), None),
        (ConditionFailed({}), None),
        (Invalid("odd"), None),
    ],
)
async def test_a_put_is_done_not_done_or_open(door, dax, failure, done):
    dax.always = failure
    assert await door.put({}) is done
    assert len(dax.asked) == 1


async def test_nothing_is_put_through_a_dax_that_is_away(door, dax):
    dax.always = Stalled("nothing")
    await door.ask("GetItem", {})
    assert await door.put({}) is False
    assert dax.of("PutItem") == []


@pytest.mark.parametrize("error", [Invalid("no credentials"), NotFound("no table")])
async def test_opening_raises_what_an_operator_must_mend(door, dax, error):
    dax.always = error
    with pytest.raises(type(error)):
        await door.open()


@pytest.mark.parametrize("error", [Unanswered("refused", sent=False), Stalled("nothing"), Transient("later")])
async def test_opening_before_a_dax_that_is_away_degrades_with_one_line(door, dax, error, caplog):
    caplog.set_level("INFO", logger="mangacache")
    dax.always = error
    await door.open()
    assert not door.ready()
    assert [record.message for record in caplog.records] == ["dax_away"]
