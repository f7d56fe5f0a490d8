"""DAX emulators for the suites, and the real client that talks to them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amazondax import AmazonDaxClient
from botocore.config import Config

from mangacache.clock import SystemClock
from mangacache.local.dax.options import EmulatorOptions
from mangacache.local.dax.threaded import running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.clock import Clock
    from mangacache.local.dax.threaded import RunningEmulator

REGION = "us-east-1"
READ_TIMEOUT_S = 30


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
    client = AmazonDaxClient(endpoint_url=endpoint, region_name=REGION, config=config, **options)
    try:
        yield client
    finally:
        client.close()
