"""Compiled projections: their paths, and what of a stored item they select."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mangacache.local.dax.cbor import LIST_INDEX, TAG
from mangacache.local.dax.cursor import Cursor
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Path: TypeAlias = tuple[str | int, ...]
"""An attribute's name, then names in maps and indexes in lists."""

FORMAT: Final = 1
"""The version of compiled expressions, which each of them begins with."""
PATH: Final = 18
"""The operator of a document path."""
_MAX_INDEX: Final = (1 << 31) - 1


def decode_projection(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[Path, ...]:
    """Return the paths of a compiled projection.

    Raises:
        Malformed: it is none.
    """
    return read_projection(Cursor(data, limits))


def read_projection(cursor: Cursor) -> tuple[Path, ...]:
    """Do as `decode_projection`, from a cursor on the bytes."""
    begin(cursor, 2)
    paths = tuple([_path(cursor) for _ in cursor.elements()])
    cursor.finish("a projection")
    return paths


def begin(cursor: Cursor, parts: int) -> None:
    """Read the beginning of a compiled expression.

    Raises:
        Malformed: it is another.
    """
    if cursor.length() != parts or cursor.integer() != FORMAT:
        raise Malformed(f"a compiled expression is a list of {parts}, the first being {FORMAT}")


def _path(cursor: Cursor) -> Path:
    places = cursor.elements()
    if next(places, None) is None or cursor.integer() != PATH:
        raise Malformed("a projection holds something else than document paths")
    return read_steps(cursor, places)


def read_steps(cursor: Cursor, places: Iterator[int]) -> Path:
    """Read what follows the operator of a document path.

    Raises:
        Malformed: it is none.
    """
    path = tuple([_step(cursor) for _ in places])
    if not path or isinstance(path[0], int):
        raise Malformed("a document path begins with no name")
    if len(path) > cursor.limits.depth:
        raise Malformed(f"a document path has {len(path)} steps, more than {cursor.limits.depth} (depth)")
    return path


def _step(cursor: Cursor) -> str | int:
    if cursor.peek() >> 5 != TAG:
        return cursor.text()
    _, tag = cursor.head()
    if tag != LIST_INDEX:
        raise Malformed(f"tag {tag} is none of a document path's")
    index = cursor.integer()
    if not 0 <= index <= _MAX_INDEX:
        raise Malformed(f"{index!s:.30} is no index of a list")
    return index


def project(item: Mapping[str, Any], paths: Sequence[Path]) -> dict[int, dict[str, Any]]:
    """Return what the paths select of a WHOLE item, by the place of the path; what is not there is left out.

    Indexes count in the lists as they are stored, which in DynamoDB's own projected answer they no longer do.
    """
    found = {place: _at(item, path) for place, path in enumerate(paths)}
    return {place: value for place, value in found.items() if value is not None}


def _at(item: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    inner: Any = {"M": item}
    for step in path:
        if isinstance(step, str):
            inner = inner["M"].get(step) if "M" in inner else None
        else:
            members = inner.get("L", ())
            inner = members[step] if step < len(members) else None
        if inner is None:
            return None
    value: dict[str, Any] = inner
    return value
