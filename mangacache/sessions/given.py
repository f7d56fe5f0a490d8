"""What callers give a session, which may be anything: taken as what it should be, or refused in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mangacache.errors import Invalid
from mangacache.model import NewTurn
from mangacache.store.items import META_NAMES

if TYPE_CHECKING:
    from mangacache.model import Attribute


def turns_given(turns: Iterable[NewTurn]) -> tuple[NewTurn, ...]:
    """Return the turns of `append_many`.

    Raises:
        Invalid: they are something else.
    """
    try:
        given = tuple(turns)
    except TypeError as error:
        raise Invalid(f"append_many takes several NewTurn, not {turns!r:.60}") from error
    if wrong := _first_not(NewTurn, given):
        raise Invalid(f"append_many takes NewTurn(role=..., content=...), not {wrong[0]!r:.60}")
    return given


def cursors_given(*cursors: str | None) -> None:
    """See that cursors may be some.

    Raises:
        Invalid: they are something else.
    """
    if wrong := _first_not(str | None, cursors):
        raise Invalid(f"{wrong[0]!r:.60} is no cursor: pass `older` or `newer` of another page")


def removes_given(remove: Iterable[str]) -> tuple[str, ...]:
    """Return the names of free attributes that are to be removed.

    Raises:
        Invalid: they are no names, or the table's own.
    """
    if isinstance(remove, str):
        raise Invalid(f"`remove` takes names, and {remove!r} is one: put it into a list")
    try:
        removes = tuple(remove)
    except TypeError as error:
        raise Invalid(f"`remove` takes names, not {remove!r:.60}") from error
    if wrong := _first_not(str, removes):
        raise Invalid(f"`remove` takes names, and {wrong[0]!r:.60} is none")
    if taken := META_NAMES.intersection(removes):
        raise Invalid(f"{min(taken)!r} belongs to the table's layout and cannot be removed")
    return removes


def attributes_given(attributes: Mapping[str, Attribute] | None) -> Mapping[str, Attribute]:
    """Return free attributes as they were given, none as an empty mapping.

    Raises:
        Invalid: something else, which may look like one.
    """
    if attributes is None:
        return {}
    if not isinstance(attributes, Mapping):
        raise Invalid(f"attributes are a mapping of names to values, not {attributes!r:.60}")
    return attributes


def _first_not(kind: Any, values: Iterable[object]) -> tuple[object, ...]:
    """Return the first value that is not of a kind, in a tuple; an empty one where there is none."""
    return next(((value,) for value in values if not isinstance(value, kind)), ())
