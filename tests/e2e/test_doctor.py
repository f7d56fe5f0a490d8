"""`mangacache doctor` on real servers, with something wrong that was planted, and with nothing wrong."""

from __future__ import annotations

import json
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from commands import variables_for
from daxes import emulated
from mangatest import LoopThread
from redis import Redis
from redises import debian_redis_binary

from mangacache.local import free_port
from mangacache.local.valkey import valkey_process

PASSWORD = "s3cret-of-the-test"  # noqa: S105 - a test's own
READS = {"hello", "auth", "select", "client|no-touch", "info", "config|get", "scan", "pttl", "time", "cluster|slots"}


@contextmanager
def server(*options, binary=None):
    loop = LoopThread()
    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        process = valkey_process(folder=Path(folder), binary=binary, options=options)
        loop.run(process.start())
        try:
            yield process.port
        finally:
            loop.run(process.stop())
            loop.close()


@pytest.fixture(scope="module")
def full_valkey():
    """A Valkey that refuses writes when it is full, with a key of ours that stays for ever, and others' keys."""
    with server("--maxmemory-policy", "noeviction") as port:
        with Redis(port=port) as client:
            client.set("mc:conn:{for ever}", "x")
            client.set("mc:rate:{c}:messages:30/60", "x", ex=600)
            client.set("mc:staging:session:{s}:context:1", "x", ex=600)
            client.set("somebody else's", "x")
        yield port


@pytest.fixture(scope="module")
def closed_redis():
    """Debian's Redis as ElastiCache is: a password, and no CONFIG; evicting by another policy, and saving to disk."""
    options = ("--maxmemory-policy", "volatile-lru", "--save", "3600", "1", "--timeout", "100")
    with server(*options, binary=debian_redis_binary()) as port:
        with Redis(port=port) as client:
            client.acl_setuser("default", enabled=True, passwords=[f"+{PASSWORD}"], commands=["-config"], nopass=False)
        yield port


@pytest.fixture
def doctor(mangacache):
    """Run the doctor; return its status and its findings by id."""

    def run(*arguments, **variables):
        ended = mangacache("doctor", "--json", *arguments, **variables)
        assert ended.stderr == ""
        assert PASSWORD not in ended.stdout
        said = json.loads(ended.stdout)
        assert said["status"] == ended.returncode
        return ended.returncode, {finding["check"]: finding for finding in said["findings"]}

    return run


@pytest.fixture
def made(mangacache, table):
    """The variables of a table that stands as it must."""
    assert mangacache("tables", "create", **table).returncode == 0
    return table


def problems(found):
    return sorted(check for check, finding in found.items() if finding["severity"] == "problem")


def dynamodb(variables):
    return boto3.client(
        "dynamodb",
        endpoint_url=variables["AWS_ENDPOINT_URL_DYNAMODB"],
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - a local engine takes any
    )


def handmade(variables, *, sort="SK"):
    """Make a table as somebody would who has read half of the page."""
    client = dynamodb(variables)
    names = ["PK", sort] if sort else ["PK"]
    client.create_table(
        TableName=variables["SESSION_TABLE"],
        KeySchema=[{"AttributeName": n, "KeyType": k} for n, k in zip(names, ("HASH", "RANGE"), strict=False)],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        BillingMode="PAY_PER_REQUEST",
    )
    client.close()


def test_an_installation_that_is_well_has_no_problem_and_is_left_as_it_was(doctor, made, dynoxide):
    with server() as port, emulated(dynoxide, nodes=2) as emulator, Redis(port=port) as client:
        client.set("mc:conn:{c}", "x", ex=600)
        client.config_resetstat()
        variables = made | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{port}", "DAX_ENDPOINT": emulator.endpoint}
        status, found = doctor("--dax-status", emulator.fault_port, **variables)
        assert (status, problems(found)) == (0, [])
        assert {"credentials", "table.keys", "redis.policy", "dax.ttl", "clock.redis", "limits.files"} <= found.keys()
        assert found["dax.nodes"]["seen"] == "2 nodes"
        assert found["redis.keys-without-ttl"]["seen"] == "of all 1 keys, 1 are ours, each of them with a TTL"
        asked = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
        assert asked - READS <= {"config|resetstat"}
        assert asked >= {"info", "scan", "pttl", "time"}
        assert client.keys() == [b"mc:conn:{c}"]
        assert emulator.status()["received"].keys() <= {"GetItem", "Endpoints", "DefineKeySchema"}
        assert emulator.status()["items"]["misses"] == 0, "DAX was asked consistently, and keeps nothing of it"
    with_items = dynamodb(made)
    assert with_items.scan(TableName=made["SESSION_TABLE"])["Count"] == 0
    with_items.close()


