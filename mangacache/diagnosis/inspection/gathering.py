"""Looks into each tier for one session; nothing is filled, taken or changed by it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from mangacache.clock import system_random
from mangacache.context.calls import Calls
from mangacache.diagnosis.inspection.hashes import context_of, lock_of, with_life
from mangacache.diagnosis.inspection.tiers import (
    Failed,
    InDax,
    InDynamoDB,
    InMemory,
    InRedis,
    Lock,
    Socket,
    Tiers,
)
from mangacache.diagnosis.patience import patient
from mangacache.diagnosis.reading import LinkLost, ReadingRedis, ReadingTransport, ScriptFailed
from mangacache.ephemeral.asking import Asker
from mangacache.errors import MangaCacheError
from mangacache.sessions.copies import Copy, Remembered, copy_of, meta_copy, turn_copy
from mangacache.store import Store, keys, open_transport
from mangacache.store.dax.client import check_installed, connect
from mangacache.store.dax.opening import dax_transport
from mangacache.store.epochs import PARTITION
from mangacache.store.items import key as item_key
from mangacache.store.items import read_meta, read_turn
from mangacache.store.transport import Throttled, Unanswered
from mangacache.tasks import together
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Clock
    from mangacache.settings import DaxAddress, Settings

_REDIS_ERRORS: Final = (LinkLost, ScriptFailed, MangaCacheError)
KEY_VARIABLE: Final = "OPERATOR_KEY"
_NOT_LET_IN: Final = frozenset({401, 403})
_WORKER_WITHIN_S: Final = 5.0
_MOST_CONNECTIONS: Final = 256


class Inspector:
    """Looks for one session.

    Args:
        settings: which installation.
        clock: for deadlines and ages.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = patient(settings)
        self._clock = clock

    async def look(
        self, session_id: str, *, dax: bool, workers: Sequence[str], key: str | None = None
    ) -> tuple[Tiers, Copy]:
        """Return what each tier holds, words included, and the table as it was before the others were looked at.

        Args:
            session_id: whose tiers.
            dax: whether to ask DAX, which keeps what it has to fetch.
            workers: operator addresses of workers whose memory is looked at.
            key: an operator's API key, for workers that ask for one.

        Raises:
            MangaCacheError: the table cannot be read.
        """
        async with open_transport(self._settings) as opened:
            transport = ReadingTransport(opened)
            store = Store(
                transport,
                settings=self._settings,
                clock=self._clock,
                random=system_random(),
                telemetry=Telemetry(),
            )
            before = await self._dynamodb(transport, store, session_id)
            redis, lock, connections = await self._redis(session_id, before.epoch)
            memory = await together(*(self._memory(worker, session_id, key) for worker in workers))
            in_dax = await self._dax(session_id, before.copy) if dax else None
            after = await self._dynamodb(transport, store, session_id)
        after = msgspec.structs.replace(after, moved=after.copy.version != before.copy.version)
        tiers = Tiers(
            session_id=session_id,
            dynamodb=after,
            redis=redis,
            dax=in_dax,
            memory=tuple(memory),
            lock=lock,
            connections=connections,
        )
        return tiers, before.copy

    async def _dynamodb(self, transport: ReadingTransport, store: Store, session_id: str) -> InDynamoDB:
        known = await store.loader.load(session_id)
        meta = known.meta
        items = await store.loader.newest(session_id)
        where = {"PK": {"S": PARTITION + self._settings.key_prefix}, "SK": {"S": "EPOCH"}}
        request = {"TableName": self._settings.table_name, "Key": where, "ConsistentRead": True}
        try:
            epoch = (await transport.request("GetItem", request)).get("Item")
        except (Unanswered, Throttled):
            epoch = None
        expires_at = meta.expires_at if meta is not None else 0
        return InDynamoDB(
            copy=copy_of(known, words=True),
            fence=meta.fence if meta is not None else 0,
            last_number=meta.last_number if meta is not None else 0,
            last_active_at=meta.last_active_at if meta is not None else "",
            unswept=meta is not None and meta.unswept,
            adopting=meta.adopting if meta is not None else "",
            item_bytes=sum(map(_size, items)),
            expires_in_s=round(expires_at - self._clock.time_s()) if expires_at else None,
            epoch=int(epoch["epoch"]["N"]) if epoch else None,
        )

    async def _redis(
        self, session_id: str, epoch: int | None
    ) -> tuple[InRedis | Failed | None, Lock | None, tuple[Socket, ...]]:
        if self._settings.redis is None:
            return None, None, ()
        try:
            async with ReadingRedis.open(self._settings, clock=self._clock) as redis:
                context = await self._context(redis, session_id, epoch)
                lock_key = Asker(None, settings=self._settings).key("lock:session", session_id)
                fields = _pairs(await redis.ask(lock_key, "HGETALL", lock_key))
                lock = lock_of(
                    fields, now_ms=await _now_ms(redis, lock_key), ttl_ms=await redis.ask(lock_key, "PTTL", lock_key)
                )
                return context, lock, await self._connections(redis, session_id)
        except _REDIS_ERRORS as error:
            return Failed(str(error) or type(error).__name__), None, ()

    async def _context(self, redis: ReadingRedis, session_id: str, epoch: int | None) -> InRedis:
        calls = Calls(self._settings)
        key = calls.key(session_id, epoch or 0)
        if epoch is None:
            return InRedis(key=key, state="absent", damage="no worker has used the cache yet")
        fields = _pairs(await redis.ask(key, "HGETALL", key))
        found = context_of(key, fields, now_ms=await _now_ms(redis, key))
        earlier = calls.key(session_id, epoch - 1)
        return with_life(
            found,
            ttl_ms=await redis.ask(key, "PTTL", key),
            memory_bytes=await _memory_usage(redis, key),
            earlier=epoch > 1 and await redis.ask(earlier, "TYPE", earlier) != b"none",
        )

    async def _connections(self, redis: ReadingRedis, session_id: str) -> tuple[Socket, ...]:
        asker = Asker(None, settings=self._settings)
        key = asker.key("session_conn", session_id)
        entries = await redis.ask(key, "ZRANGE", key, 0, _MOST_CONNECTIONS - 1)
        found = []
        for connection_id in dict.fromkeys(entry.decode().partition(" ")[2] for entry in entries):
            own = asker.key("conn", connection_id)
            serves, customer, endpoint = await redis.ask(own, "HMGET", own, "s", "c", "e")
            found.append(
                Socket(
                    id=connection_id,
                    customer_id=(customer or b"").decode() or None,
                    endpoint=(endpoint or b"").decode() or None,
                    mapped=serves is not None and serves.decode() == session_id,
                    ttl_ms=await redis.ask(own, "PTTL", own),
                )
            )
        return tuple(found)

    async def _memory(self, worker: str, session_id: str, key: str | None) -> InMemory | Failed:
        url = f"{worker.rstrip('/')}/sessions/{quote(session_id, safe='')}"
        try:
            timeout = aiohttp.ClientTimeout(total=_WORKER_WITHIN_S)
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(URL(url, encoded=True), allow_redirects=False) as answer,
            ):
                body = await answer.read()
                if answer.status == 404:  # noqa: PLR2004 - nothing of it in memory
                    return InMemory(worker=worker, remembered=None)
                if answer.status in _NOT_LET_IN:
                    return Failed(f"{worker} answered {answer.status}: set {KEY_VARIABLE} to an operator's API key")
                if answer.status != 200:  # noqa: PLR2004
                    return Failed(f"{worker} answered {answer.status}: is it the operator's port?")
                return InMemory(worker=worker, remembered=msgspec.json.decode(body, type=Remembered))
        except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
            return Failed(f"{worker}: {str(error) or type(error).__name__}")

    async def _dax(self, session_id: str, truth: Copy) -> InDax | Failed | None:
        """Get from DAX what DynamoDB has: what is not there is not asked for, since DAX would keep that it is not."""
        address = self._settings.dax
        if address is None:
            return None
        try:
            check_installed()
            return await self._asked_dax(address, session_id, truth)
        except (MangaCacheError, Unanswered, Throttled) as error:
            return Failed(str(error))

    async def _asked_dax(self, address: DaxAddress, session_id: str, truth: Copy) -> InDax:
        connecting = partial(connect, address, self._settings)
        transport = dax_transport(connecting, self._settings, clock=self._clock, telemetry=Telemetry())

        async def get(sort_key: str) -> Any:
            request = {"TableName": self._settings.table_name, "Key": item_key(session_id, sort_key)}
            return (await transport.request("GetItem", request)).get("Item")

        try:
            await transport.connected()
            meta = await get(keys.META) if truth.meta is not None else None
            newest = None
            if truth.turns and not truth.foreign:
                newest = await get(keys.turn_key(truth.version[0], truth.turns[-1].number))
            return InDax(
                meta=meta_copy(read_meta(meta), words=True) if meta else None,
                newest=turn_copy(read_turn(newest), words=True) if newest else None,
            )
        finally:
            await transport.close()


def _pairs(reply: Any) -> dict[bytes, bytes]:
    return dict(reply) if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


async def _now_ms(redis: ReadingRedis, key: str) -> float:
    seconds, micros = await redis.ask(key, "TIME")
    return int(seconds) * 1000 + int(micros) / 1000


async def _memory_usage(redis: ReadingRedis, key: str) -> Any:
    try:
        return await redis.ask(key, "MEMORY", "USAGE", key)
    except ScriptFailed:  # not everybody may ask that
        return None


def _size(item: Any) -> int:
    if isinstance(item, dict):
        return sum(len(name) + _size(value) for name, value in item.items())
    if isinstance(item, list | set | tuple):
        return sum(map(_size, item))
    return len(item.encode()) if isinstance(item, str) else len(item) if isinstance(item, bytes) else 1
