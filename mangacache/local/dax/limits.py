"""What a peer may send: the limits, and the one error of bytes that are not the protocol's."""

from __future__ import annotations

import msgspec

from mangacache.errors import Invalid


class Malformed(Invalid):
    """Bytes are not what DAX's protocol has at this place, or pass a limit; the message says which.

    Nothing after them can be told apart, as no length stands before an item: the connection is of no more use.
    """


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of anything one request may hold.

    They are wider than DynamoDB's own, which is to refuse what passes those, in its own words.

    Attributes:
        request_bytes: of a request as it comes, arguments and all; also how much of one is held before it is whole.
        string_bytes: of one text or byte string.
        elements: of all lists, maps and sets of one request together.
        depth: how deep lists, maps and sets stand in each other.
        tree_depth: how deep the operators of an expression do.
        number_bytes: of the magnitude of one number.
    """

    request_bytes: int = 32 * 1_048_576
    string_bytes: int = 8 * 1_048_576
    elements: int = 500_000
    depth: int = 64
    tree_depth: int = 320
    number_bytes: int = 128


DEFAULT_LIMITS = Limits()
