"""What is wrong with one server of Redis: its role, its memory, its persistence, its buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.facts import Unseen
from mangacache.diagnosis.findings import note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mangacache.diagnosis.facts import Expected, NodeFacts
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_WANTED: Final = "allkeys-lru"
_SESSION_BYTES: Final = 16 * 1024
"""About what a context of 20 turns takes in Redis."""
_FULL: Final = 0.9
_BURST_BYTES: Final = 8 * 2**20
_FRAGMENTED: Final = 1.5
_NEAR: Final = 0.8
_MIB: Final = 2**20
_MANAGED: Final = "in ElastiCache it is a parameter of the parameter group"


def judge_node(node: NodeFacts, settings: Settings, expected: Expected, *, managed: bool) -> Iterator[Finding]:
    """Iterate over what is to be said of one server."""
    info = node.info
    config = {} if isinstance(node.config, Unseen) else node.config
    if isinstance(node.config, Unseen):
        yield _config_refused(node.config, managed=managed)
    yield _role(info)
    yield _policy(info.get("maxmemory_policy") or config.get("maxmemory-policy", ""))
    yield from _memory(info, expected)
    yield _evictions(info)
    yield from _persistence(info, config)
    yield from _clients(info, config)
    yield from _listeners(config, settings, expected)


def _number(fields: Mapping[str, str], name: str) -> float:
    try:
        return float(fields.get(name, "0") or 0)
    except ValueError:
        return 0.0


def _config_refused(why: Unseen, *, managed: bool) -> Finding:
    return note(
        "redis.config",
        f"CONFIG is not answered ({why.why})",
        breaks="buffer limits, save points and tracking cannot be seen; policy and memory are, by INFO",
        remedy="look in the parameter group of ElastiCache: client-output-buffer-limit-pubsub-*,"
        " tracking-table-max-keys"
        if managed
        else "allow CONFIG GET to whoever runs this; ElastiCache never does: there look in the parameter group",
    )


def _role(info: Mapping[str, str]) -> Finding:
    role = info.get("role", "master")
    if info.get("loading") == "1":
        return problem(
            "redis.role",
            "it is loading its data",
            breaks="until then every command is refused",
            remedy="wait; a cache needs no data on disk (see redis.persistence)",
        )
    if role == "master":
        return ok("redis.role", f"a primary with {info.get('connected_slaves', '0')} replicas")
    return problem(
        "redis.role",
        "it is a replica",
        breaks="writes are refused: Redis is away for every process",
        remedy="set REDIS_ENDPOINT to the primary endpoint (of ElastiCache: `primary` or `configuration`, not"
        " `reader`)",
    )


def _policy(policy: str) -> Finding:
    check = "redis.policy"
    remedy = f"set maxmemory-policy to {_WANTED}; {_MANAGED}"
    seen = f"maxmemory-policy is {policy or 'not told'}"
    if policy == _WANTED:
        return ok(check, seen)
    if policy == "noeviction":
        return problem(
            check,
            seen,
            breaks="when memory is full every write is refused: contexts, limits, locks and presence fail together,"
            " as if"
            " Redis were away, until keys expire",
            remedy=remedy,
        )
    if policy.startswith("volatile-"):
        what = {
            "volatile-ttl": "what expires soonest goes first, which is the contexts of running chats, and presence"
            " stays",
            "volatile-random": "a running chat's context goes as soon as one that is over",
        }.get(policy, "keys without a TTL of other programs are never evicted")
        return warning(
            check,
            seen,
            breaks=f"all our keys have a TTL, so they alone are evicted: {what}; with none of ours left, writes are"
            " refused",
            remedy=remedy,
        )
    return note(
        check,
        seen,
        breaks="a context of a running chat may be evicted before one that is over; nothing goes wrong, but more is"
        " read",
        remedy=remedy,
    )


def _memory(info: Mapping[str, str], expected: Expected) -> Iterator[Finding]:
    used, most = _number(info, "used_memory"), _number(info, "maxmemory")
    needed = expected.sessions * _SESSION_BYTES
    check = "redis.memory"
    if not most:
        yield warning(
            check,
            f"{_mib(used)} used, and no maxmemory",
            breaks="nothing is ever evicted: the machine runs out of memory, and the kernel ends Redis",
            remedy="set maxmemory to about three quarters of the machine's memory",
        )
    elif needed > most:
        yield note(
            check,
            f"{_mib(used)} used of {_mib(most)}; {expected.sessions} sessions in conversation take about"
            f" {_mib(needed)}",
            breaks="with so many at once contexts are evicted while they are wanted, and read again",
            remedy="a larger node, more shards, or a shorter context_ttl_s",
        )
    elif used > _FULL * most:
        yield note(
            check,
            f"{_mib(used)} used of {_mib(most)}: from now on each write evicts",
            breaks="nothing, as long as what is evicted is over: see redis.evictions",
            remedy="watch the hit ratio",
        )
    else:
        yield ok(check, f"{_mib(used)} used of {_mib(most)}")
    ratio = _number(info, "mem_fragmentation_ratio")
    if ratio > _FRAGMENTED and _number(info, "used_memory_rss") > 256 * _MIB:
        yield note(
            "redis.fragmentation",
            f"it holds {ratio:.1f} times what it uses",
            breaks="memory that is paid for and not used",
            remedy="activedefrag yes",
        )


def _evictions(info: Mapping[str, str]) -> Finding:
    evicted, expired = _number(info, "evicted_keys"), _number(info, "expired_keys")
    hits, misses = _number(info, "keyspace_hits"), _number(info, "keyspace_misses")
    ratio = f"; {hits / (hits + misses):.0%} of look-ups found their key" if hits + misses else ""
    seen = f"{evicted:,.0f} keys evicted and {expired:,.0f} expired since it started{ratio}"
    if evicted > expired:
        return warning(
            "redis.evictions",
            seen,
            breaks="more keys are pushed out than end: contexts of running chats among them, which are read again",
            remedy="a larger node, more shards, or a shorter context_ttl_s",
        )
    if evicted:
        return note("redis.evictions", seen, breaks="some contexts are read again", remedy="watch the hit ratio")
    return ok("redis.evictions", seen)


def _persistence(info: Mapping[str, str], config: Mapping[str, str]) -> Iterator[Finding]:
    check = "redis.persistence"
    failed = info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err"
    stops = config.get("stop-writes-on-bgsave-error", "yes") == "yes"
    if failed and stops:
        yield problem(
            check,
            "the last save to disk failed",
            breaks="Redis refuses every write until one succeeds (stop-writes-on-bgsave-error)",
            remedy="give it room on the disk, or turn saving off: a cache needs none",
        )
        return
    appends, saves = info.get("aof_enabled") == "1", bool(config.get("save"))
    if not (appends or saves):
        yield ok(check, "nothing is saved to disk, and nothing need be")
        return
    how = " and ".join(["an append-only file"] * appends + ["snapshots"] * saves)
    if appends and config.get("appendfsync") == "always":
        yield warning(
            check,
            "an append-only file, synced with every write",
            breaks="each COMMIT waits for the disk",
            remedy="appendonly no: what Redis holds is read again from DynamoDB",
        )
        return
    yield note(
        check,
        how,
        breaks="a save forks, which stalls Redis and takes up to twice the memory; what it restores counts for nothing:"
        " after a restart the epoch is raised and the cache begins empty",
        remedy="save '' and appendonly no, unless other programs need it",
    )


def _clients(info: Mapping[str, str], config: Mapping[str, str]) -> Iterator[Finding]:
    clients = _number(info, "connected_clients")
    most = _number(info, "maxclients") or _number(config, "maxclients")
    if most and clients > _NEAR * most:
        yield warning(
            "redis.clients",
            f"{clients:.0f} connections of at most {most:.0f}",
            breaks="further workers are refused",
            remedy="redis_link multiplexed takes two connections a process; raise maxclients",
        )
    elif most:
        yield ok("redis.clients", f"{clients:.0f} connections of at most {most:.0f}")
    idle = _number(config, "timeout")
    if idle:
        yield note(
            "redis.idle-timeout",
            f"connections that are idle for {idle:.0f} s are ended",
            breaks="a quiet worker connects anew, which costs an epoch read and its near cache",
            remedy="timeout 0, tcp-keepalive 60",
        )


def _listeners(config: Mapping[str, str], settings: Settings, expected: Expected) -> Iterator[Finding]:
    if not config:
        return
    hard, soft, seconds = _pubsub(config.get("client-output-buffer-limit", ""))
    seen = f"a listener may lag {_mib(hard) if hard else 'without bound'}, {_mib(soft)} for {seconds} s"
    if hard and hard < _BURST_BYTES:
        yield warning(
            "redis.pubsub-buffer",
            seen,
            breaks="a worker that stalls for a moment loses its subscription: near caches are dropped, and streams of"
            " events have a gap",
            remedy=f"client-output-buffer-limit pubsub 32mb 8mb 60; {_MANAGED} (client-output-buffer-limit-pubsub-*)",
        )
    elif not hard:
        yield note(
            "redis.pubsub-buffer",
            seen,
            breaks="a listener that reads nothing takes Redis's memory",
            remedy="client-output-buffer-limit pubsub 32mb 8mb 60",
        )
    else:
        yield ok("redis.pubsub-buffer", seen)
    tracked = _number(config, "tracking-table-max-keys")
    if settings.redis_link == "multiplexed" and tracked and tracked < expected.sessions:
        yield note(
            "redis.tracking",
            f"{tracked:.0f} keys are tracked at most, for {expected.sessions} sessions",
            breaks="workers are told of changes that were none, and ask Redis more often",
            remedy="raise tracking-table-max-keys",
        )
    told = config.get("notify-keyspace-events", "")
    if told:
        yield note(
            "redis.keyspace-events",
            f"notify-keyspace-events is {told!r}",
            breaks="each command costs Redis a published message that nobody here reads",
            remedy="notify-keyspace-events '' unless another program needs it",
        )


def _pubsub(limits: str) -> tuple[float, float, int]:
    words = limits.split()
    if "pubsub" not in words or len(words) < words.index("pubsub") + 4:
        return 0.0, 0.0, 0
    at = words.index("pubsub")
    return float(words[at + 1]), float(words[at + 2]), int(words[at + 3])


def _mib(size: float) -> str:
    return f"{size / _MIB:,.0f} MiB"
