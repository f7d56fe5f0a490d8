"""What all expressions share: the stream of words, names, paths, and the projection expression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from mangacache.testing.dynamodb.errors import invalid
from mangacache.testing.dynamodb.paths import Path, PathTree, check_distinct, tree_of
from mangacache.testing.dynamodb.reserved import RESERVED_WORDS
from mangacache.testing.dynamodb.tokens import Token, syntax_error, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable

Names: TypeAlias = tuple[tuple[str, str], ...]
"""ExpressionAttributeNames as a hashable value, so that parsed expressions can be cached."""

CACHE_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Uses:
    """Which placeholders an expression mentions: every one that is given must be used."""

    names: frozenset[str]
    values: frozenset[str]


class ExpressionParser:
    """A recursive-descent parser over the words of one expression.

    Args:
        text: the expression.
        names: ExpressionAttributeNames.
        expression: the parameter's name, for messages.

    Attributes:
        position: how many words have been read.
    """

    def __init__(self, text: str, names: Names, expression: str) -> None:
        self.expression = expression
        self._text = text
        self._names = dict(names)
        self._tokens = tokenize(text, expression)
        self.position = 0
        self._used_names: set[str] = set()
        self._used_values: set[str] = set()

    @property
    def token(self) -> Token:
        """The word to be read next."""
        return self._tokens[self.position]

    def following(self) -> Token:
        """Return the word after the next."""
        return self._tokens[min(self.position + 1, len(self._tokens) - 1)]

    def next(self) -> Token:
        """Read a word."""
        token = self._tokens[self.position]
        if token.kind != "end":
            self.position += 1
        return token

    def accept(self, symbol: str) -> bool:
        """Read `symbol` if it is next."""
        if self.token.kind == "symbol" and self.token.text == symbol:
            self.position += 1
            return True
        return False

    def expect(self, symbol: str) -> None:
        """Read `symbol`, or refuse the expression."""
        if not self.accept(symbol):
            raise self.unexpected()

    def accept_keyword(self, keyword: str) -> bool:
        """Read `keyword`, in either case, if it is next."""
        if self.token.kind == "word" and self.token.text.upper() == keyword:
            self.position += 1
            return True
        return False

    def unexpected(self) -> Exception:
        """Return the refusal of the next word."""
        return syntax_error(self.expression, self._text, self.token)

    def error(self, message: str) -> Exception:
        """Return a refusal of this expression."""
        return invalid(f"Invalid {self.expression}: {message}")

    def finish(self) -> Uses:
        """Check that nothing is left, and tell which placeholders were used."""
        if self.token.kind != "end":
            raise self.unexpected()
        return Uses(frozenset(self._used_names), frozenset(self._used_values))

    def value_name(self) -> str:
        """Read a `:value`."""
        if self.token.kind != "value":
            raise self.unexpected()
        name = self.next().text
        self._used_values.add(name)
        return name

    def path(self) -> Path:
        """Read a document path."""
        steps: list[str | int] = [self._name()]
        while True:
            if self.accept("."):
                steps.append(self._name())
            elif self.accept("["):
                if self.token.kind != "number":
                    raise self.unexpected()
                steps.append(int(self.next().text))
                self.expect("]")
            else:
                return tuple(steps)

    def _name(self) -> str:
        if self.token.kind == "name":
            placeholder = self.next().text
            if placeholder not in self._names:
                raise self.error(
                    "An expression attribute name used in the document path is not defined; "
                    f"attribute name: {placeholder}"
                )
            self._used_names.add(placeholder)
            return self._names[placeholder]
        if self.token.kind != "word":
            raise self.unexpected()
        if self.token.text.upper() in RESERVED_WORDS:
            raise self.error(f"Attribute name is a reserved keyword; reserved keyword: {self.token.text}")
        return self.next().text

    def function_arguments(self, name: str, arity: int, argument: Callable[[], object]) -> list[object]:
        """Read the arguments in parentheses of the function `name`, which takes `arity` of them."""
        self.expect("(")
        arguments = [argument()]
        while self.accept(","):
            arguments.append(argument())
        self.expect(")")
        if len(arguments) != arity:
            raise self.error(
                "Incorrect number of operands for operator or function; "
                f"operator or function: {name}, number of operands: {len(arguments)}"
            )
        return arguments


@dataclass(frozen=True, slots=True)
class Projection:
    """A parsed projection expression."""

    paths: tuple[Path, ...]
    tree: PathTree
    uses: Uses


@lru_cache(CACHE_SIZE)
def parse_projection(text: str, names: Names) -> Projection:
    """Return the parsed projection `text`; parsed once for each text and names."""
    parser = ExpressionParser(text, names, "ProjectionExpression")
    paths = [parser.path()]
    while parser.accept(","):
        paths.append(parser.path())
    uses = parser.finish()
    check_distinct(paths, parser.expression)
    return Projection(tuple(paths), tree_of(paths), uses)