def test_people_get_lines_with_what_breaks_and_the_remedy(mangacache, made):
    ended = mangacache("doctor", **made, REDIS_ENDPOINT=f"redis://127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("PROBLEM  redis.reachable"))
    assert "does not answer" in lines[at]
    assert lines[at + 1].strip().startswith("breaks: ")
    assert lines[at + 2].strip().startswith("remedy: ")
    assert "1 problem" in lines[-1]


def test_a_table_without_ttl_or_index_is_named_and_mended_by_what_the_doctor_says(doctor, mangacache, table):
    handmade(table)
    status, found = doctor(**table)
    assert (status, problems(found)) == (1, ["table.index", "table.ttl"])
    assert "mangacache tables create" in found["table.ttl"]["remedy"]
    assert mangacache("tables", "create", **table).returncode == 0
    assert doctor(**table)[0] == 0


@pytest.mark.parametrize("sort", ["created_at", None])
def test_a_table_with_other_keys_is_named(doctor, table, sort):
    handmade(table, sort=sort)
    status, found = doctor(**table)
    assert status == 1
    assert "table.keys" in problems(found)


def test_a_table_that_is_not_there_is_named(doctor, table):
    status, found = doctor(**table)
    assert (status, problems(found)) == (1, ["table.exists"])
    assert "mangacache tables create" in found["table.exists"]["remedy"]


def test_point_in_time_recovery_that_is_off_is_a_problem_where_the_engine_knows_of_it(doctor, mangacache, moto):
    variables = variables_for(moto)
    assert mangacache("tables", "create", **variables).returncode == 0
    assert doctor(**variables)[1]["table.recovery"]["severity"] == "ok"
    client = dynamodb(variables)
    client.update_continuous_backups(
        TableName=variables["SESSION_TABLE"],
        PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False},
    )
    client.close()
    status, found = doctor(**variables)
    assert (status, problems(found)) == (1, ["table.recovery"])


def test_a_redis_that_refuses_writes_when_full_and_a_key_without_ttl_are_named(doctor, made, full_valkey):
    status, found = doctor(**made, REDIS_ENDPOINT=f"redis://127.0.0.1:{full_valkey}")
    assert (status, problems(found)) == (1, ["redis.keys-without-ttl", "redis.policy"])
    assert "allkeys-lru" in found["redis.policy"]["remedy"]
    assert "mc:conn:{for ever}" in found["redis.keys-without-ttl"]["seen"]
    assert found["redis.prefix"]["severity"] == "warning"
    assert "mc:staging:session:{s}:context:1" in found["redis.prefix"]["seen"]
    assert found["redis.others-keys"]["severity"] == "note"


def test_a_redis_whose_config_is_refused_tells_what_it_can(doctor, made, closed_redis):
    status, found = doctor(**made, REDIS_ENDPOINT=f"redis://:{PASSWORD}@127.0.0.1:{closed_redis}")
    assert (status, problems(found)) == (0, [])
    assert found["redis.config"]["severity"] == "note"
    assert found["redis.policy"]["severity"] == "warning"
    assert "volatile-lru" in found["redis.policy"]["seen"]
    assert found["redis.version"]["seen"].startswith("Redis 7")
    assert "redis.pubsub-buffer" not in found, "what cannot be seen is not judged"


