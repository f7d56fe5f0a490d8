"""`mangacache key` and `mangacache token`: make credentials, show them once, and revoke them."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Final

from mangacache.clock import SystemClock
from mangacache.errors import Invalid
from mangacache.model import checked_id
from mangacache.settings import Settings
from mangacache.worker.auth.apikeys import ApiKeys, new_key
from mangacache.worker.auth.gate import rules_of
from mangacache.worker.auth.revocations import Revocations
from mangacache.worker.auth.sources import ENVIRONMENT, read
from mangacache.worker.caller import ROLES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_SECRET_MODE: Final = 0o600


def add_credentials(commands: Any) -> None:
    """Add both subcommands to a command line."""
    key = commands.add_parser("key", help="make an API key: it is shown once, and its hash put into a list")
    key.add_argument("role", choices=tuple(ROLES), help="what it is good for")
    key.add_argument("id", help="by which logs name it: 1 to 32 of a-z, 0-9 and '-'")
    key.add_argument("--file", type=Path, help="the list to put it into; by default the entry is printed")
    key.add_argument("--days", type=float, help="after how many days it ends; by default when it is taken out")
    key.add_argument("--note", default="", help="for whoever keeps the list")
    key.set_defaults(run=_key)

    token = commands.add_parser("token", help="customers' tokens")
    actions = token.add_subparsers(required=True, metavar="ACTION")
    mint = actions.add_parser("mint", help="print a token of a customer's")
    mint.add_argument("customer_id")
    mint.add_argument("--lifetime", type=float, default=900.0, metavar="S", help="seconds (900)")
    mint.set_defaults(run=_mint)
    revoke = actions.add_parser("revoke", help="put a token, or all that a customer has so far, into a list")
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("--token-id", metavar="JTI")
    which.add_argument("--customer", metavar="ID")
    revoke.set_defaults(run=_revoke)
    signing = actions.add_parser("signing-key", help="print a JWK set with a new key to sign tokens by: a secret")
    signing.add_argument("id", help="its kid")
    signing.set_defaults(run=_signing_key)
    for parser in (mint, revoke):
        parser.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")


async def _key(arguments: argparse.Namespace) -> int:
    now_s = SystemClock().time_s()
    until = None
    if arguments.days is not None:
        if not 0 < arguments.days < 36_500:  # noqa: PLR2004 - a hundred years
            raise Invalid("--days: give a number of days above 0, at most a hundred years")
        until = datetime.fromtimestamp(now_s + arguments.days * 86_400, UTC)
    given, kept = new_key(arguments.id, arguments.role, until=until, note=arguments.note)
    path = arguments.file
    if path is None:
        _say(ApiKeys(()).with_key(kept).decode(), to_error=True)
    else:
        with _alone(path):
            listed = ApiKeys.parse(read(str(path), "the list")) if path.exists() else ApiKeys(())
            _replace(path, listed.with_key(kept))
    _say(given + "\n")
    return 0


async def _mint(arguments: argparse.Namespace) -> int:
    settings = Settings.load(arguments.config)
    if settings.worker_token_keys is None:
        raise Invalid("there is nothing to sign tokens by: set worker_token_keys")
    rules = rules_of(settings)  # says so where PyJWT is missing
    from mangacache.worker.auth.tokens import SigningKeys  # noqa: PLC0415 - needs the extra `worker`

    keys = SigningKeys.parse(read(settings.worker_token_keys, "worker_token_keys"))
    customer_id = checked_id(arguments.customer_id, what="customer id")
    _say(keys.mint(customer_id, rules=rules, lifetime_s=arguments.lifetime, now_s=SystemClock().time_s()) + "\n")
    return 0


async def _revoke(arguments: argparse.Namespace) -> int:
    settings = Settings.load(arguments.config)
    where = settings.worker_revoked
    if where is None or where.startswith(ENVIRONMENT):
        raise Invalid("there is no file to put it into: set worker_revoked to a path")
    path = Path(where)
    keep_s = settings.worker_token_longest_s + 2 * settings.worker_token_leeway_s
    with _alone(path):
        listed, now_s = _revoked(path), SystemClock().time_s()
        if arguments.token_id is not None:
            listed = listed.with_token(arguments.token_id, now_s=now_s, keep_s=keep_s)
        else:
            # What an issuer whose clock runs ahead has issued so far is to be held too.
            until_s = now_s + settings.worker_token_leeway_s
            listed = listed.with_customer(arguments.customer, now_s=until_s, keep_s=keep_s)
        _replace(path, listed.text())
    return 0


async def _signing_key(arguments: argparse.Namespace) -> int:
    from mangacache.worker.auth.tokens import new_signing_key  # noqa: PLC0415 - needs the extra `worker`

    _say(new_signing_key(arguments.id).decode())
    return 0


def _revoked(path: Path) -> Revocations:
    return Revocations.parse(read(str(path), "worker_revoked")) if path.exists() else Revocations()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have commands that change one list come after each other: of two that read it at once, one's change is lost.

    The lock is on a file beside it, which stays: the list itself is another file after each change.
    """
    try:
        with (path.parent / f".{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}") from error


def _replace(path: Path, text: bytes) -> None:
    """Put a text in a file's place at once: a worker that reads it meanwhile reads the one or the other."""
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else _SECRET_MODE
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text)
        made = Path(file.name)
        try:
            made.chmod(mode)
            os.replace(made, path)  # noqa: PTH105 - says what it does
        except BaseException:
            with suppress(OSError):
                made.unlink()
            raise
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}") from error


def _say(text: str, *, to_error: bool = False) -> None:
    (sys.stderr if to_error else sys.stdout).write(text)
