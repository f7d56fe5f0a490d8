"""What a terminal may be given: a name or a message that somebody else chose may hold signs that command it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text on one line, with escapes for what is no printable sign."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
