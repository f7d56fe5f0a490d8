"""The words of DynamoDB's expression language."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mangacache.testing.dynamodb.errors import invalid

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<name>\#[A-Za-z0-9_]+)
    | (?P<value>:[A-Za-z0-9_]+)
    | (?P<word>[A-Za-z][A-Za-z0-9_]*)
    | (?P<number>[0-9]+)
    | (?P<symbol><>|<=|>=|[=<>(),.\[\]+-])
    | (?P<end>$)
    )""",
    re.VERBOSE,
)
_MAX_BYTES: Final = 4096
_MIN_NEAR: Final = 3


class Token(NamedTuple):
    """One word of an expression: its kind (a group of the pattern above), text and place."""

    kind: str
    text: str
    start: int


def tokenize(text: str, expression: str) -> list[Token]:
    """Return the words of `text` and a last one of kind `end`.

    Raises:
        Refusal: the expression is empty, too long, or has a character that belongs to no word.
    """
    if not text.strip():
        raise invalid(f"Invalid {expression}: The expression can not be empty;")
    if len(text.encode()) > _MAX_BYTES:
        raise invalid(
            f"Invalid {expression}: Expression size has exceeded the maximum allowed size; "
            f"expression size: {len(text.encode())}"
        )
    tokens: list[Token] = []
    position = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            start = len(text) - len(text[position:].lstrip())
            raise syntax_error(expression, text, Token("bad", text[start], start))
        kind = match.lastgroup or "end"
        tokens.append(Token(kind, match[kind], match.start(kind)))
        position = match.end()
    return tokens


def syntax_error(expression: str, text: str, token: Token) -> Exception:
    """Return the refusal of `token`, quoting what stands around it as the service does."""
    if token.kind == "end":
        return invalid(f"Invalid {expression}: Syntax error; token: <EOF>, near: {text[-_MIN_NEAR:]!r}")
    near = text[max(0, token.start - _MIN_NEAR) : token.start + len(token.text) + _MIN_NEAR].strip()
    return invalid(f'Invalid {expression}: Syntax error; token: "{token.text}", near: "{near}"')
