"""Compiled expressions, back to text with placeholders of the server's own.

The names in a tree are attributes' own names: they may contain dots, be reserved words, or read like an expression. So
none ever stands in a text; nor does a value. The trees are walked without recursion, as deep as the limit says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mangacache.local.dax.cursor import Cursor
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits, Malformed
from mangacache.local.dax.projections import PATH, begin, read_steps
from mangacache.local.dax.values import read_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mangacache.local.dax.cursor import Budget
    from mangacache.local.dax.projections import Path

_ACTION: Final = 0
_OR: Final = 1
_AND: Final = 2
_NOT: Final = 3
_COMPARISON: Final = 4
_FUNCTION: Final = 5
_SUM: Final = 6
_OPERAND: Final = 7
_LIST: Final = 8
"""How tightly a text holds together: what binds less than its surroundings stands in parentheses."""

_VARIABLE: Final = 17
_IN: Final = 10
_ROOT: Final = -1
_MEMBERS: Final = -2
_ACTIONS: Final = -3


class _Form(NamedTuple):
    """How an operator is written: the level of what it makes, the least of each argument, and a template."""

    level: int
    arguments: tuple[tuple[int, int], ...]
    template: str


_CONDITION: Final = (_OR, _FUNCTION)
_VALUE: Final = (_OPERAND, _OPERAND)
_FORMS: Final = {
    **{
        operator: _Form(_COMPARISON, (_VALUE, _VALUE), f"{{}} {sign} {{}}")
        for operator, sign in enumerate(("=", "<>", "<", ">=", ">", "<="))
    },
    6: _Form(_AND, (_CONDITION, _CONDITION), "{} AND {}"),
    7: _Form(_OR, (_CONDITION, _CONDITION), "{} OR {}"),
    8: _Form(_NOT, (_CONDITION,), "NOT {}"),
    9: _Form(_COMPARISON, (_VALUE, _VALUE, _VALUE), "{} BETWEEN {} AND {}"),
    _IN: _Form(_COMPARISON, (_VALUE, (_LIST, _LIST)), "{} IN ({})"),
    11: _Form(_FUNCTION, (_VALUE,), "attribute_exists({})"),
    12: _Form(_FUNCTION, (_VALUE,), "attribute_not_exists({})"),
    13: _Form(_FUNCTION, (_VALUE, _VALUE), "attribute_type({}, {})"),
    14: _Form(_FUNCTION, (_VALUE, _VALUE), "begins_with({}, {})"),
    15: _Form(_FUNCTION, (_VALUE, _VALUE), "contains({}, {})"),
    16: _Form(_OPERAND, (_VALUE,), "size({})"),
    19: _Form(_ACTION, (_VALUE, (_SUM, _OPERAND)), "{} = {}"),
    20: _Form(_ACTION, (_VALUE, _VALUE), "{} {}"),
    21: _Form(_ACTION, (_VALUE, _VALUE), "{} {}"),
    22: _Form(_ACTION, (_VALUE,), "{}"),
    23: _Form(_OPERAND, (_VALUE, _VALUE), "if_not_exists({}, {})"),
    24: _Form(_OPERAND, (_VALUE, _VALUE), "list_append({}, {})"),
    25: _Form(_SUM, (_VALUE, _VALUE), "{} + {}"),
    26: _Form(_SUM, (_VALUE, _VALUE), "{} - {}"),
    _ROOT: _Form(_OR, (_CONDITION,), "{}"),
}
_SECTIONS: Final = {19: "SET", 20: "ADD", 21: "DELETE", 22: "REMOVE"}


class Placeholders:
    """The names and values of one request's expressions.

    Args:
        prefix: of the names, so that those of two sets are told apart.

    Attributes:
        names: ExpressionAttributeNames.
        values: ExpressionAttributeValues.
    """

    def __init__(self, prefix: str = "n") -> None:
        self._prefix = prefix
        self._known: dict[str, str] = {}
        self._reserved = 0
        self.names: dict[str, str] = {}
        self.values: dict[str, dict[str, Any]] = {}

    def name(self, name: str) -> str:
        """Return what stands for a name."""
        placeholder = self._known.get(name)
        if placeholder is None:
            placeholder = self._known[name] = f"#{self._prefix}{len(self._known)}"
            self.names[placeholder] = name
        return placeholder

    def path(self, path: Path) -> str:
        """Return the text of a document path."""
        first, *others = (self.name(step) if isinstance(step, str) else f"[{step}]" for step in path)
        return first + "".join([step if step.startswith("[") else f".{step}" for step in others])

    def reserve(self) -> str:
        """Return what will stand for a value, which is set later."""
        self._reserved += 1
        return f":v{self._reserved - 1}"


class _Term(NamedTuple):
    """A part of a tree, written."""

    text: str
    level: int
    operator: int


class _Open(NamedTuple):
    """A part of a tree whose arguments are being read."""

    operator: int
    places: Iterator[int]
    terms: list[_Term]


def condition_text(
    data: bytes, placeholders: Placeholders, limits: Limits = DEFAULT_LIMITS, budget: Budget | None = None
) -> str:
    """Return the text of a compiled condition, filter or key condition; its names and values go to `placeholders`.

    Raises:
        Malformed: it is none.
    """
    return _text(Cursor(data, limits, budget), placeholders, _ROOT)


def update_text(
    data: bytes, placeholders: Placeholders, limits: Limits = DEFAULT_LIMITS, budget: Budget | None = None
) -> str:
    """Return the text of a compiled update; its names and values go to `placeholders`.

    Raises:
        Malformed: it is none.
    """
    return _text(Cursor(data, limits, budget), placeholders, _ACTIONS)


def _text(cursor: Cursor, placeholders: Placeholders, root: int) -> str:
    begin(cursor, 3)
    tree = _Tree(cursor, placeholders)
    text = tree.read(_Open(root, cursor.elements() if root == _ACTIONS else iter((0,)), []))
    tree.read_values()
    cursor.finish("an expression")
    return text


class _Tree:
    """A tree while it is read."""

    def __init__(self, cursor: Cursor, placeholders: Placeholders) -> None:
        self._cursor = cursor
        self._placeholders = placeholders
        self._variables: dict[int, str] = {}

    def read(self, root: _Open) -> str:
        stack = [root]
        while True:
            top = stack[-1]
            if next(top.places, None) is not None:
                term = self._leaf(top, stack)
                if term is not None:
                    top.terms.append(term)
                continue
            term = _written(top)
            stack.pop()
            if not stack:
                return term.text
            stack[-1].terms.append(term)

    def _leaf(self, top: _Open, stack: list[_Open]) -> _Term | None:
        """Read a node up to its arguments, or all of it where it has none of its own."""
        cursor = self._cursor
        if len(stack) > cursor.limits.tree_depth:
            raise Malformed(f"an expression is more than {cursor.limits.tree_depth} operators deep (tree_depth)")
        places = cursor.elements()
        if top.operator == _IN and len(top.terms) == 1:
            stack.append(_Open(_MEMBERS, places, []))
            return None
        if next(places, None) is None:
            raise Malformed("an operator is due in an expression")
        operator = cursor.integer()
        if operator == PATH:
            return _Term(self._placeholders.path(read_steps(cursor, places)), _OPERAND, operator)
        if operator == _VARIABLE:
            return _Term(self._variable(places), _OPERAND, operator)
        if operator not in _FORMS or operator < 0:
            raise Malformed(f"there is no operator {operator!s:.30} in expressions")
        stack.append(_Open(operator, places, []))
        return None

    def _variable(self, places: Iterator[int]) -> str:
        if next(places, None) is None:
            raise Malformed("a variable of an expression has no number")
        number = self._cursor.integer()
        if next(places, None) is not None:
            raise Malformed("a variable of an expression has more than a number")
        if number not in self._variables:
            self._variables[number] = self._placeholders.reserve()
        return self._variables[number]

    def read_values(self) -> None:
        """Read the values that follow the tree; one that it does not use has no place in the request."""
        for number in self._cursor.elements():
            value = read_value(self._cursor)
            if number in self._variables:
                self._placeholders.values[self._variables.pop(number)] = value
        if self._variables:
            raise Malformed(f"an expression has no value number {next(iter(self._variables))!s:.30}")


def _written(part: _Open) -> _Term:
    """Write a part whose arguments are read."""
    if part.operator == _MEMBERS:
        return _members(part.terms)
    if part.operator == _ACTIONS:
        return _actions(part.terms)
    form = _FORMS[part.operator]
    if len(part.terms) != len(form.arguments):
        raise Malformed(f"operator {part.operator} has {len(part.terms)} arguments, not {len(form.arguments)}")
    for term, (least, most) in zip(part.terms, form.arguments, strict=True):
        if not least <= term.level <= most:
            raise Malformed(f"operator {term.operator} cannot stand in operator {part.operator}")
    texts = [f"({term.text})" if _needs_parentheses(form, term) else term.text for term in part.terms]
    return _Term(form.template.format(*texts), form.level, part.operator)


def _needs_parentheses(form: _Form, term: _Term) -> bool:
    """Tell whether a condition's argument must be held together; a chain of ANDs, or of ORs, means what it may."""
    if form.level == _NOT:
        return term.level < _FUNCTION
    return form.level == _AND and term.level < _AND


def _members(terms: Sequence[_Term]) -> _Term:
    if not terms or any(term.level != _OPERAND for term in terms):
        raise Malformed("the list of an IN holds something else than operands")
    return _Term(", ".join([term.text for term in terms]), _LIST, _IN)


def _actions(terms: Sequence[_Term]) -> _Term:
    sections: dict[int, list[str]] = {}
    for term in terms:
        if term.level != _ACTION:
            raise Malformed("an update holds something else than actions")
        sections.setdefault(term.operator, []).append(term.text)
    if not sections:
        raise Malformed("an update has no action")
    text = " ".join([f"{_SECTIONS[operator]} {', '.join(texts)}" for operator, texts in sections.items()])
    return _Term(text, _ACTION, _ACTIONS)
