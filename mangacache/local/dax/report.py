"""An emulator's status in words, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over the lines that say what happened in an emulator so far."""
    yield f"DAX emulator at {status['endpoint']}, before {status['dynamodb']}, up for {status['uptime_s']:.0f} s"
    for name, title in (("items", "item cache"), ("queries", "query cache")):
        counts = status[name]
        yield (
            f"{title}: {counts['hits']} hits ({counts['negative_hits']} of them negative), {counts['misses']} misses "
            f"({counts['expired']} of them expired), {counts['evictions']} evictions"
        )
    yield f"received: {_listed(status['received'])}"
    yield f"passed on to DynamoDB: {_listed(status['passed_on'])}"
    for node in status["nodes"]:
        state = "dead" if not node["alive"] else "leads" if node["node"] == status["leader"] else "follows"
        yield (
            f"node {node['node']} at port {node['port']}: {state}, {node['connections']} connections, "
            f"{node['items']['entries']} items in {node['items']['bytes']} bytes, "
            f"{node['queries']['entries']} answers in {node['queries']['bytes']} bytes"
        )
        if node["ended"]:
            yield f"node {node['node']} ended connections: {_listed(node['ended'])}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"
