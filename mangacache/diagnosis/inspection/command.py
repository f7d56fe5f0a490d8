"""`mangacache inspect SESSION`: its options, and what they do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.clock import SystemClock
from mangacache.diagnosis.inspection.comparing import differences, failures
from mangacache.diagnosis.inspection.gathering import KEY_VARIABLE, Inspector
from mangacache.diagnosis.inspection.showing import show
from mangacache.diagnosis.inspection.tiers import InDax, InRedis
from mangacache.errors import Transient
from mangacache.model import checked_id
from mangacache.sessions.copies import without_words
from mangacache.settings import Settings
from mangacache.store.transport import Throttled, Unanswered

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from mangacache.diagnosis.inspection.comparing import Difference
    from mangacache.diagnosis.inspection.tiers import Tiers

_WITHIN_S: Final = 60.0


def add_inspect(commands: Any) -> None:
    """Add `mangacache inspect` to the command line's subparsers."""
    parser = commands.add_parser("inspect", help="show what each tier holds of a session, and where they disagree")
    parser.add_argument("session", metavar="SESSION", help="the session's id")
    parser.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")
    parser.add_argument("--json", action="store_true", help="write JSON, and nothing else, to the standard output")
    parser.add_argument("--content", action="store_true", help="show what was said, too; by default nothing of it is")
    parser.add_argument("--dax", action="store_true", help="ask DAX, too: what it does not hold it fetches and keeps")
    parser.add_argument(
        "--worker",
        action="append",
        default=[],
        metavar="URL",
        help="a running worker's operator port, http://host:port: what its memory holds; may be repeated;"
        f" with {KEY_VARIABLE} in the environment where it asks for a key",
    )
    parser.set_defaults(run=inspect)


async def inspect(arguments: argparse.Namespace) -> int:
    """Show a session in every tier; return 0 where they agree or may differ, 1 where not, 2 where one is not seen.

    Raises:
        Invalid: the settings or the id are wrong.
        Transient: the table cannot be read.
    """
    session_id = checked_id(arguments.session, what="session id")
    settings = Settings.load(arguments.config)
    clock = SystemClock()
    inspector = Inspector(settings, clock=clock)
    try:
        async with clock.timeout(_WITHIN_S):
            tiers, before = await inspector.look(
                session_id, dax=arguments.dax, workers=arguments.worker, key=os.environ.get(KEY_VARIABLE)
            )
    except TimeoutError as error:
        raise Transient(f"the tiers could not be looked at within {_WITHIN_S:g} s: see `mangacache doctor`") from error
    except (Unanswered, Throttled) as error:
        raise Transient(f"the table could not be read: {error}") from error
    found = differences(tiers, before, settings)
    unseen = failures(tiers)
    status = 1 if any(not each.allowed for each in found) else 2 if unseen else 0
    shown = tiers if arguments.content else quiet(tiers)
    if arguments.json:
        sys.stdout.write(as_json(shown, found, status))
    else:
        show(shown, found)
    return status


def quiet(tiers: Tiers) -> Tiers:
    """Return what was found without a word of what was said."""
    replace = msgspec.structs.replace
    redis, dax = tiers.redis, tiers.dax
    if isinstance(redis, InRedis) and redis.copy is not None:
        redis = replace(redis, copy=without_words(redis.copy))
    if isinstance(dax, InDax):
        meta = replace(dax.meta, values=None) if dax.meta is not None else None
        dax = replace(dax, meta=meta, newest=replace(dax.newest, content=None) if dax.newest is not None else None)
    dynamodb = replace(tiers.dynamodb, copy=without_words(tiers.dynamodb.copy))
    return replace(tiers, dynamodb=dynamodb, redis=redis, dax=dax)


def as_json(tiers: Tiers, found: Sequence[Difference], status: int) -> str:
    """Return it all as JSON."""
    document = {"status": status, "tiers": tiers, "differences": found}
    return msgspec.json.format(msgspec.json.encode(document)).decode() + "\n"
