"""Update expressions: SET, REMOVE, ADD and DELETE, all computed from the item as it was.

Grammar and meaning follow the Amazon DynamoDB Developer Guide, "Update expressions".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from mangacache.testing.dynamodb import numbers
from mangacache.testing.dynamodb.conditions import Values
from mangacache.testing.dynamodb.errors import invalid, invalid_values
from mangacache.testing.dynamodb.expressions import CACHE_SIZE, ExpressionParser, Names, Uses
from mangacache.testing.dynamodb.paths import Path, check_distinct, child, read_path
from mangacache.testing.dynamodb.values import SET_TYPES, AttributeValue, Item, copy_item, copy_value, set_of, type_of

Expression: TypeAlias = Callable[[Item, Values], AttributeValue]
"""The right side of a SET: the old item and the values give the new value."""

_CLAUSES: Final = ("SET", "REMOVE", "ADD", "DELETE")
_BAD_PATH: Final = "The document path provided in the update expression is invalid for update"
_MISSING: Final = "The provided expression refers to an attribute that does not exist in the item"


@dataclass(frozen=True, slots=True)
class Update:
    """A parsed update expression."""

    sets: tuple[tuple[Path, Expression], ...]
    removes: tuple[Path, ...]
    adds: tuple[tuple[Path, str], ...]
    deletes: tuple[tuple[Path, str], ...]
    uses: Uses

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path it writes."""
        changed = [path for path, _ in (*self.sets, *self.adds, *self.deletes)]
        return (*changed, *self.removes)

    def apply(self, item: Item, values: Values) -> Item:
        """Return the item as it is after the update; `item` itself stays as it is.

        Raises:
            Refusal: an operand is missing or of the wrong type, or a path leads nowhere.
        """
        written = [(path, copy_value(compute(item, values))) for path, compute in self.sets]
        for path, name in self.adds:
            written.append((path, _added(read_path(item, path), values[name])))
        new = copy_item(item)
        removed = list(self.removes)
        for path, name in self.deletes:
            left = _without(read_path(item, path), values[name])
            if left is None:
                removed.append(path)
            else:
                written.append((path, left))
        # Elements beyond a list's end are appended in the order of their indexes.
        for path, value in sorted(written, key=lambda pair: _order(pair[0])):
            _write(new, path, value)
        # From the back, so that the indexes of what is still to be removed stay right.
        for path in sorted(removed, key=_order, reverse=True):
            _remove(new, path)
        return new


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in path)


@lru_cache(CACHE_SIZE)
def parse_update(text: str, names: Names) -> Update:
    """Return the parsed UpdateExpression."""
    parser = _UpdateParser(text, names, "UpdateExpression")
    return parser.update()


class _UpdateParser(ExpressionParser):
    def update(self) -> Update:
        sets: list[tuple[Path, Expression]] = []
        removes: list[Path] = []
        adds: list[tuple[Path, str]] = []
        deletes: list[tuple[Path, str]] = []
        seen: set[str] = set()
        while self.token.kind != "end":
            clause = next((word for word in _CLAUSES if self.accept_keyword(word)), None)
            if clause is None:
                raise self.unexpected()
            if clause in seen:
                raise self.error(f'The "{clause}" section can only be used once in an update expression;')
            seen.add(clause)
            while True:
                path = self.path()
                if clause == "SET":
                    self.expect("=")
                    sets.append((path, self._sum()))
                elif clause == "REMOVE":
                    removes.append(path)
                else:
                    (adds if clause == "ADD" else deletes).append((path, self.value_name()))
                if not self.accept(","):
                    break
        update = Update(tuple(sets), tuple(removes), tuple(adds), tuple(deletes), self.finish())
        check_distinct(update.paths, self.expression)
        return update

    def _sum(self) -> Expression:
        left = self._operand()
        for symbol, compute in (("+", numbers.add), ("-", numbers.subtract)):
            if self.accept(symbol):
                right = self._operand()
                return _arithmetic(symbol, compute, left, right)
        return left

    def _operand(self) -> Expression:
        if self.token.kind == "value":
            name = self.value_name()
            return lambda _, values: values[name]
        if self.accept("("):
            inner = self._sum()
            self.expect(")")
            return inner
        if self.token.kind == "word" and self.following().text == "(":
            return self._function(self.next().text)
        path = self.path()
        return lambda item, _: _present(read_path(item, path))

    def _function(self, name: str) -> Expression:
        self.expect("(")
        if name == "if_not_exists":
            path = self.path()
            self.expect(",")
            default = self._operand()
            self.expect(")")
            return lambda item, values: read_path(item, path) or default(item, values)
        if name != "list_append":
            raise self.error(f"Invalid function name; function: {name}")
        left = self._operand()
        self.expect(",")
        right = self._operand()
        self.expect(")")
        return _concatenation(left, right)


