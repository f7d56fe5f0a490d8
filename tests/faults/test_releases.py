"""A rolling deploy: workers of two adjacent releases share Redis and the table, and neither misleads the other.

The codec and scripts of the last format are kept in tests/releases/. At a change of the format, today's are copied
there before they are changed, the release reads both formats, and the one after it may forget the older.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import aiohttp
import pytest
from commands import variables_for
from prometheus_client.parser import text_string_to_metric_families
from rolling import create_table
from workers import worker_process

from mangacache import Consistency, MangaCache, Meta, Settings, Summary, Turn, Version
from mangacache.client import WorkerClient
from mangacache.context import codec, scripts
from mangacache.redis import Script
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot

KEPT = Path(__file__).parents[1] / "releases" / "format-1"
OTHER = Path(__file__).parents[1] / "support" / "other_release.py"
SESSIONS, ROUNDS = 6, 5


@pytest.fixture
async def variables(dynoxide, shared_valkey):
    made = variables_for(dynoxide) | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}"}
    made |= {"KEY_PREFIX": f"{made['SESSION_TABLE']}:", "MANGACACHE_LOOP_LAG_LIMIT_S": "60"}
    await create_table(made)
    return made


def _program(release):
    return (sys.executable, "-W", "error", str(OTHER), release, "serve")


class Side:
    """One release's worker, and a client of it alone."""

    def __init__(self, worker, client):
        self.worker = worker
        self.client = client

    async def counted(self, name, **labels):
        async with aiohttp.ClientSession() as http, http.get(f"{self.worker.operator}/metrics") as response:
            families = text_string_to_metric_families(await response.text())
            samples = [sample for family in families for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


@asynccontextmanager
async def _sides(variables, release):
    """Today's and another release's."""
    async with (
        worker_process(variables) as today,
        worker_process(variables, program=_program(release)) as other,
        WorkerClient.open([today.public]) as to_today,
        WorkerClient.open([other.public]) as to_other,
    ):
        yield Side(today, to_today), Side(other, to_other)


async def _talk(session_id, sides, said):
    """Say and read in turn at both; return what was read and is not what was said."""
    wrong = []
    for number in range(ROUNDS):
        for writer, reader in (sides, sides[::-1]):
            content = f"{session_id}, {number}, 漫画 {len(said)}"
            await writer.client.session(session_id).append(role="user", content=content)
            said.append(("user", content))
            for side in (reader, writer, reader):
                context = await side.client.session(session_id).context(turns=32, consistency=Consistency.LATEST)
                heard = [(turn.role, turn.content) for turn in context.turns]
                if heard != said[-32:]:
                    wrong.append((heard, said[-32:]))
        if number == ROUNDS // 2:
            await sides[number % 2].client.session(session_id).summarise(f"so far {len(said)}")
    for side in sides:
        context = await side.client.session(session_id).context(consistency=Consistency.LATEST)
        if context.summary is None or not context.summary.text.startswith("so far"):
            wrong.append((context.summary, "so far"))
    return wrong


async def _converse(variables, sides):
    said = {f"s-{number}": [] for number in range(SESSIONS)}
    wrong = await asyncio.gather(*(_talk(session_id, sides, turns) for session_id, turns in said.items()))
    async with MangaCache.open(Settings.from_env(variables).replace(redis_endpoint=None)) as reader:
        for session_id, turns in said.items():
            history = await reader.session(session_id).history(limit=500)
            assert [(turn.role, turn.content) for turn in history.turns] == turns
            assert [turn.number for turn in history.turns] == list(range(1, len(turns) + 1))
    return [each for some in wrong for each in some]


async def test_the_previous_format_s_worker_and_today_s_serve_the_same_sessions(variables):
    async with _sides(variables, "previous") as sides:
        assert await _converse(variables, sides) == []
        for side in sides:
            assert await side.counted("mangacache_contexts_total", source="redis") > 0


async def test_a_next_format_s_worker_and_today_s_serve_the_same_sessions(variables):
    """Today's takes what it does not know for a miss, and leaves it; the next release's reads both."""
    async with _sides(variables, "next") as sides:
        assert await _converse(variables, sides) == []
        today, other = sides
        assert await today.counted("mangacache_survived_total", what="context_unreadable") > 0
        assert await other.counted("mangacache_survived_total", what="context_unreadable") == 0
        assert await other.counted("mangacache_contexts_total", source="redis") > 0
        for side in sides:
            assert await side.counted("mangacache_redis_call_seconds_count", script="discard") == 0


async def test_a_release_that_writes_something_else_under_the_same_format_would_be_seen(variables):
    async with _sides(variables, "careless") as sides:
        assert await _converse(variables, sides) != []


# What is kept, and what is today's

TURNS = tuple(
    Turn(
        number=number,
        turn_id=f"t{number}",
        role="user",
        content=f"漫画 {number}",
        created_at="2026-11-24T09:58:00.123Z",
        attributes={"n": 7, "b": b"\x00\xff", "deep": [{"x": None}], "words": {"a"}},
        expires_at=1_803_422_273,
    )
    for number in (4, 6, 7)
)
META = MetaRecord(
    incarnation=2,
    revision=3,
    customer_id="c",
    status="active",
    created_at="2026-11-24T09:00:00.000Z",
    last_active_at="2026-11-24T09:58:00.123Z",
    last_number=7,
    summary_upto=3,
    change_id="x",
    expires_at=1_803_422_273,
    unswept=False,
    attributes={"mood": "good"},
)
SNAPSHOT = Snapshot(
    meta=META,
    version=Version(2, 7, 3),
    turns=TURNS,
    summary=Summary(3, "so far", "2026-11-24T09:57:00.000Z", 1_803_422_273),
)
assert Meta is not MetaRecord


@pytest.fixture
def kept(monkeypatch):
    """The kept codec."""
    spec = spec_from_file_location("kept_codec", KEPT / "codec.py")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kept_codec", module)  # where its structs look for their annotations
    spec.loader.exec_module(module)
    return module


def test_today_s_codec_reads_what_the_previous_format_s_wrote(kept):
    first, ring = kept.encode_ring(SNAPSHOT)
    assert codec.decode_turns(first, ring) == TURNS
    assert codec.decode_head(kept.encode_head(SNAPSHOT), SNAPSHOT.version) == (META, SNAPSHOT.summary)


def test_the_previous_format_s_codec_reads_what_today_s_wrote_or_leaves_it(kept):
    first, ring = codec.encode_ring(SNAPSHOT)
    head = codec.encode_head(SNAPSHOT)
    if kept.FORMAT == codec.FORMAT:
        assert kept.decode_turns(first, ring) == TURNS
        assert kept.decode_head(head, SNAPSHOT.version) == (META, SNAPSHOT.summary)
        return
    for read in (lambda: kept.decode_turns(first, ring), lambda: kept.decode_head(head, SNAPSHOT.version)):
        with pytest.raises(kept.Unreadable) as unreadable:
            read()
        assert not unreadable.value.known_format  # else it would be thrown away for both


def test_what_was_written_under_the_kept_format_is_what_it_was(kept):
    """A kept codec that was changed would vouch for nothing."""
    assert kept.FORMAT == b"\x01"
    assert kept.encode_turn(Turn(1, "t", "user", "hi", "2026", {}, 9)).hex() == GOLDEN_TURN


GOLDEN_TURN = "019701a174a475736572a26869a4323032360980"


def test_scripts_go_by_the_hash_of_their_text_so_that_two_releases_have_each_its_own():
    for name in ("get", "commit", "fill", "release", "discard"):
        kept = Script.of(name, (KEPT / f"{name}.lua").read_text(encoding="utf-8"))
        today = getattr(scripts, name.upper())
        assert (kept.sha == today.sha) == (kept.text == today.text)
