"""Retries around a transport that follows a script, on a clock that runs only when somebody waits."""

from __future__ import annotations

import asyncio

import pytest

from mangacache import Invalid, NotFound, Settings, Transient
from mangacache.clock import SystemClock
from mangacache.store.requests import Requests
from mangacache.store.transport import ConditionFailed, Throttled, TransactionCanceled, Unanswered
from mangacache.telemetry import Telemetry

LIMITS = Settings(request_timeout_s=2.0, request_deadline_s=10.0, retry_base_s=0.1, retry_cap_s=1.0)


class ScriptClock(SystemClock):
    """A clock that moves when somebody sleeps, or when a script says so."""

    __slots__ = ("limits", "now_s", "slept")

    def __init__(self):
        self.now_s, self.slept, self.limits = 100.0, [], []

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def timeout(self, seconds):
        self.limits.append(seconds)
        return asyncio.timeout(None)


class Script:
    """A transport that answers by a script: an exception is raised, a number of seconds passes first."""

    def __init__(self, clock, *steps, forever=None):
        self.clock, self.steps, self.forever = clock, list(steps), forever
        self.sent = []

    async def request(self, operation, parameters):
        self.sent.append((operation, parameters))
        step = self.steps.pop(0) if self.steps else self.forever
        if isinstance(step, tuple):
            seconds, step = step
            self.clock.now_s += seconds
        if isinstance(step, BaseException):
            raise step
        return step


class Steady:
    """No jitter: always the longest wait, or the share that is given."""

    def __init__(self, share=1.0):
        self.share = share

    def random(self):
        return self.share

    def getrandbits(self, _):
        return 0


def requests(*steps, forever=None, share=1.0, settings=LIMITS):
    clock = ScriptClock()
    transport = Script(clock, *steps, forever=forever)
    telemetry = Telemetry()
    made = Requests(transport, settings=settings, clock=clock, random=Steady(share), telemetry=telemetry)
    return made, transport, clock, telemetry


async def test_an_answer_at_once_is_sent_for_once_and_is_in_no_doubt():
    sender, transport, clock, telemetry = requests({"Item": {}})
    answer = await sender.send("GetItem", {"Key": 1})
    assert (answer.body, answer.in_doubt) == ({"Item": {}}, False)
    assert transport.sent == [("GetItem", {"Key": 1})]
    assert clock.slept == []
    assert telemetry.value("mangacache_dynamodb_requests_total", operation="GetItem") == 1


@pytest.mark.parametrize(
    ("failures", "in_doubt"),
    [
        ([Throttled("slow down")], False),
        ([Unanswered("no route", sent=False)], False),
        ([Unanswered("reset")], True),
        ([Unanswered("reset"), Throttled("slow down")], True),
        ([Unanswered("reset"), Unanswered("no route", sent=False)], True),
        ([Throttled("slow down"), Unanswered("no route", sent=False), Unanswered("reset")], True),
    ],
)
async def test_an_answer_after_failures_says_whether_one_of_them_may_have_been_done(failures, in_doubt):
    sender, transport, _, _ = requests(*failures, {"done": True})
    answer = await sender.send("PutItem", {"a": 1})
    assert (answer.body, answer.in_doubt) == ({"done": True}, in_doubt)
    assert transport.sent == [("PutItem", {"a": 1})] * (len(failures) + 1), "the same request, unchanged"


@pytest.mark.parametrize(
    "definite", [ConditionFailed({"a": 1}), TransactionCanceled((("ConditionalCheckFailed", {}),))]
)
@pytest.mark.parametrize(
    ("before", "in_doubt"),
    [([], False), ([Throttled("x")], False), ([Unanswered("x", sent=False)], False), ([Unanswered("x")], True)],
)
async def test_a_definite_refusal_is_not_repeated_and_carries_the_doubt_of_earlier_tries(definite, before, in_doubt):
    sender, transport, _, _ = requests(*before, definite)
    with pytest.raises(type(definite)) as caught:
        await sender.send("PutItem", {})
    assert caught.value.in_doubt is in_doubt
    assert len(transport.sent) == len(before) + 1


@pytest.mark.parametrize("error", [Invalid("wrong"), NotFound("no table"), ZeroDivisionError("a fault of ours")])
async def test_what_is_refused_for_good_goes_on_at_once(error):
    sender, transport, _, _ = requests(error)
    with pytest.raises(type(error)):
        await sender.send("PutItem", {})
    assert len(transport.sent) == 1


async def test_waits_double_up_to_their_cap_and_end_at_the_deadline():
    sender, transport, clock, telemetry = requests(forever=Throttled("slow down"))
    with pytest.raises(Transient) as caught:
        await sender.send("PutItem", {})
    assert clock.slept[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert clock.now_s - 100 < LIMITS.request_deadline_s
    assert len(transport.sent) == len(clock.slept) + 1
    retries = telemetry.value("mangacache_dynamodb_retries_total", operation="PutItem", reason="throttled")
    assert retries == len(clock.slept)
    assert caught.value.retry_after_s == LIMITS.retry_cap_s
    assert str(caught.value) == (
        f"DynamoDB gave no definite answer to PutItem in {len(transport.sent)} tries (10 s): slow down; "
        "nothing was done"
    )
    assert isinstance(caught.value.__cause__, Throttled)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_jitter_is_full(share):
    sender, *_ = requests(share=share)
    assert [sender.pause_s(tries) for tries in (0, 1, 3, 4, 1_000_000)] == pytest.approx(
        [share * ceiling for ceiling in (0.1, 0.2, 0.8, 1.0, 1.0)]
    )


async def test_retries_without_a_wait_are_bounded_by_the_time_that_requests_take():
    sender, transport, _, _ = requests(forever=(3.0, Unanswered("reset")), share=0.0)
    with pytest.raises(Transient, match="in 4 tries") as caught:
        await sender.send("PutItem", {})
    assert len(transport.sent) == 4
    assert str(caught.value).endswith("whether it was done is unknown, repeating the call is safe")


async def test_no_try_may_last_longer_than_what_is_left_of_the_deadline():
    sender, _, clock, _ = requests(*[(4.0, Unanswered("reset"))] * 2, (1.5, Unanswered("reset")), {}, share=0.0)
    await sender.send("PutItem", {})
    assert clock.limits == pytest.approx([2.0, 2.0, 2.0, 0.5])


async def test_a_try_that_runs_out_of_time_is_in_doubt_and_sent_again():
    class Hanging(Script):
        async def request(self, operation, parameters):
            if not self.sent:
                self.sent.append(operation)
                await asyncio.Event().wait()
            return await super().request(operation, parameters)

    clock = SystemClock()
    transport = Hanging(clock, {"done": True})
    settings = LIMITS.replace(request_timeout_s=0.05, retry_base_s=0.001)
    sender = Requests(transport, settings=settings, clock=clock, random=Steady(), telemetry=Telemetry())
    answer = await sender.send("PutItem", {})
    assert (answer.body, answer.in_doubt) == ({"done": True}, True)


async def test_a_cancelled_caller_is_cancelled_and_nothing_is_sent_again():
    class Hanging(Script):
        async def request(self, operation, parameters):
            self.sent.append((operation, parameters))
            await asyncio.Event().wait()

    clock = ScriptClock()
    transport = Hanging(clock)
    sender = Requests(transport, settings=LIMITS, clock=clock, random=Steady(), telemetry=Telemetry())
    sending = asyncio.ensure_future(sender.send("PutItem", {}))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert len(transport.sent) == 1
