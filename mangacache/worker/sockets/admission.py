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
        only_own: only a session that is this customer's, or has yet to begin; not one of which nobody said whose it is.
        until_s: until when: seconds since 1970.
        stands: tells whether the credential is still good besides: it may have been taken out, or revoked.
        check_append: raises where nothing may be appended.
    """

    customer_id: str | None
    check_append: Callable[[], None]
    only_own: bool = False
    until_s: float = inf
    stands: Callable[[], bool] = lambda: True

    def may_see(self, owner: str | None, *, begun: bool) -> bool:
        """Tell whether a session may be told of.

        Args:
            owner: whose it is, where that was said when it began.
            begun: whether there is such a session at all.
        """
        if self.customer_id is None or not begun or owner == self.customer_id:
            return True
        return owner is None and not self.only_own


class Admission(Protocol):
    """Decides about one request for a socket, by its headers and by what its first message brings.

    What makes one refuses a request that comes from a page of another site.
    """

    async def admitted(self, credential: str | None, customer_id: str | None) -> Admitted:
        """Return what may be opened.

        Raises:
            Unauthenticated: there is no credential, or it is not good.
            Forbidden: it is not good for this.
        """
