"""A chat's state over its connections: what is sent again, and what has been told already. Decisions without I/O.

A worker tells each connection the turns of others, in order, or says that there is a gap; what the connection appended
itself is acknowledged instead. After a connection is lost, the next one is opened with the version up to which all has
been told, and is told what came after it: among that may be turns of this chat's own, and what has come already.
Whatever was not acknowledged is sent again with the same turn_ids, so that it is stored once.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast, get_args

import msgspec

from mangacache.client.values import WireAppended, WireTurn
from mangacache.model import WINDOW, Turn, Version

_MOST_OWN: Final = 1_024
_MOST_HELD: Final = 1_024

Kind = Literal["turn", "meta", "closed", "deleted", "gap", "caught_up"]
_KINDS: Final = frozenset(get_args(Kind))


class ChatEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that has happened to the session.

    Attributes:
        kind: `turn`: somebody else appended one. `meta`: META or the summary changed. `closed`: META changed, and the
            status is `closed` now. `deleted`: the session was deleted. `gap`: something was missed: read the context.
            `caught_up`: all is told again, after a gap that `waits`.
        version: from which on a reader sees it; None with some gaps.
        number: of the turn, with `turn`; else 0.
        turn: the turn, with `turn`; its content is empty where the chat was opened without.
        why: of a gap, in words.
        waits: of a gap: nothing is told until `caught_up`, before which comes what can still be told.
    """

    kind: Kind
    version: Version | None = None
    number: int = 0
    turn: Turn | None = None
    why: str = ""
    waits: bool = False


class Frame(msgspec.Struct, frozen=True):
    """Any message of a worker's; which fields it has is a matter of its type."""

    type: str
    id: int | str | None = None
    connection_id: str = ""
    version: str | None = None
    number: int = 0
    turn: WireTurn | None = None
    turns: msgspec.Raw = msgspec.Raw()
    problem: msgspec.Raw = msgspec.Raw()
    why: str = ""
    waits: bool = False
    heartbeat_s: float = 30.0
    reconnect_after_s: float = 0.0


def event_of(frame: Frame) -> ChatEvent | None:
    """Return the event that a frame tells of; None where it tells of none that is known here."""
    if frame.type not in _KINDS:
        return None
    return ChatEvent(
        kind=cast("Kind", frame.type),
        version=Version.parse(frame.version) if frame.version is not None else None,
        number=frame.number,
        turn=frame.turn.value() if frame.turn is not None else None,
        why=frame.why,
        waits=frame.waits,
    )


class Asked(msgspec.Struct):
    """A message that is not answered yet.

    Attributes:
        message: as it is sent, without its id. An append says what was known before it, so that it is found among the
            turns however late a try of it comes, and however many were stored meanwhile.
        turn_ids: of an append's turns; none of another message.
        rests: it was refused for now, and is not to be sent before its time.
        sent: it was sent by the connection that stands, which has not refused it.
    """

    message: dict[str, Any]
    turn_ids: frozenset[str]
    rests: bool = False
    sent: bool = False


