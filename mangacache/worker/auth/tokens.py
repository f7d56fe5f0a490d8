"""Customers' tokens: signed, short-lived, and good for one customer's sessions."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Annotated, Any, Final, TypeGuard, cast

import jwt
import msgspec

from mangacache.errors import Invalid, MangaCacheError
from mangacache.model import checked_id
from mangacache.worker.auth.apikeys import told

ALGORITHMS: Final = {"HS256": "oct", "EdDSA": "OKP"}
"""What a token may be signed by, and the kind of key that belongs to it."""
_LEAST_SECRET_BYTES: Final = 32
_MOST_TOKEN_CHARS: Final = 4096
_MUST_SAY: Final = ["exp", "iat", "iss", "aud", "sub", "jti"]


class NotGood(MangaCacheError):
    """A token is not to be believed; the message says why, to the log, and repeats nothing of it."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says, once it is believed.

    Attributes:
        customer_id: whose it is.
        token_id: by which it can be revoked.
        key_id: of the key that signed it.
        issued_s, until_s: from when until when: seconds since 1970.
    """

    customer_id: str
    token_id: str
    key_id: str
    issued_s: float
    until_s: float


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a token must keep to.

    Attributes:
        issuer, audience: whom it must name.
        longest_s: how long it may be good for.
        leeway_s: by how much the clocks of who signs and who reads may differ.
    """

    issuer: str
    audience: str
    longest_s: float
    leeway_s: float


class _Jwk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kty: str
    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    alg: str
    k: str = ""
    crv: str = ""
    x: str = ""
    d: str = ""


class _JwkSet(msgspec.Struct, frozen=True):
    keys: list[_Jwk]


class SigningKeys:
    """The keys of one JWK set (RFC 7517): tokens are signed by the first that can sign, and read by any of them.

    Each key names its one algorithm, so what a token's header claims decides nothing: `none`, or a public key taken for
    a shared secret, is not to be had.
    """

    def __init__(self, keys: dict[str, jwt.PyJWK], signer: str | None, *, marks: dict[str, bytes]) -> None:
        self._keys = keys
        self._signer = signer
        self._marks = marks

    def __repr__(self) -> str:
        return f"<SigningKeys {', '.join(self._keys)}>"

    def mark(self, key_id: str) -> bytes | None:
        """Return what tells the key of a `kid` from any other that had it, or will; None where there is none."""
        return self._marks.get(key_id)

    @classmethod
    def parse(cls, text: bytes) -> SigningKeys:
        """Return the keys of a JWK set: `oct` with HS256, `OKP` (Ed25519) with EdDSA, each with `kid` and `alg`.

        Raises:
            Invalid: it is no such set, or a shared secret is short; nothing of what it holds is told.
        """
        try:
            listed = msgspec.json.decode(text, type=_JwkSet).keys
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the set of signing keys cannot be read: {told(error)}") from None
        if len({key.kid for key in listed}) < len(listed):
            raise Invalid("the set of signing keys has two keys of one kid: give each its own")
        signers = [key.kid for key in listed if key.k or key.d]
        usable, marks = {key.kid: _usable(key) for key in listed}, {key.kid: _mark(key) for key in listed}
        return cls(usable, signers[0] if signers else None, marks=marks)

    def mint(self, customer_id: str, *, rules: Rules, lifetime_s: float, now_s: float) -> str:
        """Return a new token of a customer's.

        Raises:
            Invalid: it would be good for too long, or there is no key that can sign.
        """
        if not 1 <= lifetime_s <= rules.longest_s:
            raise Invalid(f"a token is good for 1 to {rules.longest_s:g} s (worker_token_longest_s)")
        if self._signer is None:
            raise Invalid("none of the signing keys can sign: all are public, for reading tokens alone")
        key = self._keys[self._signer]
        says = {
            "iss": rules.issuer,
            "aud": rules.audience,
            "sub": customer_id,
            "iat": int(now_s),
            "exp": int(now_s + lifetime_s),
            "jti": secrets.token_hex(16),
        }
        return jwt.encode(says, key.key, algorithm=key.algorithm_name, headers={"kid": self._signer})

    def read(self, token: str, *, rules: Rules, now_s: float) -> Claims:
        """Return what a token says.

        Times are judged here, by the clock that is given.

        Raises:
            NotGood: it is not to be believed.
        """
        if len(token) > _MOST_TOKEN_CHARS:
            raise NotGood("it is too long")
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.get(kid) if isinstance(kid, str) else None
            if key is None:
                raise NotGood("no key has its kid")
            says = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=rules.audience,
                issuer=rules.issuer,
                options=cast("Any", _OPTIONS),
            )
        except (jwt.PyJWTError, ValueError, UnicodeError) as error:
            raise NotGood(type(error).__name__) from None
        return _judged(says, str(kid), rules=rules, now_s=now_s)


_OPTIONS: Final = {
    "require": _MUST_SAY,
    "verify_signature": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "strict_aud": True,
}


def _judged(says: dict[str, Any], key_id: str, *, rules: Rules, now_s: float) -> Claims:
    customer_id, token_id, issued_s, until_s = (says.get(name) for name in ("sub", "jti", "iat", "exp"))
    from_s = says.get("nbf", issued_s)
    if not _is_id(customer_id):
        raise NotGood("it names no customer")
    if not isinstance(token_id, str) or not token_id:
        raise NotGood("it has no id")
    if not (_is_time(issued_s) and _is_time(until_s) and _is_time(from_s)):
        raise NotGood("its times are none")
    if max(issued_s, from_s) > now_s + rules.leeway_s:
        raise NotGood("its time has not begun")
    if until_s <= now_s - rules.leeway_s:
        raise NotGood("its time is over")
    if until_s - issued_s > rules.longest_s:
        raise NotGood("it would be good for too long")
    return Claims(
        customer_id=customer_id, token_id=token_id, key_id=key_id, issued_s=float(issued_s), until_s=float(until_s)
    )


def _is_id(value: object) -> TypeGuard[str]:
    try:
        return checked_id(cast("str", value), what="customer id") == value
    except Invalid:
        return False


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40


def _usable(key: _Jwk) -> jwt.PyJWK:
    if ALGORITHMS.get(key.alg) != key.kty:
        raise Invalid(f"the signing key {key.kid!r}: give an `oct` key with alg HS256, or an `OKP` key with EdDSA")
    if key.kty == "oct" and _size(key.k) < _LEAST_SECRET_BYTES:
        raise Invalid(f"the signing key {key.kid!r} has less than {_LEAST_SECRET_BYTES} bytes: make a longer one")
    try:
        return jwt.PyJWK.from_dict(msgspec.to_builtins(key))
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Invalid(f"the signing key {key.kid!r} is not one of its kind") from None


def _mark(key: _Jwk) -> bytes:
    """Return a hash of what a token's signature is checked by, and of nothing else: not of the private part."""
    return hashlib.sha256(msgspec.json.encode((key.kty, key.alg, key.k, key.crv, key.x))).digest()


def _size(text: str) -> int:
    try:
        return len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return 0


def new_signing_key(key_id: str) -> bytes:
    """Return a JWK set with one new key for HS256; it is a secret as a whole."""
    secret = base64.urlsafe_b64encode(secrets.token_bytes(_LEAST_SECRET_BYTES)).rstrip(b"=").decode()
    made = _JwkSet([_Jwk(kty="oct", kid=key_id, alg="HS256", k=secret)])
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"
