"""What an emulator is to be like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from mangacache.errors import Invalid
from mangacache.testing.dax.options import DEFAULT_TTL_S, DaxOptions

DEFAULT_PORT: Final = 8111
DEFAULT_MEMORY: Final = "256M"
_LAST_PORT: Final = 65_535
_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """Return the bytes that `256M`, `64k`, `1.5 GiB` or `1000` mean; a K is 1,024.

    Raises:
        Invalid: it means none.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise Invalid(f"{text!r} is no size of memory: write a number of bytes, or one with K, M or G, like 256M")
    return int(float(found[1]) * _UNITS[found[2].upper()])


class EmulatorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run an emulator.

    Attributes:
        dynamodb_endpoint: where the tables are; None for AWS's own DynamoDB in `region`.
        region: None takes it from the environment.
        host: the address to listen at; only this machine's own programs by default.
        port: of the first node; 0 takes a free one.
        other_ports: of the others: the `next` ones, or any that are `free`; clients learn them from the first.
        fault_port: of the fault port, always on loopback; 0 takes a free one, None has none.
        nodes: how many; the first leads.
        item_ttl_s: how long an item is served from the cache; 0 or infinity for ever, as DAX's own parameter.
        query_ttl_s: the same for the answers of Query and Scan.
        item_bytes: memory of each node's item cache; 0 turns it off.
        query_bytes: memory of each node's query cache; 0 turns it off.
        replication_lag_s: how long what one node caches takes to the others.
        overtaken_fills: see `mangacache.testing.dax.DaxOptions`.
        advertise: the address or name by which clients reach the nodes, where it is not the one that they came by: in
            a container, for example.
        certificate, key: files in PEM; with them, TLS is all that is spoken.
        secrets: the secret of each access key that may come in; None lets everybody in.
        credentials: access key and secret for DynamoDB; None takes what the AWS tools would.
        max_connections: to each node.
        lists: a file that keeps the attribute lists over restarts, so that clients made before one may go on writing.
    """

    dynamodb_endpoint: str | None = None
    region: str | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    other_ports: Literal["next", "free"] = "next"
    fault_port: int | None = 0
    nodes: int = 1
    item_ttl_s: float = DEFAULT_TTL_S
    query_ttl_s: float = DEFAULT_TTL_S
    item_bytes: int = parse_size(DEFAULT_MEMORY) // 2
    query_bytes: int = parse_size(DEFAULT_MEMORY) // 2
    replication_lag_s: float = 0.0
    overtaken_fills: bool = True
    advertise: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    secrets: Mapping[str, str] | None = None
    credentials: tuple[str, str] | None = None
    max_connections: int = 4096
    lists: Path | None = None

    def __post_init__(self) -> None:
        for port in (*self.ports(), self.fault_port or 0):
            if not 0 <= port <= _LAST_PORT:
                raise Invalid(f"there is no port {port}: choose one between 1 and {_LAST_PORT}")
        if (self.certificate is None) != (self.key is None):
            raise Invalid("TLS needs a certificate and its key: give both")
        self.cluster()

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.certificate is not None

    def ports(self) -> list[int]:
        """Return the port of each node, 0 where a free one is to be taken."""
        next_ones = self.port != 0 and self.other_ports == "next"
        return [self.port + number if next_ones or not number else 0 for number in range(self.nodes)]

    def cluster(self) -> DaxOptions:
        """Return the shape of the cluster.

        Raises:
            Invalid: it cannot be had.
        """
        return DaxOptions(
            nodes=self.nodes,
            item_ttl_s=self.item_ttl_s or float("inf"),
            query_ttl_s=self.query_ttl_s or float("inf"),
            item_bytes=self.item_bytes,
            query_bytes=self.query_bytes,
            replication_lag_s=self.replication_lag_s,
            overtaken_fills=self.overtaken_fills,
            route_check_s=0.0,
        )
