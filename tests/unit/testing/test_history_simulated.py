"""Larger histories: what is correct by construction is clean, and one thing made wrong in it is found."""

from __future__ import annotations

import random
import subprocess
import sys

import msgspec
import pytest
from histories import Simulation
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mangacache import Version
from mangacache.testing import Promises, SeenTurn, check_history, read_history
from mangacache.testing.history.__main__ import main

S = 10**9
SEEDS = st.integers(0, 2**32)
EXAMPLES = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)


def simulated(seed, operations=150, **more):
    return Simulation(random.Random(seed), **more).run(operations).recorded().operations


@EXAMPLES
@given(SEEDS, st.sampled_from([0.0, 0.1, 0.5]), st.integers(1, 4), st.integers(1, 12))
def test_a_history_that_is_right_by_construction_is_clean(seed, lost, workers, clients):
    report = check_history(simulated(seed, lost=lost, workers=workers, clients=clients))
    assert report.clean, report.text()


def replaced(operation, **changes):
    return msgspec.structs.replace(operation, **changes)


def answered(operations, kind, *levels):
    return [o for o in operations if o.kind == kind and o.outcome == "ok" and (not levels or o.level in levels)]


def told_before(operations, reader, *, age_ns=0, client=None):
    """Return the highest number of an operation's incarnation that had been told before it began."""
    numbers = [
        o.version.number
        for o in operations
        if o.outcome == "ok"
        and o.session == reader.session
        and o.returned_ns < reader.invoked_ns - age_ns
        and o.version.incarnation == reader.version.incarnation
        and client in (None, o.client)
    ]
    return max(numbers, default=0)


def older(read, number):
    """The same read, answered from when the newest turn was `number`."""
    version = Version(read.version.incarnation, number, read.version.revision)
    turns = tuple(turn for turn in read.turns if turn.number <= number)
    return replaced(read, version=version, turns=turns, asked=len(turns))


def stale_read(operations, noise):
    for read in shuffled(answered(operations, "read", "latest", "strong"), noise):
        told = told_before(operations, read)
        if told > 1:
            return read, replaced(older(read, noise.randrange(1, told)), client="another", token=None)
    return None


def old_session_read(operations, noise):
    for read in shuffled(answered(operations, "read", "session"), noise):
        told = told_before(operations, read, age_ns=S)
        if told > 1:
            return read, replaced(older(read, noise.randrange(1, told)), client="another", token=None)
    return None


def token_ignored(operations, noise):
    for read in shuffled(answered(operations, "read", "session", "eventual"), noise):
        if read.token and read.token.incarnation == read.version.incarnation and read.token.number > 1:
            return read, older(read, noise.randrange(1, read.token.number))
    return None


def client_forgotten(operations, noise):
    for read in shuffled(answered(operations, "read"), noise):
        told = told_before(operations, read, client=read.client)
        if told > 1 and read.token:
            return read, replaced(older(read, noise.randrange(1, told)), token=Version())
    return None


def hole_in_a_window(operations, noise):
    for read in shuffled(answered(operations, "read"), noise):
        if len(read.turns) >= 3:
            missing = noise.randrange(1, len(read.turns) - 1)
            return read, replaced(read, turns=read.turns[:missing] + read.turns[missing + 1 :])
    return None


def short_window(operations, noise):
    for read in shuffled(answered(operations, "read"), noise):
        if len(read.turns) >= 2:
            return read, replaced(read, turns=read.turns[1:])
    return None


def stranger_in_a_window(operations, noise):
    return in_a_window(operations, noise, lambda turn: SeenTurn(turn.number, "stranger", turn.digest))


def other_content_in_a_window(operations, noise):
    return in_a_window(operations, noise, lambda turn: SeenTurn(turn.number, turn.turn_id, turn.digest ^ 1))


def in_a_window(operations, noise, change):
    for read in shuffled(answered(operations, "read"), noise):
        if read.turns:
            turns = list(read.turns)
            place = noise.randrange(len(turns))
            turns[place] = change(turns[place])
            return read, replaced(read, turns=tuple(turns))
    return None


def number_given_twice(operations, noise):
    appends = shuffled(answered(operations, "append"), noise)
    for append in appends:
        for other in appends:
            same = other.session == append.session and other.version.incarnation == append.version.incarnation
            if same and other.turns[0].turn_id != append.turns[0].turn_id:
                number = other.turns[0].number
                version = Version(append.version.incarnation, number, append.version.revision)
                turn = SeenTurn(number, append.turns[0].turn_id, append.turns[0].digest)
                return append, replaced(append, turns=(turn,), version=version)
    return None


def turn_gone_at_the_end(operations, noise):
    for state in shuffled(answered(operations, "state"), noise):
        acked = {
            a.turns[0].turn_id
            for a in answered(operations, "append")
            if a.session == state.session and a.version.incarnation == state.version.incarnation
        }
        doomed = [turn for turn in state.turns if turn.turn_id in acked]
        if doomed:
            gone = noise.choice(doomed)
            return state, replaced(state, turns=tuple(turn for turn in state.turns if turn is not gone))
    return None


