"""Each judgement of the doctor: facts that are well, one of them changed, and what must be said."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from wellfacts import CONFIG, INDEX, INFO, KEYS, MIB, SAMPLE, certificate, clocks, dax, described, machine, redis, table

from mangacache import Settings
from mangacache.diagnosis.facts import (
    CredentialFacts,
    DaxFacts,
    Expected,
    NodeFacts,
    Offset,
    RedisFacts,
    Sample,
    Unseen,
)
from mangacache.diagnosis.findings import Severity, exit_status
from mangacache.diagnosis.judging import settings as settings_judging
from mangacache.diagnosis.judging.clocks import judge_clocks
from mangacache.diagnosis.judging.dax import judge_dax
from mangacache.diagnosis.judging.process import judge_credentials, judge_machine
from mangacache.diagnosis.judging.redis import judge_redis
from mangacache.diagnosis.judging.settings import judge_settings
from mangacache.diagnosis.judging.table import judge_table
from mangacache.worker import draining

EXPECTED = Expected()
DAX_SET = Settings(dax_endpoint="daxs://d:9111")
WELL = [
    (judge_table, table(), Settings()),
    (judge_redis, redis(), Settings(redis_endpoint="rediss://r:6379")),
    (judge_dax, dax(), DAX_SET),
    (judge_dax, DaxFacts(address=None), Settings()),
    (judge_clocks, clocks(), Settings()),
    (judge_clocks, clocks(redis=None), Settings()),
    (judge_credentials, certificate(), Settings()),
    (judge_credentials, certificate(method="env", ends_in_s=None), Settings(dynamodb_endpoint="http://127.0.0.1:1")),
    (judge_machine, machine(), DAX_SET),
]


@pytest.mark.parametrize(("judge", "facts", "settings"), WELL)
def test_what_is_well_is_said_to_be_well_and_nothing_else(judge, facts, settings):
    found = list(judge(facts, settings, EXPECTED))
    assert found
    assert [finding for finding in found if finding.severity is not Severity.OK] == []
    assert exit_status(found) == 0


def index(**changes):
    return described(GlobalSecondaryIndexes=[INDEX | changes])


WITHOUT = Unseen("refused, for the test", "refused")
SILENT = Unseen("no answer, for the test")
P, W, N = Severity.PROBLEM, Severity.WARNING, Severity.NOTE
CASES = [
    # the table
    (judge_table, table(description=None), "table.exists", P, "mangacache tables create"),
    (judge_table, table(description=SILENT), "table.exists", P, "AWS_REGION"),
    (judge_table, table(description=WITHOUT), "table.exists", P, "dynamodb:DescribeTable"),
    (judge_table, described(TableStatus="DELETING"), "table.exists", P, "wait"),
    (judge_table, described(KeySchema=KEYS[:1]), "table.keys", P, "SESSION_TABLE"),
    (judge_table, described(KeySchema=KEYS[::-1]), "table.keys", P, "cannot be changed"),
    (
        judge_table,
        described(AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}]),
        "table.keys",
        P,
        "cannot be changed",
    ),
    (judge_table, described(GlobalSecondaryIndexes=[]), "table.index", P, "mangacache tables create"),
    (judge_table, index(IndexName="other"), "table.index", P, "CUSTOMER_INDEX"),
    (judge_table, index(KeySchema=KEYS), "table.index", P, "CUSTOMER_INDEX"),
    (judge_table, index(IndexStatus="CREATING"), "table.index", W, "wait"),
    (judge_table, index(Backfilling=True), "table.index", W, "wait"),
    (judge_table, index(Projection={"ProjectionType": "ALL"}), "table.index-projection", N, "mangacache tables create"),
    (judge_table, index(Projection={"ProjectionType": "KEYS_ONLY"}), "table.index-projection", W, "CUSTOMER_INDEX"),
    (
        judge_table,
        index(Projection={"ProjectionType": "INCLUDE", "NonKeyAttributes": ["ttl"]}),
        "table.index-projection",
        W,
        "CUSTOMER_INDEX",
    ),
    (judge_table, table(ttl={"TimeToLiveStatus": "DISABLED"}), "table.ttl", P, "mangacache tables create"),
    (judge_table, table(ttl={}), "table.ttl", P, "mangacache tables create"),
    (
        judge_table,
        table(ttl={"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}),
        "table.ttl",
        P,
        "disable the TTL on 'expires'",
    ),
    (judge_table, table(ttl=WITHOUT), "table.ttl", W, "dynamodb:DescribeTimeToLive"),
    (judge_table, table(recovery="DISABLED"), "table.recovery", P, "enable it in the AWS console"),
    (judge_table, table(recovery=WITHOUT), "table.recovery", W, "dynamodb:DescribeContinuousBackups"),
    (judge_table, table(recovery=Unseen("it has none", "unsupported")), "table.recovery", N, "a local engine"),
    (judge_table, table(reads=WITHOUT), "table.reads", P, "dynamodb:GetItem"),
    (judge_table, table(reads=400.0), "table.reads", N, "the table's region"),
    (judge_table, described(DeletionProtectionEnabled=False), "table.deletion-protection", N, "enable it"),
    (
        judge_table,
        described(BillingModeSummary={}, ProvisionedThroughput={"WriteCapacityUnits": 10, "ReadCapacityUnits": 5}),
        "table.capacity",
        W,
        "on-demand",
    ),
    (
        judge_table,
        described(OnDemandThroughput={"MaxReadRequestUnits": -1, "MaxWriteRequestUnits": 100}),
        "table.capacity",
        W,
        "maximum throughput",
    ),
    # Redis
    (judge_redis, RedisFacts(address=None), "redis.reachable", N, "REDIS_ENDPOINT"),
    (judge_redis, redis(nodes=SILENT), "redis.reachable", P, "security groups"),
    (judge_redis, redis(nodes=WITHOUT), "redis.reachable", P, "user and password"),
    (judge_redis, redis(tls=False), "redis.tls", P, "rediss://"),
    (judge_redis, redis(info={"redis_version": "6.2.6"}), "redis.version", P, "Redis 7"),
    (judge_redis, redis(info={"redis_version": ""}), "redis.version", P, "Redis 7"),
    (judge_redis, redis(info={"role": "slave"}), "redis.role", P, "primary endpoint"),
    (judge_redis, redis(info={"loading": "1"}), "redis.role", P, "wait"),
    (judge_redis, redis(info={"maxmemory_policy": "noeviction"}), "redis.policy", P, "allkeys-lru"),
    (judge_redis, redis(info={"maxmemory_policy": "volatile-lru"}), "redis.policy", W, "allkeys-lru"),
    (judge_redis, redis(info={"maxmemory_policy": "volatile-ttl"}), "redis.policy", W, "parameter group"),
    (judge_redis, redis(info={"maxmemory_policy": "allkeys-random"}), "redis.policy", N, "allkeys-lru"),
    (judge_redis, redis(info={"maxmemory_policy": ""}, config={}), "redis.policy", N, "allkeys-lru"),
    (judge_redis, redis(info={"maxmemory": "0"}), "redis.memory", W, "set maxmemory"),
    (judge_redis, redis(info={"maxmemory": str(64 * MIB)}), "redis.memory", N, "a larger node"),
    (judge_redis, redis(info={"used_memory": str(4000 * MIB)}), "redis.memory", N, "hit ratio"),
    (judge_redis, redis(info={"evicted_keys": "5"}), "redis.evictions", N, "hit ratio"),
    (judge_redis, redis(info={"evicted_keys": "50"}), "redis.evictions", W, "a larger node"),
    (
        judge_redis,
        redis(info={"mem_fragmentation_ratio": "2.5", "used_memory_rss": str(900 * MIB)}),
        "redis.fragmentation",
        N,
        "activedefrag",
    ),
    (judge_redis, redis(info={"rdb_last_bgsave_status": "err"}), "redis.persistence", P, "turn saving off"),
    (
        judge_redis,
        redis(info={"aof_enabled": "1"}, config=CONFIG | {"appendfsync": "always"}),
        "redis.persistence",
        W,
        "appendonly no",
    ),
    (judge_redis, redis(config=CONFIG | {"save": "3600 1"}), "redis.persistence", N, "save ''"),
    (judge_redis, redis(info={"connected_clients": "9900"}), "redis.clients", W, "maxclients"),
    (judge_redis, redis(config=CONFIG | {"timeout": "60"}), "redis.idle-timeout", N, "timeout 0"),
    (
        judge_redis,
        redis(config=CONFIG | {"client-output-buffer-limit": "pubsub 1048576 524288 10"}),
        "redis.pubsub-buffer",
        W,
        "pubsub 32mb",
    ),
    (
        judge_redis,
        redis(config=CONFIG | {"client-output-buffer-limit": "normal 0 0 0 pubsub 0 0 0"}),
        "redis.pubsub-buffer",
        N,
        "pubsub 32mb",
    ),
    (judge_redis, redis(config=CONFIG | {"tracking-table-max-keys": "1000"}), "redis.tracking", N, "raise"),
    (judge_redis, redis(config=CONFIG | {"notify-keyspace-events": "AKE"}), "redis.keyspace-events", N, "''"),
    (judge_redis, redis(config=WITHOUT), "redis.config", N, "CONFIG GET"),
    (judge_redis, redis(config=WITHOUT, managed=True), "redis.config", N, "parameter group"),
    (
        judge_redis,
        redis(sample=Sample(looked_at=9, whole=False, ours=2, ours_for_ever=("mc:conn:{1}",))),
        "redis.keys-without-ttl",
        P,
        "KEY_PREFIX",
    ),
    (judge_redis, redis(sample=WITHOUT), "redis.keys-without-ttl", N, "SCAN"),
    (
        judge_redis,
        redis(sample=Sample(looked_at=9, whole=True, ours=2, others_for_ever=7)),
        "redis.others-keys",
        N,
        "of its own",
    ),
    (
        judge_redis,
        redis(sample=Sample(looked_at=9, whole=True, ours=2, strange=("mc:staging:session:{1}",))),
        "redis.prefix",
        W,
        "KEY_PREFIX",
    ),
    # DAX
    (judge_dax, dax(answer_ms=SILENT), "dax.reachable", P, "security group"),
    (judge_dax, dax(answer_ms=WITHOUT), "dax.reachable", P, "dax:GetItem"),
    (judge_dax, dax(answer_ms=700.0), "dax.reachable", W, "look again"),
    (judge_dax, dax(tls=False), "dax.tls", W, "daxs://"),
    (judge_dax, dax(nodes=1), "dax.nodes", W, "three nodes"),
    (judge_dax, dax(nodes=SILENT), "dax.nodes", N, "AWS console"),
    (judge_dax, dax(ttls_s=(300.0, 600.0)), "dax.ttl", P, "set dax_ttl_s to 600"),
    (judge_dax, dax(ttls_s=(float("inf"), 300.0)), "dax.ttl", P, "give the parameter group a TTL"),
    (judge_dax, dax(ttls_s=(60.0, 30.0)), "dax.ttl", N, "set dax_ttl_s to 60"),
    (judge_dax, dax(ttls_s=SILENT), "dax.ttl", N, "dax:DescribeParameters"),
    # the clocks
    (judge_clocks, clocks(dynamodb=Offset(least_s=299.0, most_s=300.5)), "clock.dynamodb", P, "chrony"),
    (judge_clocks, clocks(dynamodb=Offset(least_s=-300.5, most_s=-299.0)), "clock.dynamodb", P, "chrony"),
    (judge_clocks, clocks(dynamodb=Offset(least_s=9.0, most_s=10.5)), "clock.dynamodb", W, "chrony"),
    (judge_clocks, clocks(dynamodb=SILENT), "clock.dynamodb", N, "table.exists"),
    (judge_clocks, clocks(redis=Offset(least_s=-11.0, most_s=-10.0)), "clock.redis", W, "Redis's machine"),
    (judge_clocks, clocks(redis=SILENT), "clock.redis", N, "redis.reachable"),
    (judge_clocks, clocks(stepped_s=-3.0), "clock.steady", W, "slews"),
    # the process
    (judge_credentials, CredentialFacts(), "credentials", P, "taskRoleArn"),
    (judge_credentials, CredentialFacts(problem="no such profile"), "credentials", P, "AWS_PROFILE"),
    (judge_credentials, certificate(ends_in_s=-60.0), "credentials", P, "renew"),
    (judge_credentials, certificate(method="env", ends_in_s=60.0), "credentials", W, "renew"),
    (judge_credentials, certificate(method="env", ends_in_s=None), "credentials", N, "task role"),
    (judge_machine, machine(files=1024), "limits.files", W, "nofile"),
    (judge_machine, machine(files=100), "limits.files", P, "nofile"),
    (judge_machine, machine(threads=10), "limits.threads", W, "pids"),
    (judge_machine, machine(memory_bytes=512 * MIB), "limits.memory", W, "more tasks"),
    (judge_machine, machine(memory_bytes=0), "limits.memory", N, ""),
    (judge_machine, machine(cpus=0.25), "limits.cpu", W, "1 vCPU"),
    (judge_machine, machine(modules=frozenset({"hiredis", "amazondax"})), "modules.uvloop", N, "mangacache[fast]"),
    (judge_machine, machine(modules=frozenset({"uvloop", "amazondax"})), "modules.hiredis", P, "pip install"),
    (judge_machine, machine(modules=frozenset({"uvloop", "hiredis"})), "modules.dax", P, "mangacache[dax]"),
]


@pytest.mark.parametrize(
    ("judge", "facts", "check", "severity", "remedy"),
    CASES,
    ids=[f"{number}-{case[2]}" for number, case in enumerate(CASES)],
)
def test_what_is_wrong_is_named_with_what_breaks_and_its_remedy(judge, facts, check, severity, remedy):
    settings = Settings(dax_endpoint="daxs://d:9111", redis_endpoint="rediss://r:6379")
    found = [finding for finding in judge(facts, settings, EXPECTED) if finding.severity is not Severity.OK]
    assert [finding.check for finding in found] == [check], "one thing was changed"
    assert found[0].severity is severity
    assert remedy in found[0].remedy
    assert severity is N or found[0].breaks
    assert exit_status(found) == (severity is P)


def test_valkey_is_known_by_its_own_version():
    found = list(judge_redis(redis(info={"valkey_version": "8.0.1"}), Settings(), EXPECTED))
    assert "Valkey 8.0.1" in [finding.seen for finding in found]


@pytest.mark.parametrize(
    ("clustered", "setting", "severity"),
    [("1", "off", P), ("0", "on", P), ("1", "auto", Severity.OK), ("1", "on", Severity.OK)],
)
def test_a_cluster_and_its_setting_must_agree(clustered, setting, severity):
    settings = Settings(redis_endpoint="rediss://r:6379", redis_cluster=setting)
    found = {one.check: one for one in judge_redis(redis(info={"cluster_enabled": clustered}), settings, EXPECTED)}
    assert found["redis.cluster"].severity is severity


def test_each_node_of_a_cluster_is_judged_and_named():
    nodes = [
        NodeFacts(address=f"rediss://{name}:6379", info=INFO | {"cluster_enabled": "1"}, config=CONFIG, sample=SAMPLE)
        for name in "ab"
    ]
    bad = msgspec.structs.replace(nodes[1], sample=Sample(looked_at=1, whole=True, ours=1, ours_for_ever=("mc:x{1}",)))
    found = list(judge_redis(redis(nodes=(nodes[0], bad)), Settings(redis_endpoint="rediss://r:6379"), EXPECTED))
    wrong = [one for one in found if one.severity is P]
    assert [one.check for one in wrong] == ["redis.keys-without-ttl"]
    assert "rediss://b:6379" in wrong[0].seen
    assert [one.check for one in found].count("redis.policy") == 2


SETTINGS = [
    ({"drain_timeout_s": 25.0}, {"stop_timeout_s": 20.0}, "settings.drain", P, "stopTimeout to 30"),
    ({"drain_timeout_s": 15.0}, {"stop_timeout_s": 20.0}, "settings.drain", P, "lower drain_timeout_s"),
    ({"worker_host": "0.0.0.0"}, {}, "settings.access", P, "worker_keys"),  # noqa: S104 - that is the point
    ({"operator_host": "10.0.0.1", "worker_open": "yes"}, {}, "settings.access", W, "worker_keys"),
    ({"worker_port": 9000, "operator_port": 9000}, {}, "settings.ports", P, "a port of its own"),
    ({"worker_sockets": 100}, {}, "settings.sockets", W, "more workers"),
    ({"worker_socket_heartbeat_s": 60.0}, {}, "settings.presence", W, "worker_socket_heartbeat_s"),
    ({"worker_max_body_bytes": 100_000}, {}, "settings.sizes", W, "raise worker_max_body_bytes"),
    ({"worker_socket_message_bytes": 100_000}, {}, "settings.sizes", W, "raise worker_socket_message_bytes"),
    ({"worker_request_timeout_s": 5.0}, {}, "settings.times", W, "raise worker_request_timeout_s"),
    ({"drain_timeout_s": 5.0}, {}, "settings.drain", W, "raise drain_timeout_s"),
    ({"turn_slow_s": 30.0}, {}, "settings.turns", W, "turn_slow_s"),
    ({"presence_online_s": 90, "presence_keep_s": 10}, {}, "settings.presence", N, "presence_keep_s"),
    ({"context_ttl_s": 2, "near_max_age_s": 30.0}, {}, "settings.near", N, "near_max_age_s"),
    ({"redis_iam_user": "u"}, {}, "settings.redis-iam", P, "both"),
    (
        {"redis_iam_user": "u", "redis_iam_cache": "c", "redis_endpoint": "redis://10.0.0.1"},
        {},
        "settings.redis-iam",
        P,
        "rediss://",
    ),
    ({"redis_policy": "hold"}, {}, "settings.redis-policy", N, ""),
    ({"redis_endpoint": "rediss://r", "key_prefix": ""}, {}, "settings.prefix", W, "mc:"),
    ({"redis_endpoint": "rediss://r", "key_prefix": "mc"}, {}, "settings.prefix", N, "colon"),
    ({"dax_fills": "numbers"}, {}, "settings.dax", N, ""),
    ({"dax_endpoint": "daxs://d", "dax_timeout_s": 3.0}, {}, "settings.dax", W, "lower dax_timeout_s"),
    ({"dax_endpoint": "daxs://d", "dax_calls": 2}, {}, "settings.dax", N, "raise dax_calls"),
    ({"dynamodb_endpoint": "http://127.0.0.1:8000"}, {}, "settings.dynamodb-endpoint", N, "production"),
    ({"dynamodb_endpoint": "http://10.0.0.1:8000"}, {}, "settings.dynamodb-endpoint", W, "https://"),
    ({"memory_limit_bytes": 100, "memory_bytes": 200}, {}, "settings.memory", W, "lower memory_bytes"),
]


@pytest.mark.parametrize(("given", "expected", "check", "severity", "remedy"), SETTINGS)
def test_settings_that_contradict_each_other_are_named(given, expected, check, severity, remedy):
    found = list(judge_settings(Settings(**given), Expected(**expected)))
    assert [(finding.check, finding.severity) for finding in found] == [(check, severity)]
    assert remedy in found[0].remedy
    assert found[0].breaks


def test_a_worker_that_asks_for_keys_may_listen_anywhere():
    settings = Settings(worker_host="10.0.0.1", worker_keys="env:KEYS")
    assert [one.severity for one in judge_settings(settings, EXPECTED)] == [Severity.OK]


def test_the_end_of_a_worker_takes_what_its_plan_says():
    assert settings_judging._WORK_S + settings_judging._CLOSING_S == draining.EXIT_BY_S
    assert settings_judging._CLOSING_S == draining._KEPT_BACK_S


def test_settings_as_they_come_contradict_nothing():
    found = list(judge_settings(Settings(), EXPECTED))
    assert [(finding.check, finding.severity) for finding in found] == [("settings", Severity.OK)]


def test_an_offset_is_bounded_by_when_it_was_asked_and_heard_and_what_its_clock_leaves_off():
    at_s = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC).timestamp()
    date = Offset.of(at_s, step_s=1.0, sent_s=at_s + 0.2, heard_s=at_s + 0.3)
    assert (round(date.least_s, 3), round(date.most_s, 3)) == (-0.3, 0.8)
    assert date.certain_s == 0.0, "a clock that may be right is taken for right"
    ahead = Offset.of(at_s + 20, step_s=1.0, sent_s=at_s, heard_s=at_s + 2)
    assert ahead.certain_s == 18.0
    behind = Offset.of(at_s - 20, step_s=1.0, sent_s=at_s, heard_s=at_s + 2)
    assert behind.certain_s == 19.0
