"""The real DAX client on the wire under test, in one thread and without sockets: what it sends is fed in pieces."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from amazondax.DaxClient import DaxClient
from amazondax.Tube import Tube, _SessionVersion

from mangacache.local.dax import requests
from mangacache.local.dax.calls import Call, call_of
from mangacache.local.dax.failures import Failure, reply_failure
from mangacache.local.dax.keys import KeyAttribute, KeySchema
from mangacache.local.dax.reader import Prelude, Reader
from mangacache.local.dax.replies import Endpoint, reply_endpoints, reply_key_schema, reply_list, reply_list_id
from mangacache.local.dax.replies import reply_to_call as _reply_to_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ENDPOINT = Endpoint(node=7, hostname="here", address=b"\x7f\x00\x00\x01", port=8111, leader=True)


def schema(**types: str) -> KeySchema:
    return KeySchema(tuple(KeyAttribute(name, kind) for name, kind in types.items()))


class Lists:
    """The ids of attribute lists."""

    def __init__(self) -> None:
        self.names: dict[int, tuple[str, ...]] = {}
        self.ids: dict[tuple[str, ...], int] = {}

    def id_of(self, names: tuple[str, ...]) -> int:
        if names not in self.ids:
            self.ids[names] = 1000 + len(self.ids)
            self.names[self.ids[names]] = names
        return self.ids[names]


class Wire:
    """A server of canned answers, of which the wire is the one under test.

    Args:
        schemas: key schemas by table.
        cut: gives the sizes of the pieces in which bytes arrive.

    Attributes:
        answer: makes the answer to a call, or the refusal.
        calls: what was asked for.
        taken: all requests, the prelude too.
        sent: all bytes that the client sent.
    """

    def __init__(self, schemas: dict[str, KeySchema], cut: Callable[[int], Iterable[int]] | None = None) -> None:
        self.schemas = schemas
        self.lists = Lists()
        self.answer: Callable[[Call], Any] = lambda _: {}
        self.calls: list[Call] = []
        self.taken: list[Any] = []
        self.sent = bytearray()
        self.reader = Reader()
        self._cut = cut
        self._replies = bytearray()
        self.family = socket.AF_INET

    def client(self) -> DaxClient:
        """Return the real client's part that talks to one node, on a connection of its own."""
        self.reader = Reader()
        credentials = SimpleNamespace(access_key="AKID", secret_key="x", token=None)  # noqa: S106 - nobody checks it
        tube = Tube(self, _SessionVersion(), lambda: credentials, "eu-west-1")
        return DaxClient(_Pool(tube))

    # What the client takes for a socket.

    def send(self, data: bytes) -> int:
        self.sent += data
        for piece in self._pieces(bytes(data)):
            self.reader.feed(piece)
            while (taken := self.reader.next()) is not None:
                self.taken.append(taken)
                self._replies += self._reply(taken)
        return len(data)

    sendall = send

    def recv(self, size: int) -> bytes:
        data = bytes(self._replies[:size])
        del self._replies[:size]
        return data

    def close(self) -> None:
        pass

    # The server.

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        start = 0
        for size in self._cut(len(data)) if self._cut is not None else ():
            yield data[start : start + size]
            start += size
        if start < len(data):
            yield data[start:]

    def _reply(self, taken: Any) -> bytes:  # noqa: PLR0911 - a case a request
        match taken:
            case Prelude() | requests.AuthorizeConnection():
                return b""
            case requests.Endpoints():
                return reply_endpoints([ENDPOINT])
            case requests.DefineKeySchema():
                return reply_key_schema(self.schemas[taken.table])
            case requests.DefineAttributeListId():
                return reply_list_id(self.lists.id_of(taken.names))
            case requests.DefineAttributeList():
                return reply_list(self.lists.names[taken.id])
        call = call_of(taken, self.schemas.__getitem__, self.lists.names.__getitem__)
        self.calls.append(call)
        answer = self.answer(call)
        if isinstance(answer, Failure):
            return reply_failure(answer)
        return _reply_to_call(call, answer, self.schemas.__getitem__, self.lists.id_of)


class _Pool:
    """The real client's pool of connections, of one."""

    def __init__(self, tube: Tube) -> None:
        self._tube = tube

    def get(self) -> _Pool:
        return self

    def __enter__(self) -> Tube:
        return self._tube

    def __exit__(self, *_: object) -> None:
        self._tube.clear()

    def close(self) -> None:
        self._tube.close()
