"""No route answers another customer's data, whatever key, token, id, cursor or lock token is tried."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from crossing import (
    ASKED,
    CUSTOMER_IDS,
    FREE,
    MALLORY,
    MARK,
    OF_NOBODY,
    OWN,
    THEIRS,
    VICTIM,
    WITHOUT_CREDENTIAL,
    Stage,
    stage,
)

from mangacache import Consistency
from mangacache.worker.asking import OPERATION
from mangacache.worker.caller import ROLES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture
async def staged(tmp_path):
    async with stage(tmp_path) as made:
        yield made


def _filled(path, *, session, customer):
    return path.format(session_id=session, customer_id=customer, limit="messages")


async def _asked(staged: Stage, method, path, credential, *, session=THEIRS, customer=VICTIM, customer_header=None):
    """Ask a route in each way that there is, and return the answers as (status, text, what was sent)."""
    how = ASKED[method, path]
    answers = []
    for params in how.get("params", [{}]):
        known = {name: staged.known.get(value, value) for name, value in params.items()}
        own = {name: staged.known.get(value, value) for name, value in how.get("headers", {}).items()}
        headers = [*own.items(), *(credential.items() if isinstance(credential, dict) else credential)]
        if customer_header is not None:
            headers.append(("Customer-Id", customer_header))
        body = {"json": how["json"]} if "json" in how else {}
        where = _filled(path, session=session, customer=customer)
        async with staged.http.request(method, where, params=known, headers=headers, **body) as answer:
            answers.append((answer.status, await answer.text(), str(answer.headers)))
    return answers


def _tells(text):
    """Tell whether an answer holds anything of the victim's, but for the path that was asked and names it."""
    return MARK in text.replace(THEIRS, "").replace(VICTIM, "")


def _needed(staged, method, path):
    app = staged.worker._public._runner.app
    for route in app.router.routes():
        if (route.method, route.resource.canonical.replace(":[^/]+", "")) == (method, path):
            return getattr(route.handler, OPERATION).scope
    raise AssertionError(f"no route {method} {path}")


async def test_every_route_of_the_application_is_tried(staged):
    """A new route fails here until it says how it is asked."""
    routes = {(method, path) for method, path in staged.routes() if method != "HEAD"}
    assert routes - WITHOUT_CREDENTIAL == ASKED.keys()


async def test_a_credential_that_is_not_good_gets_nothing_from_any_route(staged):
    for method, path in ASKED:
        for name, credential in staged.credentials.items():
            if credential.good:
                continue
            for said in CUSTOMER_IDS:
                for status, text, headers in await _asked(
                    staged, method, path, credential.headers, customer_header=said
                ):
                    assert status == 401, (method, path, name, said, status, text)
                    assert "Bearer" in headers
                    assert not _tells(text + headers), (method, path, name)
    await _unharmed(staged)


async def test_a_customers_token_gets_nothing_of_another_customers_from_any_route(staged):
    for method, path in ASKED:
        for name, credential in staged.credentials.items():
            if credential.customer is None:
                continue
            for said in CUSTOMER_IDS:
                for status, text, headers in await _asked(
                    staged, method, path, credential.headers, customer_header=said
                ):
                    allowed = {403, 200} if path == "/v1/trending" and method == "GET" else {403}
                    assert status in allowed, (method, path, name, said, status, text)
                    assert not _tells(text + headers), (method, path, name, text)
    await _unharmed(staged)


async def test_a_customers_token_is_told_the_same_of_customers_that_there_are_and_are_not(staged):
    """Of sessions too: what may not be opened is answered alike, whether it is another's or nobody's."""
    await staged.cache.session("ownerless").append(role="user", content="of nobody")
    credential = staged.credentials["another customer's token"].headers
    for method, path in ASKED:
        if path in OF_NOBODY:
            continue
        others = await _asked(staged, method, path, credential)
        unknown = await _asked(staged, method, path, credential, customer="nobody", session="ownerless")
        assert [_without_names(one) for one in others] == [_without_names(one) for one in unknown], (method, path)


async def test_a_customers_own_cursors_and_locks_do_not_open_anothers(staged):
    """And the other way: another's cursor on one's own session shows nothing of the other's."""
    credential = staged.credentials["another customer's token"].headers
    for method, path in ASKED:
        if path in OF_NOBODY:
            continue
        for status, text, headers in await _asked(staged, method, path, credential, session=OWN, customer=MALLORY):
            assert status < 500, (method, path, text)
            assert not _tells(text + headers), (method, path, text)
            assert VICTIM not in text, (method, path, text)
            assert THEIRS not in text, (method, path, text)
    await _unharmed(staged)


async def test_a_keys_role_bounds_what_it_may_do(staged):
    """Asked of a session that there is not, so that what is let in harms nothing."""
    for method, path in ASKED:
        scope = _needed(staged, method, path)
        for name, credential in staged.credentials.items():
            if not credential.good or credential.customer is not None:
                continue
            answers = await _asked(staged, method, path, credential.headers, session=FREE, customer="somebody")
            for status, text, _ in answers:
                assert (status == 403) == (scope not in credential.scopes), (method, path, name, status, text)
                assert status != 401


