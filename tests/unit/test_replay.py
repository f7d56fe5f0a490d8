"""A replay's parts: the file, the interleaving of its conversations, the check at the end, its worker processes."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time

import msgspec
import pytest
from mangatest import HANG_GUARD_S

from mangacache import Invalid, MangaCacheError, NotFound, Settings, Turn
from mangacache.replay import SAMPLE, Options, is_clean, read_conversations, rows
from mangacache.replay.conversations import Conversation, Said
from mangacache.replay.driving import Client, drive
from mangacache.replay.performing import Conditions, Handled, Job, digest
from mangacache.replay.reporting import percentile
from mangacache.replay.verifying import Verdict, compare
from mangacache.replay.workers import worker_processes

# The file


def line(session_id="s", customer_id="c", turns=None, **more):
    turns = [{"role": "user", "content": "hello", "at": 0}] if turns is None else turns
    return json.dumps({"session_id": session_id, "customer_id": customer_id, "turns": turns, **more})


def turn(role="user", content="hello", **more):
    return {"role": role, "content": content, **more}


GOOD = line("good").encode()

BAD_LINES = {
    "cut off": (b'{"session_id": "s", "turns": [', "Input data was truncated"),
    "broken": (b'{"session_id": s}', "JSON is malformed"),
    "no object": (b"[1, 2]", "Expected `object`, got `array`"),
    "no turns at all": (b'{"session_id": "s", "customer_id": "c"}', "missing required field `turns`"),
    "empty turns": (line(turns=[]).encode(), "the conversation has no turns"),
    "unknown role": (line(turns=[turn(), turn("bot")]).encode(), "turn 2: 'bot' is no role: use one of assistant"),
    "role of another case": (line(turns=[turn("User")]).encode(), "turn 1: 'User' is no role"),
    "misspelt field": (line(turns=[turn(att=1)]).encode(), "unknown field `att`"),
    "content that is no text": (line(turns=[turn(content=7)]).encode(), "Expected `str`, got `int`"),
    "over-long content": (line(turns=[turn(content="日" * 90_000)]).encode(), "turn 1: content has 270000 bytes"),
    "over-long id": (line("x" * 129).encode(), "session_id must have 1 to 128 bytes of UTF-8"),
    "empty id": (line("").encode(), "session_id must have 1 to 128 bytes"),
    "over-long customer": (line(customer_id="日" * 43).encode(), "customer_id must have 1 to 128 bytes"),
    "number for an id": (b'{"session_id": 7, "customer_id": "c", "turns": []}', "Expected `str`, got `int`"),
    "first half of a pair": (line(turns=[turn(content="\ud83d")]).encode(), r"a lone surrogate, \ud83d, stands at"),
    "second half of a pair": (line(turns=[turn(content="\udde1!")]).encode(), r"a lone surrogate, \udde1, stands at"),
    "raw lone surrogate": (GOOD.replace(b"hello", b"\xed\xa0\x80"), "utf-8"),
    "no UTF-8": (GOOD.replace(b"hello", b"\xff"), "utf-8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "JSON is malformed"),
    "time that goes back": (line(turns=[turn(at=5), turn(at=4)]).encode(), "turn 2 is 4 s after the start"),
    "time before the start": (line(turns=[turn(at=-1)]).encode(), "turn 1 is -1 s after the start"),
    "time that is no whole number": (line(turns=[turn(at=0.5)]).encode(), "Expected `int | null`, got `float`"),
    "session named twice": (GOOD, "session 'good' stands in line 1 already"),
}


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.jsonl.gz"])
@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_line_that_is_no_conversation_is_named_with_its_file_and_number(tmp_path, name, bad):
    content, complaint = BAD_LINES[bad]
    path = tmp_path / name
    raw = b"\n".join([GOOD, b"", content, b""])
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    with pytest.raises(Invalid) as caught:
        read_conversations(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert complaint in str(caught.value)
    assert read_conversations(path, limit=1)[0].session_id == "good", "what comes after the limit is not looked at"


def test_a_file_that_is_cut_off_is_named_with_the_last_line_that_could_be_read(tmp_path):
    noise = random.Random(0)
    raw = b"".join(line(f"s{i}", turns=[turn(content=noise.randbytes(200).hex())]).encode() + b"\n" for i in range(99))
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(raw)[:-2000])
    with pytest.raises(Invalid, match=r"cut.jsonl.gz cannot be read after line \d\d: Compressed file ended"):
        read_conversations(path)
    damaged = bytearray(gzip.compress(raw))
    damaged[3000:3010] = bytes(10)
    path.write_bytes(damaged)
    with pytest.raises(Invalid, match=r"cut.jsonl.gz"):
        read_conversations(path)


def test_a_folder_or_nothing_at_all_is_no_file(tmp_path):
    with pytest.raises(Invalid, match=r"cannot be read after line 0: .*directory"):
        read_conversations(tmp_path)
    with pytest.raises(NotFound, match="there is no file"):
        read_conversations(tmp_path / "chats.jsonl")


def test_times_are_asked_for_only_where_they_are_followed(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(line(turns=[turn(at=0), turn(at=None)]))
    assert [said.at for said in read_conversations(path)[0].turns] == [0, None]
    with pytest.raises(Invalid, match=r"line 1: turn 2 has no time \('at' is null\)"):
        read_conversations(path, need_times=True)


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(line(turns=[turn(content="\U0001f5e1\U0001f5e1")]))
    assert b"\\ud83d\\udde1" in path.read_bytes()
    assert read_conversations(path)[0].turns[0].content == "\U0001f5e1\U0001f5e1"


def test_lines_may_say_more_than_a_replay_needs(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(line(topic="stock") + "\r\n\n")
    assert len(read_conversations(path)) == 1


def test_a_message_is_a_users_turn_and_what_follows_until_the_next():
    roles = ["assistant", "system", "user", "assistant", "tool", "assistant", "user", "user"]
    conversation = Conversation("s", "c", tuple(Said(role, str(i)) for i, role in enumerate(roles)))
    assert [[said.content for said in message] for message in conversation.messages()] == [
        ["0", "1"], ["2", "3", "4", "5"], ["6"], ["7"],
    ]  # fmt: skip


def test_the_sample_is_of_the_shops_own_and_of_natural_length():
    said = read_conversations(SAMPLE, need_times=True)
    assert len(said) >= 40
    assert all(2 <= len(one.turns) <= 60 for one in said)
    assert len({one.customer_id for one in said}) > 10


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"workers": 0}, {"limit": 0}, {"speed": 0.0}, {"speed": -1.0}, {"speed": 10_001.0}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(Invalid, match=r"^--"):
        Options(**wrong)


# Interleaving


def conversations(count, *, messages=4, every_s=0):
    def said(i):
        return tuple(
            Said(role, f"{role} {i} {j}", every_s * j) for j in range(messages) for role in ("user", "assistant")
        )

    return [Conversation(f"s{i}", f"c{i}", said(i)) for i in range(count)]


class Recorder:
    """Handles messages rightly, and records when each began and ended."""

    def __init__(self):
        self.order: list[str] = []
        self.jobs: list[Job] = []
        self.began_s: dict[str, list[float]] = {}
        self.under_way: set[str] = set()
        self.most_under_way = 0
        self.stored: dict[str, list[tuple[str, str]]] = {}

    async def handle(self, job):
        assert job.session_id not in self.under_way, "a client waits for the answer before it goes on"
        self.under_way.add(job.session_id)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        self.order.append(job.session_id)
        self.jobs.append(job)
        self.began_s.setdefault(job.session_id, []).append(time.perf_counter())
        stored = self.stored.setdefault(job.session_id, [])
        read = digest(stored[-20:])
        await asyncio.sleep(0)
        first = len(stored) + 1
        stored.extend((role, content) for _, role, content in job.turns)
        self.under_way.discard(job.session_id)
        return self.handled(job, read=read, first=first)

    def handled(self, job, *, read, first):
        return Handled(
            token=f"1.{first:x}.1",
            numbers=tuple(range(first, first + len(job.turns))),
            duplicates=0,
            read_digest=read,
            source="memory",
            degraded=False,
            repeats=0,
            read_s=0.0,
            append_s=(0.0, 0.0),
        )


async def driven(said, handlers, *, concurrency=8, speed=0.0):
    clients = [Client(conversation, "p-", i) for i, conversation in enumerate(said)]
    ticks = []
    async with asyncio.timeout(HANG_GUARD_S):
        observed = await drive(clients, handlers, concurrency=concurrency, speed=speed, advance=lambda: ticks.append(1))
    assert len(ticks) == observed.messages == sum(len(one.messages()) for one in said)
    return observed


def most_open(order):
    """Return how many sessions were between their first and their last message at once."""
    first, last = {}, {}
    for place, session_id in enumerate(order):
        first.setdefault(session_id, place)
        last[session_id] = place
    return max(sum(first[s] <= place <= last[s] for s in first) for place in range(0, len(order), 16))


@pytest.mark.parametrize("concurrency", [1, 64])
async def test_at_least_256_conversations_are_open_at_once_where_there_are_as_many(concurrency):
    handler = Recorder()
    await driven(conversations(400), [handler], concurrency=concurrency)
    assert most_open(handler.order) >= 256
    assert handler.most_under_way == concurrency


async def test_all_conversations_are_open_at_once_where_there_are_fewer():
    handler = Recorder()
    await driven(conversations(30), [handler])
    assert most_open(handler.order) == 30


@pytest.mark.parametrize("concurrency", [1, 5, 64, 300])
async def test_no_conversation_runs_back_to_back_while_another_one_is_open(concurrency):
    said = [
        Conversation(one.session_id, one.customer_id, one.turns[: 2 * (1 + i % 5)])
        for i, one in enumerate(conversations(290, messages=5))
    ]
    handler = Recorder()
    await driven(said, [handler], concurrency=concurrency)
    left = {f"p-{one.session_id}": len(one.messages()) for one in said}
    for before, now in zip([None, *handler.order], handler.order, strict=False):
        if before == now:
            others = [s for s, count in left.items() if count and s != now]
            assert len(others) < concurrency, f"{now} went on while {others} waited"
        left[now] -= 1


async def test_a_sessions_messages_go_to_the_workers_in_turn_and_sessions_begin_at_different_ones():
    handlers = [Recorder() for _ in range(3)]
    for handler in handlers:
        handler.stored = handlers[0].stored
    await driven(conversations(6, messages=6), handlers)
    assert [sorted(handler.order) for handler in handlers] == [sorted(f"p-s{i}" for i in range(6) for _ in "ab")] * 3
    assert len({handler.order[0] for handler in handlers}) == 3
    first = [{job.session_id for job in handler.jobs if job.first} for handler in handlers]
    assert [len(sessions) for sessions in first] == [2, 2, 2]


async def test_the_token_travels_with_the_client_and_turns_are_named_by_their_place():
    handler = Recorder()
    await driven(conversations(1, messages=3), [handler])
    assert [(job.first, job.token) for job in handler.jobs] == [(True, ""), (False, "1.1.1"), (False, "1.3.1")]
    assert [turn_id for job in handler.jobs for turn_id, _, _ in job.turns] == [f"t{i}" for i in range(1, 7)]


async def test_what_is_read_or_numbered_wrongly_or_stored_before_is_counted():
    class Liar(Recorder):
        def handled(self, job, *, read, first):
            right = super().handled(job, read=read, first=first)
            lies = {
                1: {},
                3: {"read_digest": right.read_digest ^ 1},
                5: {"numbers": (first + 1, first + 2)},
                7: {"duplicates": 1},
            }
            return msgspec.structs.replace(right, **lies[first])

    observed = await driven(conversations(1), [Liar()])
    assert (observed.wrong_reads, observed.wrong_numbers, observed.duplicates) == (1, 1, 1)
    assert (observed.messages, observed.steady_messages, observed.turns) == (4, 3, 8)
    assert observed.sources == {"memory": 3}, "without the first message"


async def test_a_failing_handler_ends_the_replay_with_its_error_and_leaves_no_task():
    class Failing(Recorder):
        async def handle(self, job):
            if "failed" in self.order:
                await asyncio.Event().wait()
            if len(self.order) == 50:
                self.order.append("failed")
                raise MangaCacheError("no more")
            return await super().handle(job)

    before = asyncio.all_tasks()
    with pytest.raises(MangaCacheError, match="no more"):
        await driven(conversations(40), [Failing()])
    assert asyncio.all_tasks() == before


async def test_at_the_recorded_pace_nothing_is_sent_before_its_time():
    """Twelve customers arrive within a recorded minute, and each speaks every 20 recorded seconds."""
    handler, speed, count = Recorder(), 1000.0, 12
    started_s = time.perf_counter()
    await driven(conversations(count, messages=4, every_s=20), [handler], speed=speed, concurrency=3)
    assert handler.most_under_way <= 3
    for i in range(count):
        due_s = [(60 * i / count + 20 * j) / speed for j in range(4)]
        waited_s = [began_s - started_s for began_s in handler.began_s[f"p-s{i}"]]
        assert all(waited >= due - 0.001 for waited, due in zip(waited_s, due_s, strict=True))
    assert most_open(handler.order) > 1


# The check at the end

TOLD = Conversation("s", "c", (Said("user", "a"), Said("assistant", "b"), Said("user", "c")))


def stored(*turns):
    return [Turn(number, turn_id, role, content, "") for number, turn_id, role, content in turns]


RIGHT = [(1, "t1", "user", "a"), (2, "t2", "assistant", "b"), (3, "t3", "user", "c")]


@pytest.mark.parametrize(
    ("turns", "verified", "mismatches", "lost", "duplicates"),
    [
        (RIGHT, 3, 0, 0, 0),
        ([], 0, 0, 3, 0),
        (RIGHT[:2], 2, 0, 1, 0),
        ([RIGHT[0], RIGHT[2]], 2, 0, 1, 0),
        ([*RIGHT, (4, "t3", "user", "c")], 3, 1, 0, 1),
        ([*RIGHT, (4, "t9", "user", "d")], 3, 1, 0, 0),
        ([(1, "t1", "user", "A"), *RIGHT[1:]], 2, 1, 0, 0),
        ([(1, "t1", "assistant", "a"), *RIGHT[1:]], 2, 1, 0, 0),
        ([(1, "t2", "assistant", "b"), (2, "t1", "user", "a"), RIGHT[2]], 1, 2, 0, 0),
        ([(2, "t1", "user", "a"), (3, "t2", "assistant", "b"), (4, "t3", "user", "c")], 0, 3, 0, 0),
    ],
)
def test_stored_turns_are_compared_one_by_one(turns, verified, mismatches, lost, duplicates):
    verdict = Verdict()
    compare(stored(*turns), TOLD, verdict)
    assert verdict == Verdict(verified, mismatches, lost, duplicates)


@pytest.mark.parametrize("wrong", ["mismatches", "lost", "duplicates"])
def test_a_replay_is_clean_only_where_nothing_is_wrong(wrong):
    figures = {"mismatches": 0, "lost": 0, "duplicates": 0}
    assert is_clean(figures)
    assert not is_clean(figures | {wrong: 1})


def test_percentiles_are_by_nearest_rank():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.8, 0.99, 1.0)] == [1, 3, 4, 5, 5]
    assert percentile([], 0.5) == 0
    assert percentile([7.0], 0.01) == 7


def test_every_figure_is_a_row():
    figures = {"a": 1, "b": {"c": {"d": 2.5}, "e": None}}
    assert list(rows(figures)) == [("a", "1"), ("b.c.d", "2.5"), ("b.e", "")]


# Worker processes


@pytest.fixture
def conditions(real_world):
    return Conditions.of(real_world.settings, speed=0.0, origin_s=0.0)


def job(session_id="s", content="hello", number=1):
    return Job(session_id, "c", ((f"t{number}", "user", content),), "", number == 1)


async def test_a_worker_handles_messages_and_tells_at_the_end_what_it_sent(conditions):
    async with asyncio.timeout(HANG_GUARD_S), worker_processes(2, conditions) as (one, other):
        done = await asyncio.gather(*(one.handle(job(f"s{i}")) for i in range(8)), other.handle(job("t")))
        tallies = [await one.close(), await other.close()]
    assert {handled.numbers for handled in done} == {(1,)}
    assert [tally.requests["TransactWriteItems"] for tally in tallies] == [8, 1]


async def test_a_worker_that_has_died_is_told_of_at_every_later_call(conditions):
    async with asyncio.timeout(HANG_GUARD_S), worker_processes(1, conditions) as (worker,):
        await worker.handle(job())
        worker.kill()
        for _ in range(2):
            with pytest.raises(MangaCacheError, match=r"worker \d+ of the replay has died"):
                await worker.handle(job(number=2))
        with pytest.raises(MangaCacheError, match=r"worker \d+ of the replay has died"):
            await worker.close()


async def test_whoever_waits_for_a_worker_that_dies_is_told(conditions):
    async with asyncio.timeout(HANG_GUARD_S), worker_processes(1, conditions) as (worker,):
        waiting = [asyncio.ensure_future(worker.handle(job(f"s{i}"))) for i in range(5)]
        await asyncio.sleep(0)
        worker.kill()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [MangaCacheError] * 5


async def test_an_error_of_any_kind_is_an_answer(conditions):
    async with asyncio.timeout(HANG_GUARD_S), worker_processes(1, conditions) as (worker,):
        with pytest.raises(MangaCacheError, match="Invalid: session id must have 1 to 128 bytes"):
            await worker.handle(job(""))
        with pytest.raises(MangaCacheError, match="ValueError: not enough values to unpack"):
            await worker.handle(Job("s", "c", (), "", first=True))
        assert (await worker.handle(job())).numbers == (1,)


async def test_a_worker_that_cannot_open_says_why():
    nowhere = Settings(dynamodb_endpoint="http://127.0.0.1:9", request_timeout_s=0.1, request_deadline_s=0.1)
    unreachable = Conditions.of(nowhere, speed=0.0, origin_s=0.0)
    async with asyncio.timeout(HANG_GUARD_S), worker_processes(1, unreachable) as (worker,):
        with pytest.raises(MangaCacheError, match="no definite answer to DescribeTable"):
            await worker.handle(job())


async def test_a_cancelled_wait_disturbs_no_later_answer(conditions):
    async with asyncio.timeout(HANG_GUARD_S), worker_processes(1, conditions) as (worker,):
        waiting = asyncio.ensure_future(worker.handle(job("s")))
        await asyncio.sleep(0)
        waiting.cancel()
        assert (await worker.handle(job("t"))).numbers == (1,)
        assert (await worker.close()).requests["TransactWriteItems"] == 2
