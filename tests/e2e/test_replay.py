"""`mangacache replay` and `demo` on real servers: what they report, what they find, what they refuse."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from commands import PROGRAM, clean_environ, gone, one_line
from workers import worker_process

from mangacache.replay import SAMPLE, read_conversations
from mangacache.replay.driving import Client
from mangacache.store import open_transport

LATENCIES = [f"latency_ms.{of}.{share}" for of in ("read", "append", "message") for share in ("p50", "p99")]
KEYS = {
    *("conversations", "messages", "turns_written", "turns_verified", "mismatches", "lost", "duplicates"),
    *("messages_per_s", *LATENCIES, "hit_ratio.memory", "hit_ratio.redis", "hit_ratio.overall"),
    *(f"dynamodb.{kind}_per_message" for kind in ("reads", "writes", "touches")),
    *("dynamodb.requests", "redis.round_trips_per_message", "redis.bytes_per_append", "environment"),
}


def writes_per_message(conversations):
    """Return what the design promises: a put for the user's turn, and one request for all of the reply."""
    steady = [message for one in conversations for message in one.messages()[1:]]
    return round(sum(1 if len(message) == 1 else 2 for message in steady) / len(steady), 4)


def find(figures, path):
    for name in path.split("."):
        figures = figures[name]
    return figures


@pytest.fixture
def made(mangacache, table):
    """The variables that name a table of this test's own."""
    assert mangacache("tables", "create", **table).returncode == 0
    return table


@pytest.fixture
def figures(mangacache, made, tmp_path):
    """Replay, and return the report with the status."""

    def replayed(*arguments):
        out = tmp_path / "report.json"
        ended = mangacache("replay", *arguments, "--json", out, **made)
        assert ended.stderr == ""
        return json.loads(out.read_text()), ended.returncode

    return replayed


def test_the_demo_needs_nothing_but_itself_and_reports_every_figure(process, tmp_path):
    out = tmp_path / "report.json"
    ended = process("demo", "--json", out, TMPDIR=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith("DynamoDB: dynoxide ")
    assert ended.stdout.endswith("Every turn was stored, in order, once, and read back as it was said.\n")
    report = json.loads(out.read_text())
    assert {path for path in KEYS if find(report, path) is None} == set()
    said = read_conversations(SAMPLE)
    turns = sum(len(one.turns) for one in said)
    assert report["conversations"] == len(said) >= 40
    assert report["messages"] == sum(len(one.messages()) for one in said)
    assert report["turns_written"] == report["turns_verified"] == turns
    assert (report["mismatches"], report["lost"], report["duplicates"]) == (0, 0, 0)
    assert report["dynamodb"]["writes_per_message"] == writes_per_message(said)
    assert report["environment"]["dynamodb"].startswith("dynoxide ")
    assert report["environment"]["redis"].startswith("valkey ")
    assert 0 < report["redis"]["encoded_turn_bytes"] < report["redis"]["bytes_per_append"] < 1000
    assert "dax" not in report["environment"]
    _check_workers(report["through_workers"], said)
    for path in ("conversations", "latency_ms.read.p99", "dynamodb.requests.PutItem"):
        row, of_workers = [line for line in ended.stdout.splitlines() if line.startswith(f"{path} ")]
        assert of_workers.split() == [path, str(find(report["through_workers"], path))]
        assert row.split() == [path, str(find(report, path))]
    assert list(tmp_path.iterdir()) == [out]


def _check_workers(report, said):
    """The same chats by HTTP and WebSocket, from several processes, with DAX: nothing lost, doubled or changed."""
    assert (report["workers"], report["client_processes"]) == (2, 2)
    assert report["messages"] == sum(len(one.messages()) for one in said)
    assert report["turns_verified"] == report["turns_written"] == sum(len(one.turns) for one in said)
    assert (report["mismatches"], report["lost"], report["duplicates"]) == (0, 0, 0)
    assert report["sockets"]["turns_told"] > 0
    assert report["hit_ratio"]["overall"] > 0.5
    assert report["dynamodb"]["writes_per_message"] > 1
    assert report["redis"]["round_trips_per_message"] > 1
    assert report["environment"]["dax"] == "emulator"


def test_the_sample_replays_clean_through_two_worker_processes_and_without_redis(mangacache, tmp_path):
    out = tmp_path / "report.json"
    ended = mangacache("demo", "--workers", 2, "--no-redis", "--serve", 0, "--json", out)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert report["turns_verified"] == report["turns_written"] > 40
    assert (report["mismatches"], report["lost"], report["duplicates"]) == (0, 0, 0)
    assert report["dynamodb"]["writes_per_message"] == writes_per_message(read_conversations(SAMPLE))
    assert report["environment"]["redis"] is None
    assert report["redis"]["round_trips_per_message"] == report["redis"]["bytes_per_append"] == 0


def test_the_recorded_pace_is_followed_on_a_faster_clock(figures):
    report, status = figures(SAMPLE, "--limit", 7, "--timing", "recorded", "--speed", 1000)
    assert status == 0
    assert report["turns_verified"] == sum(len(one.turns) for one in read_conversations(SAMPLE, limit=7))


def test_limit_and_concurrency_bound_what_is_replayed(figures, chats):
    report, status = figures(chats(9), "--limit", 4, "--concurrency", 1)
    assert status == 0
    assert (report["conversations"], report["messages"], report["turns_verified"]) == (4, 12, 24)


def test_a_reply_of_more_turns_than_a_transaction_takes_is_stored_whole(figures, tmp_path):
    said = [{"role": "user", "content": "list them all", "at": 0}]
    said += [{"role": "assistant", "content": f"volume {i}", "at": i} for i in range(1, 71)]
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"session_id": "s", "customer_id": "c", "turns": said}))
    report, status = figures(file)
    assert (status, report["messages"], report["turns_verified"]) == (0, 1, 71)


