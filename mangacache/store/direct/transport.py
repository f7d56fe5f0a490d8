"""A transport for the calls that count, beside one for the rest."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from mangacache.store.direct.wire import OPERATIONS, failure
from mangacache.store.transport import Unanswered, mapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.clock import Clock
    from mangacache.store.direct.answers import Answer
    from mangacache.store.direct.credentials import Keyring
    from mangacache.store.direct.pool import Pool
    from mangacache.store.transport import Transport

_OK: Final = 200
_SKEWED: Final = frozenset(
    {
        "RequestTimeTooSkewed",
        "RequestExpired",
        "RequestInTheFuture",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
    }
    | {"AuthFailure"}
)
_TOLERATED_SKEW_S: Final = 240.0  # the service refuses from 300 s on


class DirectTransport:
    """A `Transport` that signs, sends and reads by itself what is in `OPERATIONS`.

    Args:
        pool: the connections.
        keyring: the credential in use.
        rare: answers every other operation.
        clock: the wall clock, by which requests are signed; corrected where the service says that it is wrong.
    """

    def __init__(self, pool: Pool, keyring: Keyring, *, rare: Transport, clock: Clock) -> None:
        self._pool = pool
        self._keyring = keyring
        self._rare = rare
        self._clock = clock
        self._offset_s = 0.0

    def __repr__(self) -> str:
        return f"<DirectTransport {self._pool!r}>"

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; see `Transport`."""
        kind = OPERATIONS.get(operation)
        if kind is None:
            return await self._rare.request(operation, parameters)
        body = kind.body(parameters)
        now_s = self._clock.time_s()
        signer = self._keyring.current(now_s)
        if signer is None:
            signer = await self._keyring.renewed()
            now_s = self._clock.time_s()
        signed_at_s = now_s + self._offset_s
        answer = await self._pool.exchange(signer.signed(kind.target, body, signed_at_s))
        if answer.status == _OK:
            return kind.answer(answer)
        raise self._refusal(operation, answer, signed_at_s)

    def _refusal(self, operation: str, answer: Answer, signed_at_s: float) -> Exception:
        failed = failure(answer)
        if failed.code in _SKEWED and self._set_right(answer, signed_at_s):
            return Unanswered(f"{failed.code}: this machine's clock is wrong by {self._offset_s:.0f} s", sent=False)
        return mapped(operation, failed)

    def _set_right(self, answer: Answer, signed_at_s: float) -> bool:
        """Go by the service's clock where it differs by more than it bears; tell whether it does."""
        try:
            served_at_s = parsedate_to_datetime(answer.headers.get(b"date", b"").decode("latin-1")).timestamp()
        except ValueError:
            return False
        if abs(served_at_s - signed_at_s) < _TOLERATED_SKEW_S:
            return False
        self._offset_s = served_at_s - self._clock.time_s()  # and not by so much more: many calls hear it at once
        return True
