"""Workers append to one session through a network that does everything at once: what is promised holds."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass

import dynamodb_faults as faults
import pytest
from dynamodb_server import Answer, ToxicServer, upstream
from racing import FAULT_SEEDS, Done, check_numbers

from mangacache import MangaCache, NewTurn, Rejected, Transient
from mangacache.store import open_transport
from mangacache.store.transport import ConditionFailed, TransactionCanceled, Unanswered

BEFORE_ALL = "0.0.0"
WORKERS = 4
TIMEOUT_S = 0.25
HANG_GUARD_S = 60.0
SHARE = 0.35
FAULTS = [
    *faults.UNANSWERED.values(),
    *faults.TOO_LATE.values(),
    *faults.ODD.values(),
    faults.reset_on_next,
    *(faults.saying(Answer.error(code)) for code in ("ThrottlingException", "ProvisionedThroughputExceededException")),
]
DEFINITE = ("done", "refused")


@dataclass
class Call:
    """One call of a transport.

    Attributes:
        places: the turns that it puts, by (sort key, turn_id).
        outcome: `done`, `refused` (its condition), `unsent`, or `open`.
    """

    places: tuple[tuple[str, str], ...]
    outcome: str = "open"
    took_s: float = 0.0


class Noted:
    """A transport that notes what its calls were told."""

    def __init__(self, inner):
        self._inner = inner
        self.calls = []

    async def request(self, operation, parameters):
        call = Call(places(operation, parameters))
        self.calls.append(call)
        begun_s = time.monotonic()
        try:
            answer = await self._inner.request(operation, parameters)
        except (ConditionFailed, TransactionCanceled):
            call.outcome = "refused"
            raise
        except Unanswered as error:
            call.outcome = "open" if error.sent else "unsent"
            raise
        else:
            call.outcome = "done"
            return answer
        finally:
            call.took_s = time.monotonic() - begun_s


def places(operation, parameters):
    """Return the turns that a request puts."""
    puts = (
        [parameters] if operation == "PutItem" else [one.get("Put", {}) for one in parameters.get("TransactItems", ())]
    )
    items = [put["Item"] for put in puts if "Item" in put]
    return tuple((item["SK"]["S"], item["turn_id"]["S"]) for item in items if "turn_id" in item)


async def _append(session, turn_ids):
    """Append until the outcome is definite; return what was acknowledged."""
    turns = [NewTurn(role="user", content=turn_id, turn_id=turn_id) for turn_id in turn_ids]
    while True:
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                done = await session.append_many(turns, after=BEFORE_ALL)
        except (Transient, Rejected):
            continue
        now_s = time.monotonic()
        return [
            Done("append", begun=now_s, ended=now_s, name=turn_id, number=one.number)
            for turn_id, one in zip(turn_ids, done, strict=True)
        ]


def _shares(noise):
    """Return what each worker appends: turns of its own, turns that another appends as well, and a batch."""
    twice = [[f"twice-{i}"] for i in range(8)]
    shares = []
    for w in range(WORKERS):
        share = [[f"w{w}-{i}"] for i in range(6)] + twice[2 * w :] + twice[: 2 * w][:2]
        share.append([f"w{w}-many{i}" for i in range(5)])
        noise.shuffle(share)
        shares.append(share)
    return shares


@pytest.mark.parametrize("seed", FAULT_SEEDS)
@pytest.mark.parametrize("transport_name", ["aioboto3", "direct"])
async def test_appends_through_a_toxic_network_leave_no_hole_no_double_and_nothing_is_sent_that_was_not_asked_for(
    real_world, transport_name, seed
):
    noise = random.Random(seed)
    shares = _shares(noise)
    async with asyncio.timeout(3 * HANG_GUARD_S), AsyncExitStack() as stack:
        url = real_world.settings.dynamodb_endpoint
        server = await stack.enter_async_context(ToxicServer.open(upstream(url), seed=seed))
        settings = real_world.settings.replace(
            dynamodb_endpoint=server.url, dynamodb_transport=transport_name, max_connections=4,
            request_timeout_s=TIMEOUT_S, request_deadline_s=2.0, connect_timeout_s=1.0,
        )  # fmt: skip
        noted, sessions = [], []
        for _ in range(WORKERS):
            noted.append(Noted(await stack.enter_async_context(open_transport(settings))))
            cache = await stack.enter_async_context(MangaCache.open(settings, transport=noted[-1]))
            sessions.append(cache.session("race"))
        server.plan = lambda _received, dice: dice.choice(FAULTS) if dice.random() < SHARE else None
        server.refuses = lambda dice: dice.random() < SHARE / 3
        acked = await asyncio.gather(
            *(_append(session, turn_ids) for session, share in zip(sessions, shares, strict=True) for turn_ids in share)
        )
        done = [one for several in acked for one in several]
        server.plan, server.refuses = (lambda _received, _dice: None), (lambda _dice: False)
    async with real_world.cache() as cache:
        stored = (await cache.session("race").history(limit=1000)).turns
    numbers = check_numbers(stored, done)
    assert set(numbers) == {turn_id for share in shares for turn_ids in share for turn_id in turn_ids}
    check_what_was_sent(noted, server)


def check_what_was_sent(noted, server):
    """All that arrived was sent by a call that says so, no turn is put again once that is settled, and no call hung."""
    calls = [call for one in noted for call in one.calls]
    arrived = Counter(place for one in server.received for place in places(one.operation, one.parameters))
    sent = Counter(place for call in calls if call.outcome != "unsent" for place in call.places)
    assert arrived
    assert arrived <= sent, arrived - sent
    assert len(server.received) <= sum(call.outcome != "unsent" for call in calls)
    for one in noted:
        settled = set()
        for call in one.calls:
            assert not settled & set(call.places), call
            if call.outcome in DEFINITE:
                settled |= set(call.places)
    assert max(call.took_s for call in calls) < TIMEOUT_S + HANG_GUARD_S / 4
    outcomes = Counter(call.outcome for call in calls)
    assert outcomes["open"] > 10, outcomes
    assert outcomes["done"] > 10, outcomes
