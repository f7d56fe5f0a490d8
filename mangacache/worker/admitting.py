"""The gate, for sockets: a credential comes with the request for the upgrade, or in the first message."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mangacache.worker.caller import Scope
from mangacache.worker.sockets.admission import Admitted

if TYPE_CHECKING:
    from aiohttp import web

    from mangacache.worker.auth.gate import Gate


class GateAdmission:
    """Decides about one request for a socket; see `Admission`."""

    def __init__(self, gate: Gate, request: web.Request) -> None:
        self._gate = gate
        self._headers = request.headers
        self._remote = request.remote

    async def admitted(self, credential: str | None, customer_id: str | None) -> Admitted:
        """See `Admission`: a credential in the message counts before that of the request."""
        headers = dict(self._headers)
        if credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        caller = await self._gate.authenticate(headers, self._remote)
        caller.require(Scope.READ)
        return Admitted(caller.customer(customer_id), check_append=partial(caller.require, Scope.APPEND))
