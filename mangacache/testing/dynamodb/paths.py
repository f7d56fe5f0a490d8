"""Document paths (`a.b[0].c`): reading them, projecting items on them, telling when two overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mangacache.testing.dynamodb.errors import invalid
from mangacache.testing.dynamodb.values import copy_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mangacache.testing.dynamodb.values import AttributeValue, Item

Path: TypeAlias = tuple[str | int, ...]
"""An attribute's name, then map keys (str) and list indexes (int)."""
PathTree: TypeAlias = dict[str | int, "PathTree"]
"""Paths merged by their common beginnings; an empty tree means everything from there."""


def read_path(item: Item, path: Path) -> AttributeValue | None:
    """Return the value at `path`, or None where there is none."""
    value = item.get(path[0])  # type: ignore[arg-type] # the first step is always a name
    for step in path[1:]:
        if value is None:
            return None
        value = child(value, step)
    return value


def child(value: AttributeValue, step: str | int) -> AttributeValue | None:
    """Return the element of a map or list, or None where there is none."""
    if isinstance(step, str):
        return value["M"].get(step) if "M" in value else None
    elements = value.get("L", ())
    return elements[step] if step < len(elements) else None


def tree_of(paths: Iterable[Path]) -> PathTree:
    """Return `paths` merged into one tree."""
    tree: PathTree = {}
    for path in paths:
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def project(item: Item, tree: PathTree) -> Item:
    """Return a copy of what `tree` selects of `item`; lists keep only the selected elements, in order."""
    projected: Item = {}
    for name, below in tree.items():
        value = item.get(name)  # type: ignore[arg-type] # the first step is always a name
        selected = None if value is None else _project_value(value, below)
        if selected is not None:
            projected[str(name)] = selected
    return projected


def _project_value(value: AttributeValue, tree: PathTree) -> AttributeValue | None:
    if not tree:
        return copy_value(value)
    selected = {
        step: part
        for step, below in tree.items()
        if (element := child(value, step)) is not None
        if (part := _project_value(element, below)) is not None
    }
    if not selected:
        return None
    if "L" in value:
        return {"L": [selected[index] for index in sorted(selected)]}
    return {"M": selected}


def check_distinct(paths: Sequence[Path], expression: str) -> None:
    """Refuse two paths of which one contains the other, or which need a value to be a map and a list at once."""
    for position, second in enumerate(paths):
        for first in paths[:position]:
            _check_pair(first, second, expression)


def _check_pair(first: Path, second: Path, expression: str) -> None:
    for left, right in zip(first, second, strict=False):
        if type(left) is not type(right):
            raise _clash("conflict", first, second, expression)
        if left != right:
            return
    raise _clash("overlap", first, second, expression)


def _clash(verb: str, first: Path, second: Path, expression: str) -> Exception:
    return invalid(
        f"Invalid {expression}: Two document paths {verb} with each other; "
        f"must remove or rewrite one of these paths; path one: {shown(first)}, path two: {shown(second)}"
    )


def shown(path: Path) -> str:
    """Return `path` as the service writes it in messages."""
    return f"[{', '.join(step if isinstance(step, str) else f'[{step}]' for step in path)}]"