def test_a_replay_meets_no_earlier_one_unless_it_is_given_its_prefix(figures, chats):
    assert figures(chats(2))[1] == 0
    assert figures(chats(2))[1] == 0
    assert figures(chats(2), "--prefix", "mine-")[1] == 0
    report, status = figures(chats(2), "--prefix", "mine-")
    assert status == 1
    assert report["duplicates"] == 12


# Through workers


@pytest.fixture
async def served(made):
    """Two workers of `mangacache serve` on the table, and a replay through them by the command, as a process."""
    async with worker_process(made) as one, worker_process(made) as other:

        async def replayed(*arguments):
            ports = (
                "--workers-at",
                f"{one.public},{other.public}",
                "--operators-at",
                f"{one.operator},{other.operator}",
            )
            process = await asyncio.create_subprocess_exec(
                *PROGRAM,
                "replay",
                *map(str, arguments),
                *ports,
                env=clean_environ(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            said, complaints = await process.communicate()
            return process.returncode, said.decode(), complaints.decode()

        yield replayed


@pytest.mark.parametrize("by", ["http", "websocket"])
async def test_chats_are_replayed_through_workers_that_are_there(served, chats, tmp_path, by):
    """The second time under the same prefix shows that it is looked at: each context has too much in it."""
    out = tmp_path / "report.json"
    given = (chats(6), "--by", by, "--workers", 2, "--prefix", "mine-", "--json", out)
    status, said, complaints = await served(*given)
    assert (status, complaints) == (0, "")
    assert said.endswith("Every turn was stored, in order, once, and read back as it was said.\n")
    report = json.loads(out.read_text())
    assert (report["messages"], report["turns_verified"], report["lost"]) == (18, 36, 0)
    # A session's first append is one; a worker that had read that there is none yet tries it in vain.
    assert report["dynamodb"]["requests"]["TransactWriteItems"] >= 6
    status, said, _ = await served(*given)
    assert status == 1
    assert said.endswith("Something is wrong: see mismatches, lost and duplicates.\n")
    assert json.loads(out.read_text())["mismatches"] > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--operators-at", "http://127.0.0.1:9"), "http://127.0.0.1:9/metrics does not answer"),
        (("--credential-file", "nowhere"), "--credential-file: nowhere cannot be read"),
    ],
)
def test_what_is_not_there_is_named(mangacache, chats, options, complaint):
    ended = mangacache("replay", chats(1), "--workers-at", "http://127.0.0.1:9", *options)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"mangacache: {complaint}")


# What the check at the end finds. Each changes what is stored after the replay and before it is read back.


async def _turns(transport, table_name, session_id):
    query = {
        "TableName": table_name,
        "KeyConditionExpression": "PK = :pk AND begins_with(SK, :turn)",
        "ExpressionAttributeValues": {":pk": {"S": f"SESSION#{session_id}"}, ":turn": {"S": "TURN#"}},
        "ConsistentRead": True,
    }
    return (await transport.request("Query", query))["Items"]


def changed(items):
    return [{**items[1], "content": {"S": "something else"}}], []


def changed_in_role(items):
    return [{**items[1], "role": {"S": "user"}}], []


def swapped(items):
    one, other = items[1], items[3]
    return [{**one, "SK": other["SK"]}, {**other, "SK": one["SK"]}], []


def first_deleted(items):
    return [], items[:1]


def one_deleted(items):
    return [], items[2:3]


def last_deleted(items):
    return [], items[-1:]


def all_deleted(items):
    return [], items


def doubled(items):
    return [{**items[1], "SK": {"S": items[-1]["SK"]["S"][:-1] + "7"}}], []


def invented(items):
    return [{**items[1], "SK": {"S": items[-1]["SK"]["S"][:-1] + "7"}, "turn_id": {"S": "t99"}}], []


