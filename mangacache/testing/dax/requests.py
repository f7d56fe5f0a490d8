"""Small things done to requests and answers: a request as a cache's key, copies, what an update's caller is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mangacache.testing.dynamodb.paths import project, tree_of
from mangacache.testing.dynamodb.request import Request
from mangacache.testing.dynamodb.values import Item, copy_item

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


def method_of(operation: str) -> str:
    """Return a client's method for an operation: `get_item` for `GetItem`."""
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in operation)[1:]


def frozen(value: object) -> Hashable:
    """Return a request, or a part of one, as a key: equal only where every parameter is given and the same.

    `True` and `1` are equal in Python and not in a request, so values count as they are written. The order of a map's
    keys does not count.
    """
    if isinstance(value, dict):
        return "M", tuple(sorted((name, frozen(part)) for name, part in value.items()))
    if isinstance(value, (list, tuple)):
        return "L", tuple(frozen(part) for part in value)
    return repr(value)


def copy_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a Query's or Scan's answer that shares nothing with it."""
    copied = dict(answer)
    if "Items" in copied:
        copied["Items"] = [copy_item(item) for item in copied["Items"]]
    if "LastEvaluatedKey" in copied:
        copied["LastEvaluatedKey"] = copy_item(copied["LastEvaluatedKey"])
    return copied


def shown_update(new: Item, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer for `UPDATED_NEW`, out of the whole new item."""
    update = Request(parameters).update()
    shown = copy_item(new) if update is None else project(new, tree_of(update.paths))
    return {"Attributes": shown} if shown else {}
