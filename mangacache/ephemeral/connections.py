"""Which connections a session has, and whose a connection is: for whoever must reach a customer's open browsers.

What a connection says of itself (`conn:`) is the truth. The lists of a session's and a customer's connections are where
to look for them: each entry is checked against the connection, so a list that is behind names nobody wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.clock import random_id
from mangacache.ephemeral import scripts
from mangacache.errors import Closed, Invalid, MangaCacheError
from mangacache.model import checked_id
from mangacache.tasks import TaskOwner, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Random
    from mangacache.ephemeral.asking import Asker
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

MAX_ENDPOINT_BYTES: Final = 512
MOST_OF_A_SESSION: Final = 256
MOST_OF_A_CUSTOMER: Final = 1024
_LISTINGS: Final = 8
"""How often in its life a connection's entries are refreshed: a lost list is whole again after an eighth of that."""
_ON_ITS_WAY_MS: Final = 60_000
"""For so long an entry stays that has nothing behind it: its mapping is made at the same time, by another node."""
_SERVICE: Final = "connections"
_TOKEN_DIGITS: Final = 16


class Connection(msgspec.Struct, frozen=True):
    """A connection and what it is mapped to.

    Attributes:
        id: the connection's id.
        session_id: the session it serves.
        customer_id: whose session that is, where it was said.
        endpoint: how it is reached, as `connect` was told; None where it was not.
        since_s: when it was mapped, by Redis's clock: seconds since 1970.
    """

    id: str
    session_id: str
    customer_id: str | None
    endpoint: str | None
    since_s: float


