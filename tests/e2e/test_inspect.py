"""`mangacache inspect` on real tiers: what it shows, what it calls wrong, and that it leaves everything as it was."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from functools import cached_property
from types import SimpleNamespace
from uuid import uuid4

import aiohttp
import boto3
import pytest
from commands import one_line
from daxes import emulated, real_client
from mangatest import LoopThread
from redis import Redis

from mangacache import MangaCache, Settings
from mangacache.clock import SystemClock
from mangacache.local import free_port
from mangacache.store.items import key
from mangacache.store.keys import META, turn_key
from mangacache.worker.auth.gate import OpenGate
from mangacache.worker.caller import Unauthenticated
from mangacache.worker.process import Worker

WORDS = "whatever was said in confidence"
PATIENT = {  # a machine that is busy with other tests is no outage
    "MANGACACHE_CONNECT_TIMEOUT_S": "10",
    "MANGACACHE_REDIS_TIMEOUT_S": "10",
    "AWS_REGION": "us-east-1",
}
SESSION = "a/b %1 漫画"


def dynamodb_of(variables):
    return boto3.client(
        "dynamodb",
        endpoint_url=variables["AWS_ENDPOINT_URL_DYNAMODB"],
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - a local engine takes any
    )


class Chat:
    """A table with a session of three turns, a worker that holds it, and what the command is to be told of both.

    Attributes:
        variables: of the command.
        cache: the worker's.
        operator: the worker's operator port.
    """

    def __init__(self, variables, redis_port):
        self.variables = variables
        self.redis_port = redis_port
        self.prefix = variables["KEY_PREFIX"]
        self._loop = LoopThread()
        self._stack = AsyncExitStack()
        self.run(self._begin())

    def run(self, coroutine):
        return self._loop.run(coroutine)

    async def _begin(self):
        self.settings = Settings.from_env(self.variables).replace(
            worker_port=0, operator_port=0, loop_lag_limit_s=60.0, worker_notice_s=0.0
        )
        self.cache = await self._stack.enter_async_context(MangaCache.open(self.settings))
        opening = Worker.open(self.cache, self.settings, clock=SystemClock())
        self.operator = (await self._stack.enter_async_context(opening)).operator
        await self.session.context()
        for number in (1, 2, 3):
            await self.session.append(role="user", content=f"{WORDS} {number}", turn_id=f"id-{number}")
        await self.session.context()

    @property
    def session(self):
        """The worker's handle on the session; for its own loop."""
        return self.cache.session(SESSION, customer_id="c-1")

    async def change(self, **attributes):
        await self.session.update(attributes)

    def remembers(self, session_id):
        async def look():
            return self.cache.memory_of(session_id)

        return self.run(look())

    async def without_redis(self, act):
        """Do something through a worker that knows of no Redis."""
        async with MangaCache.open(self.settings.replace(redis_endpoint=None)) as other:
            await act(other.session(SESSION, customer_id="c-1"))

    @property
    def hash(self):
        return f"{self.prefix}session:{{a%2Fb%20%251%20%E6%BC%AB%E7%94%BB}}:context:1"

    def items(self):
        found = self.dynamodb.scan(**self.name)["Items"]
        return sorted(json.dumps(item, default=str, sort_keys=True) for item in found)

    @property
    def name(self):
        return {"TableName": self.variables["SESSION_TABLE"]}

    @cached_property
    def dynamodb(self):
        return dynamodb_of(self.variables)

    def redis(self):
        return Redis(port=self.redis_port)

    def kept(self):
        """Return everything that Redis holds under this test's prefix."""
        with self.redis() as client:
            return {name: client.dump(name) for name in client.scan_iter(f"{self.prefix}*", count=1000)}

    def end(self):
        self.dynamodb.close()
        self.run(self._stack.aclose())
        self._loop.close()


