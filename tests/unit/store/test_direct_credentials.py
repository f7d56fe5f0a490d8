"""Credentials are renewed beside the calls, in time; that it fails is survived until the end, and then said."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mangacache.clock import SystemClock
from mangacache.errors import Invalid
from mangacache.store.direct.credentials import RENEW_BEFORE_S, Keyring
from mangacache.store.direct.endpoint import parse_endpoint

HOUR_S = 3_600.0
START_S = 1_800_000_000.0


class WallClock(SystemClock):
    def __init__(self):
        self.now_s = START_S

    def time_s(self):
        return self.now_s


class Steady:
    def random(self):
        return 1.0


def _frozen(access_key, token):
    return SimpleNamespace(access_key=access_key, secret_key="some secret", token=token)  # noqa: S106 - of a test


class Provider:
    """What botocore calls refreshable credentials: handed out frozen, with an end that is looked up beside them."""

    def __init__(self, clock, life_s=HOUR_S):
        self._clock = clock
        self._expiry_time = None
        self.life_s = life_s
        self.asked = 0
        self.error = None
        self.go = asyncio.Event()
        self.go.set()

    async def get_frozen_credentials(self):
        self.asked += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if self.life_s is not None:
            self._expiry_time = datetime.fromtimestamp(self._clock.now_s + self.life_s, UTC)
        return _frozen(f"key-{self.asked}", None)


class Ring:
    """A keyring with a clock and a provider that a test sets."""

    def __init__(self, life_s=HOUR_S):
        self.clock = WallClock()
        self.provider = Provider(self.clock, life_s)
        self.failures = []
        self.keyring = Keyring(
            self.provider,
            endpoint=parse_endpoint("http://127.0.0.1", "us-east-1"),
            clock=self.clock,
            random=Steady(),
            on_failure=lambda what, error: self.failures.append((what, error)),
        )

    def current(self):
        """Return whose signer is in use."""
        signer = self.keyring.current(self.clock.now_s)
        return None if signer is None else signer._access_key.decode()

    async def settle(self):
        await self.keyring._tasks.settle()


async def test_credentials_without_an_end_are_asked_for_once():
    ring = Ring(life_s=None)
    assert (await ring.keyring.renewed())._access_key == b"key-1"
    ring.clock.now_s += 1_000_000 * HOUR_S
    assert ring.current() == "key-1"
    await ring.settle()
    assert ring.provider.asked == 1


@pytest.mark.parametrize(("life_s", "before_s"), [(6 * HOUR_S, RENEW_BEFORE_S), (60.0, 30.0), (2.0, 1.0)])
async def test_they_are_renewed_before_their_end_by_one_task_while_calls_go_on_with_the_present_ones(life_s, before_s):
    ring = Ring(life_s)
    await ring.keyring.renewed()
    ring.clock.now_s = START_S + life_s - before_s - 0.001
    assert ring.current() == "key-1"
    await ring.settle()
    assert ring.provider.asked == 1
    ring.clock.now_s = START_S + life_s - before_s
    ring.provider.go.clear()
    for _ in range(10):
        assert ring.current() == "key-1"
        await asyncio.sleep(0)
    assert ring.provider.asked == 2
    ring.provider.go.set()
    await ring.settle()
    assert ring.current() == "key-2"
    assert ring.failures == []


async def test_a_renewal_that_fails_is_survived_until_the_end_counted_and_tried_again_after_a_pause():
    ring = Ring()
    await ring.keyring.renewed()
    ring.provider.error = OSError("the endpoint is away")
    ring.clock.now_s = START_S + HOUR_S - RENEW_BEFORE_S
    for _ in range(5):
        assert ring.current() == "key-1"
        await ring.settle()
    assert (ring.provider.asked, len(ring.failures)) == (2, 1)
    ring.clock.now_s += 10.0
    assert ring.current() == "key-1"
    await ring.settle()
    assert ring.failures == [("credentials_not_renewed", ring.provider.error)] * 2
    ring.provider.error = None
    ring.clock.now_s = START_S + HOUR_S - 0.001
    assert ring.current() == "key-1"
    await ring.settle()
    assert ring.current() == "key-4"


async def test_after_their_end_no_call_is_signed_by_them_and_each_says_so_without_waiting_for_what_fails():
    ring = Ring()
    await ring.keyring.renewed()
    ring.provider.error = OSError("away: secret")
    ring.clock.now_s = START_S + HOUR_S - 60
    ring.current()
    await ring.settle()
    ring.clock.now_s = START_S + HOUR_S
    ring.provider.go.clear()
    assert ring.current() is None
    for _ in range(3):
        with pytest.raises(Invalid, match=r"expired and could not be renewed \(OSError\)") as raised:
            async with asyncio.timeout(5):
                await ring.keyring.renewed()
        assert raised.value.__cause__ is ring.provider.error
        assert "secret" not in str(raised.value)
    ring.provider.error = None
    ring.provider.go.set()
    await ring.settle()
    assert ring.current() == "key-3"


async def test_a_process_that_slept_past_their_end_waits_for_new_ones():
    ring = Ring()
    await ring.keyring.renewed()
    ring.clock.now_s += 10 * HOUR_S
    assert ring.current() is None
    assert (await ring.keyring.renewed())._access_key == b"key-2"


async def test_a_call_that_is_cancelled_while_it_waits_does_not_end_the_renewal_for_others():
    ring = Ring()
    ring.provider.go.clear()
    first, second = (asyncio.create_task(ring.keyring.renewed()) for _ in range(2))
    while not ring.provider.asked:  # noqa: ASYNC110 - the provider says nothing of being asked
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    ring.provider.go.set()
    assert (await second)._access_key == b"key-1"
    assert ring.provider.asked == 1


async def test_what_has_ended_before_it_is_handed_out_is_not_used():
    ring = Ring(life_s=-1.0)
    with pytest.raises(Invalid, match="the AWS credentials have expired and could not be renewed: check"):
        await ring.keyring.renewed()
    assert ring.current() is None
    assert ring.provider.asked < 5


async def test_a_credential_that_cannot_stand_in_a_header_is_said_to_be_one():
    ring = Ring()

    async def broken():
        return _frozen("key", "a\nb")

    ring.provider.get_frozen_credentials = broken
    with pytest.raises(Invalid, match=r"could not be had \(.*hold a line break.*AWS_SESSION_TOKEN"):
        await ring.keyring.renewed()
