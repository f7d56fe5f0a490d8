"""One emulator, one real client and one client of the engine for a module: clients start threads when they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daxes import MovableClock, Wire, direct_client, emulated, real_client, self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["plain", "tls"])
def wire(request: pytest.FixtureRequest, dynoxide: str, tls_files: tuple[Path, Path]) -> Iterator[Wire]:
    """What the cases run on, once over plain TCP and once over TLS with an authority of its own."""
    certificate, key = tls_files if request.param == "tls" else (None, None)
    clock = MovableClock()
    with (
        pytest.MonkeyPatch.context() as patch,
        direct_client(dynoxide) as direct,
        emulated(dynoxide, clock=clock, certificate=certificate, key=key) as emulator,
    ):
        if certificate is not None:
            patch.setenv("SSL_CERT_FILE", str(certificate))
            assert emulator.endpoint.startswith("daxs://")
        with real_client(emulator.endpoint) as client:
            yield Wire(emulator, client, direct, clock)