def _present(value: AttributeValue | None) -> AttributeValue:
    if value is None:
        raise invalid(_MISSING)
    return value


def _arithmetic(symbol: str, compute: Callable[[str, str], str], left: Expression, right: Expression) -> Expression:
    def evaluate(item: Item, values: Values) -> AttributeValue:
        first, second = left(item, values), right(item, values)
        for value in (first, second):
            if "N" not in value:
                raise invalid(
                    "An operand in the update expression has an incorrect data type "
                    f"(operator {symbol}, type {type_of(value)})"
                )
        return {"N": compute(first["N"], second["N"])}

    return evaluate


def _concatenation(left: Expression, right: Expression) -> Expression:
    def evaluate(item: Item, values: Values) -> AttributeValue:
        first, second = left(item, values), right(item, values)
        for value in (first, second):
            if "L" not in value:
                raise invalid(
                    "An operand in the update expression has an incorrect data type "
                    f"(function list_append, type {type_of(value)})"
                )
        return {"L": [*first["L"], *second["L"]]}

    return evaluate


def _added(old: AttributeValue | None, amount: AttributeValue) -> AttributeValue:
    tag = type_of(amount)
    if tag != "N" and tag not in SET_TYPES:
        raise invalid(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, "
            f"operand type: {tag}"
        )
    if old is None:
        return copy_value(amount)
    if type_of(old) != tag:
        raise invalid("An operand in the update expression has an incorrect data type")
    if tag == "N":
        return {"N": numbers.add(old["N"], amount["N"])}
    return set_of(tag, {*old[tag], *amount[tag]})


def _without(old: AttributeValue | None, elements: AttributeValue) -> AttributeValue | None:
    tag = type_of(elements)
    if tag not in SET_TYPES:
        raise invalid(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: DELETE, "
            f"operand type: {tag}"
        )
    if old is None:
        return None
    if type_of(old) != tag:
        raise invalid("An operand in the update expression has an incorrect data type")
    left = set(old[tag]) - set(elements[tag])
    return set_of(tag, left) if left else None


def _parent(item: Item, path: Path) -> AttributeValue:
    """Return the map or list that holds the last step of a nested path."""
    value = read_path(item, path[:-1])
    if value is None or ("M" if isinstance(path[-1], str) else "L") not in value:
        raise invalid(_BAD_PATH)
    return value


def _write(item: Item, path: Path, value: AttributeValue) -> None:
    last = path[-1]
    if len(path) == 1:
        item[str(last)] = value
        return
    parent = _parent(item, path)
    if isinstance(last, str):
        parent["M"][last] = value
    elif last < len(parent["L"]):
        parent["L"][last] = value
    else:
        parent["L"].append(value)


def _remove(item: Item, path: Path) -> None:
    last = path[-1]
    if len(path) == 1:
        item.pop(str(last), None)
        return
    parent = _parent(item, path)
    if child(parent, last) is not None:
        del parent["M" if isinstance(last, str) else "L"][last]


def check_keys_unchanged(update: Update, key_names: tuple[str, ...]) -> None:
    """Refuse an update that writes one of the table's keys."""
    for path in update.paths:
        if path[0] in key_names:
            raise invalid_values(f"Cannot update attribute {path[0]}. This attribute is part of the key")
