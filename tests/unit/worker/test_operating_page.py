"""docs/operating.md: its table of metrics is the registry's, and its settings are there."""

from __future__ import annotations

import re
from pathlib import Path

from instances import Instances

from mangacache import Settings
from mangacache.clock import SystemClock
from mangacache.settings import specs
from mangacache.worker.draining import plan
from mangacache.worker.process import Worker

ROW = re.compile(r"\| `mangacache_[a-z_]+` \| (?:counter|gauge|histogram) \|")
EVENTS = {"hit_ratio_low", "hit_ratio_back"}
PAGE = Path(__file__).parents[3] / "docs" / "operating.md"


def _rows(registry):
    """Return the table's rows: name, type, labels and meaning of each metric of ours."""
    labels = {}
    for collector in registry._collector_to_names:
        if hasattr(collector, "_labelnames"):
            labels[collector._name] = collector._labelnames
    rows = []
    for family in registry.collect():
        found = labels.get(family.name) or sorted(
            {label for sample in family.samples for label in sample.labels} - {"le"}
        )
        name = family.name + ("_total" if family.type == "counter" else "")
        if name.startswith("mangacache_"):
            shown = ", ".join(f"`{label}`" for label in found)
            rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return sorted(rows)


async def test_the_table_of_metrics_is_the_registry_s():
    async with Instances.open() as instances, instances.cache() as cache:
        await cache.session("s").append(role="user", content="hello")
        settings = instances.settings.replace(worker_port=0, operator_port=0)
        async with Worker.open(cache, settings, clock=SystemClock()):
            rows = _rows(cache.telemetry.registry)
    written = sorted(line for line in PAGE.read_text(encoding="utf-8").splitlines() if ROW.match(line))
    assert written == rows, "\n".join(rows)


def test_every_setting_that_the_page_names_is_there():
    names = {spec.name for spec in specs()}
    named = set(
        re.findall(r"`((?:worker|operator|hit_ratio|log|traces|drain)_[a-z_]+)`", PAGE.read_text(encoding="utf-8"))
    )
    assert named
    assert named - EVENTS <= names


def test_how_the_time_to_leave_is_shared_by_default_is_as_the_page_says():
    within = plan(Settings())
    shares = f"{within.notice_s:g} s, {within.requests_s:.3g} s and {within.sessions_s:.3g} s"
    assert shares in PAGE.read_text(encoding="utf-8"), shares
