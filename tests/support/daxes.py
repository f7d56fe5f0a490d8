"""DAX emulators for the suites, the real client that talks to them, and the engine's own client beside it."""

from __future__ import annotations

import itertools
import socket
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest
from amazondax import AmazonDaxClient
from amazondax.DaxClient import DaxClient
from amazondax.Tube import SocketTubePool
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mangacache.clock import SystemClock
from mangacache.local.dax import EmulatorOptions, running_emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mangacache.clock import Clock
    from mangacache.local.dax import RunningEmulator

REGION = "us-east-1"
READ_TIMEOUT_S = 60
CREDENTIALS = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
SCHEMAS = {
    "s": {"pk": "S"},
    "n": {"pk": "N"},
    "b": {"pk": "B"},
    "ss": {"pk": "S", "sk": "S"},
    "sn": {"pk": "S", "sk": "N"},
    "nn": {"pk": "N", "sk": "N"},
    "bb": {"pk": "B", "sk": "B"},
}


class MovableClock(SystemClock):
    """The machine's clock for waits; what it says of age can be moved on."""

    def __init__(self) -> None:
        self.moved_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.moved_s


@contextmanager
def emulated(dynamodb_url: str, *, clock: Clock | None = None, **options: Any) -> Iterator[RunningEmulator]:
    """Run an emulator in a thread, in front of an engine, on free ports."""
    made = EmulatorOptions(**{"dynamodb_endpoint": dynamodb_url, "port": 0, **options})
    with running_emulator(made, clock=clock) as emulator:
        yield emulator


@contextmanager
def real_client(endpoint: str, *, retries: int = 0, **options: Any) -> Iterator[Any]:
    """Make a client, which by default tries nothing again, and close it with the block."""
    config = Config(
        retries={"max_attempts": retries}, read_timeout=options.pop("read_timeout", READ_TIMEOUT_S), connect_timeout=10
    )
    client = AmazonDaxClient(endpoint_url=endpoint, region_name=REGION, config=config, **{**CREDENTIALS, **options})
    try:
        yield client
    finally:
        client.close()


@contextmanager
def node_client(endpoint: str, *, read_timeout_s: float = READ_TIMEOUT_S) -> Iterator[Any]:
    """Make the part of the real client that knows one node only, and asks that one."""
    scheme, port = endpoint.partition(":")[0], int(endpoint.rpartition(":")[2])
    credentials = Credentials("local", "local")
    address = ("127.0.0.1", port)
    pool = SocketTubePool(
        scheme, "localhost", address, socket.AF_INET, lambda: credentials, REGION, read_timeout=read_timeout_s
    )
    with DaxClient(pool) as client:
        yield client


@contextmanager
def direct_client(dynamodb_url: str) -> Iterator[Any]:
    """Make a client of the engine itself."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=READ_TIMEOUT_S)
    client = boto3.client("dynamodb", endpoint_url=dynamodb_url, region_name=REGION, config=config, **CREDENTIALS)
    try:
        yield client
    finally:
        client.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate that is its own authority, for this machine's loopback, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "DAX emulator")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


class Wire:
    """An emulator, the real client of it, and the engine's own client.

    Attributes:
        emulator: the one in front of the engine.
        client: the real DAX client.
        direct: boto3's client of the engine.
        clock: the emulator's.
        tables: a table of each key schema.
        indexed: one with two strings as its key and the indexes `by_colour` and `by_size`.
    """

    def __init__(self, emulator: RunningEmulator, client: Any, direct: Any, clock: MovableClock) -> None:
        self.emulator = emulator
        self.client = client
        self.direct = direct
        self.clock = clock
        own = uuid4().hex[:8]
        self.tables = {name: f"{name}-{own}" for name in SCHEMAS}
        for name, table in self.tables.items():
            direct.create_table(**description(table, SCHEMAS[name], indexed=name == "ss"))
        self.indexed = self.tables["ss"]
        self._numbers = itertools.count()

    def key(self, sk: str = "1", *, pk: str | None = None) -> dict[str, Any]:
        """Return a key of the indexed table, by default one that no test has yet."""
        return {"pk": {"S": pk if pk is not None else self.new()}, "sk": {"S": sk}}

    def new(self) -> str:
        """Return a word that no test has yet."""
        return f"word-{next(self._numbers)}"

    def put(self, key: dict[str, Any], *, by: Any = None, **attributes: Any) -> dict[str, Any]:
        """Put an item through DAX, or by the engine's client."""
        (by or self.client).put_item(TableName=self.indexed, Item={**key, **attributes})
        return {**key, **attributes}

    def get(self, key: dict[str, Any], *, by: Any = None, **parameters: Any) -> dict[str, Any] | None:
        """Get an item through DAX, or by the engine's client."""
        return (by or self.client).get_item(TableName=self.indexed, Key=key, **parameters).get("Item")

    def counted(self, action: Callable[[], Any]) -> dict[str, int]:
        """Return what the caches and DynamoDB counted while an action ran, without what did not change."""
        before = flat_counts(self.emulator.status())
        action()
        after = flat_counts(self.emulator.status())
        return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


def flat_counts(status: dict[str, Any]) -> dict[str, int]:
    """Return a status' counts by one name each, `items.hits` or `passed_on.GetItem`; how keys are learnt left out."""
    return {
        f"{group}.{name}": count
        for group in ("items", "queries", "passed_on")
        for name, count in status[group].items()
        if name != "DescribeTable"
    }


def description(table: str, types: dict[str, str], *, indexed: bool = False) -> dict[str, Any]:
    """Return what makes a table of these key attributes, with indexes or without."""
    keys = [{"AttributeName": name, "KeyType": kind} for name, kind in zip(types, ("HASH", "RANGE"), strict=False)]
    made: dict[str, Any] = {"TableName": table, "KeySchema": keys, "BillingMode": "PAY_PER_REQUEST"}
    all_types = dict(types)
    if indexed:
        all_types |= {"colour": "S", "size": "N"}
        made["GlobalSecondaryIndexes"] = [
            {
                "IndexName": "by_colour",
                "KeySchema": [
                    {"AttributeName": "colour", "KeyType": "HASH"},
                    {"AttributeName": "size", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ]
        made["LocalSecondaryIndexes"] = [
            {
                "IndexName": "by_size",
                "KeySchema": [
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "size", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ]
    made["AttributeDefinitions"] = [{"AttributeName": name, "AttributeType": kind} for name, kind in all_types.items()]
    return made


@contextmanager
def refused(code: str | None) -> Iterator[Any]:
    """Have the block raise a ClientError of this code."""
    with pytest.raises(ClientError) as raised:
        yield raised
    assert raised.value.response["Error"].get("Code") == code, raised.value


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what belongs to the connection."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}
