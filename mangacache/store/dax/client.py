"""Making the DAX client: what is wrong with a configuration is said in one line, which the client itself cannot.

Without credentials, with a wrong region, a wrong scheme or a cluster that is away the client fails with one and the
same `NoRouteException`. So each of these is looked at before.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from mangacache.errors import Invalid
from mangacache.store.dax.failures import failure_of
from mangacache.store.transport import Unanswered, no_credentials

if TYPE_CHECKING:
    from mangacache.settings import DaxAddress, Settings


def check_installed() -> None:
    """Refuse a configuration with DAX where its client is not installed.

    Raises:
        Invalid: it is not.
    """
    try:
        import amazondax  # noqa: F401, PLC0415 - an extra that need not be there
    except ImportError as error:
        raise Invalid(
            "dax_endpoint is set, but DAX's client is not installed: pip install 'mangacache[dax]'"
        ) from error


def connect(address: DaxAddress, settings: Settings) -> Any:
    """Return a client of the cluster; blocks until its first node has answered, so it is called in a thread.

    The client's own retries are off: it would send a write whose reply was lost again, and a refused condition too.

    Args:
        address: of the cluster.
        settings: region and time-outs.

    Raises:
        Invalid: no credentials, or such as cannot be used.
        Unanswered: the cluster cannot be reached, or what is there does not answer as DAX does.
    """
    from amazondax import AmazonDaxClient  # noqa: PLC0415 - an extra that need not be there

    try:
        session = botocore.session.get_session()
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise Invalid(f"the AWS credentials for DAX could not be had: {error}") from error
    if credentials is None:
        raise no_credentials()
    _reach(address, settings.connect_timeout_s)
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.dax_timeout_s,
        retries={"max_attempts": 0},
        user_agent="mangacache",
    )
    try:
        return AmazonDaxClient(session, region_name=settings.region, endpoint_url=str(address), config=config)
    except Exception as error:
        failure = failure_of("connecting", error)
        if isinstance(failure, Unanswered):
            failure = Unanswered(
                f"{address} takes connections, but does not answer as a DAX cluster does: is it DAX's endpoint, is the"
                f" scheme right (daxs:// where it is encrypted), do the credentials hold in {settings.region}?",
                sent=False,
            )
        raise failure from error


def _reach(address: DaxAddress, timeout_s: float) -> None:
    """Open a connection and close it.

    Raises:
        Unanswered: it cannot be opened; the message says why.
    """
    try:
        socket.create_connection((address.host, address.port), timeout=timeout_s).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise Unanswered(f"DAX cannot be reached at {address}: {why}", sent=False) from error
