"""The doctor at work: parts beside each other, each in its time, and what is made of what they say."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
from wellfacts import Gathered

import mangacache.diagnosis
from mangacache import Invalid, Settings
from mangacache.clock import SystemClock
from mangacache.diagnosis.command import as_json
from mangacache.diagnosis.examining import PARTS, examine
from mangacache.diagnosis.facts import Expected, Offset, Unseen
from mangacache.diagnosis.findings import Severity, exit_status, note, ok, problem, unlooked
from mangacache.diagnosis.gathering.clocks import narrowest
from mangacache.diagnosis.gathering.dax import cluster_at, ttls_of
from mangacache.diagnosis.gathering.process import look_at_machine
from mangacache.diagnosis.gathering.redis import kind_of
from mangacache.diagnosis.reading import ReadingNode, ReadingTransport
from mangacache.diagnosis.showing import lines, show

DOCS = Path(__file__).parents[3] / "docs"


async def examined(looking, *, within_s=60.0):
    settings = Settings(dax_endpoint="daxs://d:9111", redis_endpoint="rediss://r:6379")
    return await examine(looking, settings, Expected(), clock=SystemClock(), within_s=within_s)


async def test_every_part_is_looked_at_and_what_is_well_ends_with_status_0():
    found = await examined(Gathered())
    assert {finding.check.partition(".")[0] for finding in found} >= {part.name for part in PARTS}
    assert exit_status(found) == 0
    assert {finding.severity for finding in found} == {Severity.OK}


async def test_parts_are_looked_at_at_once():
    begun = asyncio.Barrier(2)

    async def with_the_other():
        await begun.wait()
        raise Invalid("both were there")

    found = await examined(Gathered(redis=with_the_other, table=with_the_other))
    assert [one.check for one in found if one.unlooked] == ["table", "redis"]


async def test_a_part_that_hangs_is_given_up_and_the_others_are_judged():
    found = await examined(Gathered(redis=asyncio.Event().wait), within_s=0.2)
    hung = [finding for finding in found if finding.unlooked]
    assert [finding.check for finding in hung] == ["redis"]
    assert "longer than 0.2 s" in hung[0].seen
    assert "table.keys" in {finding.check for finding in found}
    assert exit_status(found) == 2


async def test_a_part_that_fails_by_surprise_hides_nothing_of_the_others():
    async def fail():
        raise ZeroDivisionError("for the test")

    found = await examined(Gathered(dax=fail))
    failed = next(finding for finding in found if finding.check == "dax")
    assert "ZeroDivisionError: for the test" in failed.seen
    assert "clock.dynamodb" in {finding.check for finding in found}
    assert exit_status(found) == 2


P = problem("p", "seen", breaks="b", remedy="r")
U = unlooked("u", "why", remedy="r")


@pytest.mark.parametrize(
    ("findings", "status"), [([], 0), ([ok("o", "s"), note("n", "s")], 0), ([P], 1), ([U], 2), ([U, P], 1)]
)
def test_the_exit_status_says_whether_there_is_a_problem_or_something_was_not_looked_at(findings, status):
    assert exit_status(findings) == status
    assert json.loads(as_json(findings))["status"] == status


def test_plain_lines_say_what_was_seen_what_breaks_and_the_remedy():
    said = list(lines([P, ok("o", "fine")]))
    assert [line.split() for line in said] == [
        ["PROBLEM", "p", "seen"],
        ["breaks:", "b"],
        ["remedy:", "r"],
        ["ok", "o", "fine"],
        ["2", "checks:", "1", "problem,", "1", "ok."],
    ]


def test_a_terminal_gets_a_table_in_which_nothing_commands_it(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show([problem("redis.policy", "seen \x1b[2J [bold]", breaks="b", remedy="r"), ok("o", "fine")])
    drawn = capsys.readouterr().out
    assert "mangacache doctor" in drawn
    assert "redis.policy" in drawn
    assert "\\x1b[2J [bold]" in drawn
    assert "\x1b[2J" not in drawn
    assert drawn.rstrip().endswith("2 checks: 1 problem, 1 ok.")


def test_several_looks_at_one_clock_bound_it_together():
    wide, close = Offset(least_s=-1.0, most_s=0.5), Offset(least_s=-0.25, most_s=1.0)
    assert narrowest([wide, close]) == Offset(least_s=-0.25, most_s=0.5)
    apart = [Offset(least_s=0.0, most_s=1.0), Offset(least_s=5.0, most_s=5.5)]
    assert narrowest(apart) == apart[1], "the clock was set in between"


def test_a_cluster_is_found_by_its_address_and_its_times_to_live_read_from_its_parameter_group():
    clusters = [{"ClusterName": "other"}, {"ClusterDiscoveryEndpoint": {"Address": "My.dax", "Port": 9111}}]
    assert cluster_at("my.dax", clusters) is clusters[1]
    assert cluster_at("no.dax", clusters) is None
    items, queries = ({"ParameterName": f"{what}-ttl-millis"} for what in ("record", "query"))
    assert ttls_of([items | {"ParameterValue": "60000"}, queries | {"ParameterValue": "0"}]) == (60.0, float("inf"))
    assert isinstance(ttls_of([items | {"ParameterValue": "60000"}]), Unseen)
    assert isinstance(ttls_of([items | {"ParameterValue": "x"}, queries | {"ParameterValue": "1"}]), Unseen)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("mc:session:{s}:context:1", "session"),
        ("mc:lock:session:{s}", "lock:session"),
        ("mc:rate:{c}:messages:30/60", "rate"),
        ("mc:staging:session:{s}:context:1", "staging:session"),
        ("mc:nothing", "nothing"),
    ],
)
def test_a_keys_kind_stands_between_the_prefix_and_the_brace(key, kind):
    assert kind_of(key, "mc:") == kind


async def test_a_containers_limits_count(tmp_path):
    proc, group = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    group.mkdir()
    (proc / "self" / "cgroup").write_text("0::/somewhere/of/the/host\n")
    (proc / "meminfo").write_text("MemTotal: 8388608 kB\n")
    (group / "cpu.max").write_text("50000 100000\n")
    (group / "pids.max").write_text("77\n")
    (group / "memory.max").write_text(f"{2**29}\n")
    facts = await look_at_machine(proc=proc, cgroup=group)
    assert (facts.cpus, facts.threads, facts.memory_bytes) == (0.5, 77, 2**29)
    assert facts.files > 0
    assert "hiredis" in facts.modules


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "UpdateTable"])
async def test_the_door_to_dynamodb_lets_no_write_through(operation):
    with pytest.raises(AssertionError, match=f"does not write, and {operation} may"):
        await ReadingTransport(None).request(operation, {})


@pytest.mark.parametrize(
    "command", [("SET", "a", "b"), ("EVALSHA", "x", 0), ("CONFIG", "SET", "a", "b"), ("DEL", "a"), ("CONFIG",)]
)
async def test_the_door_to_redis_lets_no_write_through(command):
    with pytest.raises(AssertionError, match="does not write"):
        await ReadingNode(None, None).ask(*command)


def test_the_page_names_every_check_there_is():
    sources = [path.read_text() for path in Path(mangacache.diagnosis.__file__).parent.rglob("*.py")]
    named = "table|redis|dax|clock|limits|modules|settings"
    checks = {check for text in sources for check in re.findall(rf'"((?:{named})\.[a-z-]+)"', text)}
    assert len(checks) > 30
    page = (DOCS / "doctor.md").read_text()
    assert [check for check in sorted(checks) if f"`{check}`" not in page] == []
