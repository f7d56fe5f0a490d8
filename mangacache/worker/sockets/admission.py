"""Who may open which session by a socket, and until when."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

import msgspec


class Admitted(msgspec.Struct, frozen=True):
    """What a credential is good for.

    Attributes:
        customer_id: whose session it is, where that is known.
        until_s: until when: seconds since 1970.
        check_append: raises where nothing may be appended.
    """

    customer_id: str | None
    check_append: Callable[[], None]
    until_s: float = inf


class Admission(Protocol):
    """Decides about one request for a socket, by its headers and by what its first message brings."""

    async def admitted(self, credential: str | None, customer_id: str | None) -> Admitted:
        """Return what may be opened.

        Raises:
            Unauthenticated: there is no credential, or it is not good.
            Forbidden: it is not good for this.
        """