class Talk:
    """What a chat knows of its session.

    Args:
        seen: the version from which on everything is to be told; None takes that of the first connection.
    """

    def __init__(self, *, seen: Version | None) -> None:
        self._told = seen
        self._unsure = False
        self._asked: dict[int, Asked] = {}
        self._next_id = 0
        self._own_numbers: dict[tuple[int, int], None] = {}
        self._own_ids: dict[str, None] = {}
        self._held: list[ChatEvent] = []

    @property
    def told(self) -> Version | None:
        """The version up to which everything has been told; the next connection begins there."""
        return self._told

    # What this chat says

    def ask(self, message: dict[str, Any], turn_ids: frozenset[str] = frozenset()) -> int:
        """Note a message to be sent, until it is answered or withdrawn; returns its id."""
        self._next_id += 1
        if turn_ids and self._told is not None:
            message = {"after": str(self._told), **message}
        self._asked[self._next_id] = Asked(message, turn_ids)
        for turn_id in turn_ids:
            self._own_ids[turn_id] = None
        while len(self._own_ids) > _MOST_OWN + WINDOW * len(self._asked):
            del self._own_ids[next(iter(self._own_ids))]
        return self._next_id

    def withdraw(self, number: int) -> list[ChatEvent]:
        """Wait for an answer no more; returns what can be told now."""
        self._asked.pop(number, None)
        return self._released()

    def rest(self, number: int) -> None:
        """Let a message that was refused for now wait: no connection is sent it before `resume`."""
        if (asked := self._asked.get(number)) is not None:
            asked.rests = True

    def resume(self, number: int) -> None:
        """Have a message that waited sent again."""
        if (asked := self._asked.get(number)) is not None:
            asked.rests = asked.sent = False

    def unanswered(self) -> list[int]:
        """Return which messages a new connection has to be sent, in the order in which they were said."""
        return [number for number, asked in self._asked.items() if not asked.rests]

    def unsent(self) -> list[int]:
        """Return which messages the connection that stands has yet to be sent, in the same order."""
        return [number for number, asked in self._asked.items() if not (asked.rests or asked.sent)]

    def said(self, number: int) -> dict[str, Any] | None:
        """Return a message as it is to be sent now; None where it is answered, waits, or has been sent."""
        asked = self._asked.get(number)
        if asked is None or asked.rests or asked.sent:
            return None
        asked.sent = True
        return {**asked.message, "id": number}

    # What is heard

    def ready(self, version: Version) -> None:
        """Take in that a connection stands, which has been sent nothing yet, and what its session's version is."""
        for asked in self._asked.values():
            asked.sent = False
        if self._told is None:
            self._told = version

    def answered(self, number: int, appended: tuple[WireAppended, ...] = ()) -> list[ChatEvent]:
        """Take in an answer; returns what can be told now: what others said after our own."""
        self._asked.pop(number, None)
        for each in appended:
            self._own(Version.parse(each.version).incarnation, each.number)
        return self._released()

    def heard(self, event: ChatEvent) -> list[ChatEvent]:
        """Take in an event; returns what is to be told: nothing twice, and all of it in order."""
        version, turn = event.version, event.turn
        if event.kind == "turn" and version is not None and turn is not None and turn.turn_id in self._own_ids:
            self._own(version.incarnation, event.number)
            return self._released()
        if self._held or self._must_wait(event):
            self._held.append(event)
            return self._released()
        return self._take(event)

    def _own(self, incarnation: int, number: int) -> None:
        """Note that a turn is this chat's own: it is not told."""
        self._own_numbers[incarnation, number] = None
        if len(self._own_numbers) > _MOST_OWN:
            del self._own_numbers[next(iter(self._own_numbers))]
        told = self._told
        if told is not None and incarnation == told.incarnation + 1 and number == 1 and not told.incarnation:
            self._told = Version(incarnation, 0, 0)  # the session begins, by this turn
        self._absorb()

    def _must_wait(self, event: ChatEvent) -> bool:
        """Tell whether turns are missing before this one that may be our own, on their way to be acknowledged."""
        told, version = self._told, event.version
        if event.kind != "turn" or told is None or version is None or self._unsure:
            return False
        if not any(asked.turn_ids for asked in self._asked.values()):
            return False
        begins = not told.incarnation and version.incarnation == 1
        return (begins or version.incarnation == told.incarnation) and event.number > told.number + 1

    def _released(self) -> list[ChatEvent]:
        told: list[ChatEvent] = []
        while self._held and (len(self._held) > _MOST_HELD or not self._must_wait(self._held[0])):
            told += self._take(self._held.pop(0))
        return told

    def _take(self, event: ChatEvent) -> list[ChatEvent]:
        told, version = self._told, event.version
        if event.kind == "gap":
            self._gap(event)
            return [event]
        if told is None or version is None or event.kind == "caught_up":
            return [event]
        if event.kind == "turn":
            return self._turn(event, told, version)
        if told.covers(version) or version.incarnation < told.incarnation:
            return []
        lives = version.incarnation > told.incarnation
        missed = lives and event.kind != "deleted" and told.incarnation > 0 and not self._unsure
        self._unsure = False
        self._told = Version(version.incarnation, 0 if lives else told.number, version.revision)
        self._absorb()
        return [_missed(version), event] if missed else [event]

    def _turn(self, event: ChatEvent, told: Version, version: Version) -> list[ChatEvent]:
        if version.incarnation < told.incarnation or (
            version.incarnation == told.incarnation and event.number <= told.number
        ):
            return []
        if version.incarnation > told.incarnation:
            follows = not told.incarnation and version.incarnation == 1 and event.number == 1
            told = Version(version.incarnation, 0, 0)
        else:
            follows = event.number == told.number + 1
        before = Version(told.incarnation, event.number - 1, told.revision)
        missed = [] if follows or self._unsure else [_missed(before)]
        self._unsure = False
        self._told = Version(told.incarnation, event.number, told.revision)
        self._absorb()
        return [*missed, event]

    def _gap(self, event: ChatEvent) -> None:
        """Something was missed: what comes next is taken as it comes, or from a version on where that is known."""
        told, version = self._told, event.version
        self._unsure = version is None
        if version is None or told is None:
            self._told = version if version is not None else told
        elif event.waits and not version.covers(told) and self._absorbed(version).number < told.number:
            # Not only turns of our own are missing there: what was told is not there any more.
            self._told = version
        else:
            self._told = told.join(version)
        self._absorb()

    def _absorb(self) -> None:
        """Move on over turns of our own."""
        if self._told is not None:
            self._told = self._absorbed(self._told)

    def _absorbed(self, version: Version) -> Version:
        number = version.number
        while (version.incarnation, number + 1) in self._own_numbers:
            number += 1
        return Version(version.incarnation, number, version.revision) if number != version.number else version


def _missed(version: Version) -> ChatEvent:
    return ChatEvent(kind="gap", version=version, why="what comes before this version was not heard")
