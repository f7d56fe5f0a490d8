"""Who may open what by a socket: the gate's word on what came with the request and with the first message."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mangacache.worker.admitting import GateAdmission
from mangacache.worker.auth.gate import OpenGate
from mangacache.worker.caller import CUSTOMER, ROLES, Caller, Forbidden, Unauthenticated
from mangacache.worker.sockets.admission import Admitted

KNOWN = {
    "Bearer bot": Caller(kind="key", scopes=ROLES["bot"]),
    "Bearer reader": Caller(kind="key", scopes=ROLES["read-only"]),
    "Bearer ada": Caller(kind="customer", scopes=CUSTOMER, customer_id="ada", until_s=1_000.0),
}


class NamedGate:
    """Knows a few credentials."""

    async def authenticate(self, headers, remote):
        del remote
        said = headers.getall("Authorization", [])
        if len(said) != 1 or said[0] not in KNOWN:
            raise Unauthenticated("not good")
        return KNOWN[said[0]]


def admission(*headers, origins="", gate=None):
    request = make_mocked_request("GET", "/v1/ws", CIMultiDict(headers))
    return GateAdmission(gate or NamedGate(), origins, request)


async def test_a_credential_comes_with_the_request_or_in_the_first_message():
    by_header = await admission(("authorization", "Bearer bot")).admitted(None, "ada")
    by_message = await admission().admitted("bot", "ada")
    assert by_header.customer_id == by_message.customer_id == "ada"
    assert not by_header.only_own


async def test_no_credential_and_a_wrong_one_are_refused():
    for credential in (None, "eve"):
        with pytest.raises(Unauthenticated):
            await admission().admitted(credential, None)


async def test_two_credentials_are_one_too_many():
    with pytest.raises(Unauthenticated):
        await admission(("authorization", "Bearer bot")).admitted("ada", None)


async def test_a_customers_token_opens_that_customers_sessions_until_its_time_is_over():
    admitted = await admission().admitted("ada", None)
    assert (admitted.customer_id, admitted.only_own, admitted.until_s) == ("ada", True, 1_000.0)
    admitted.check_append()
    with pytest.raises(Forbidden):
        await admission().admitted("ada", "eve")


async def test_a_key_that_may_only_read_appends_nothing():
    with pytest.raises(Forbidden):
        (await admission().admitted("reader", None)).check_append()


async def test_an_open_gate_lets_everybody_in_as_whom_he_says():
    assert (await admission(gate=OpenGate()).admitted(None, "ada")).customer_id == "ada"


def test_pages_of_other_sites_may_not_ask():
    admission(origins="https://shop.example")
    admission(("Origin", "https://shop.example"), origins="https://shop.example")
    for origin in ("https://evil.example", "null", "http://shop.example", "https://shop.example.evil.example"):
        with pytest.raises(Forbidden):
            admission(("Origin", origin), origins="https://shop.example")
    with pytest.raises(Forbidden):
        admission(("Origin", "http://127.0.0.1:8080"))


@pytest.mark.parametrize(
    ("customer_id", "only_own", "owner", "begun", "may"),
    [
        ("ada", True, "ada", True, True),
        ("ada", True, "eve", True, False),
        ("ada", True, None, True, False),
        ("ada", True, None, False, True),
        ("ada", False, None, True, True),
        ("ada", False, "eve", True, False),
        (None, False, "eve", True, True),
    ],
)
def test_whose_session_is_seen_by_whom(customer_id, only_own, owner, begun, may):
    assert Admitted(customer_id, lambda: None, only_own=only_own).may_see(owner, begun=begun) is may
