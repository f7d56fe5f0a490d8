"""`mangacache dax-emulator` and `mangacache local --dax`: for as long as the command runs, and in words one can use."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from commands import PROGRAM, clean_environ, listens, one_line, until
from daxes import CREDENTIALS, MovableClock, Wire, direct_client, real_client, self_signed
from mangatest import HANG_GUARD_S, LoopThread

from mangacache.local import LocalOptions, LocalStack, free_port
from mangacache.local.dax.control import _ACTIONS


@contextmanager
def running(*arguments):
    """Start the command, give it with what it printed, and end it."""
    process = subprocess.Popen(
        [*PROGRAM, "dax-emulator", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environ(**{name.upper(): value for name, value in CREDENTIALS.items()}),
    )
    try:
        said = []
        while not said or not said[-1].startswith("export "):
            line = process.stdout.readline()
            assert line, f"it ended: {process.communicate()[1]}"
            said.append(line)
        yield process, said
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def endpoint_of(said):
    return said[-1].removeprefix("export DAX_ENDPOINT=").strip()


def test_it_serves_shows_its_counters_when_asked_and_once_more_when_it_ends(dynoxide, mangacache):
    with running("--dynamodb-endpoint", dynoxide, "--nodes", "2", "--memory", "16M") as (process, said):
        with direct_client(dynoxide) as direct, real_client(endpoint_of(said)) as client:
            wire = Wire(None, client, direct, MovableClock())
            key = wire.key()
            wire.put(key)
            assert wire.get(key) == key
        (fault_port,) = [line.rpartition(" ")[2].strip() for line in said if "Fault port" in line]
        asked = mangacache("dax-emulator", "--status", fault_port)
        assert (asked.returncode, asked.stderr) == (0, "")
        assert "item cache: 1 hits (0 of them negative), 0 misses" in asked.stdout
        assert "1 PutItem" in asked.stdout
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=HANG_GUARD_S)
        assert (process.returncode, complaints) == (0, "")
        assert "item cache: 1 hits" in rest
        assert "passed on to DynamoDB: 1 DescribeTable, 1 PutItem" in rest
        assert "node 1 at port" in rest


def test_it_speaks_tls_to_who_signs(dynoxide, tmp_path, monkeypatch):
    certificate, key_file = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ("--certificate", str(certificate), "--key", str(key_file), "--check-signatures")
    with running("--dynamodb-endpoint", dynoxide, *tls) as (_, said):
        assert endpoint_of(said).startswith("daxs://")
        with direct_client(dynoxide) as direct, real_client(endpoint_of(said)) as client:
            wire = Wire(None, client, direct, MovableClock())
            key = wire.key()
            wire.put(key)
            assert wire.get(key) == key
        another = CREDENTIALS | {"aws_secret_access_key": "another"}
        with pytest.raises(ClientError), real_client(endpoint_of(said), **another):
            pass


def test_the_local_stack_has_one_if_asked(local):
    started = local("--dax")
    port = urlsplit(started.variables["DAX_ENDPOINT"]).port
    with (
        direct_client(started.variables["AWS_ENDPOINT_URL_DYNAMODB"]) as direct,
        real_client(started.variables["DAX_ENDPOINT"]) as client,
    ):
        wire = Wire(None, client, direct, MovableClock())
        key = wire.key()
        wire.put(key)
        assert wire.get(key) == key
    assert any("fault port: " in line for line in started.said)
    assert started.end(signal.SIGTERM) == (0, "")
    until(lambda: not listens(port) and not started.serves(), "for the servers to end")


def test_killed_and_started_again_it_knows_what_clients_still_hold():
    loop = LoopThread()
    opening = LocalStack.open(LocalOptions(engine="dynoxide", redis=False, dax=True, dax_options=("--nodes", "2")))
    stack = loop.run(opening.__aenter__())
    try:
        with direct_client(stack.dynamodb_url) as direct, real_client(stack.dax_url, retries=5) as client:
            wire = Wire(None, client, direct, MovableClock())
            key = wire.key()
            wire.put(key, a={"S": "1"}, b={"S": "2"})
            stack.dax.kill()
            until(lambda: not listens(stack.dax.port), "for it to end")
            loop.run(stack.dax.restart())

            def written():
                try:
                    wire.put(key, a={"S": "3"}, b={"S": "4"})
                except (ClientError, OSError):
                    return False
                return True

            until(written, "for the client to have routes again")
            assert wire.get(key, by=direct) == {**key, "a": {"S": "3"}, "b": {"S": "4"}}
    finally:
        loop.run(opening.__aexit__(None, None, None))
        loop.close()


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--memory", "256Q"), "'256Q' is no size of memory: write a number of bytes, or one with K, M or G"),
        (("--memory", "-1"), "'-1' is no size of memory"),
        (("--port", "70000"), "there is no port 70000"),
        (("--port", "65535", "--nodes", "2"), "there is no port 65536"),
        (("--nodes", "0"), "a cluster has at least 1 node, not 0"),
        (("--item-ttl", "-1"), "item_ttl_s must be above 0"),
        (("--lag", "-1"), "replication_lag_s must not be below 0"),
        (("--dynamodb-endpoint", "dax://127.0.0.1:8000"), "is no endpoint of DynamoDB"),
        (("--dynamodb-endpoint", "127.0.0.1:8000"), "is no endpoint of DynamoDB"),
        (("--certificate", "no.pem"), "TLS needs a certificate and its key: give both"),
        (("--certificate", "no.pem", "--key", "no.pem"), "cannot be used ([Errno 2] No such file or directory)"),
        (("--check-signatures",), "--check-signatures needs AWS_ACCESS_KEY_ID"),
        (("--advertise", "no.such.name.invalid"), "cannot be resolved"),
        (("--lists", "/"), "cannot be used as a file of attribute lists"),
    ],
)
def test_what_cannot_be_meant_gets_one_line(mangacache, dynoxide, arguments, complaint):
    given = () if "--dynamodb-endpoint" in arguments else ("--dynamodb-endpoint", dynoxide)
    port = () if "--port" in arguments else ("--port", "0")
    ended = mangacache("dax-emulator", *given, *port, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in one_line(ended.stderr)


def test_a_port_that_is_taken_gets_one_line_whichever_it_is(mangacache, dynoxide, taken):
    for arguments, what in (
        (("--port", taken), "for node 0 of the DAX emulator"),
        (("--port", 0, "--fault-port", taken), "for the fault port"),
    ):
        ended = mangacache("dax-emulator", "--dynamodb-endpoint", dynoxide, *arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        complaint = one_line(ended.stderr)
        assert complaint.startswith(f"port {taken} ")
        assert what in complaint


def test_a_dynamodb_that_does_not_answer_or_is_none_gets_one_line(mangacache, shared_valkey):
    nobody = f"http://127.0.0.1:{free_port()}"
    ended = mangacache("dax-emulator", "--port", "0", "--dynamodb-endpoint", nobody)
    assert ended.returncode == 2
    assert one_line(ended.stderr).startswith(f"DynamoDB at {nobody} does not answer")
    another = f"http://127.0.0.1:{shared_valkey}"
    ended = mangacache("dax-emulator", "--port", "0", "--dynamodb-endpoint", another)
    assert ended.returncode == 2
    assert one_line(ended.stderr).startswith(f"DynamoDB at {another} does not answer")


def test_the_status_of_nobody_gets_one_line(mangacache):
    ended = mangacache("dax-emulator", "--status", free_port())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no DAX emulator has its fault port at" in one_line(ended.stderr)


PAGE = (Path(__file__).parent.parent.parent / "docs" / "dax-emulator.md").read_text(encoding="utf-8")


def test_every_option_is_in_the_manual_and_no_other(mangacache):
    said = mangacache("dax-emulator", "--help").stdout
    options = set(re.findall(r"(?<!\S)\[?(--[a-z-]+)", said)) - {"--help"}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) == options


def test_every_fault_is_in_the_manual_and_no_other():
    told = set(re.findall(r"^\| `([a-z][a-z-]*)[?`]", PAGE, re.MULTILINE))
    assert told == set(_ACTIONS)


def test_the_manual_s_tests_pass_as_they_stand(dynoxide, tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_books.py").write_text(example, encoding="utf-8")
    variables = {name.upper(): value for name, value in CREDENTIALS.items()}
    with direct_client(dynoxide) as direct:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_books.py"],
            cwd=tmp_path,
            env=clean_environ(AWS_ENDPOINT_URL_DYNAMODB=dynoxide, **variables),
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_S,
            check=False,
        )
        assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
        direct.delete_table(TableName="books")
