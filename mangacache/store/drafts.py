"""From what a caller passes to a turn that can be stored: every limit is checked before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mangacache.errors import Invalid
from mangacache.model import ROLES, WINDOW, NewTurn, Turn, checked_id
from mangacache.store.effects import Draft, Stamp
from mangacache.store.items import META_NAMES, TURN_NAMES
from mangacache.store.values import from_typed, size_of, typed_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.model import Attribute
    from mangacache.store.values import Typed

MAX_ITEM_BYTES: Final = 380_000
"""One item: DynamoDB takes 400 KB, key and layout included."""

MAX_BATCH_BYTES: Final = 3_500_000
"""All items of one `append_many`: a transaction takes 4 MB."""

MAX_SUMMARY_BYTES: Final = 65_536


def checked_text(value: str, *, what: str, max_bytes: int) -> str:
    """Return `value` if it is text that can be stored.

    Raises:
        Invalid: no text, too long, or holding a lone surrogate.
    """
    if not isinstance(value, str):
        raise Invalid(f"{what} must be text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise Invalid(
            f"{what} holds a lone surrogate at position {error.start}: decode it properly before passing it on"
        ) from error
    if size > max_bytes:
        raise Invalid(f"{what} has {size} bytes of UTF-8, the limit is {max_bytes}: shorten it or split it")
    return value


def drafted(new: NewTurn, turn_id: str, *, stamp: Stamp, max_content_bytes: int) -> Draft:
    """Return the draft of a turn.

    Raises:
        Invalid: an unknown role, a bad id, content or attributes that cannot be stored.
    """
    if new.role not in tuple(ROLES):  # by comparison: what is no text need not have a hash
        raise Invalid(f"{new.role!r:.40} is no role: use one of {', '.join(sorted(ROLES))}")
    checked_id(turn_id, what="turn_id")
    checked_text(new.content, what="content", max_bytes=max_content_bytes)
    if not isinstance(new.attributes, Mapping):
        raise Invalid(f"a turn's attributes are a mapping of names to values, not {new.attributes!r:.60}")
    typed = typed_attributes(new.attributes, TURN_NAMES) if new.attributes else {}
    if typed and (size := size_of(typed) + len(new.content.encode())) > MAX_ITEM_BYTES:
        raise Invalid(f"content and attributes have {size} bytes together, the limit is {MAX_ITEM_BYTES}")
    turn = Turn(
        number=0,
        turn_id=turn_id,
        role=new.role,
        content=new.content,
        created_at=stamp.at,
        attributes={name: from_typed(value) for name, value in typed.items()},
        expires_at=stamp.turn_expires_at,
    )
    return Draft(turn, typed)


def checked_batch(drafts: Sequence[Draft]) -> tuple[Draft, ...]:
    """Return the drafts of one `append_many`.

    Raises:
        Invalid: none or too many, too large together, or a turn_id twice.
    """
    if not 1 <= len(drafts) <= WINDOW:
        raise Invalid(f"append_many takes 1 to {WINDOW} turns at a time, not {len(drafts)}")
    size = sum(len(draft.turn.content.encode()) + size_of(draft.typed_attributes) for draft in drafts)
    if size > MAX_BATCH_BYTES:
        raise Invalid(f"these turns have {size} bytes together, the limit is {MAX_BATCH_BYTES}: append fewer at once")
    ids = [draft.turn.turn_id for draft in drafts]
    if twice := {turn_id for turn_id in ids if ids.count(turn_id) > 1}:
        raise Invalid(f"append_many was given the turn_id {min(twice)!r} more than once")
    return tuple(drafts)


def meta_sets(attributes: Mapping[str, Attribute], status: str | None) -> Typed:
    """Return what an update of META sets, typed.

    Raises:
        Invalid: a name of the layout, a value that cannot be stored, a status that is none.
    """
    sets = typed_attributes(attributes, META_NAMES)
    if (size := size_of(sets)) > MAX_ITEM_BYTES:
        raise Invalid(f"these attributes have {size} bytes, the limit is {MAX_ITEM_BYTES}")
    if status is not None:
        if status == "deleted":
            raise Invalid("the status 'deleted' is what `delete()` leaves: call it")
        sets["status"] = {"S": checked_id(status, what="status")}
    return sets
