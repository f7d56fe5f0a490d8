"""The gate, for sockets: a credential comes with the request for the upgrade, or in the first message."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from mangacache.worker.auth.gate import OpenGate
from mangacache.worker.auth.origins import check_origin
from mangacache.worker.caller import Scope
from mangacache.worker.sockets.admission import Admitted

if TYPE_CHECKING:
    from aiohttp import web

    from mangacache.worker.auth.gate import Gate


class GateAdmission:
    """Decides about one request for a socket; see `Admission`.

    Args:
        gate: who may.
        origins: the web sites whose scripts may open one (`worker_origins`).
        request: for the upgrade.

    Raises:
        Forbidden: a browser asks for a site that is not among them, or by another's name where nobody is asked who he
            is.
    """

    def __init__(self, gate: Gate, origins: str, request: web.Request) -> None:
        check_origin(request.headers, origins)
        if isinstance(gate, OpenGate):
            gate.check(request.headers)
        self._gate = gate
        self._headers = request.headers
        self._remote = request.remote

    async def admitted(self, credential: str | None, customer_id: str | None) -> Admitted:
        """See `Admission`: a credential comes with the request or in the message; two are refused, as by HTTP."""
        headers = CIMultiDict(self._headers)
        if credential is not None:
            headers.add("Authorization", f"Bearer {credential}")
        caller = await self._gate.authenticate(headers, self._remote)
        caller.require(Scope.READ)
        return Admitted(
            caller.customer(customer_id),
            check_append=partial(caller.require, Scope.APPEND),
            only_own=caller.customer_id is not None,
            until_s=caller.until_s,
            stands=caller.stands,
        )
