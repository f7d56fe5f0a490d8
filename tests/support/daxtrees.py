"""What expressions mean: the trees that the real DAX client compiles them to."""

from __future__ import annotations

from typing import Any

from amazondax.CborSExprGenerator import encode_expressions
from amazondax.DaxCborDecoder import DaxCborDecoder
from amazondax.DaxCborTypes import DocumentPathOrdinal
from daxvalues import NAMES, VALUES, same, used

KINDS = (
    "ConditionExpression",
    "KeyConditionExpression",
    "FilterExpression",
    "UpdateExpression",
    "ProjectionExpression",
)


def compiled(kind, expression, names=None, values=None):
    """Return what the real client makes of an expression."""
    given = [expression if place == kind else None for place in KINDS]
    names = used(expression, NAMES) if names is None else names
    values = used(expression, VALUES) if values is None else values
    result = encode_expressions(*given, names, values)
    return bytes(getattr(result, kind.removesuffix("Expression")))


def objects(octets):
    """Return what the real client's decoder reads."""
    left = [octets]

    def more(buffer, _):
        data = left.pop() if left else b""
        buffer += data
        return len(data)

    return DaxCborDecoder(more).decode_object()


def flat(tree):
    """Return a tree in which chains of AND, or of OR, are one operator: how they nest makes no difference."""
    if isinstance(tree, DocumentPathOrdinal):
        return f"[{tree.ordinal}]"
    if not isinstance(tree, list):
        return repr(tree)
    parts = [flat(part) for part in tree]
    if len(tree) == 3 and repr(tree[0]) in {"6", "7"} and isinstance(tree[1], list):
        sides = [side[1:] if side[0] == parts[0] else [side] for side in parts[1:]]
        return [parts[0], *sides[0], *sides[1]]
    return parts


def meaning(parameters: Any) -> Any:
    """Return a call's parameters such that those of equal meaning are equal, whatever its placeholders are called."""
    if isinstance(parameters, list):
        return [meaning(part) for part in parameters]
    if not isinstance(parameters, dict):
        return parameters
    names = parameters.get("ExpressionAttributeNames", {})
    values = parameters.get("ExpressionAttributeValues", {})
    meant: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in KINDS:
            meant[name] = flat(objects(compiled(name, value, used(value, names), used(value, values))))
        elif name in {"Item", "Key", "ExclusiveStartKey"}:
            meant[name] = same(value)
        elif name == "Keys":
            meant[name] = [same(key) for key in value]
        elif name not in {"ExpressionAttributeNames", "ExpressionAttributeValues"}:
            meant[name] = meaning(value)
    return meant
