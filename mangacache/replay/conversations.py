"""Recorded conversations: the file, its lines checked one by one, and the messages they are made of."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Invalid, NotFound
from mangacache.model import ROLES, checked_id

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE: Final = Path(__file__).parent.parent / "data" / "sample-chats.jsonl"
"""A manga shop's chats, written for this project."""


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One recorded turn; `at` is seconds since the conversation's first turn, or None where it is not known."""

    role: str
    content: str
    at: int | None = None


class Conversation(msgspec.Struct, frozen=True):
    """One recorded conversation."""

    session_id: str
    customer_id: str
    turns: tuple[Said, ...]

    def messages(self) -> tuple[tuple[Said, ...], ...]:
        """Return the turns as messages: each user turn with the replies that follow it.

        Turns before the first user turn are a message of their own.
        """
        starts = [i for i, turn in enumerate(self.turns) if i == 0 or turn.role == "user"]
        return tuple(self.turns[i:j] for i, j in itertools.pairwise([*starts, len(self.turns)]))


def read_conversations(
    path: Path,
    *,
    limit: int | None = None,
    need_times: bool = False,
    prefix: str = "",
    max_content_bytes: int = 262_144,
) -> list[Conversation]:
    """Return the conversations of a `.jsonl` or `.jsonl.gz` file.

    Args:
        path: one conversation a line: `session_id`, `customer_id`, `turns` of `role`, `content`, `at`.
        limit: read only so many; None reads all.
        need_times: every turn must have its `at`, in seconds, never decreasing.
        prefix: what will stand before every session id, which must have room for it.
        max_content_bytes: the longest content of a turn that can be stored.

    Raises:
        NotFound: there is no such file.
        Invalid: a line that is no conversation; the message names file and line.
    """
    found: list[Conversation] = []
    lines_of: dict[str, int] = {}
    for number, line in _lines(path):
        if limit is not None and len(found) >= limit:
            break
        if not line.strip():
            continue
        try:
            conversation = _DECODER.decode(line)
            _check(conversation, need_times=need_times, prefix=prefix, max_content_bytes=max_content_bytes)
        except (msgspec.MsgspecError, UnicodeDecodeError, Invalid) as error:
            raise Invalid(f"{path}, line {number}: {_complaint(line, error)}") from error
        first = lines_of.setdefault(conversation.session_id, number)
        if first != number:
            raise Invalid(f"{path}, line {number}: session {conversation.session_id!r} stands in line {first} already")
        found.append(conversation)
    if not found:
        raise Invalid(f"{path} holds no conversation")
    return found


_DECODER: Final = msgspec.json.Decoder(Conversation)
_LONE_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def _complaint(line: bytes, error: Exception) -> str:
    """Return what is wrong; of half a pair of surrogates the decoder says no more than that it misses the rest."""
    if isinstance(error, msgspec.MsgspecError) and (lone := _LONE_SURROGATE.search(line)):
        return f"a lone surrogate, {lone[0].decode()}, stands at byte {lone.start()}: write the whole character"
    return str(error)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise Invalid(f"{path} cannot be read after line {number}: {error}") from error


def _check(conversation: Conversation, *, need_times: bool, prefix: str, max_content_bytes: int) -> None:
    checked_id(conversation.session_id, what="session_id")
    checked_id(prefix + conversation.session_id, what="session_id with its prefix")
    checked_id(conversation.customer_id, what="customer_id")
    if not conversation.turns:
        raise Invalid("the conversation has no turns")
    last_at = 0
    for place, turn in enumerate(conversation.turns, start=1):
        if turn.role not in ROLES:
            raise Invalid(f"turn {place}: {turn.role!r:.40} is no role: use one of {', '.join(sorted(ROLES))}")
        if (size := len(turn.content.encode())) > max_content_bytes:
            raise Invalid(f"turn {place}: content has {size} bytes of UTF-8, the limit is {max_content_bytes}")
        if turn.at is None:
            if need_times:
                raise Invalid(
                    f"turn {place} has no time ('at' is null), so there is nothing for --timing recorded to follow: "
                    "leave it out to replay at full speed"
                )
            continue
        if turn.at < last_at:
            raise Invalid(f"turn {place} is {turn.at} s after the start, the turn before it {last_at} s")
        last_at = turn.at
