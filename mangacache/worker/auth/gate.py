"""The gate that every request passes: it says who asks, or that nobody is let in."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from multidict import MultiMapping

from mangacache.clock import SystemClock
from mangacache.errors import Invalid
from mangacache.settings import is_loopback
from mangacache.worker.auth.apikeys import ApiKeys, is_api_key
from mangacache.worker.auth.origins import Sites, Surroundings
from mangacache.worker.auth.revocations import Revocations
from mangacache.worker.auth.sources import Source
from mangacache.worker.caller import CUSTOMER, ROLES, Caller, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from mangacache.clock import Clock
    from mangacache.settings import Settings
    from mangacache.worker.auth.apikeys import ApiKey
    from mangacache.worker.auth.tokens import Claims, Rules, SigningKeys

_ANYBODY: Final = Caller(kind="open", scopes=ROLES["operator"])
_MISSING: Final = "give a credential: `Authorization: Bearer <API key or customer's token>`"
_NOT_GOOD: Final = "this credential is not good: it is unknown, its time is over, or it was revoked"


class Gate(Protocol):
    """Tells who asks."""

    async def authenticate(self, headers: Mapping[str, str], remote: str | None) -> Caller:
        """Return who asks.

        Args:
            headers: of the request.
            remote: the peer's address.

        Raises:
            Unauthenticated: there is no credential, or it is not good.
        """


class OpenGate:
    """Lets everybody do everything but web pages: for a worker that only this machine reaches.

    Args:
        origins: the sites whose pages may ask all the same (`worker_origins`).
        bound: where the worker listens.
    """

    def __init__(self, origins: str = "", *, bound: Iterable[str] = ()) -> None:
        self._surroundings = Surroundings(Sites(origins), bound)

    async def authenticate(self, headers: Mapping[str, str], remote: str | None) -> Caller:
        """See `Gate`.

        Raises:
            Forbidden: a web page asks.
        """
        del remote
        self.check(headers)
        return _ANYBODY

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse what a web page asks: see `Surroundings`."""
        self._surroundings.check(headers)


