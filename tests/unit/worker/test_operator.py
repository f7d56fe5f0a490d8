"""The operator's port: its pages are for operators, health is for everybody, and details of it are for operators."""

from __future__ import annotations

import aiohttp
import pytest
from instances import Instances

from mangacache.clock import SystemClock
from mangacache.worker.caller import CUSTOMER, ROLES, Caller, Unauthenticated
from mangacache.worker.process import Worker

PAGES = ("metrics", "state", "dead-letters", "sessions/s")
CREDENTIALS = {
    "operator": Caller(kind="key", scopes=ROLES["operator"]),
    "bot": Caller(kind="key", scopes=ROLES["bot"]),
    "gateway": Caller(kind="key", scopes=ROLES["gateway"]),
    "read-only": Caller(kind="key", scopes=ROLES["read-only"]),
    "customer": Caller(kind="customer", scopes=CUSTOMER, customer_id="alice"),
}


class Known:
    """A gate that knows one credential of each role."""

    async def authenticate(self, headers, remote):
        del remote
        caller = CREDENTIALS.get(headers.get("Authorization", "").removeprefix("Bearer "))
        if caller is None:
            raise Unauthenticated("not good")
        return caller


@pytest.fixture
async def asked():
    """Ask a page of the operator's port, or of the public one."""
    async with Instances.open() as instances, instances.cache() as cache, aiohttp.ClientSession() as client:
        await cache.session("s").append(role="user", content="hello")
        settings = instances.settings.replace(worker_port=0, operator_port=0)
        async with Worker.open(cache, settings, clock=SystemClock(), gate=Known()) as worker:

            async def ask(page, credential=None, *, public=False, method="GET"):
                headers = {"Authorization": f"Bearer {credential}"} if credential else {}
                where = worker.public if public else worker.operator
                async with client.request(method, f"{where}/{page}", headers=headers) as response:
                    return response.status, await response.text()

            yield ask


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_is_shown_to_operators_only(asked, page):
    assert (await asked(page, "operator"))[0] == 200
    for credential in (None, "wrong"):
        assert (await asked(page, credential))[0] == 401
    for credential in CREDENTIALS.keys() - {"operator"}:
        assert (await asked(page, credential))[0] == 403


async def test_health_is_for_everybody_and_its_details_for_operators(asked):
    for credential in (None, "wrong", *CREDENTIALS):
        for public in (True, False):
            assert (await asked("healthz", credential, public=public))[0] == 200
            status, text = await asked("readyz", credential, public=public)
            assert status == 200
            assert ("hit_ratio" in text) is (credential == "operator" and not public), (credential, public)


async def test_head_is_taken_wherever_get_is(asked):
    for public in (True, False):
        for page in ("healthz", "readyz"):
            assert await asked(page, public=public, method="HEAD") == (200, "")
    for page in PAGES:
        assert await asked(page, "operator", method="HEAD") == (200, "")
        assert await asked(page, method="HEAD") == (401, "")
    assert (await asked("v1/ws", "operator", public=True, method="HEAD"))[0] == 405, "there is nothing but a socket"


async def test_what_is_not_there_is_told_to_operators_only(asked):
    assert (await asked("v1/sessions/s/context", "operator"))[0] == 404
    assert (await asked("v1/sessions/s/context"))[0] == 401


async def test_no_page_says_what_anybody_said(asked):
    for page in PAGES:
        assert "hello" not in (await asked(page, "operator"))[1]
