"""Tokens that are good no longer, though their time is not over: by their ids, or all of a customer's so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mangacache.errors import Invalid
from mangacache.worker.auth.apikeys import told

if TYPE_CHECKING:
    from mangacache.worker.auth.tokens import Claims


class Revocations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One list of them.

    Attributes:
        tokens: until when each token's id must stay in the list: seconds since 1970.
        customers: for each customer, up to when tokens were issued that are good no longer.
    """

    tokens: dict[str, float] = {}
    customers: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Revocations {len(self.tokens)} tokens, {len(self.customers)} customers>"

    @classmethod
    def parse(cls, text: bytes) -> Revocations:
        """Return the list that a text is.

        Raises:
            Invalid: it is none.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the list of revocations cannot be read: {told(error)}") from None

    def hold(self, claims: Claims) -> bool:
        """Tell whether a token is in the list."""
        since_s = self.customers.get(claims.customer_id)
        return claims.token_id in self.tokens or (since_s is not None and claims.issued_s <= since_s)

    def with_token(self, token_id: str, *, now_s: float, keep_s: float) -> Revocations:
        """Return a list with one more token, and without what has ended by itself.

        Args:
            token_id: its id, `jti`.
            now_s: now.
            keep_s: the longest that a token may be good for, and what clocks may differ by.
        """
        tokens = {known: until_s for known, until_s in self.tokens.items() if until_s > now_s}
        return Revocations(tokens | {token_id: now_s + keep_s}, self._kept(now_s, keep_s))

    def with_customer(self, customer_id: str, *, now_s: float, keep_s: float) -> Revocations:
        """Return a list with all tokens that a customer has been given so far; see `with_token`."""
        tokens = {known: until_s for known, until_s in self.tokens.items() if until_s > now_s}
        return Revocations(tokens, self._kept(now_s, keep_s) | {customer_id: now_s})

    def _kept(self, now_s: float, keep_s: float) -> dict[str, float]:
        return {customer: since_s for customer, since_s in self.customers.items() if since_s + keep_s > now_s}

    def text(self) -> bytes:
        """Return the list as `parse` takes it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
