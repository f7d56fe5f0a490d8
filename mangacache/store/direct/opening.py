"""Opening the direct transport with what the AWS client has found: credentials, region, address, authorities."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.store.direct.credentials import Keyring
from mangacache.store.direct.endpoint import parse_endpoint
from mangacache.store.direct.pool import Pool
from mangacache.store.direct.transport import DirectTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.settings import Settings
    from mangacache.store.transport import Transport
    from mangacache.telemetry import Telemetry


@asynccontextmanager
async def direct_transport(
    client: Any, credentials: Any, *, settings: Settings, rare: Transport, ca_file: str | None, telemetry: Telemetry
) -> AsyncIterator[Transport]:
    """Open a transport beside a low-level client, to the same endpoint with the same credentials.

    Where the way leads through a proxy, or to an address that is more than a host, the client goes alone: it can do
    that, and the log says so.

    Args:
        client: aioboto3's low-level client.
        credentials: those of its session.
        settings: limits and time-outs.
        rare: the transport that drives the client.
        ca_file: the authorities that the environment names.
        telemetry: hears of what is survived.

    Raises:
        Invalid: no valid credentials, or a file of authorities that is none.
    """
    url = client.meta.endpoint_url
    endpoint = parse_endpoint(url, client.meta.region_name)
    if endpoint is None or endpoint.scheme in get_environ_proxies(url):
        why = "a proxy" if endpoint is not None else "an endpoint with a path"
        telemetry.log.warning("dynamodb_transport_not_direct", why=why, transport="aioboto3")
        yield rare
        return
    clock = SystemClock()
    pool = Pool(
        endpoint,
        tls=_tls(ca_file) if endpoint.tls else None,
        limit=settings.max_connections,
        connect_timeout_s=settings.connect_timeout_s,
        timeout_s=settings.request_timeout_s,
        clock=clock,
        on_failure=telemetry.count_survived,
    )
    keyring = Keyring(
        credentials, endpoint=endpoint, clock=clock, random=system_random(), on_failure=telemetry.count_survived
    )
    try:
        await keyring.renewed()
        yield DirectTransport(pool, keyring, rare=rare, clock=clock)
    finally:
        await keyring.close()
        await pool.close()


def _tls(ca_file: str | None) -> ssl.SSLContext:
    """Return the context that every connection shares, with the authorities that the AWS client goes by."""
    path = ca_file or get_cert_path(True)
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Invalid(f"AWS_CA_BUNDLE: {path} cannot be used as a file of certificates ({error})") from error
