"""What is wrong with Redis: whether it is reached, and what it does when memory is short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.facts import Unseen
from mangacache.diagnosis.findings import note, ok, problem, warning
from mangacache.diagnosis.judging.redis_node import judge_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.facts import Expected, NodeFacts, RedisFacts, Sample
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_FROM_MAJOR: Final = 7
_SHOWN: Final = 3


def judge_redis(facts: RedisFacts, settings: Settings, expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of Redis."""
    if facts.address is None:
        yield note(
            "redis.reachable",
            "none is configured",
            breaks="workers share no contexts, limits, presence, connections or locks; each message of a session that"
            " this process does not hold is read in DynamoDB",
            remedy="set REDIS_ENDPOINT",
        )
        return
    if facts.leaves and not facts.tls:
        yield problem(
            "redis.tls",
            f"{facts.address} is spoken to unencrypted",
            breaks="chats, and the password, cross the network in the clear",
            remedy="encrypt in transit, and write rediss://host:port",
        )
    else:
        how = "encrypted" if facts.tls else "on this machine"
        yield ok("redis.tls", f"{facts.address}: {how}")
    if isinstance(facts.nodes, Unseen):
        yield _away(facts.address, facts.nodes)
        return
    yield ok("redis.reachable", f"{facts.address} answers{_nodes(facts.nodes)}")
    yield _clustered(facts.nodes, settings)
    for node in facts.nodes:
        yield _version(node)
        yield from judge_node(node, settings, expected, managed=facts.managed)
        yield from _keys(node.sample, settings.key_prefix, where=_at(node, facts.nodes))


def _nodes(nodes: tuple[NodeFacts, ...]) -> str:
    return f", with {len(nodes)} primaries" if len(nodes) > 1 else ""


def _at(node: NodeFacts, nodes: tuple[NodeFacts, ...]) -> str:
    return f" at {node.address}" if len(nodes) > 1 else ""


def _away(address: str, why: Unseen) -> Finding:
    breaks = "contexts come from memory and DynamoDB, under degraded_reads_per_s; limits are each worker's own; no"
    breaks += " presence, connections or events; with redis_policy `hold` nothing is acknowledged"
    if why.kind == "refused":
        return problem(
            "redis.reachable",
            f"{address} refuses the login: {why.why}",
            breaks=breaks,
            remedy="check user and password in REDIS_ENDPOINT, or redis_iam_user and redis_iam_cache; the user needs"
            " all"
            " commands on ~* and &* of the prefix",
        )
    return problem(
        "redis.reachable",
        f"{address} does not answer: {why.why}",
        breaks=breaks,
        remedy="check host and port of REDIS_ENDPOINT (6379), whether the other side speaks TLS, and that the security"
        " groups let this process in",
    )


def _clustered(nodes: tuple[NodeFacts, ...], settings: Settings) -> Finding:
    is_cluster = nodes[0].info.get("cluster_enabled") == "1"
    seen = f"{'a cluster' if is_cluster else 'one server'}; redis_cluster is `{settings.redis_cluster}`"
    if is_cluster and settings.redis_cluster == "off":
        return problem(
            "redis.cluster",
            seen,
            breaks="most keys are refused (MOVED), as if Redis were away",
            remedy="set REDIS_CLUSTER to auto or on, and REDIS_ENDPOINT to the configuration endpoint",
        )
    if not is_cluster and settings.redis_cluster == "on":
        return problem(
            "redis.cluster",
            seen,
            breaks="no node is found: Redis is away for every process",
            remedy="set REDIS_CLUSTER to auto or off",
        )
    return ok("redis.cluster", seen)


def _version(node: NodeFacts) -> Finding:
    valkey = node.info.get("valkey_version")
    version = node.info.get("redis_version", "")
    name = f"Valkey {valkey}" if valkey else f"Redis {version or 'of an unknown version'}"
    major = version.partition(".")[0]
    if valkey or (major.isdecimal() and int(major) >= _FROM_MAJOR):
        return ok("redis.version", name)
    return problem(
        "redis.version",
        name,
        breaks="sharded pub/sub is missing before Redis 7: events, woken locks and evictions of other workers' copies"
        " fail",
        remedy="upgrade to Redis 7 or Valkey",
    )


def _keys(sample: Sample | Unseen, prefix: str, *, where: str) -> Iterator[Finding]:
    if isinstance(sample, Unseen):
        yield note(
            "redis.keys-without-ttl",
            f"cannot be seen{where}: {sample.why}",
            remedy="allow SCAN and PTTL to whoever runs this",
        )
        return
    how = f"all {sample.looked_at}" if sample.whole else f"{sample.looked_at} sampled"
    seen = f"of {how} keys{where}, {sample.ours} are ours"
    if sample.ours_for_ever:
        yield problem(
            "redis.keys-without-ttl",
            f"{seen}, and {len(sample.ours_for_ever)} of them would stay for ever: {_some(sample.ours_for_ever)}",
            breaks="Redis fills with what is over; each of our keys has a TTL, so somebody else writes under our"
            " prefix, or"
            " persisted or restored them",
            remedy=f"find out who writes {prefix}*, give this installation a prefix of its own (KEY_PREFIX), and delete"
            " these keys: what they hold is read again from DynamoDB",
        )
    else:
        yield ok("redis.keys-without-ttl", f"{seen}, each of them with a TTL")
    if sample.others_for_ever:
        yield note(
            "redis.others-keys",
            f"{sample.others_for_ever} keys of others{where} have no TTL",
            breaks="they share the memory; under a volatile policy ours alone are evicted for them",
            remedy="give this cache a Redis of its own",
        )
    if sample.strange:
        yield warning(
            "redis.prefix",
            f"keys under {prefix!r}{where} that this release does not write: {_some(sample.strange)}",
            breaks="another installation whose prefix begins with ours, or another program, shares our keys",
            remedy="give each installation a prefix that is not the beginning of another's (KEY_PREFIX)",
        )


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