def without_meta(items):
    return [], [{**items[0], "SK": {"S": "META"}}]


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (changed, (1, 0, 0)),
        (changed_in_role, (1, 0, 0)),
        (swapped, (2, 0, 0)),
        (first_deleted, (0, 1, 0)),
        (one_deleted, (0, 1, 0)),
        (last_deleted, (0, 1, 0)),
        (all_deleted, (0, 6, 0)),
        (doubled, (1, 0, 1)),
        (invented, (1, 0, 0)),
        (without_meta, (1, 0, 0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_in_the_table_is_found_and_ends_with_status_1(figures, chats, monkeypatch, tamper, expected):
    async def verify(cache, sessions):
        table_name = cache.settings.table_name
        async with open_transport(cache.settings) as transport:
            puts, deletes = tamper(await _turns(transport, table_name, sessions[1][0]))
            for item in puts:
                await transport.request("PutItem", {"TableName": table_name, "Item": item})
            for item in deletes:
                key = {name: item[name] for name in ("PK", "SK")}
                await transport.request("DeleteItem", {"TableName": table_name, "Key": key})
        return await real_verify(cache, sessions)

    from mangacache import replay

    real_verify = replay.verify
    monkeypatch.setattr(replay, "verify", verify)
    report, status = figures(chats(3))
    assert (report["mismatches"], report["lost"], report["duplicates"]) == expected
    assert status == 1


def test_a_finding_is_said_at_the_end_of_the_table(mangacache, made, chats):
    assert mangacache("replay", chats(1), "--prefix", "", **made).returncode == 0
    ended = mangacache("replay", chats(1), "--prefix", "", **made)
    assert ended.stdout.endswith("Something is wrong: see mismatches, lost and duplicates.\n")


# Workers that die, or cannot begin.


@pytest.fixture
def killed_after(monkeypatch):
    """Have the first worker process killed when so many messages have been sent; return all their process ids."""
    pids, sent = [], []
    create, send = asyncio.create_subprocess_exec, Client.send

    def killed_after(messages):
        async def recorded(*arguments, **options):
            process = await create(*arguments, **options)
            pids.append(process.pid)
            return process

        async def killing(self, *arguments):
            sent.append(self)
            if len(sent) == messages:
                os.kill(pids[0], signal.SIGKILL)
            await send(self, *arguments)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", recorded)
        monkeypatch.setattr(Client, "send", killing)
        return pids

    return killed_after


@pytest.mark.parametrize("messages", [1, 30])
def test_a_worker_killed_during_a_replay_is_a_clear_error_and_no_hang(mangacache, made, chats, killed_after, messages):
    pids = killed_after(messages)
    ended = mangacache("replay", chats(40), "--workers", 2, "--concurrency", 8, **made)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert one_line(ended.stderr) == f"worker {pids[0]} of the replay has died: nothing was verified"
    assert [gone(pid) for pid in pids] == [True, True]


def test_what_keeps_workers_from_opening_is_said_once_as_by_a_single_process(process, table, chats):
    ended = process("replay", chats(2), "--workers", 2, **table)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no table" in one_line(ended.stderr)


# What is refused, before anything is replayed.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--limit", "0"], "--limit take a whole number of at least 1"),
        (["--concurrency", "-1"], "--concurrency, --workers and --limit take"),
        (["--workers", "0"], "--concurrency, --workers and --limit take"),
        (["--speed", "0"], "--speed takes a number over 0"),
        (["--speed", "nan"], "--speed takes a number over 0"),
        (["--json", "/nowhere/report.json"], "--json: there is no folder /nowhere: make it first"),
        (["--json", "/"], "--json: / is a folder: name a file in it"),
        (["--prefix", "x" * 126], "line 1: session_id with its prefix must have 1 to 128 bytes"),
        (["--timing", "recorded"], "line 2: turn 1 has no time ('at' is null)"),
    ],
)
def test_options_that_cannot_be_followed_are_one_clear_line(mangacache, chats, table, arguments, complaint):
    file = chats(1)
    timeless = chats(2, name="timeless.jsonl", at=False).read_text().splitlines()[1]
    file.write_text(f"{file.read_text()}{timeless}\n")
    ended = mangacache("replay", file, *arguments, **table)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in one_line(ended.stderr)


def test_a_report_that_cannot_be_written_is_one_clear_line_after_the_replay(mangacache, made, chats):
    ended = mangacache("replay", chats(1), "--json", "/proc/report.json", **made)
    assert ended.returncode == 2
    assert "--json: the report cannot be written to /proc/report.json" in one_line(ended.stderr)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (("missing.jsonl", None), "there is no file"),
        (("empty.jsonl", b"\n\n"), "holds no conversation"),
        (("plain.jsonl.gz", b'{"session_id"'), "cannot be read after line 0: Not a gzipped file"),
        (("broken.jsonl", b'{"session_id": s}\n'), "broken.jsonl, line 1: JSON is malformed"),
    ],
)
def test_a_file_that_is_none_is_one_clear_line(mangacache, table, tmp_path, file, complaint):
    name, content = file
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    ended = mangacache("replay", path, **table)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in one_line(ended.stderr)