@pytest.fixture
def chat(mangacache, table, shared_valkey):
    variables = table | PATIENT | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}"}
    variables["KEY_PREFIX"] = f"t-{uuid4().hex[:8]}:"
    assert mangacache("tables", "create", **variables).returncode == 0
    made = Chat(variables, shared_valkey)
    yield made
    made.end()


@pytest.fixture
def inspect(mangacache, chat):
    """Run the command; return its status, what it said, and what it said as JSON."""

    def run(*arguments, session=SESSION, **variables):
        ended = mangacache("inspect", session, "--json", *arguments, **chat.variables | variables)
        assert ended.stderr == ""
        said = json.loads(ended.stdout)
        assert said["status"] == ended.returncode
        return SimpleNamespace(text=ended.stdout, **said)

    return run


def judged(said):
    return [(one["tier"].split()[0], one["allowed"]) for one in said.differences]


def test_tiers_that_agree_stand_side_by_side_and_no_word_of_the_session_is_shown(inspect, chat):
    said = inspect("--worker", chat.operator)
    assert (said.status, said.differences) == (0, [])
    tiers = said.tiers
    assert tiers["dynamodb"]["copy"]["version"] == [1, 3, 1]
    assert tiers["redis"]["copy"] == tiers["dynamodb"]["copy"]
    assert tiers["memory"][0]["remembered"]["copy"] == tiers["redis"]["copy"]
    assert (tiers["redis"]["state"], tiers["redis"]["key"]) == ("full", chat.hash)
    assert 0 < tiers["redis"]["ttl_ms"] <= 300_000
    assert tiers["redis"]["memory_bytes"] > 0
    assert tiers["dax"] is None
    assert WORDS not in said.text
    assert WORDS in inspect("--content").text


def test_people_get_a_column_a_tier(mangacache, chat):
    ended = mangacache("inspect", SESSION, "--worker", chat.operator, **chat.variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["dynamodb", "redis", "memory", "1"]
    assert next(line for line in lines if line.startswith("version")).split()[1:] == ["1.3.1"] * 3
    assert lines[-1] == "The tiers agree."
    assert WORDS not in ended.stdout
    asked = mangacache("inspect", SESSION, "--content", **chat.variables)
    assert f"turn 2, user: {WORDS} 2" in asked.stdout


def test_everything_is_left_as_it_was(inspect, chat):
    async def connect():
        await chat.cache.connections.connect("conn-1", SESSION, customer_id="c-1")

    chat.run(connect())
    before = chat.items(), chat.kept()
    remembered = chat.remembers(SESSION).copy
    assert inspect("--worker", chat.operator).status == 0
    assert inspect(session="nobody's").tiers["redis"]["state"] == "absent"
    assert (chat.items(), chat.kept()) == before, "no lease was taken, nothing filled, no epoch made"
    assert chat.remembers(SESSION).copy == remembered
    assert chat.remembers("nobody's") is None


def test_an_installation_that_nobody_has_used_yet_is_not_begun_by_looking(mangacache, table, shared_valkey):
    variables = table | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}", "KEY_PREFIX": f"t-{uuid4().hex[:8]}:"}
    assert mangacache("tables", "create", **variables).returncode == 0
    assert mangacache("inspect", SESSION, **variables).returncode == 0
    assert mangacache("doctor", **variables).returncode == 0
    client = dynamodb_of(variables)
    assert client.scan(TableName=variables["SESSION_TABLE"])["Items"] == []
    client.close()
    with Redis(port=shared_valkey) as redis:
        assert list(redis.scan_iter(f"{variables['KEY_PREFIX']}*")) == []


def test_a_session_that_is_nowhere_is_nowhere(inspect, chat):
    said = inspect("--worker", chat.operator, session="nobody's")
    assert (said.status, said.differences) == (0, [])
    assert said.tiers["dynamodb"]["copy"]["version"] == [0, 0, 0]
    assert said.tiers["memory"][0]["remembered"] is None