@pytest.mark.parametrize("login", ["", ":wrong-password@", "nobody:wrong-password@"])
def test_a_wrong_login_to_redis_is_named_and_not_repeated(doctor, made, closed_redis, login):
    status, found = doctor(**made, REDIS_ENDPOINT=f"redis://{login}127.0.0.1:{closed_redis}")
    assert (status, problems(found)) == (1, ["redis.reachable"])
    assert "refuses the login" in found["redis.reachable"]["seen"]
    assert "wrong-password" not in json.dumps(found)


def test_a_dax_that_is_away_is_named(doctor, made):
    status, found = doctor(**made, DAX_ENDPOINT=f"dax://127.0.0.1:{free_port()}")
    assert (status, problems(found)) == (1, ["dax.reachable"])
    assert "does not answer" in found["dax.reachable"]["seen"]


def test_a_dax_that_refuses_the_credentials_is_named(doctor, made, dynoxide):
    with emulated(dynoxide, secrets={"somebody": "else"}, credentials=("local", "local")) as emulator:
        status, found = doctor(**made, DAX_ENDPOINT=emulator.endpoint)
    assert (status, problems(found)) == (1, ["dax.reachable"])


def test_a_dax_that_keeps_longer_than_is_said_is_named_where_it_tells(doctor, made, dynoxide):
    with emulated(dynoxide, query_ttl_s=900.0) as emulator:
        status, found = doctor(**made, DAX_ENDPOINT=emulator.endpoint)
        assert status == 0
        assert "not known" in found["dax.ttl"]["seen"]
        told = doctor("--dax-status", emulator.fault_port, **made, DAX_ENDPOINT=emulator.endpoint)
    assert (told[0], problems(told[1])) == (1, ["dax.ttl"])
    assert "set dax_ttl_s to 900" in told[1]["dax.ttl"]["remedy"]


def test_a_process_without_credentials_is_told_so(doctor, made):
    without = {name: value for name, value in made.items() if not name.startswith(("AWS_ACCESS", "AWS_SECRET"))}
    status, found = doctor(**without)
    assert status == 1
    assert problems(found) == ["credentials", "table.exists"]
    assert "no AWS credentials were found" in found["credentials"]["seen"]


def test_a_dynamodb_that_is_away_is_named(doctor, table):
    status, found = doctor(**table | {"AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{free_port()}"})
    assert (status, problems(found)) == (1, ["table.exists"])
    assert found["clock.dynamodb"]["severity"] == "note"


def test_what_never_answers_holds_nobody_up(doctor, table):
    """The kernel takes the connections, and nobody reads."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        where = f"127.0.0.1:{deaf.getsockname()[1]}"
        silent = table | {"AWS_ENDPOINT_URL_DYNAMODB": f"http://{where}", "MANGACACHE_REQUEST_TIMEOUT_S": "60"}
        silent |= {"MANGACACHE_REQUEST_DEADLINE_S": "60", "MANGACACHE_DRAIN_TIMEOUT_S": "20"}
        status, found = doctor("--within", "1", **silent)
    assert (status, problems(found)) == (2, [])
    assert "longer than 1 s" in found["table"]["seen"]
    assert found["limits.cpu"]["severity"] == "ok", "the other parts were looked at"


def test_each_primary_of_a_cluster_is_looked_at(doctor, made, cluster):
    status, found = doctor(**made, REDIS_ENDPOINT=f"redis://127.0.0.1:{cluster.ports[0]}")
    assert (status, problems(found)) == (0, [])
    assert "with 3 primaries" in found["redis.reachable"]["seen"]
    status, found = doctor(**made, REDIS_ENDPOINT=f"redis://127.0.0.1:{cluster.ports[0]}", REDIS_CLUSTER="off")
    assert (status, problems(found)) == (1, ["redis.cluster"])


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [([], {"REDIS_ENDPOINT": "http://nothing"}), (["--sessions", "0"], {}), (["--config", "/nowhere.toml"], {})],
)
def test_a_configuration_that_cannot_be_read_ends_with_2_and_says_so(mangacache, table, arguments, variables):
    ended = mangacache("doctor", *arguments, **table | variables)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("mangacache: ")
    assert "Traceback" not in ended.stderr


def test_it_looks_from_a_process_of_its_own(process, made):
    ended = process("doctor", "--json", **made)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["counts"]["problem"] == 0
