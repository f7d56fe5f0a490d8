"""API keys: random, shown once, and kept as their hashes.

A key has 256 random bits, so there is nothing to guess: one SHA-256 of it says no more about it than a slow hash would.
Slow hashes (bcrypt, scrypt, Argon2) are for what people think up; here each request would pay for one, and whoever
sends wrong keys could have the worker do nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Annotated, Final

import msgspec

from mangacache.errors import Invalid
from mangacache.worker.caller import ROLES

PREFIX: Final = "mck"
ID_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,31}$"
_SECRET_BYTES: Final = 32
_NOBODYS: Final = hashlib.sha256(b"").hexdigest()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of a key.

    Attributes:
        id: by which it is named, in the key itself and in logs.
        role: what it is good for, one of `ROLES`.
        sha256: of the whole key, in hexadecimal digits.
        until: when it ends; None: when it is taken out of the list.
        note: for whoever keeps the list.
    """

    id: Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
    role: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    note: str = ""


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[ApiKey]


class ApiKeys:
    """The keys of one list; several are good at once, so that a new one can be handed out before the old one ends."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self.keys = keys
        self._by_id = {key.id: key for key in keys}

    def __repr__(self) -> str:
        return f"<ApiKeys {', '.join(f'{key.id} ({key.role})' for key in self.keys)}>"

    @classmethod
    def parse(cls, text: bytes) -> ApiKeys:
        """Return the keys of a list, `{"keys": [{"id", "role", "sha256", "until"?, "note"?}]}`.

        Raises:
            Invalid: it is no such list; nothing of what it holds is told.
        """
        try:
            keys = tuple(msgspec.json.decode(text, type=_Listed).keys)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the list of API keys cannot be read: {told(error)}") from None
        if len({key.id for key in keys}) < len(keys):
            raise Invalid("the list of API keys has two keys of one id: give each its own")
        for key in keys:
            if key.role not in ROLES:
                raise Invalid(f"the API key {key.id!r} has a role that there is not; there are {', '.join(ROLES)}")
        return cls(keys)

    def find(self, given: str, *, now_s: float) -> ApiKey | None:
        """Return the key that `given` is; None where it is none, or its time is over.

        The id, which is no secret, finds the one hash that the given key's is compared with, in a time that does not
        depend on where they differ; where there is no such id, the same work is done.
        """
        key = self._by_id.get(_id_of(given))
        good = hmac.compare_digest(_hash(given), key.sha256 if key is not None else _NOBODYS)
        if key is None or not good or (key.until is not None and now_s >= key.until.timestamp()):
            return None
        return key

    def with_key(self, key: ApiKey) -> bytes:
        """Return the text of this list and one more key.

        Raises:
            Invalid: the id is taken.
        """
        if key.id in self._by_id:
            raise Invalid(f"there is an API key {key.id!r} already: choose another id, or take that one out first")
        return msgspec.json.format(msgspec.json.encode(_Listed([*self.keys, key])), indent=2) + b"\n"


def new_key(key_id: str, role: str, *, until: datetime | None = None, note: str = "") -> tuple[str, ApiKey]:
    """Return a new key, to be shown once, and what is kept of it.

    Raises:
        Invalid: the id or the role is not one.
    """
    given = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    try:
        kept = msgspec.convert(
            {"id": key_id, "role": role, "sha256": _hash(given), "until": until, "note": note}, type=ApiKey
        )
    except msgspec.ValidationError as error:
        raise Invalid(f"an API key's id has 1 to 32 of a-z, 0-9 and '-': {error}") from None
    if role not in ROLES:
        raise Invalid(f"there is no role {role!r}; there are {', '.join(ROLES)}")
    return given, kept


def is_api_key(given: str) -> bool:
    """Tell whether a credential has the form of an API key."""
    return given.startswith(f"{PREFIX}_")


def told(error: Exception) -> str:
    """Return what is wrong with a list, as far as it may be told: never a piece of it."""
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        return text if "`" not in text else f"at {text.rpartition('at ')[2]}" if " at `" in text else "a field is wrong"
    return "it is no JSON"


def _id_of(given: str) -> str:
    parts = given.split("_", 2)
    return parts[1] if len(parts) == 3 else ""  # noqa: PLR2004 - prefix, id, secret


def _hash(given: str) -> str:
    return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