def test_a_cache_that_was_not_told_may_be_behind(inspect, chat):
    chat.run(chat.without_redis(lambda session: session.append(role="assistant", content="hm", turn_id="id-4")))
    said = inspect("--worker", chat.operator)
    assert (said.status, judged(said)) == (0, [("redis", True), ("memory", True)])
    assert "behind" in said.differences[0]["what"]
    assert "the next append" in said.differences[0]["why"]


def test_a_cache_that_is_ahead_of_the_table_is_wrong(inspect, chat):
    chat.dynamodb.delete_item(**chat.name, Key=key(SESSION, turn_key(1, 3)))
    said = inspect("--worker", chat.operator)
    assert (said.status, judged(said)) == (1, [("redis", False), ("memory", False)])
    assert "ahead" in said.differences[0]["what"]


def test_a_turn_that_was_changed_in_the_table_is_wrong_in_every_other_tier(inspect, chat):
    chat.dynamodb.update_item(
        **chat.name,
        Key=key(SESSION, turn_key(1, 2)),
        UpdateExpression="SET content = :other",
        ExpressionAttributeValues={":other": {"S": "other words"}},
    )
    said = inspect("--worker", chat.operator)
    assert (said.status, judged(said)) == (1, [("redis", False), ("memory", False)])
    assert "turn 2 differs in content" in said.differences[0]["what"]
    assert "other words" not in said.text


def test_a_hash_without_ttl_or_with_junk_in_it_is_wrong(inspect, chat):
    with chat.redis() as client:
        client.persist(chat.hash)
        assert (inspect().status, judged(inspect())) == (1, [("redis", False)])
        client.hset(chat.hash, "2", b"\x01junk")
        client.expire(chat.hash, 600)
        said = inspect()
    assert (said.status, said.tiers["redis"]["state"]) == (1, "damaged")
    assert "turn 2" in said.tiers["redis"]["damage"]


def test_a_fill_under_way_a_lock_and_connections_are_shown(inspect, chat):
    async def hold():
        await chat.cache.connections.connect("conn-1", SESSION, customer_id="c-1", endpoint="worker-3")
        await chat.cache.connections.connect("conn-2", SESSION)
        holding = chat.cache.locks.session(SESSION, lease_s=300.0)
        await holding.__aenter__()
        return holding

    holding = chat.run(hold())
    with chat.redis() as client:
        client.delete(chat.hash, f"{chat.prefix}conn:{{conn-2}}")
        client.hset(chat.hash, mapping={"l": "a-token", "lx": 0, "fi": 1, "ft": 9, "fr": 1})
        client.pexpire(chat.hash, 60_000)
    said = inspect()
    assert (said.tiers["redis"]["state"], said.tiers["redis"]["floor"]) == ("filling", [1, 9, 1])
    assert judged(said) == [("redis", True)], "its lease has run out"
    assert said.tiers["lock"]["held"] is True
    assert said.tiers["dynamodb"]["fence"] == 1
    shown = {one["id"]: (one["mapped"], one["endpoint"]) for one in said.tiers["connections"]}
    assert shown == {"conn-1": (True, "worker-3"), "conn-2": (False, None)}
    assert "a-token" not in said.text
    chat.run(holding.__aexit__(None, None, None))


def test_dax_is_asked_only_when_that_is_said_and_may_be_behind_with_meta(inspect, chat, dynoxide):
    with emulated(dynoxide) as emulator, real_client(emulator.endpoint) as client:
        address = {"DAX_ENDPOINT": emulator.endpoint}
        assert client.get_item(**chat.name, Key=key(SESSION, META))["Item"]["revision"] == {"N": "1"}
        received = emulator.status()["received"]["GetItem"]
        chat.run(chat.change(mood="curious"))
        assert inspect(**address).tiers["dax"] is None
        assert emulator.status()["received"]["GetItem"] == received
        said = inspect("--dax", **address)
        assert (said.status, judged(said)) == (0, [("dax", True)])
        assert said.tiers["dax"]["meta"]["revision"] == 1
        assert said.tiers["dax"]["newest"]["turn_id"] == "id-3"
        assert WORDS not in said.text


