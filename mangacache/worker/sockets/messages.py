"""What clients say: four kinds of messages, read strictly; what is wrong with one is said in words."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from mangacache.errors import Invalid
from mangacache.model import WINDOW, Consistency, NewTurn
from mangacache.worker import bodies

MOST_ID: Final = 128
_SHOWN: Final = 300

Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_ID)] | int
"""By which a client finds the answer to a message: a text of its own, or a whole number."""


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="open"):
    """The first message: which session this connection is for.

    Attributes:
        credential: a key or a customer token, where the request for the upgrade carried none.
        customer_id: whose session it is; a customer token says so by itself.
        seen: the `version` up to which the client has seen the session; what came after is sent.
        content: whether turns are sent with their content and attributes.
        own_turns: whether the turns appended by this connection are sent to it as well.
    """

    session_id: str
    credential: str | None = None
    customer_id: str | None = None
    seen: str | None = None
    content: bool = True
    own_turns: bool = False


class TurnGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several turns of an `append`."""

    role: str
    content: str
    turn_id: str | None = None
    attributes: dict[str, Any] = {}


class Append(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="append"):
    """Store one turn, or those in `turns` in one transaction."""

    id: Id
    role: str | None = None
    content: str | None = None
    turn_id: str | None = None
    attributes: dict[str, Any] = {}
    turns: Annotated[list[TurnGiven], msgspec.Meta(min_length=1, max_length=WINDOW)] | None = None
    after: str | None = None
    rate_limit: str | None = None


class ContextAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="context"):
    """Read the session's context."""

    id: Id
    turns: int = 20
    at_least: str | None = None
    consistency: str = "session"
    age_s: float | None = None
    rate_limit: str | None = None


class Ping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="ping"):
    """A sign of life; any other message is one as well."""

    id: Id | None = None


Message: TypeAlias = Open | Append | ContextAsked | Ping

_decoder: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message, float_hook=bodies.exactly)


class _Named(msgspec.Struct):
    id: Id | None = None


_named: Final = msgspec.json.Decoder(_Named)


def decoded(text: str) -> Message:
    """Return the message that a text is.

    Raises:
        Invalid: it is none.
    """
    try:
        return bodies.decoded(text.encode(), _decoder)
    except Invalid as error:
        raise Invalid(f"this is no message that is known here: {error}"[:_SHOWN]) from error


def id_of(text: str) -> Id | None:
    """Return the `id` of what may be no message otherwise, so that its sender finds the answer."""
    try:
        return _named.decode(text).id
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def new_turns(message: Append) -> tuple[NewTurn, ...]:
    """Return the turns to be stored.

    Raises:
        Invalid: neither one turn nor several were given.
    """
    if message.turns is not None:
        if message.role is not None or message.content is not None or message.turn_id or message.attributes:
            raise Invalid("an append has `turns`, or `role` and `content` of one turn: not both")
        return tuple(
            NewTurn(role=turn.role, content=turn.content, turn_id=turn.turn_id, attributes=turn.attributes)
            for turn in message.turns
        )
    if message.role is None or message.content is None:
        raise Invalid("an append needs `role` and `content`, or `turns` for several")
    return (
        NewTurn(role=message.role, content=message.content, turn_id=message.turn_id, attributes=message.attributes),
    )


def level_of(message: ContextAsked) -> Consistency:
    """Return the level of consistency that a message asks for.

    Raises:
        Invalid: there is none of that name, or it is given an age that it does not take.
    """
    return Consistency(message.consistency, message.age_s)
