"""`mangacache tables create`, again and again, and what it says of a table that cannot be used."""

from __future__ import annotations

import boto3
import pytest
from botocore.config import Config
from commands import one_line, variables_for

STRINGS = [{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK", "customer_id", "last_active_at")]


def schema(partition, sort=None):
    keys = [{"AttributeName": partition, "KeyType": "HASH"}]
    return [*keys, {"AttributeName": sort, "KeyType": "RANGE"}] if sort else keys


def index(partition="customer_id", sort="last_active_at", name="by_customer"):
    return {"IndexName": name, "KeySchema": schema(partition, sort), "Projection": {"ProjectionType": "ALL"}}


@pytest.fixture(params=["dynoxide", "moto"])
def any_table(request):
    """The variables that name a table on each engine."""
    return variables_for(request.getfixturevalue(request.param))


@pytest.fixture
def make():
    """Make a table by hand, and return its client."""
    clients = []

    def make(variables, **changes):
        client = boto3.client(
            "dynamodb",
            endpoint_url=variables["AWS_ENDPOINT_URL_DYNAMODB"],
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - a local engine takes any
            config=Config(retries={"total_max_attempts": 1}),
        )
        clients.append(client)
        if changes:
            indexes = changes.pop("indexes", [index()])
            named = {
                key["AttributeName"]
                for holder in [changes["keys"], *(i["KeySchema"] for i in indexes)]
                for key in holder
            }
            types = {entry["AttributeName"]: entry for entry in [*STRINGS, *changes.pop("types", [])]}
            client.create_table(
                TableName=variables["SESSION_TABLE"],
                KeySchema=changes.pop("keys"),
                AttributeDefinitions=[types[name] for name in sorted(named)],
                BillingMode="PAY_PER_REQUEST",
                **({"GlobalSecondaryIndexes": indexes} if indexes else {}),
            )
        return client

    yield make
    for client in clients:
        client.close()


def test_the_table_is_made_once_and_stands_from_then_on(mangacache, make, any_table):
    first = mangacache("tables", "create", **any_table)
    assert (first.returncode, first.stderr) == (0, "")
    assert f"table {any_table['SESSION_TABLE']} made, with index by_customer\nttl enabled\n" in first.stdout
    again = mangacache("tables", "create", **any_table)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"table {any_table['SESSION_TABLE']} stands already, with index and ttl\n"
    client = make(any_table)
    name = {"TableName": any_table["SESSION_TABLE"]}
    described = client.describe_table(**name)["Table"]
    assert described["KeySchema"] == schema("PK", "SK")
    assert [one["IndexName"] for one in described["GlobalSecondaryIndexes"]] == ["by_customer"]
    ttl = client.describe_time_to_live(**name)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "ttl")


def test_a_missing_index_and_ttl_are_added_to_a_table_that_stands(mangacache, make, any_table):
    client = make(any_table, keys=schema("PK", "SK"), indexes=[])
    done = mangacache("tables", "create", **any_table)
    assert (done.returncode, done.stderr) == (0, "")
    assert "index by_customer made\nttl enabled\n" in done.stdout
    described = client.describe_table(TableName=any_table["SESSION_TABLE"])["Table"]
    assert described["GlobalSecondaryIndexes"][0]["KeySchema"] == schema("customer_id", "last_active_at")


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        ({"keys": schema("PK")}, "has the keys PK (HASH, type S); needed are PK (HASH, type S) and SK (RANGE, type S)"),
        ({"keys": schema("SK", "PK")}, "has the keys SK (HASH, type S), PK (RANGE, type S)"),
        (
            {"keys": schema("PK", "SK"), "types": [{"AttributeName": "SK", "AttributeType": "N"}]},
            "has the keys PK (HASH, type S), SK (RANGE, type N)",
        ),
    ],
)
def test_a_table_with_other_keys_is_refused(mangacache, make, any_table, made, complaint):
    make(any_table, **made)
    ended = mangacache("tables", "create", **any_table)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in one_line(ended.stderr)


def test_a_table_with_other_keys_is_no_table_to_replay_on(mangacache, make, table, chats):
    make(table, keys=schema("PK"))
    ended = mangacache("replay", chats(1), **table)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "has the keys PK (HASH, type S)" in one_line(ended.stderr)


def test_a_table_without_the_index_is_no_table_to_replay_on(mangacache, make, table, chats):
    make(table, keys=schema("PK", "SK"), indexes=[])
    ended = mangacache("replay", chats(1), **table)
    assert ended.returncode == 2
    assert "has no index 'by_customer': run `mangacache tables create`" in one_line(ended.stderr)


def test_an_index_of_the_right_name_with_other_keys_is_no_index_to_replay_on(mangacache, make, table, chats):
    make(table, keys=schema("PK", "SK"), indexes=[index(sort="SK")])
    ended = mangacache("replay", chats(1), **table)
    assert ended.returncode == 2
    assert "index 'by_customer' has the keys" in one_line(ended.stderr)


def test_a_table_whose_ttl_is_another_attribute_is_refused(mangacache, make, any_table):
    client = make(any_table, keys=schema("PK", "SK"))
    client.update_time_to_live(
        TableName=any_table["SESSION_TABLE"], TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )
    ended = mangacache("tables", "create", **any_table)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "takes its ttl from 'expires', not from 'ttl': disable that first" in one_line(ended.stderr)


def test_a_table_and_an_index_of_other_names_are_made_as_they_are_called(mangacache, make, table):
    assert mangacache("tables", "create", **table, CUSTOMER_INDEX="mine").returncode == 0
    described = make(table).describe_table(TableName=table["SESSION_TABLE"])["Table"]
    assert [one["IndexName"] for one in described["GlobalSecondaryIndexes"]] == ["mine"]


def test_a_file_of_settings_names_the_table(mangacache, table, tmp_path):
    config = tmp_path / "mangacache.toml"
    config.write_text(f'table_name = "{table.pop("SESSION_TABLE")}"\n')
    made = mangacache("tables", "create", "--config", config, **table)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"table {config.read_text().split(chr(34))[1]} made")
