"""Small things done to requests and answers: a request as a cache's key, as one for whole attributes, copies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mangacache.testing.dynamodb.request import Request
from mangacache.testing.dynamodb.values import copy_item

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from mangacache.testing.dynamodb.expressions import Projection

_NAMES: Final = "ExpressionAttributeNames"
_WITH_NAMES: Final = frozenset({"FilterExpression", "KeyConditionExpression"})
_PLACEHOLDER: Final = re.compile(r"#\w+")


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


def projection_of(parameters: Mapping[str, Any]) -> Projection | None:
    """Return the parsed ProjectionExpression, None where there is none."""
    asked = {name: parameters[name] for name in ("ProjectionExpression", _NAMES) if name in parameters}
    return Request(asked).projection()


def of_whole_attributes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request for the whole of every attribute that `parameters` projects parts of.

    DynamoDB closes the gaps of a list of which it projects elements, and an answer on DAX's wire says of each value
    which path it belongs to, so a server must see the list as it is stored. The attributes stay named, since whether
    an index has them is for DynamoDB to say.
    """
    projection = projection_of(parameters)
    if projection is None:
        return dict(parameters)
    others = " ".join(str(value) for name, value in parameters.items() if name in _WITH_NAMES)
    still_used = set(_PLACEHOLDER.findall(others))
    names = {short: name for short, name in parameters.get(_NAMES, {}).items() if short in still_used}
    whole = {f"#whole{place}": name for place, name in enumerate(dict.fromkeys(path[0] for path in projection.paths))}
    return {**parameters, "ProjectionExpression": ", ".join(whole), _NAMES: names | whole}


def copy_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a Query's or Scan's answer that shares nothing with it."""
    copied = dict(answer)
    if "Items" in copied:
        copied["Items"] = [copy_item(item) for item in copied["Items"]]
    if "LastEvaluatedKey" in copied:
        copied["LastEvaluatedKey"] = copy_item(copied["LastEvaluatedKey"])
    return copied