def test_a_tier_that_is_away_is_said_to_be_and_the_others_are_shown(inspect, chat):
    nowhere = f"127.0.0.1:{free_port()}"
    said = inspect("--worker", f"http://{nowhere}", "--worker", chat.operator, REDIS_ENDPOINT=f"redis://{nowhere}")
    assert said.status == 2
    assert "why" in said.tiers["redis"]
    assert [sorted(one) for one in said.tiers["memory"]] == [["why"], ["remembered", "worker"]]


class AsksForTheKey(OpenGate):
    async def authenticate(self, headers, remote):
        if headers.get("Authorization") != "Bearer the operator's":
            raise Unauthenticated("for the test")
        return await super().authenticate(headers, remote)


def test_a_worker_that_asks_for_a_key_is_given_the_one_of_the_environment(inspect, chat):
    async def open_another():
        cache = await stack.enter_async_context(MangaCache.open(chat.settings))
        await cache.session(SESSION).context()
        opening = Worker.open(cache, chat.settings, clock=SystemClock(), gate=AsksForTheKey())
        return await stack.enter_async_context(opening)

    stack = AsyncExitStack()
    other = chat.run(open_another())
    try:
        said = inspect("--worker", other.operator)
        assert (said.status, "OPERATOR_KEY" in said.tiers["memory"][0]["why"]) == (2, True)
        said = inspect("--worker", other.operator, OPERATOR_KEY="the operator's")
        assert (said.status, said.tiers["memory"][0]["remembered"]["copy"]["version"]) == (0, [1, 3, 1])
        assert "the operator's" not in said.text
    finally:
        chat.run(stack.aclose())


def test_a_table_that_is_away_ends_with_one_line(mangacache, chat):
    nowhere = {"AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{free_port()}", "MANGACACHE_REQUEST_DEADLINE_S": "2"}
    ended = mangacache("inspect", SESSION, **chat.variables | nowhere)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert one_line(ended.stderr)


def test_each_node_of_a_cluster_is_asked_for_what_it_has(mangacache, table, cluster):
    variables = table | PATIENT | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{cluster.ports[0]}"}
    variables["KEY_PREFIX"] = f"t-{uuid4().hex[:8]}:"
    assert mangacache("tables", "create", **variables).returncode == 0
    loop = LoopThread()

    async def talk():
        async with MangaCache.open(Settings.from_env(variables).replace(loop_lag_limit_s=60.0)) as cache:
            for name in ("s-1", "s-2", "s-3", "s-4"):
                await cache.session(name).context()
                await cache.session(name).append(role="user", content=WORDS)
                for number in range(3):
                    await cache.connections.connect(f"{name}-{number}", name)

    loop.run(talk())
    loop.close()
    for name in ("s-1", "s-2", "s-3", "s-4"):
        ended = mangacache("inspect", name, "--json", **variables)
        tiers = json.loads(ended.stdout)["tiers"]
        assert (ended.returncode, tiers["redis"]["state"]) == (0, "full")
        assert sorted(one["mapped"] for one in tiers["connections"]) == [True] * 3


def test_no_sign_of_a_session_reaches_the_terminal_as_a_command(mangacache, chat):
    async def say():
        await chat.cache.session("evil").append(role="user", content="\x1b[2J\x07", turn_id="\x1b[2Jid")

    chat.run(say())
    ended = mangacache("inspect", "evil", "--content", **chat.variables)
    assert ended.returncode == 0
    assert "\x1b" not in ended.stdout
    assert "\\x1b[2J\\x07" in ended.stdout


def test_the_operators_page_takes_ids_that_are_none_for_what_they_are(chat):
    async def ask(name):
        async with aiohttp.ClientSession() as session, session.get(f"{chat.operator}/sessions/{name}") as answer:
            return answer.status, await answer.json()

    assert chat.run(ask("x" * 129))[0] == 400
    status, body = chat.run(ask("unknown"))
    assert (status, "holds nothing" in body["error"]) == (404, True)
