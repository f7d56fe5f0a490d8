"""A request's expressions with their placeholders: all that are given must be used, all that are used must be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.testing.dynamodb.conditions import Condition, KeyCondition, parse_condition, parse_key_condition
from mangacache.testing.dynamodb.errors import invalid, mistyped, unsupported
from mangacache.testing.dynamodb.expressions import Projection, parse_projection
from mangacache.testing.dynamodb.updates import Update, parse_update
from mangacache.testing.dynamodb.values import AttributeValue, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.testing.dynamodb.expressions import Uses

_LEGACY: Final = frozenset(
    {"AttributesToGet", "AttributeUpdates", "ConditionalOperator", "Expected", "KeyConditions"}
    | {"QueryFilter", "ScanFilter"}
)
_NOT_MODELLED: Final = frozenset({"ReturnConsumedCapacity", "ReturnItemCollectionMetrics", "Segment", "TotalSegments"})
_LOOKED_AT: Final = _LEGACY | _NOT_MODELLED
_PARSED_WITHOUT_VALUES: Final = "ExpressionAttributeValues"


class Request:
    """The expressions of one request, or of one operation in a transaction.

    Args:
        parameters: the request's own.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        for name in _LOOKED_AT.intersection(parameters):
            if name in _LEGACY or parameters[name] != "NONE":
                raise unsupported(f"the parameter {name}")
        names: Mapping[str, str] = parameters.get("ExpressionAttributeNames") or {}
        self._names = tuple(sorted(names.items()))
        given = parameters.get("ExpressionAttributeValues") or {}
        self.values: dict[str, AttributeValue] = {name: normalise(value) for name, value in given.items()}
        for name, sign in [*((name, "#") for name in names), *((name, ":") for name in given)]:
            if not name.startswith(sign) or len(name) == 1:
                where = "ExpressionAttributeNames" if sign == "#" else _PARSED_WITHOUT_VALUES
                raise invalid(f'{where} contains invalid key: Syntax error; key: "{name}"')
        self._unused_names = set(names)
        self._unused_values = set(given)

    def condition(self) -> Condition | None:
        """Return the ConditionExpression, or None."""
        return self._condition("ConditionExpression")

    def filter(self) -> Condition | None:
        """Return the FilterExpression, or None."""
        return self._condition("FilterExpression")

    def _condition(self, parameter: str) -> Condition | None:
        text = self._text(parameter)
        if text is None:
            return None
        condition = parse_condition(text, self._names, parameter)
        self._use(condition.uses, parameter)
        return condition

    def key_condition(self) -> KeyCondition:
        """Return the KeyConditionExpression."""
        text = self._text("KeyConditionExpression")
        if text is None:
            raise invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified")
        condition = parse_key_condition(text, self._names)
        self._use(condition.uses, "KeyConditionExpression")
        return condition

    def update(self) -> Update | None:
        """Return the UpdateExpression, or None: an update without one makes an item of its key alone."""
        text = self._text("UpdateExpression")
        if text is None:
            return None
        update = parse_update(text, self._names)
        self._use(update.uses, "UpdateExpression")
        return update

    def projection(self) -> Projection | None:
        """Return the ProjectionExpression, or None."""
        text = self._text("ProjectionExpression")
        if text is None:
            return None
        projection = parse_projection(text, self._names)
        self._use(projection.uses, "ProjectionExpression")
        return projection

    def finish(self) -> None:
        """Refuse placeholders that no expression used."""
        for parameter, unused in (
            ("ExpressionAttributeNames", self._unused_names),
            ("ExpressionAttributeValues", self._unused_values),
        ):
            if unused:
                raise invalid(
                    f"Value provided in {parameter} unused in expressions: keys: {{{', '.join(sorted(unused))}}}"
                )

    def _text(self, parameter: str) -> str | None:
        text = self.parameters.get(parameter)
        if text is not None and not isinstance(text, str):
            raise mistyped(f"Invalid type for parameter {parameter}, value: {text!r:.80}, type: {type(text)}")
        return text

    def _use(self, uses: Uses, parameter: str) -> None:
        undefined = uses.values - self.values.keys()
        if undefined:
            raise invalid(
                f"Invalid {parameter}: An expression attribute value used in expression is not defined; "
                f"attribute value: {min(undefined)}"
            )
        self._unused_names -= uses.names
        self._unused_values -= uses.values
