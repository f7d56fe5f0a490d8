"""`mangacache local`: two real servers, for as long as the command runs and not a moment longer."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from urllib.parse import unquote

import pytest
import redis
from commands import PROGRAM, clean_environ, listens, one_line, until

from mangacache.local import free_port


def evaluated(local, *command):
    """Run a command in a shell that has evaluated all that `mangacache local` printed."""
    script = f"eval {shlex.quote(''.join(local.said))}; exec {shlex.join(command)}"
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, env=clean_environ(), check=False)


def test_what_it_prints_can_be_evaluated_by_a_shell_and_used_by_another_process(local, chats):
    started = local()
    assert started.said[0].startswith("# dynoxide ")
    made = evaluated(started, *PROGRAM, "tables", "create")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == "table manga-assist-sessions stands already, with index and ttl\n"
    replayed = evaluated(started, *PROGRAM, "replay", str(chats(3)))
    assert (replayed.returncode, replayed.stderr) == (0, "")
    ping = "import os, redis; print(redis.Redis.from_url(os.environ['REDIS_ENDPOINT']).ping())"
    assert evaluated(started, sys.executable, "-c", ping).stdout == "True\n"


def test_a_unix_socket_in_a_folder_with_a_space_is_quoted_for_the_shell(local):
    with tempfile.TemporaryDirectory(prefix="a folder; of $HOME ") as folder:  # short, for the sake of the socket
        started = local("--unix-socket", TMPDIR=folder)
        said = evaluated(started, sys.executable, "-c", "import os; print(os.environ['REDIS_ENDPOINT'])")
        address = said.stdout.rstrip("\n")
        assert unquote(address).startswith(f"unix://{folder}/"), said.stderr
        client = redis.Redis(unix_socket_path=unquote(address.removeprefix("unix://")))
        assert client.ping() is True
        client.close()
        assert evaluated(started, *PROGRAM, "tables", "create").stderr == "", "the settings take the address, too"
        started.end(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order_and_the_servers_with_it(local, number, tmp_path):
    started = local(TMPDIR=str(tmp_path))
    assert listens(started.dynamodb_port)
    assert listens(started.redis_port)
    assert started.end(number) == (0, "")
    assert not started.serves()
    assert list(tmp_path.iterdir()) == [], "what it kept meanwhile is gone too"


def test_ctrl_c_reaches_the_whole_group_and_the_servers_still_end_in_order(local, tmp_path):
    started = local("--data", str(tmp_path))
    client = redis.Redis(port=started.redis_port)
    client.set("key", "value")
    client.close()
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.process.wait(60) == 0
    assert not started.serves()
    assert "User requested shutdown" in (tmp_path / "valkey.log").read_text()


def test_servers_die_with_a_parent_that_is_killed(local):
    started = local()
    assert started.end(signal.SIGKILL)[0] == -signal.SIGKILL
    until(lambda: not started.serves(), "for the servers to end")


THREAD = """
    import asyncio, sys, threading, time
    from mangacache.local import LocalOptions, LocalStack

    opened, loops = [], []

    def start():
        async def enter():
            opening = LocalStack.open(LocalOptions(engine="dynoxide"))
            opened.append((opening, await opening.__aenter__()))
        loops.append(asyncio.new_event_loop())  # not ended as asyncio.run would, which closes what it left open
        loops[0].run_until_complete(enter())

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    stack = opened[0][1]
    for name, value in stack.environment().items():
        print(f"export {name}={value}")
    print("# Both servers run", flush=True)
    sys.stdin.readline()
    print(stack.dynamodb.running and stack.valkey.running, flush=True)
    time.sleep(3600)
"""


def test_servers_started_from_a_thread_outlive_the_thread_but_not_the_process(local):
    """The kernel's parent-death signal follows the thread that forked: with it alone they would end with the thread."""
    started = local(program=(sys.executable, "-c", textwrap.dedent(THREAD)))
    started.process.stdin.write("are they running?\n")
    started.process.stdin.flush()
    assert started.process.stdout.readline() == "True\n"
    client = redis.Redis(port=started.redis_port)
    assert client.ping() is True
    client.close()
    assert listens(started.dynamodb_port)
    started.end(signal.SIGKILL)
    until(lambda: not started.serves(), "for the servers to end")


