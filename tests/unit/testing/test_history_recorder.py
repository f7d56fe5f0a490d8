"""What a recorder writes is what is read back, whatever happens to the process that wrote it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import zlib
from decimal import Decimal

import msgspec
import pytest
from histories import Simulation, TurnedClock

from mangacache import (
    Appended,
    Closed,
    Conflict,
    Consistency,
    Context,
    Corrupt,
    Deleted,
    History,
    Invalid,
    Meta,
    NewTurn,
    Rejected,
    Summary,
    Transient,
    Turn,
    Updated,
    Version,
)
from mangacache.testing import HistoryRecorder, Operation, SeenTurn, check_history, read_history, record_state
from mangacache.testing.history import recorder as recorder_module
from mangacache.testing.history import turn_digest
from mangacache.testing.history.operations import meta_digest, summary_digest
from mangacache.testing.history.records import MARK, Head, framed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w1.history"


def turn(number, turn_id=None, content="x", **more):
    return Turn(number, turn_id or f"t{number}", "user", content, "2026-11-24T09:58:00.123Z", **more)


def new(content, turn_id):
    return NewTurn(role="user", content=content, turn_id=turn_id)


def seen(number, turn_id=None, content="x"):
    return SeenTurn(number, turn_id or f"t{number}", turn_digest("user", content))


def context(*turns, version=None, **more):
    given = version or Version(1, turns[-1].number if turns else 0, 1)
    return Context("s", Meta("c", "active", "", "", given.number), turns, None, given, "redis", **more)


def test_each_kind_of_operation_comes_back_as_it_was(path):
    clock = TurnedClock()
    with HistoryRecorder(path, worker="w1", clock=clock) as recorder:
        assert recorder.operations() == []
        clock.now_s = 1.0
        call = recorder.append("s", client="c", turn_id="t1", role="user", content="x", after="1.2.3")
        clock.now_s = 2.0
        call.done(Appended(1, Version(1, 1, 1), duplicate=True))
        call = recorder.append_many("s", client="c", turns=(new("x", "t2"), new("y", "t3")))
        call.done((Appended(2, Version(1, 2, 1)), Appended(3, Version(1, 3, 2))), degraded=True)
        updated = Updated(Version(1, 3, 3), Meta("c", "closed", "", "", 3))
        recorder.update("s", client="c", if_version=Version(1, 3, 2)).done(updated)
        recorder.delete("s", client="c").done(Deleted(Version(2), existed=False, swept=True))
        read = recorder.read("s", client="c", consistency=Consistency.EVENTUAL(2.5), at_least="1.1.1", turns=7)
        read.done(context(turn(2), turn(3), stale=True))
        recorder.state("s").saw(Version(1, 1, 1), [turn(1)], source="dynamodb")
    history = read_history(path)
    assert recorder.operations() == history.operations
    closed, active = meta_digest(updated.meta), meta_digest(context(turn(3)).meta)
    same = {"session": "s", "client": "c", "worker": "w1", "invoked_ns": 2 * 10**9, "returned_ns": 2 * 10**9}
    ok = {**same, "outcome": "ok"}
    assert history.operations == [
        Operation(
            **{**ok, "invoked_ns": 10**9},
            kind="append",
            token=Version(1, 2, 3),
            version=Version(1, 1, 1),
            turns=(seen(1),),
            repeats=("t1",),
        ),
        Operation(**ok, kind="append", version=Version(1, 3, 2), turns=(seen(2), seen(3, content="y")), stale=True),
        Operation(**ok, kind="update", token=Version(1, 3, 2), version=Version(1, 3, 3), meta=closed),
        Operation(**ok, kind="delete", version=Version(2), made=False),
        Operation(
            **ok,
            kind="read",
            level="eventual",
            max_age_ns=25 * 10**8,
            token=Version(1, 1, 1),
            version=Version(1, 3, 1),
            turns=(seen(2), seen(3)),
            asked=7,
            stale=True,
            source="redis",
            meta=active,
            summary=summary_digest(None),
        ),
        Operation(
            **{**ok, "client": "state"},
            kind="state",
            level="strong",
            version=Version(1, 1, 1),
            turns=(seen(1),),
            source="dynamodb",
        ),
    ]
    assert (history.torn, history.damage) == (0, ())


def test_a_context_of_a_degraded_worker_counts_as_one_that_says_it_is_old():
    recorder = HistoryRecorder()
    recorder.read("s", client="c").done(context(turn(1), degraded=True))
    recorder.read("s", client="c").done(context(turn(1)), degraded=True)
    recorder.read("s", client="c").done(context(turn(1)))
    assert [operation.stale for operation in recorder.operations()] == [True, True, False]


def test_a_block_records_how_it_was_left():
    def outcome(error, begin=lambda r: r.append("s", client="c", turn_id="t", role="user", content="x")):
        with HistoryRecorder() as recorder:
            try:
                with begin(recorder):
                    if error is not None:
                        raise error
            except type(error):
                pass
            (operation,) = recorder.operations()
            assert (operation.returned_ns is None) == (operation.outcome == "unknown")
            return operation.outcome

    assert outcome(Rejected("full")) == outcome(Invalid("no")) == "failed"
    assert outcome(Transient("?")) == outcome(Conflict("?")) == outcome(asyncio.CancelledError()) == "unknown"
    assert outcome(None) == "unknown"
    assert outcome(Transient("?"), lambda recorder: recorder.read("s", client="c")) == "failed"


def test_an_operation_ends_once():
    recorder = HistoryRecorder()
    call = recorder.read("s", client="c")
    call.done(context())
    with pytest.raises(Invalid, match="ended already"):
        call.done(context())


def test_windows_are_said_shortly_and_come_back_whole(path):
    """Turns that look otherwise than before, holes, double numbers, another incarnation: all as they were returned."""
    noise = random.Random(5)
    windows = []
    with HistoryRecorder(path) as recorder:
        for _ in range(3000):
            version = Version(noise.choice((1, 1, 1, 2)), noise.randrange(1, 600), 1)
            last = version.number
            turns = [
                turn(number, content=noise.choice("xxxxxxxxy") if version.incarnation == 1 else "z")
                for number in range(max(1, last - noise.randrange(32)), last + 1)
            ]
            if noise.random() < 0.05:
                noise.shuffle(turns)
            if noise.random() < 0.05:
                turns = turns[::2]
            if noise.random() < 0.02:
                turns = turns + turns[:1]
            session = noise.choice("abc")
            recorder.read(session, client="c").done(context(*turns, version=version))
            windows.append((session, tuple(seen(t.number, t.turn_id, t.content) for t in turns)))
    assert [(operation.session, operation.turns) for operation in read_history(path).operations] == windows


def test_a_window_that_is_repeated_costs_no_more_than_its_name(path):
    turns = [turn(number, content="long " * 100) for number in range(1, 33)]
    with HistoryRecorder(path) as recorder:
        recorder.read("s", client="c").done(context(*turns))
        before = path.stat().st_size
        recorder.read("s", client="c").done(context(*turns))
    assert path.stat().st_size - before < 150


def test_what_a_recorder_remembers_of_a_session_is_bounded():
    recorder = HistoryRecorder()
    for last in range(5, 3000, 5):
        recorder.read("s", client="c").done(context(*map(turn, range(last - 4, last + 1))))
    recorder.state("s").saw(Version(1, 5000, 1), [turn(number) for number in range(1, 5001)])
    ((_, known),) = recorder.windows._said.values()
    assert len(known) <= 256
    assert recorder.operations()[-1].turns == tuple(seen(number) for number in range(1, 5001))


KILLED = """
import os, sys
from mangacache import Appended, Version
from mangacache.testing import HistoryRecorder
recorder = HistoryRecorder(sys.argv[1], worker="doomed")
number = 0
while True:
    number += 1
    call = recorder.append("s", client="c", turn_id=f"t{number}", role="user", content="x")
    print(f"begun {number}", flush=True)
    call.done(Appended(number, Version(1, number, 1)))
    print(f"ended {number}", flush=True)