async def test_a_key_that_speaks_for_one_customer_is_not_given_anothers_session(staged):
    """A bot that mixes up its customers is refused, whatever its role."""
    for method, path in ASKED:
        if "{session_id}" not in path:
            continue
        for role, scopes in ROLES.items():
            headers = staged.credentials[f"an API key of role {role}"].headers
            wanted = 409 if _needed(staged, method, path) in scopes else 403
            for status, text, _ in await _asked(staged, method, path, headers, customer_header=MALLORY):
                assert status == wanted, (method, path, role, status, text)
                assert wanted == 403 or "another customer" in text, (method, path, role, text)
                assert not _tells(text), (method, path, role, text)
    await _unharmed(staged)


async def test_a_credential_in_the_address_is_none(staged):
    given = staged.credentials["an API key of role operator"].headers["Authorization"].removeprefix("Bearer ")
    for name in ("access_token", "token", "api_key", "credential"):
        async with staged.http.get(f"/v1/sessions/{THEIRS}/context", params={name: given}) as answer:
            assert answer.status == 401


async def test_a_socket_opens_only_ones_own_session(staged):
    """By the header of the upgrade, and by the first message."""
    for name, credential in staged.credentials.items():
        if credential.good and credential.customer is None:
            continue
        for said in CUSTOMER_IDS:
            heard = await _opened(staged, credential.headers, {"customer_id": said} if said else {})
            assert "ready" not in heard, (name, said, heard)
            assert not _tells(heard), (name, heard)
            if isinstance(credential.headers, dict) and "Authorization" in credential.headers:
                given = credential.headers["Authorization"].removeprefix("Bearer ")
                more = {"customer_id": said} if said else {}
                heard = await _opened(staged, {}, {"credential": given, "content": True} | more)
                assert "ready" not in heard, (name, said, heard)
                assert not _tells(heard), (name, heard)
    await _unharmed(staged)


async def test_a_socket_opens_ones_own_session_and_not_from_another_sites_page(staged):
    headers = staged.credentials["another customer's token"].headers
    assert '"ready"' in await _opened(staged, headers, {"session_id": OWN})
    assert '"ready"' in await _opened(staged, headers | {"Origin": "https://shop.example"}, {"session_id": OWN})
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await _opened(staged, headers | {"Origin": "https://evil.example"}, {"session_id": OWN})
    assert refused.value.status == 403


async def test_operators_pages_are_on_their_port_alone_and_for_operators_alone(staged):
    for method, path in sorted(staged.operator_routes()):
        if path in {"/healthz", "/readyz"} or method == "HEAD":
            continue
        where = _filled(path, session=THEIRS, customer=VICTIM)
        async with staged.http.request(method, where, headers=_operator(staged)) as answer:
            assert answer.status == 404, f"{path} is on the public port"
        for name, credential in staged.credentials.items():
            async with (
                aiohttp.ClientSession() as http,
                http.request(method, staged.worker.operator + where, headers=credential.headers) as answer,
            ):
                text = await answer.text()
                wanted = 200 if name == "an API key of role operator" else 403 if credential.good else 401
                assert answer.status == wanted, (path, name, answer.status)
                assert not _tells(text), (path, name)


async def test_the_page_lists_what_is_tried(staged):
    """`docs/security.md` holds this list; what is missing there is printed."""
    wanted = listed(staged)
    assert wanted in PAGE.read_text(encoding="utf-8"), f"put this list into docs/security.md:\n{wanted}"


def listed(staged):
    lines = ["| route | needs |", "|---|---|"]
    lines += [f"| `{method} {path}` | {_needed(staged, method, path).value} |" for method, path in ASKED]
    lines += ["", "| credential | is |", "|---|---|"]
    for name, credential in staged.credentials.items():
        what = "refused" if not credential.good else ", ".join(sorted(scope.value for scope in credential.scopes))
        lines.append(f"| {name} | {what} |")
    return "\n".join(lines)


def _without_names(answer):
    status, text, _ = answer
    for name in (THEIRS, "ownerless", VICTIM, "nobody"):
        text = text.replace(name, "*")
    return status, text.partition('"request_id"')[0]


def _operator(staged):
    return staged.credentials["an API key of role operator"].headers


async def _opened(staged, headers, more):
    """Return all that a socket said after it was asked to open a session, up to its end or its first answer."""
    async with staged.http.ws_connect("/v1/ws", headers=headers) as ws:
        await ws.send_json({"type": "open", "session_id": THEIRS} | more)
        message = await ws.receive(timeout=60)
        return str(message.data)


async def _unharmed(staged):
    """Nothing of the victim's was changed, and the lock is still held."""
    context = await staged.cache.session(THEIRS, customer_id=VICTIM).context(consistency=Consistency.STRONG)
    assert [turn.number for turn in context.turns] == [1, 2, 3, 4, 5]
    assert context.meta.attributes == {"address": MARK}
    assert context.meta.status == "active"
    assert context.summary.text == f"summary {MARK}"
    assert (await staged.cache.presence.last_seen(VICTIM)).online
    bot = staged.credentials["an API key of role bot"].headers
    headers = bot | {"Lock-Token": staged.known["LOCK"]}
    async with staged.http.put(f"/v1/sessions/{THEIRS}/lock", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
