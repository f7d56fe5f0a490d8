"""What DynamoDB says of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mangacache.diagnosis.facts import TableFacts, Unseen
from mangacache.diagnosis.reading import ReadingTransport
from mangacache.errors import Invalid, MangaCacheError, NotFound
from mangacache.store import open_transport
from mangacache.store.epochs import PARTITION
from mangacache.store.transport import Throttled, Unanswered

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.settings import Settings

_UNSUPPORTED = ("UnknownOperation", "not supported", "NotImplemented", "has not been implemented", "404")


async def look_at_table(settings: Settings, *, clock: Clock) -> TableFacts:
    """Return what is seen of the table; a refusal is a fact, too."""
    where = settings.dynamodb_endpoint or f"DynamoDB in {settings.region}"
    name = {"TableName": settings.table_name}
    try:
        async with open_transport(settings) as opened:
            transport = ReadingTransport(opened)
            try:
                table = (await transport.request("DescribeTable", name))["Table"]
            except NotFound:
                return TableFacts(where=where, description=None)
            return TableFacts(
                where=where,
                description=table,
                ttl=await _ttl(transport, name),
                recovery=await _recovery(transport, name),
                reads=await _one_read(transport, settings, clock),
            )
    except (MangaCacheError, Unanswered, Throttled) as error:
        return TableFacts(where=where, description=unseen(error))


def unseen(error: BaseException) -> Unseen:
    """Return what an error says about why something could not be seen."""
    why = str(error) or type(error).__name__
    if isinstance(error, Unanswered | Throttled):
        kind = "unsupported" if any(word in why for word in _UNSUPPORTED) else "unreachable"
        return Unseen(why, kind)
    if any(word in why for word in _UNSUPPORTED):
        return Unseen(why, "unsupported")
    return Unseen(why, "refused" if isinstance(error, Invalid) else "unreachable")


async def _ttl(transport: ReadingTransport, name: dict[str, str]) -> dict[str, Any] | Unseen:
    try:
        answer = await transport.request("DescribeTimeToLive", name)
    except (MangaCacheError, Unanswered, Throttled) as error:
        return unseen(error)
    found: dict[str, Any] = answer.get("TimeToLiveDescription", {})
    return found


async def _recovery(transport: ReadingTransport, name: dict[str, str]) -> str | Unseen:
    try:
        answer = await transport.request("DescribeContinuousBackups", name)
    except (MangaCacheError, Unanswered, Throttled) as error:
        return unseen(error)
    described = answer.get("ContinuousBackupsDescription", {}).get("PointInTimeRecoveryDescription", {})
    return str(described.get("PointInTimeRecoveryStatus", "DISABLED"))


async def _one_read(transport: ReadingTransport, settings: Settings, clock: Clock) -> float | Unseen:
    """Read the epoch item strongly, twice: the first pays for the connection."""
    where = {"PK": {"S": PARTITION + settings.key_prefix}, "SK": {"S": "EPOCH"}}
    taken_ms = 0.0
    try:
        for _ in range(2):
            began_s = clock.monotonic_s()
            await transport.request("GetItem", {"TableName": settings.table_name, "Key": where, "ConsistentRead": True})
            taken_ms = (clock.monotonic_s() - began_s) * 1000
    except (MangaCacheError, Unanswered, Throttled) as error:
        return unseen(error)
    return taken_ms
