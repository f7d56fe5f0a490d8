"""What Redis says of itself, and of some of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.diagnosis.facts import KINDS, NodeFacts, RedisFacts, Sample, Unseen
from mangacache.diagnosis.reading import LinkLost, ReadingNode, ReadingRedis, ScriptFailed
from mangacache.errors import Invalid, MangaCacheError
from mangacache.redis.pipeline import parsed_info
from mangacache.settings import is_loopback
from mangacache.tasks import together

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.settings import Settings

MOST_KEYS: Final = 5_000
"""That are looked at on one server: enough that a kind of key without a TTL is met, few enough that nobody waits."""
_A_SCAN: Final = 500
_MOST_SCANS: Final = 50
_MOST_NAMED: Final = 10
_MOST_NODES: Final = 64
_CONFIG: Final = (
    "maxmemory-policy",
    "client-output-buffer-limit",
    "appendfsync",
    "save",
    "stop-writes-on-bgsave-error",
    "tracking-table-max-keys",
    "maxclients",
    "timeout",
    "notify-keyspace-events",
)
_LOGIN: Final = ("WRONGPASS", "NOAUTH", "NOPERM", "AUTH", "invalid username-password", "invalid password")


async def look_at_redis(settings: Settings, *, clock: Clock) -> RedisFacts:
    """Return what is seen of Redis; that it is away is a fact, too."""
    address = settings.redis
    if address is None:
        return RedisFacts(address=None)
    leaves = address.unix_path is None and not is_loopback(address.host)
    facts = RedisFacts(
        address=str(address), tls=address.tls, leaves=leaves, managed=address.host.endswith("amazonaws.com")
    )
    nodes: tuple[NodeFacts, ...] | Unseen
    try:
        nodes = await _nodes(settings, clock)
    except (LinkLost, ScriptFailed, MangaCacheError) as error:
        nodes = unseen(error)
    return RedisFacts(address=facts.address, tls=facts.tls, leaves=leaves, managed=facts.managed, nodes=nodes)


def unseen(error: BaseException) -> Unseen:
    """Return what an error says about why something could not be seen; no refusal quotes a password."""
    why = str(error) or type(error).__name__
    refused = isinstance(error, Invalid | ScriptFailed) or any(word in why for word in _LOGIN)
    return Unseen(why, "refused" if refused else "unreachable")


async def _nodes(settings: Settings, clock: Clock) -> tuple[NodeFacts, ...]:
    async with ReadingRedis.open(settings, clock=clock) as redis:
        nodes = await redis.primaries(_MOST_NODES)
        return tuple(await together(*(_node(node, settings.key_prefix) for node in nodes)))


async def _node(node: ReadingNode, prefix: str) -> NodeFacts:
    return NodeFacts(
        address=str(node.address),
        info=parsed_info(await node.ask("INFO")),
        config=await _config(node),
        sample=await _sample(node, prefix),
    )


async def _config(node: ReadingNode) -> dict[str, str] | Unseen:
    found: dict[str, str] = {}
    try:
        for name in _CONFIG:
            reply = await node.ask("CONFIG", "GET", name)
            pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
            found |= {key.decode(): value.decode(errors="replace") for key, value in pairs}
    except (LinkLost, ScriptFailed) as error:
        return unseen(error)
    return found


async def _sample(node: ReadingNode, prefix: str) -> Sample | Unseen:
    """Look at keys as SCAN comes by them, their TTLs asked for in one go a time."""
    cursor, looked_at, ours, others_for_ever = "0", 0, 0, 0
    for_ever: list[str] = []
    strange: list[str] = []
    try:
        for _ in range(_MOST_SCANS):
            next_cursor, keys = await node.ask("SCAN", cursor, "COUNT", _A_SCAN)
            cursor = next_cursor.decode()
            left_ms: list[Any] = await together(*(node.ask("PTTL", key) for key in keys))
            for key, ms in zip(keys, left_ms, strict=True):
                name = key.decode(errors="backslashreplace")
                looked_at += 1
                if name.startswith(prefix):
                    ours += 1
                    for_ever += [name] * (ms == -1)
                    strange += [name] * (kind_of(name, prefix) not in KINDS)
                else:
                    others_for_ever += ms == -1
            if cursor == "0" or looked_at >= MOST_KEYS:
                break
    except (LinkLost, ScriptFailed) as error:
        return unseen(error)
    return Sample(
        looked_at=looked_at,
        whole=cursor == "0",
        ours=ours,
        ours_for_ever=tuple(for_ever),
        strange=tuple(strange[:_MOST_NAMED]),
        others_for_ever=others_for_ever,
    )


def kind_of(key: str, prefix: str) -> str:
    """Return what a key of ours is of: what stands between the prefix and the brace."""
    return key.removeprefix(prefix).partition("{")[0].removesuffix(":")
