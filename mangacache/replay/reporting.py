"""What a replay reports: figures with fixed names, and the same as a table for people."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mangacache.replay.driving import Observed
    from mangacache.replay.performing import Tally
    from mangacache.replay.verifying import Verdict

_READS = ("GetItem", "Query", "BatchGetItem")
_WRITES = ("PutItem", "TransactWriteItems", "BatchWriteItem", "DeleteItem")
_PACKAGES = ("mangacache", "aioboto3", "aiobotocore", "amazon-dax-client", "redis", "hiredis", "msgspec", "uvloop")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def environment(engines: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the figures were measured on."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": versions,
        **engines,
    }


def report(
    observed: Observed,
    verdict: Verdict,
    tallies: Iterable[Tally],
    *,
    conversations: int,
    engines: Mapping[str, Any],
    whole: bool = False,
) -> dict[str, Any]:
    """Return a replay's figures. Figures a message and hit ratios leave each session's first message out.

    Args:
        observed: what the clients saw.
        verdict: what was read back.
        tallies: what was sent.
        conversations: how many.
        engines: what to say of the servers.
        whole: the tallies are whole ones, of workers, which do not know first messages from others: so what was sent
            a message is what was sent for all of them, by all of them.
    """
    requests: Counter[str] = Counter()
    steady: Counter[str] = Counter()
    dax: Counter[str] = Counter()
    tallies = list(tallies)
    for tally in tallies:
        requests.update(tally.requests)
        steady.update(tally.steady)
        dax.update(tally.dax)
    messages = max(observed.steady_messages, 1)
    sent_for = max(observed.messages, 1) if whole else messages
    hits = {tier: observed.sources.get(tier, 0) / messages for tier in ("memory", "redis")}
    return {
        "conversations": conversations,
        "messages": observed.messages,
        "turns_written": observed.turns,
        "turns_verified": verdict.verified,
        "mismatches": verdict.mismatches + observed.wrong_reads + observed.wrong_numbers + observed.heard_wrong,
        "lost": verdict.lost,
        "duplicates": verdict.duplicates + observed.duplicates,
        "messages_per_s": round(observed.messages / observed.elapsed_s, 1),
        "latency_ms": {
            "read": _latency(observed.read_s),
            "append": _latency(observed.append_s),
            "message": _latency(observed.message_s),
        },
        "hit_ratio": {
            "memory": round(hits["memory"], 4),
            "redis": round(hits["redis"], 4),
            "overall": round(sum(hits.values()), 4),
        },
        "dynamodb": {
            "requests": dict(sorted(requests.items())),
            "reads_per_message": round(sum(steady[name] for name in _READS) / sent_for, 4),
            "writes_per_message": round(sum(steady[name] for name in _WRITES) / sent_for, 4),
            "touches_per_message": round(steady["Touch"] / sent_for, 4),
        },
        "redis": {
            "round_trips_per_message": round(sum(tally.round_trips for tally in tallies) / sent_for, 4),
            **({} if whole else _bytes(tallies)),
        },
        "dax": {
            "contexts_per_message": round(observed.sources.get("dax", 0) / messages, 4),
            "answered": dax["answered"],
            "not_answered": dax.total() - dax["answered"],
        },
        **({"sockets": {"turns_told": observed.heard_turns, "gaps_told": observed.heard_gaps}} if whole else {}),
        "degraded_messages": observed.degraded,
        "repeated_calls": observed.repeats,
        "environment": environment(engines),
    }


def _bytes(tallies: Sequence[Tally]) -> dict[str, float]:
    turns = max(sum(tally.turns for tally in tallies), 1)
    return {
        "bytes_per_append": round(sum(tally.commit_bytes for tally in tallies) / turns, 1),
        "encoded_turn_bytes": round(sum(tally.turn_bytes for tally in tallies) / turns, 1),
    }


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(1e3 * percentile(seconds, 0.50), 2),
        "p99": round(1e3 * percentile(seconds, 0.99), 2),
    }


def rows(figures: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    """Yield every figure as (dotted name, text)."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from rows(value, f"{path}{name}.")
        else:
            yield path + name, "" if value is None else str(value)


def is_clean(figures: Mapping[str, Any]) -> bool:
    """Tell whether nothing was lost, doubled or changed."""
    return not (figures["mismatches"] or figures["lost"] or figures["duplicates"])