def test_data_in_a_folder_outlive_the_command_ended_well_or_killed(local, mangacache, chats, tmp_path):
    folder = tmp_path / "new" / "folder"
    file = chats(2)
    for number, clean in ((signal.SIGTERM, "a-"), (signal.SIGKILL, "b-")):
        started = local("--data", str(folder))
        client = redis.Redis(port=started.redis_port)
        client.set(f"key {clean}", "value")
        client.wait(0, 0)
        client.close()
        replayed = mangacache("replay", file, "--prefix", clean, "--no-redis", **started.variables)
        assert replayed.returncode == 0, "with no redis, which would remember, too"
        started.end(number)
        until(lambda started=started: not started.serves(), "for the servers to end")
    started = local("--data", str(folder))
    client = redis.Redis(port=started.redis_port)
    assert client.mget("key a-", "key b-") == [b"value", b"value"]
    client.close()
    for clean in ("a-", "b-"):
        again = mangacache("replay", file, "--prefix", clean, "--no-redis", **started.variables)
        assert again.returncode == 1, "each turn stood there already"


def test_without_a_folder_nothing_is_kept(local, tmp_path):
    started = local(TMPDIR=str(tmp_path))
    assert [path.name.startswith("mangacache-") for path in tmp_path.iterdir()] == [True]
    started.end(signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("server", ["redis", "dynamodb"])
def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_running(process, server, tmp_path):
    other = "dynamodb" if server == "redis" else "redis"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, free = taken.getsockname()[1], free_port()
        ended = process("local", f"--{server}-port", port, f"--{other}-port", free, TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"port {port} cannot be used" in one_line(ended.stderr)
    assert not listens(free)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ports", ["01", "10"])
def test_given_ports_are_used_and_port_0_takes_a_free_one(local, ports):
    redis_port, dynamodb_port = (free_port() if given == "1" else 0 for given in ports)
    started = local("--redis-port", str(redis_port), "--dynamodb-port", str(dynamodb_port))
    assert started.redis_port == redis_port or listens(started.redis_port)
    assert started.dynamodb_port == dynamodb_port or listens(started.dynamodb_port)
    assert 0 not in (started.redis_port, started.dynamodb_port)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--redis-port", "70000"], "port 70000 cannot be used for Valkey"),
        (["--redis-port", "-1"], "port -1 cannot be used for Valkey"),
        (["--unix-socket", "--redis-port", "7000"], "--unix-socket and --redis-port exclude each other"),
        (["--data", os.devnull], "cannot be made"),
        (["--data", "/proc"], "choose another folder"),
    ],
)
def test_what_cannot_be_started_is_said_in_one_line(process, arguments, complaint):
    ended = process("local", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in one_line(ended.stderr)


def test_a_socket_in_a_folder_with_too_long_a_name_is_refused(process, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    ended = process("local", "--unix-socket", TMPDIR=str(folder))
    assert ended.returncode == 2
    assert "use a shorter one" in one_line(ended.stderr)


# The command where dynoxide is not installed: neither named, nor on PATH, nor beside the interpreter.
WITHOUT_DYNOXIDE = (
    sys.executable,
    "-c",
    "import sys; sys.prefix = '/nowhere'; from mangacache.cli import main; sys.exit(main(sys.argv[1:]))",
)


@pytest.mark.parametrize("engine", ["auto", "moto"])
def test_moto_takes_the_place_of_dynoxide_and_says_what_that_means(local, mangacache, chats, engine):
    program = (*WITHOUT_DYNOXIDE, "local") if engine == "auto" else (*PROGRAM, "local")
    started = local("--engine", engine, program=program, PATH="/usr/bin:/bin", MANGACACHE_DYNOXIDE="")
    assert started.said[0].startswith("# moto ")
    assert "transactions are not atomic" in started.said[0]
    assert ("dynoxide was not found" in started.said[0]) is (engine == "auto")
    assert mangacache("replay", chats(3), **started.variables).returncode == 0
    assert started.end(signal.SIGTERM) == (0, "")
    assert not started.serves()


@pytest.mark.parametrize(
    ("arguments", "named", "complaint"),
    [
        (["--engine", "dynoxide"], "", "dynoxide is not installed"),
        (["--engine", "auto"], "/nowhere/dynoxide", "MANGACACHE_DYNOXIDE names /nowhere/dynoxide"),
    ],
)
def test_an_engine_that_is_wanted_and_missing_is_said_in_one_line(process, arguments, named, complaint):
    ended = process("local", *arguments, program=WITHOUT_DYNOXIDE, PATH="/usr/bin:/bin", MANGACACHE_DYNOXIDE=named)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in one_line(ended.stderr)
