"""One caller's way to a lock: into the line, to its turn, to the claim, and back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mangacache.clock import random_id
from mangacache.ephemeral import scripts
from mangacache.ephemeral.holding import Held
from mangacache.ephemeral.lending import Hold
from mangacache.errors import MangaCacheError, Rejected, Transient
from mangacache.redis.channels import Hears, Said

if TYPE_CHECKING:
    import asyncio

    from mangacache.clock import Clock, Random
    from mangacache.ephemeral.asking import Asker
    from mangacache.redis.channels import Listener
    from mangacache.redis.subscriptions import Subscriptions
    from mangacache.store import Store
    from mangacache.store.fences import Unclaimed
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

MOST_WAITING: Final = 256
_LEAST_PATIENCE_S: Final = 0.25
_MOST_PATIENCE_S: Final = 1.0
_ASKS: Final = 3  # in the time for which a place in line is kept
_PAUSE_S: Final = 0.02
_SERVICE: Final = "locks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What locks are taken with; see `Locks`."""

    asker: Asker
    subscriptions: Subscriptions | None
    store: Store
    clock: Clock
    random: Random
    telemetry: Telemetry
    tasks: TaskOwner


class Seeking:
    """Takes a lock for one caller, prolongs it, gives it back.

    Args:
        session_id: whose lock.
        lease_s: how long it is held without being renewed.
        wait_s: how long it may take to get it.
    """

    def __init__(self, session_id: str, *, lease_s: float, wait_s: float, means: Means) -> None:
        self._session_id = session_id
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._means = means
        self._clock = means.clock
        self._token = random_id(means.random)
        self._key = means.asker.key("lock:session", session_id)
        self._patience_s = min(_MOST_PATIENCE_S, max(_LEAST_PATIENCE_S, lease_s))
        self._began_s = self._clock.monotonic_s()
        self._listener: Listener | None = None
        self._by_redis = False
        self._asked = False
        self._others_until_s = float("-inf")
        self._claim = (0, "")

    async def found(self) -> Held:
        """Return the lock once it is held.

        Raises:
            Rejected: it was not to be had in time.
            Conflict, Transient, Corrupt: see `Locks.session`.
        """
        try:
            async with AsyncExitStack() as stack:
                return await self._found(stack)
        except BaseException:
            self.leave()
            raise

    async def _found(self, stack: AsyncExitStack) -> Held:
        tries = 0
        while True:
            unclaimed = await self._means.store.fences.read(self._session_id)
            taken_at_s = self._clock.monotonic_s()
            if not await self._taken():
                await self._turn(stack)
                continue
            fence = await self._claimed(unclaimed)
            if fence is not None:
                return Held(
                    self._session_id,
                    fence=fence,
                    source="redis" if self._by_redis else "fence",
                    waited_s=self._clock.monotonic_s() - self._began_s,
                    lease_s=self._lease_s,
                    taken_at_s=taken_at_s,
                    clock=self._clock,
                )
            await self._give_back()  # somebody has claimed it meanwhile, and must not find it taken
            self._check_time(0.0)
            await self._clock.sleep(self._means.random.random() * _PAUSE_S * 2 ** min(tries, 5))
            tries += 1

    async def _claimed(self, unclaimed: Unclaimed) -> int | None:
        means = self._means
        claim_id = random_id(means.random)
        stamp = means.store.stamp()
        fence = await means.store.fences.claim(self._session_id, unclaimed, claim_id=claim_id, stamp=stamp)
        self._claim = (fence or 0, claim_id)
        return fence

    # In Redis

    async def _ask(self, what: str) -> tuple[str, float]:
        """Ask for the lock or for the place in line; return what is the case, and for how many seconds.

        Raises:
            Transient: Redis cannot be asked.
            Rejected: too many wait.
        """
        self._asked = True
        lease_ms, patience_ms = round(self._lease_s * 1000), round(self._patience_s * 1000)
        arguments = (self._token, lease_ms, patience_ms, MOST_WAITING, what)
        reply, number = await self._means.asker.run(_SERVICE, scripts.LOCK_TAKE, self._key, arguments, repeatable=True)
        if reply == b"full":
            raise Rejected(
                f"{MOST_WAITING} wait for the lock of session {self._session_id!r} already: nothing was done",
                retry_after_s=number / 1000,
            )
        if reply == b"waits":
            self._others_until_s = self._clock.monotonic_s() + number / 1000
        return reply.decode(), number / 1000

    async def _taken(self) -> bool:
        """Take the lock in Redis if it can be had; where Redis cannot be asked, the fence alone is the lock."""
        self._by_redis = False
        if self._means.asker.link is None:
            return True
        try:
            said, _ = await self._ask("take")
        except Transient as error:
            self._means.telemetry.count_survived("lock_by_fence_alone", error)
            return self._clock.monotonic_s() >= self._others_until_s
        self._by_redis = said == "held"
        return self._by_redis

    async def _turn(self, stack: AsyncExitStack) -> None:
        """Wait in line until it is this caller's turn; where Redis goes away, until the hold known of has ended."""
        if self._listener is None and self._means.subscriptions is not None:
            listening = self._means.subscriptions.listen(self._key + ":next")
            self._listener = await stack.enter_async_context(listening)
        while True:
            self._check_time(max(0.0, self._others_until_s - self._clock.monotonic_s()))
            try:
                said, for_s = await self._ask("wait")
            except Transient:
                for_s = self._others_until_s - self._clock.monotonic_s()
                if for_s <= 0:
                    return
            else:
                if said == "turn":
                    return
            left_s = self._began_s + self._wait_s - self._clock.monotonic_s()
            await self._woken(max(0.0, min(for_s, self._patience_s / _ASKS, left_s)))

    async def _woken(self, within_s: float) -> None:
        """Wait until this caller is named as the next, or for so long."""
        if self._listener is None:
            await self._clock.sleep(within_s)
            return
        try:
            async with self._clock.timeout(within_s):
                while True:
                    signal = await self._listener.next()
                    if isinstance(signal, Hears) or (isinstance(signal, Said) and signal.payload == self._named):
                        return
        except TimeoutError:
            return

    @property
    def _named(self) -> bytes:
        return self._token.encode()

    def _check_time(self, retry_after_s: float) -> None:
        """Give up where it has taken too long.

        Raises:
            Rejected: it has.
        """
        if self._clock.monotonic_s() - self._began_s >= self._wait_s:
            raise Rejected(
                f"the lock of session {self._session_id!r} was not to be had within {self._wait_s:g} s",
                retry_after_s=max(retry_after_s, _PAUSE_S),
            )

    # Held, and given back

    @property
    def hold(self) -> Hold:
        """What the token of the lock says, once it is held."""
        fence, claim_id = self._claim
        return Hold(self._token, claim_id, fence, round(self._lease_s * 1000), self._by_redis)

    async def renew(self) -> bool:
        """See `Renewal`."""
        if not self._by_redis:
            return await self._means.store.fences.current(self._session_id) == self._claim
        arguments = (self._token, round(self._lease_s * 1000))
        extended = await self._means.asker.run(_SERVICE, scripts.LOCK_EXTEND, self._key, arguments, repeatable=True)
        return bool(extended == 1)

    def leave(self) -> asyncio.Task[None] | None:
        """Give back the lock or the place in line, in the background; None where Redis knows nothing of it."""
        if not self._asked:
            return None
        return self._means.tasks.start(self._give_back(), name="give a lock back")

    async def _give_back(self) -> None:
        if not self._asked:
            return
        try:
            await self._means.asker.run(_SERVICE, scripts.LOCK_LEAVE, self._key, (self._token,), repeatable=True)
        except MangaCacheError as error:  # it ends by itself
            self._means.telemetry.count_survived("lock_not_given_back", error)
