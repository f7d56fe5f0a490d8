"""The credential in use: found and renewed by the AWS client's own providers, looked at by nobody in between.

A call compares two numbers. When a temporary credential nears its end, one task asks for the next, while calls go on
with the present one; that it fails is survived until the end. Then calls wait for one try, and say what is wrong.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Invalid
from mangacache.store.direct.signing import Signer
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock, Random
    from mangacache.store.direct.endpoint import Endpoint

RENEW_BEFORE_S: Final = 870.0  # the providers give the next one from 15 minutes before the end on
_RENEW_WITHIN_S: Final = 30.0
_PAUSE_S: Final = 10.0
_LEAST_PAUSE_S: Final = 0.25


class Keyring:
    """Hands out the signer of the credential in use.

    Args:
        credentials: of botocore's session.
        endpoint: what is signed for.
        clock: the wall clock, by which credentials end.
        random: the jitter of the pauses between tries.
        on_failure: hears of renewals that failed and were survived.
    """

    def __init__(
        self,
        credentials: Any,
        *,
        endpoint: Endpoint,
        clock: Clock,
        random: Random,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._credentials = credentials
        self._endpoint = endpoint
        self._clock = clock
        self._random = random
        self._on_failure = on_failure
        self._tasks = TaskOwner(on_failure=on_failure)
        self._signer: Signer | None = None
        self._frozen: Any = None
        self._error: Exception | None = None
        self._renew_at_s = self._ends_at_s = -math.inf
        self._renewing: asyncio.Task[None] | None = None

    def current(self, now_s: float) -> Signer | None:
        """Return the signer in use, `None` where there is none that is valid; renewal is begun when it is time."""
        if now_s >= self._renew_at_s:
            self._begin_renewal()
            if now_s >= self._ends_at_s:
                return None
        return self._signer

    async def renewed(self) -> Signer:
        """Return a valid signer where `current` had none: wait for it, unless it is known to fail.

        Raises:
            Invalid: there is no valid credential.
        """
        task = self._begin_renewal()
        if task is not None and self._error is None:
            await asyncio.shield(task)
        if self._signer is None or self._clock.time_s() >= self._ends_at_s:
            raise Invalid(self._complaint()) from self._error
        return self._signer

    def _complaint(self) -> str:
        what = "could not be had" if self._signer is None else "have expired and could not be renewed"
        # A provider's own words may quote what it was sent.
        why = str(self._error) if isinstance(self._error, Invalid) else type(self._error).__name__
        return f"the AWS credentials {what}{f' ({why})' if self._error else ''}: check where they come from"

    async def close(self) -> None:
        """End a renewal that is under way."""
        await self._tasks.cancel()

    def _begin_renewal(self) -> asyncio.Task[None] | None:
        """Begin a renewal where none is under way and none has failed just now."""
        if self._renewing is None and self._clock.time_s() >= self._renew_at_s:
            self._renewing = self._tasks.start(self._renew(), name="renew the AWS credentials")
        return self._renewing

    async def _renew(self) -> None:
        try:
            async with self._clock.timeout(_RENEW_WITHIN_S):
                frozen = await self._credentials.get_frozen_credentials()
            if self._signer is None or frozen != self._frozen:
                self._signer = Signer(frozen.access_key, frozen.secret_key, frozen.token, endpoint=self._endpoint)
            self._frozen, self._error = frozen, None
            self._ends_at_s = self._end_s()
            left_s = self._ends_at_s - self._clock.time_s()
            self._renew_at_s = self._ends_at_s - min(RENEW_BEFORE_S, left_s / 2)
        except Exception as error:  # noqa: BLE001 - a provider may raise anything; the calls that need it say so
            self._error = error
            self._on_failure("credentials_not_renewed", error)
            left_s = self._ends_at_s - self._clock.time_s()
            pause_s = min(_PAUSE_S, max(_LEAST_PAUSE_S, left_s / 4))
            self._renew_at_s = self._clock.time_s() + pause_s * (1 + self._random.random()) / 2
        finally:
            self._renewing = None

    def _end_s(self) -> float:
        end = getattr(self._credentials, "_expiry_time", None)  # botocore shows it nowhere else
        return math.inf if end is None else end.timestamp()