class KeyGate:
    """Lets in who has an API key, or a customer's token.

    What is wrong with a credential is told to nobody who asks: it is not good.

    Args:
        keys: the API keys.
        signing: the keys that customers' tokens are signed by; None: there are no tokens.
        revoked: the tokens that are good no longer.
        rules: what tokens must keep to.
        clock: where time comes from.
        on_refused: told why somebody was not let in, without a word of what he gave.
    """

    def __init__(
        self,
        keys: Source[ApiKeys] | None,
        *,
        signing: Source[SigningKeys] | None = None,
        revoked: Source[Revocations] | None = None,
        rules: Rules | None = None,
        clock: Clock | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self._keys = keys
        self._signing = signing
        self._revoked = revoked
        self._rules = rules
        self._clock = clock if clock is not None else SystemClock()
        self._on_refused = on_refused

    def __repr__(self) -> str:
        return f"<KeyGate {self._keys!r} {self._signing!r} {self._revoked!r}>"

    async def authenticate(self, headers: Mapping[str, str], remote: str | None) -> Caller:
        """See `Gate`."""
        del remote
        given = _credential(headers)
        if given is None:
            raise Unauthenticated(_MISSING)
        return self._by_key(given) if is_api_key(given) else self._by_token(given)

    def _by_key(self, given: str) -> Caller:
        key = self._keys.value.find(given, now_s=self._clock.time_s()) if self._keys is not None else None
        if key is None:
            raise self._refusal("no such API key")
        until_s = inf if key.until is None else key.until.timestamp()
        return Caller(
            kind="key", scopes=ROLES[key.role], key_id=key.id, until_s=until_s, stands=lambda: self._lists(key)
        )

    def _by_token(self, given: str) -> Caller:
        if self._signing is None or self._rules is None:
            raise self._refusal("there are no customers' tokens here")
        from mangacache.worker.auth.tokens import NotGood  # noqa: PLC0415 - needs the extra `worker`

        signing = self._signing.value
        try:
            claims = signing.read(given, rules=self._rules, now_s=self._clock.time_s())
        except NotGood as why:
            raise self._refusal(f"token: {why}") from None
        if self._revoked is not None and self._revoked.value.hold(claims):
            raise self._refusal("token: revoked")
        mark = signing.mark(claims.key_id)
        return Caller(
            kind="customer",
            scopes=CUSTOMER,
            customer_id=claims.customer_id,
            key_id=claims.key_id,
            until_s=claims.until_s + self._rules.leeway_s,
            stands=lambda: self._holds_by(claims, mark),
        )

    def _lists(self, key: ApiKey) -> bool:
        return self._keys is not None and key in self._keys.value.keys

    def _holds_by(self, claims: Claims, mark: bytes | None) -> bool:
        """Tell whether the very key that signed it is still listed, not another by its kid, and it is not revoked."""
        signed = self._signing is not None and self._signing.value.mark(claims.key_id) == mark
        return signed and (self._revoked is None or not self._revoked.value.hold(claims))

    def _refusal(self, why: str) -> Unauthenticated:
        if self._on_refused is not None:
            self._on_refused(why)
        return Unauthenticated(_NOT_GOOD)


def gate_of(
    settings: Settings,
    *,
    clock: Clock | None = None,
    on_failure: Callable[[str, BaseException], None] = lambda _what, _error: None,
    on_refused: Callable[[str], None] | None = None,
) -> Gate:
    """Return the gate of a worker.

    Args:
        settings: the worker's.
        clock: where time comes from.
        on_failure: told of a list that has changed and cannot be read any more.
        on_refused: see `KeyGate`.

    Raises:
        Invalid: others would reach it, and nobody would be asked who he is; or a list cannot be read.
    """
    clock = clock if clock is not None else SystemClock()
    where = settings.worker_keys
    if where is None and settings.worker_token_keys is None:
        _check_open(settings)
        return OpenGate(settings.worker_origins, bound=(settings.worker_host, settings.operator_host))
    signing = rules = None
    if settings.worker_token_keys is not None:
        tokens = _tokens_module()
        parse = tokens.SigningKeys.parse
        signing = Source(settings.worker_token_keys, "worker_token_keys", parse, clock=clock, on_failure=on_failure)
        rules = rules_of(settings)
    revoked = settings.worker_revoked
    return KeyGate(
        None if where is None else Source(where, "worker_keys", ApiKeys.parse, clock=clock, on_failure=on_failure),
        signing=signing,
        revoked=None
        if revoked is None
        else Source(revoked, "worker_revoked", Revocations.parse, clock=clock, on_failure=on_failure),
        rules=rules,
        clock=clock,
        on_refused=on_refused,
    )


def rules_of(settings: Settings) -> Rules:
    """Return what tokens must keep to."""
    rules: Rules = _tokens_module().Rules(
        issuer=settings.worker_token_issuer,
        audience=settings.worker_token_audience,
        longest_s=settings.worker_token_longest_s,
        leeway_s=settings.worker_token_leeway_s,
    )
    return rules


def _credential(headers: Mapping[str, str]) -> str | None:
    """Return what follows `Bearer`; of two credentials nobody knows which is meant, so there is none."""
    if isinstance(headers, MultiMapping) and len(headers.getall("Authorization", ())) > 1:
        return None
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    given = given.strip()
    return given if scheme.lower() == "bearer" and given else None


def _check_open(settings: Settings) -> None:
    for host in (settings.worker_host, settings.operator_host):
        if not is_loopback(host.lower()) and settings.worker_open != "yes":
            raise Invalid(
                f"the worker would let everybody in at {host}: give it API keys (worker_keys; `mangacache key` makes"
                " one), or listen on 127.0.0.1 (worker_host, operator_host); worker_open = yes if that is really meant"
            )


def _tokens_module() -> ModuleType:
    try:
        from mangacache.worker.auth import tokens  # noqa: PLC0415 - needs the extra `worker`
    except ImportError as error:
        raise Invalid("customers' tokens need PyJWT: install mangacache[worker]") from error
    return tokens