def append_below_what_its_client_knew(operations, noise):
    for append in shuffled(answered(operations, "append"), noise):
        tries = [o for o in operations if o.kind == "append" and o.turns[0].turn_id == append.turns[0].turn_id]
        told = told_before(operations, append, client=append.client)
        if told > 1 and len(tries) == 1:
            number = noise.randrange(1, told + 1)
            version = Version(append.version.incarnation, number, append.version.revision)
            turn = SeenTurn(number, append.turns[0].turn_id, append.turns[0].digest)
            return append, replaced(append, turns=(turn,), version=version)
    return None


def revision_made_by_nobody(operations, noise):
    for read in shuffled(answered(operations, "read"), noise):
        if read.version.revision:
            version = Version(read.version.incarnation, read.version.number, read.version.revision + 100)
            return read, replaced(read, version=version, meta=None)
    return None


def change_told_with_another_content(operations, noise):
    for update in shuffled(answered(operations, "update"), noise):
        of_session = [o for o in operations if o.session == update.session and o is not update and o.meta is not None]
        if any(
            o.version.incarnation == update.version.incarnation and o.version.revision == update.version.revision
            for o in of_session
        ):
            return update, replaced(update, meta=update.meta ^ 1)
    return None


MUTATIONS = {
    stale_read: {"linearizability"},
    old_session_read: {"age bound"},
    token_ignored: {"read your writes", "monotonic reads"},
    client_forgotten: {"read your writes", "monotonic reads"},
    hole_in_a_window: {"hole"},
    short_window: {"hole"},
    stranger_in_a_window: {"phantom", "mismatch"},
    other_content_in_a_window: {"mismatch"},
    number_given_twice: {"duplicate", "mismatch"},
    turn_gone_at_the_end: {"lost acknowledgement"},
    append_below_what_its_client_knew: {"monotonic writes", "writes follow reads"},
    revision_made_by_nobody: {"phantom"},
    change_told_with_another_content: {"mismatch"},
}


def shuffled(operations, noise):
    return noise.sample(operations, len(operations))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_one_thing_made_wrong_is_found_and_its_operation_named(mutation):
    @EXAMPLES
    @given(SEEDS)
    def found(seed):
        operations = simulated(seed)
        mutated = mutation(operations, random.Random(seed))
        assume(mutated is not None)
        before, after = mutated
        operations = [after if operation is before else operation for operation in operations]
        report = check_history(operations, limit=1000)
        named = [
            violation
            for violation in report.violations
            if violation.name in MUTATIONS[mutation] and any(operation is after for operation in violation.operations)
        ]
        assert named, f"{after}\n{report.text()}"

    found()


def test_gaps_and_tokens_alone_excuse_no_more_than_they_say():
    operations = simulated(7)
    before, after = token_ignored(operations, random.Random(7))
    operations = [after if operation is before else operation for operation in operations]
    promises = Promises(unpromised={"*": [(0, 10**15)]}, per_client=False)
    report = check_history(operations, promises=promises)
    assert {violation.operations[-1] for violation in report.violations} == {after}


def test_50_000_operations_of_four_workers_are_read_and_checked(tmp_path):
    simulation = Simulation(
        random.Random(1), workers=4, sessions=20, clients=32, writes=0.2, deletes=0.001, lost=0.01, directory=tmp_path
    ).run(50_000)
    history = read_history(*simulation.paths)
    report = check_history(history)
    assert report.operations == len(history.operations) == 50_020
    assert report.clean, report.text()
    read = answered(history.operations, "read", "latest")[-1]
    place = history.operations.index(read)
    history.operations[place] = replaced(read, version=Version(read.version.incarnation, 1, 1), turns=(), asked=0)
    assert "linearizability" in check_history(history).counts


def test_the_command_reports_and_says_by_its_status_what_it_found(tmp_path, capsys):
    simulation = Simulation(random.Random(1), directory=tmp_path).run(100)
    files = [str(path) for path in simulation.paths]
    assert main([*files, "--times", "--unpromised", "w1:5:9", "--unpromised", "w1:11:12"]) == 0
    output = capsys.readouterr().out
    assert "102 operations on 2 sessions" in output
    assert "operations a second" in output
    # Without the file of one worker its turns are nobody's.
    assert main(files[:2]) == 1
    assert "phantom" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    with pytest.raises(SystemExit):
        main([*files, "--unpromised", "w1:now:then"])


def test_the_command_runs_as_a_module(tmp_path):
    (path,) = Simulation(random.Random(1), workers=1, directory=tmp_path).run(50).paths
    command = [sys.executable, "-m", "mangacache.testing.history", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.endswith("no violation\n")
