"""What is known of the DAX cluster: by its own client, and by AWS where the role may ask."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from mangacache.diagnosis.facts import DaxFacts, Unseen
from mangacache.diagnosis.gathering.table import unseen
from mangacache.errors import MangaCacheError, NotFound
from mangacache.settings import is_loopback
from mangacache.store.dax.client import check_installed, connect
from mangacache.store.dax.opening import dax_transport
from mangacache.store.transport import Throttled, Unanswered
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.settings import DaxAddress, Settings
    from mangacache.store.dax.transport import DaxTransport

_OF_AWS: Final = ".amazonaws.com"
_ITEMS: Final = "record-ttl-millis"
_QUERIES: Final = "query-ttl-millis"


async def look_at_dax(settings: Settings, *, clock: Clock, emulator: dict[str, Any] | None = None) -> DaxFacts:
    """Return what is known of the cluster; that it is away is a fact, too.

    Args:
        settings: which cluster.
        clock: for deadlines.
        emulator: the status of a DAX emulator that stands for the cluster, where the operator has named its fault port.
    """
    address = settings.dax
    if address is None:
        return DaxFacts(address=None)
    leaves = not is_loopback(address.host)
    try:
        check_installed()
        answer_ms, nodes = await _ask(address, settings, clock)
    except (MangaCacheError, Unanswered, Throttled) as error:
        why = unseen(error)
        if isinstance(error, NotFound):
            why = Unseen(str(error), "refused")
        return DaxFacts(address=str(address), leaves=leaves, tls=address.tls, answer_ms=why)
    ttls: tuple[float, float] | Unseen
    if emulator is not None:
        ttls, ttls_from = _of_emulator(emulator), "the emulator says"
    elif address.host.endswith(_OF_AWS):
        (ttls, counted), ttls_from = await _of_aws(address, settings), "its parameter group says"
        nodes = counted if counted is not None else nodes
    else:
        ttls, ttls_from = Unseen("this is no address of AWS's, and DAX's protocol does not tell"), ""
    return DaxFacts(
        address=str(address),
        leaves=leaves,
        tls=address.tls,
        answer_ms=answer_ms,
        nodes=nodes,
        ttls_s=ttls,
        ttls_from=ttls_from,
    )


async def _ask(address: DaxAddress, settings: Settings, clock: Clock) -> tuple[float, int | Unseen]:
    """Read an item consistently, which DAX passes on and does not keep; count the nodes that the client has found."""
    transport = dax_transport(partial(connect, address, settings), settings, clock=clock, telemetry=Telemetry())
    key = {"PK": {"S": "CACHE#"}, "SK": {"S": "PROBE"}}
    try:
        client = await transport.connected()
        taken_ms = 0.0
        for _ in range(2):  # the first pays for the connection
            taken_ms = await _timed(transport, settings.table_name, key, clock)
        return taken_ms, _nodes_of(client)
    finally:
        await transport.close()


async def _timed(transport: DaxTransport, table_name: str, key: dict[str, Any], clock: Clock) -> float:
    began_s = clock.monotonic_s()
    await transport.request("GetItem", {"TableName": table_name, "Key": key, "ConsistentRead": True})
    return (clock.monotonic_s() - began_s) * 1000


def _nodes_of(client: Any) -> int | Unseen:
    """Return how many nodes the client knows; it shows that nowhere, so a release may take it away."""
    try:
        return len(client._cluster._router.backends)  # noqa: SLF001
    except (AttributeError, TypeError):
        return Unseen("this release of the client does not tell")


def _of_emulator(status: dict[str, Any]) -> tuple[float, float] | Unseen:
    items_s, queries_s = status.get("item_ttl_s"), status.get("query_ttl_s")
    if items_s is None or queries_s is None:
        return Unseen("this release of the emulator does not tell")
    return float(items_s), float(queries_s)


async def _of_aws(address: DaxAddress, settings: Settings) -> tuple[tuple[float, float] | Unseen, int | None]:
    """Ask AWS for the cluster whose address this is, and for its parameter group."""
    config = AioConfig(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=5,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    try:
        async with aioboto3.Session(region_name=settings.region).client("dax", config=config) as client:
            clusters = (await client.describe_clusters())["Clusters"]
            cluster = cluster_at(address.host, clusters)
            if cluster is None:
                return Unseen(f"no cluster in {settings.region} has this address"), None
            group = cluster["ParameterGroup"]["ParameterGroupName"]
            parameters = (await client.describe_parameters(ParameterGroupName=group))["Parameters"]
    except (BotoCoreError, ClientError) as error:
        return Unseen(f"dax:DescribeClusters and dax:DescribeParameters: {error}"), None
    return ttls_of(parameters), cluster.get("ActiveNodes")


def cluster_at(host: str, clusters: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the cluster with this discovery endpoint."""
    for cluster in clusters:
        if cluster.get("ClusterDiscoveryEndpoint", {}).get("Address", "").lower() == host:
            return cluster
    return None


def ttls_of(parameters: list[dict[str, Any]]) -> tuple[float, float] | Unseen:
    """Return the times to live that a parameter group says, 0 of which is for ever."""
    values = {one["ParameterName"]: one.get("ParameterValue") for one in parameters}
    try:
        items_s, queries_s = (float(values[name] or "") / 1000 for name in (_ITEMS, _QUERIES))
    except (KeyError, TypeError, ValueError):
        return Unseen(f"the parameter group does not tell {_ITEMS} and {_QUERIES}")
    return items_s or float("inf"), queries_s or float("inf")