class Connections:
    """The connections of all workers' sessions."""

    def __init__(self, asker: Asker, *, settings: Settings, random: Random, telemetry: Telemetry) -> None:
        self._asker = asker
        self._random = random
        self._telemetry = telemetry
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._closed = False
        self._ttl_ms = settings.connection_ttl_s * 1000
        self._listed_ms = self._ttl_ms // _LISTINGS
        self._list_ms = self._ttl_ms + 2 * self._listed_ms

    async def connect(
        self, connection_id: str, session_id: str, *, customer_id: str | None = None, endpoint: str | None = None
    ) -> None:
        """Map a connection to a session, whatever it was mapped to before; it may be repeated.

        Args:
            connection_id: unique among the connections that are open.
            session_id: a session may have several connections.
            customer_id: whose it is, so that it can be found by customer.
            endpoint: how it is reached: the worker that holds it, a callback address; at most 512 bytes.

        Raises:
            Invalid: an id that is none, or no Redis is configured.
            Transient: Redis cannot be asked: repeat it.
        """
        checked_id(connection_id, what="connection id")
        checked_id(session_id, what="session id")
        if customer_id is not None:
            checked_id(customer_id, what="customer id")
        if endpoint is not None:
            _check_endpoint(endpoint)
        token = random_id(self._random)[:_TOKEN_DIGITS]
        entry = _entry(token, connection_id)
        arguments = [token, session_id, customer_id or "", endpoint or "", self._ttl_ms]
        put = self._run(scripts.CONNECTION_PUT, self._key(connection_id), arguments)
        before, *_ = await together(put, *self._enter(entry, session_id, customer_id))
        if before is not None and before[0].decode() != token:  # else it was put twice, since the reply was lost
            await self._forget(connection_id, before)

    async def get(self, connection_id: str) -> Connection | None:
        """Return what a connection is mapped to; None where it is not, any more."""
        checked_id(connection_id, what="connection id")
        found = await self._get(connection_id, ttl_ms=0)
        return found[0] if found is not None else None

    async def refresh(self, connection_id: str) -> Connection | None:
        """Have a connection live on, since there was traffic on it; return what it is mapped to, or None.

        One round trip, which can leave with the message's own; a second one eight times in a connection's life, for the
        lists.
        """
        checked_id(connection_id, what="connection id")
        found = await self._get(connection_id, ttl_ms=self._ttl_ms)
        if found is None:
            return None
        connection, token, due = found
        if due:
            entry = _entry(token, connection_id)
            await together(*self._enter(entry, connection.session_id, connection.customer_id))
        return connection

    def traffic(self, connection_id: str) -> None:
        """Begin to refresh a connection, with what else this turn of the event loop asks; nobody waits for it.

        A failure is counted: the next message tries again, long before the connection's time is over.
        """
        checked_id(connection_id, what="connection id")
        self._asker.required(_SERVICE)
        if self._closed:
            raise Closed("this MangaCache is closed")
        self._tasks.start(self._refreshed(connection_id), name="refresh a connection")

    async def _refreshed(self, connection_id: str) -> None:
        try:
            await self.refresh(connection_id)
        except MangaCacheError as error:
            self._telemetry.count_survived("connection_unrefreshed", error)

    async def close(self) -> None:
        """End what nobody waits for; before the link is closed."""
        self._closed = True
        await self._tasks.cancel()

    async def disconnect(self, connection_id: str, *, session_id: str | None = None) -> bool:
        """Remove a connection, and nothing else: other connections of its session stay.

        Args:
            connection_id: which one.
            session_id: remove it only while it is mapped to this session: for an end that may be told late, after the
                connection's id was used again.

        Returns:
            Whether it was there.
        """
        checked_id(connection_id, what="connection id")
        if session_id is not None:
            checked_id(session_id, what="session id")
        removed = await self._run(scripts.CONNECTION_DROP, self._key(connection_id), [session_id or ""])
        if removed is None:
            return False
        await self._forget(connection_id, removed)
        return True

    async def of_session(self, session_id: str) -> tuple[Connection, ...]:
        """Return a session's connections, those first that were refreshed longest ago: two round trips."""
        checked_id(session_id, what="session id")
        found = await self._listed(self._session_key(session_id))
        return tuple(connection for connection in found if connection.session_id == session_id)

    async def of_customer(self, customer_id: str) -> tuple[Connection, ...]:
        """Return the connections of all of a customer's sessions: two round trips."""
        checked_id(customer_id, what="customer id")
        found = await self._listed(self._customer_key(customer_id))
        return tuple(connection for connection in found if connection.customer_id == customer_id)

    # The lists

    async def _listed(self, key: str) -> list[Connection]:
        """Return what the entries of a list stand for, and take those out that have stood for nothing for a while."""
        entries: list[bytes] = await self._run(scripts.CONNECTIONS_LIST, key, ["read", self._list_ms, 0])
        parts = [entry.decode().split(" ", 1) for entry in entries]
        found = await together(*(self._get(connection_id, ttl_ms=0) for _, connection_id in parts))
        there = [each is not None and each[1] == token for each, (token, _) in zip(found, parts, strict=True)]
        gone = [entry for entry, is_there in zip(entries, there, strict=True) if not is_there]
        if gone:
            await self._run(scripts.CONNECTIONS_LIST, key, ["prune", self._list_ms, _ON_ITS_WAY_MS, *gone])
        return [each[0] for each, is_there in zip(found, there, strict=True) if each is not None and is_there]

    def _enter(self, entry: str, session_id: str, customer_id: str | None) -> list[Any]:
        enter: list[Any] = [
            self._run(
                scripts.CONNECTIONS_LIST,
                self._session_key(session_id),
                ["enter", self._list_ms, MOST_OF_A_SESSION, entry],
            )
        ]
        if customer_id:
            key = self._customer_key(customer_id)
            enter.append(self._run(scripts.CONNECTIONS_LIST, key, ["enter", self._list_ms, MOST_OF_A_CUSTOMER, entry]))
        return enter

    async def _forget(self, connection_id: str, mapping: Sequence[bytes]) -> None:
        """Take a mapping that is over out of the lists it was entered into."""
        token, session_id, customer_id = (part.decode() for part in mapping)
        remove = ["remove", self._list_ms, 0, _entry(token, connection_id)]
        keys = [self._session_key(session_id)]
        if customer_id:
            keys.append(self._customer_key(customer_id))
        await together(*(self._run(scripts.CONNECTIONS_LIST, key, remove) for key in keys))

    # Redis

    async def _get(self, connection_id: str, *, ttl_ms: int) -> tuple[Connection, str, bool] | None:
        reply = await self._run(scripts.CONNECTION_GET, self._key(connection_id), [ttl_ms, self._listed_ms])
        if reply is None:
            return None
        *texts, since_ms, due = reply
        token, session_id, customer_id, endpoint = (text.decode() for text in texts)
        connection = Connection(connection_id, session_id, customer_id or None, endpoint or None, since_ms / 1000)
        return connection, token, bool(due)

    async def _run(self, script: Any, key: str, arguments: Sequence[Any]) -> Any:
        return await self._asker.run(_SERVICE, script, key, arguments, repeatable=True)

    def _key(self, connection_id: str) -> str:
        return self._asker.key("conn", connection_id)

    def _session_key(self, session_id: str) -> str:
        return self._asker.key("session_conn", session_id)

    def _customer_key(self, customer_id: str) -> str:
        return self._asker.key("customer_conn", customer_id)


def _entry(token: str, connection_id: str) -> str:
    return f"{token} {connection_id}"


def _check_endpoint(endpoint: str) -> None:
    if type(endpoint) is not str or not 1 <= len(endpoint.encode(errors="replace")) <= MAX_ENDPOINT_BYTES:
        raise Invalid(f"an endpoint is text of 1 to {MAX_ENDPOINT_BYTES} bytes")