"""


@pytest.mark.parametrize("after", ["begun 1", "ended 1", "begun 500", "ended 777"])
def test_a_killed_process_leaves_all_that_it_was_told_and_had_begun(path, after):
    """SIGKILL comes while it runs on: at least what it had said by then is there, and at most one operation is open."""
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.strip() == after:
                process.send_signal(signal.SIGKILL)
                break
        said = [after, *filter(None, process.stdout.read().split("\n")[:-1])]
        assert process.wait() == -signal.SIGKILL
    history = read_history(path)
    begun = max(int(line.split()[1]) for line in said)
    ended = max((int(line.split()[1]) for line in said if line.startswith("ended")), default=begun - 1)
    outcomes = [operation.outcome for operation in history.operations]
    assert len(outcomes) >= begun
    assert outcomes.count("ok") >= ended
    assert set(outcomes[:-1]) <= {"ok"}
    assert outcomes.count("unknown") <= 1
    assert history.damage == ()
    assert check_history(history).clean


def recorded(path, operations=20):
    with HistoryRecorder(path, worker="w1") as recorder:
        for number in range(1, operations + 1):
            call = recorder.append("s", client="c", turn_id=f"t{number}", role="user", content="x")
            call.done(Appended(number, Version(1, number, 1)))
    return path.read_bytes()


def test_wherever_a_file_is_cut_off_the_rest_is_read(path):
    whole = recorded(path, 3)
    frames = [index for index in range(len(whole)) if whole.startswith(MARK, index)]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        history = read_history(path)
        complete = max(sum(start <= size for start in [*frames[1:], len(whole)]) - 1, 0)
        assert [operation.outcome for operation in history.operations] == ["ok"] * (complete // 2) + ["unknown"] * (
            complete % 2
        )
        assert history.torn == (size not in {0, *frames, len(whole)})
        assert history.damage == ()
        assert check_history(history).clean


def test_bytes_that_are_damaged_in_the_middle_are_passed_over_and_reported(path):
    whole = bytearray(recorded(path))
    noise = random.Random(3)
    for _ in range(200):
        damaged = bytearray(whole)
        at = noise.randrange(100, len(whole) - 200)
        for index in range(at, at + noise.randrange(1, 60)):
            damaged[index] ^= noise.randrange(1, 256)
        path.write_bytes(damaged)
        history = read_history(path)
        assert len(history.operations) >= 17
        assert history.damage
        assert history.damage[0] in check_history(history).text()


def test_turns_that_cannot_be_read_leave_their_windows_unrecorded(path):
    """The first read says the turns, the second one only refers to them."""
    with HistoryRecorder(path) as recorder:
        recorder.read("s", client="c").done(context(turn(1), turn(2)))
        recorder.read("s", client="c").done(context(turn(1), turn(2)))
    damaged = bytearray(path.read_bytes())
    frames = [index for index in range(len(damaged)) if damaged.startswith(MARK, index)]
    damaged[frames[2] + 20] ^= 1
    path.write_bytes(damaged)
    history = read_history(path)
    assert [(operation.outcome, operation.turns, operation.asked) for operation in history.operations] == [
        ("ok", (), 0),
        ("unknown", (), 0),
    ]
    assert "of 1 operations the beginning, or the turns, cannot be read" in history.damage[-1]
    assert set(check_history(history).counts) == {"phantom"}


def test_a_record_of_another_release_is_passed_over_and_reported(path):
    with HistoryRecorder(path) as recorder:
        recorder.write(Head(1, "w", 1, ""))
        body = msgspec.msgpack.encode([99, "of a later release"])
        os.write(recorder._file, struct.pack("<3sII", MARK, len(body), zlib.crc32(body)) + body)
        recorder.read("s", client="c").done(context())
    history = read_history(path)
    assert len(history.operations) == 1
    assert "cannot be read" in history.damage[0]


def test_a_process_that_begins_again_appends_to_its_file(path):
    first = recorded(path, 2)
    path.write_bytes(first[:-5])
    recorded(path, 1)
    history = read_history(path)
    assert [operation.outcome for operation in history.operations] == ["ok", "unknown", "ok"]
    assert (history.torn, history.damage) == (1, ())


def test_a_file_that_is_no_history_is_refused(path):
    path.write_bytes(b"no history " * 1000)
    with pytest.raises(Corrupt, match="no history"):
        read_history(path)
    path.write_bytes(framed(Head(99, "w", 1, "")))
    with pytest.raises(Corrupt, match="format 99"):
        read_history(path)


def test_files_of_two_machines_are_not_put_together(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, machine in zip(paths, ("one", "", "other"), strict=True):
        path.write_bytes(framed(Head(1, "w", 1, machine)))
    assert read_history(*paths[:2]).operations == []
    with pytest.raises(Invalid, match="two machines"):
        read_history(*paths)


def test_a_recorder_belongs_to_one_process_and_ends_once(path):
    recorder = HistoryRecorder(path)
    recorder._process += 1
    with pytest.raises(Closed, match="one a process"):
        recorder.read("s", client="c")
    recorder._process -= 1
    recorder.close()
    recorder.close()
    with pytest.raises(Closed):
        recorder.read("s", client="c")


def test_what_builds_on_earlier_records_is_made_and_written_under_the_lock(monkeypatch):
    recorder = HistoryRecorder()
    write, locked = recorder.write, []
    monkeypatch.setattr(recorder, "write", lambda record: (locked.append(recorder.lock.locked()), write(record)))
    recorder.read("s", client="c").done(context(turn(1)))
    assert locked == [False, True]


def test_threads_share_a_recorder(path):
    """The windows of a session that two threads record at once come back as each thread had them."""
    windows = {}
    with HistoryRecorder(path) as recorder:

        def work(name):
            noise = random.Random(name)
            said = windows[name] = []
            for _ in range(400):
                last = noise.randrange(1, 40)
                turns = [turn(number, content=noise.choice("xxxxxxy")) for number in range(1, last + 1)]
                recorder.read("s", client=name).done(context(*turns))
                said.append(tuple(seen(t.number, t.turn_id, t.content) for t in turns))

        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    operations = read_history(path).operations
    for name, said in windows.items():
        assert [operation.turns for operation in operations if operation.client == name] == said


def test_a_write_that_the_system_cuts_short_is_finished(path, monkeypatch):
    write = os.write
    monkeypatch.setattr(recorder_module.os, "write", lambda file, data: write(file, data[:7]))
    recorded(path, 3)
    monkeypatch.undo()
    assert [operation.outcome for operation in read_history(path).operations] == ["ok"] * 3


def test_digests_are_the_same_for_equal_content_and_only_then():
    assert turn_digest("user", "x") != turn_digest("user", "y")
    assert turn_digest("user", "x") != turn_digest("assistant", "x")
    one = Meta("c", "active", "", "", 0, {"a": 1, "b": {"x", "y"}, "d": {Decimal("1.5"), Decimal(2)}, "e": b"\xff"})
    other = Meta("c", "active", "", "", 9, {"e": b"\xff", "d": {Decimal(2), Decimal("1.5")}, "b": {"y", "x"}, "a": 1})
    assert meta_digest(one) == meta_digest(other)
    assert meta_digest(one) != meta_digest(msgspec.structs.replace(one, status="closed"))
    assert meta_digest(None) != meta_digest(one)
    assert summary_digest(Summary(3, "x", "")) != summary_digest(Summary(4, "x", "")) != summary_digest(None)


class StoredSession:
    """A session to read from, in pages of two, that changes a few times while it is read."""

    id = "s"

    def __init__(self, changes):
        self.changes = changes
        self.number = 3

    async def context(self, *, consistency):
        assert consistency == Consistency.STRONG
        self.number += self.changes > 0
        self.changes -= 1
        return context(version=Version(1, self.number, 1))

    async def history(self, *, after, limit):
        assert limit > 2
        first = int(after or 0) + 1
        turns = tuple(turn(number) for number in range(first, min(first + 2, self.number + 1)))
        return History(turns, None, str(first + 1) if first + 1 < self.number else None)


async def test_the_state_is_read_until_nothing_changes_meanwhile():
    recorder = HistoryRecorder()
    await record_state(recorder, StoredSession(changes=3))
    (*given_up, whole) = recorder.operations()
    assert {operation.outcome for operation in given_up} == {"failed"}
    assert whole.version == Version(1, 6, 1)
    assert whole.turns == tuple(seen(number) for number in range(1, 7))
    with pytest.raises(Conflict, match="end its writers"):
        await record_state(recorder, StoredSession(changes=1000))


def test_files_and_memory_give_the_same_history(tmp_path):
    filed = Simulation(random.Random(4), directory=tmp_path).run(300)
    kept = Simulation(random.Random(4)).run(300)
    assert read_history(*filed.paths).operations == kept.recorded().operations
