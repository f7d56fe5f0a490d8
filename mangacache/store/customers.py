"""A customer's sessions, by the index: eventually consistent, as every such index of DynamoDB is."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.errors import Invalid
from mangacache.model import SessionInfo, SessionPage
from mangacache.store import keys
from mangacache.store.items import is_live, read_meta

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.store.requests import Requests
    from mangacache.store.values import Typed

MAX_PAGE = 1000


class Customers:
    """Reads the index `by_customer`."""

    def __init__(self, requests: Requests, *, table_name: str, index_name: str) -> None:
        self._requests = requests
        self._table_name = table_name
        self._index_name = index_name

    async def page(self, customer_id: str, *, limit: int, cursor: str | None, now_s: float) -> SessionPage:
        """Return live sessions, the most recently active first."""
        if not 1 <= limit <= MAX_PAGE:
            raise Invalid(f"a page holds 1 to {MAX_PAGE} sessions, not {limit}")
        start = _decoded(cursor, customer_id) if cursor is not None else None
        found: list[SessionInfo] = []
        last: Typed = {}
        async for item in self._items(customer_id, start=start, limit=limit + 1):
            meta = read_meta(item)
            if not is_live(meta.expires_at, now_s):
                continue
            if len(found) == limit:
                return SessionPage(tuple(found), _encoded(last))
            found.append(SessionInfo(_session_id(item), meta.status, meta.last_active_at))
            last = item
        return SessionPage(tuple(found), None)

    async def all_ids(self, customer_id: str) -> list[str]:
        """Return the ids of every session that the index holds, expired ones included."""
        return [_session_id(item) async for item in self._items(customer_id, start=None, limit=None)]

    async def _items(self, customer_id: str, *, start: Typed | None, limit: int | None) -> AsyncIterator[Typed]:
        parameters: dict[str, Any] = {
            "TableName": self._table_name,
            "IndexName": self._index_name,
            "KeyConditionExpression": "customer_id = :customer",
            "ExpressionAttributeValues": {":customer": {"S": customer_id}},
            "ScanIndexForward": False,
        }
        if limit is not None:
            parameters["Limit"] = limit
        while True:
            page = {**parameters, "ExclusiveStartKey": start} if start else parameters
            answer = (await self._requests.send("Query", page)).body
            for item in answer["Items"]:
                if item["PK"]["S"].startswith(keys.SESSION):
                    yield item
            start = answer.get("LastEvaluatedKey")
            if not start:
                return


def _session_id(item: Typed) -> str:
    return keys.decoded_id(item["PK"]["S"].removeprefix(keys.SESSION))


def _encoded(item: Typed) -> str:
    parts = [item[name]["S"] for name in ("PK", "SK", "last_active_at")]
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).decode()


def _decoded(cursor: str, customer_id: str) -> Typed:
    try:
        parts = msgspec.msgpack.decode(base64.urlsafe_b64decode(cursor), type=tuple[str, str, str])
    except (binascii.Error, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise Invalid(f"{cursor!r:.60} is no cursor: pass `cursor` of the page before unchanged") from error
    return {
        "PK": {"S": parts[0]},
        "SK": {"S": parts[1]},
        "last_active_at": {"S": parts[2]},
        "customer_id": {"S": customer_id},
    }
