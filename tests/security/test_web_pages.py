"""A web page in a developer's browser gets nothing from, and does nothing at, a worker that asks nobody who he is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from crossing import ASKED, WITHOUT_CREDENTIAL
from instances import Instances
from multidict import CIMultiDict

from mangacache import Consistency
from mangacache.clock import SystemClock
from mangacache.worker.auth.gate import OpenGate
from mangacache.worker.auth.origins import host_of
from mangacache.worker.caller import Forbidden
from mangacache.worker.process import Worker

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
EVIL = "http://evil.example"
PAGES = {
    "a form or a script of another site": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    "the same, by a browser that does not tell of sites": {"Origin": "https://evil.example"},
    "a page of no site (a file, a frame without rights)": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "an image or a link of another site": {"Sec-Fetch-Site": "cross-site"},
    "a page of another port of this machine": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    "an image of another port of this machine": {"Sec-Fetch-Site": "same-site"},
    "a page whose name leads here (DNS rebinding)": {"Host": "evil.example:8080", "Sec-Fetch-Site": "same-origin"},
    "the same, by a browser that tells of no site": {"Host": "evil.example:8080"},
    "the same, and it posts": {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"},
    "a page that asks 0.0.0.0, which leads here": {"Host": "0.0.0.0:8080"},
    "a page whose name begins like this machine's": {"Host": "127.0.0.1.evil.example"},
    "a page with this machine's name before its own": {"Host": "localhost:80@evil.example"},
    "two sites, the first of which is listed": [("Origin", "https://shop.example"), ("Origin", "https://evil.example")],
}
"""What a browser sends for a page that is not to be let in; `https://shop.example` is listed."""
PEOPLE = {
    "no browser": {},
    "an address typed into a browser": {"Sec-Fetch-Site": "none"},
    "this machine, by its name": {"Host": "localhost:8080"},
    "this machine, by IPv6": {"Host": "[::1]:8080"},
    "by a name that can only be this machine's": {"Host": "worker.localhost"},
    "a page of a site that is listed": {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"},
}
OPERATORS = ("metrics", "state", "dead-letters", "sessions/s")


@asynccontextmanager
async def _worker(**changes):
    """An open worker on doubles, with a session."""
    async with Instances.open() as instances, instances.cache() as cache, aiohttp.ClientSession() as http:
        await cache.session("s", customer_id="ada").append(role="user", content="hello")
        settings = instances.settings.replace(worker_port=0, operator_port=0, **changes)
        async with Worker.open(cache, settings, clock=SystemClock()) as worker:
            yield worker, cache, http


@pytest.fixture
async def worker():
    async with _worker(worker_origins="https://shop.example") as made:
        yield made


async def _asked(http, method, where, headers, **more):
    async with http.request(method, where, headers=headers, **more) as answer:
        return answer.status, await answer.text()


def _how(path, how):
    where = path.format(session_id="s", customer_id="ada", limit="messages")
    return where, {"json": how["json"]} if "json" in how else {}


@pytest.mark.parametrize("page", PAGES)
async def test_a_web_page_is_refused_by_every_route_of_both_ports_and_told_what_to_do(worker, page):
    served, cache, http = worker
    for (method, path), how in ASKED.items():
        where, body = _how(path, how)
        status, text = await _asked(http, method, served.public + where, PAGES[page], **body)
        assert status == 403, (method, path, text)
        assert "worker_keys" in text or "worker_origins" in text
        assert "hello" not in text
    for path in OPERATORS:
        status, text = await _asked(http, "GET", f"{served.operator}/{path}", PAGES[page])
        assert (status, "hello" in text) == (403, False), path
    context = await cache.session("s", customer_id="ada").context(consistency=Consistency.STRONG)
    assert ([turn.content for turn in context.turns], context.meta.status) == (["hello"], "active")
    assert await cache.presence.last_seen("ada") is None


@pytest.mark.parametrize("page", PAGES)
async def test_a_web_page_posts_nothing_by_what_needs_no_permission(worker, page):
    """Text, a form, or nothing at all: what a page of any site sends without asking the worker first."""
    served, cache, http = worker
    turn = '{"role": "user", "content": "planted"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
        headers = CIMultiDict(PAGES[page])
        headers["Content-Type"] = kind
        for path in ("/v1/sessions/s/turns", "/v1/sessions/s/close", "/v1/sessions/s/lock"):
            body = turn if path.endswith("turns") else None
            assert (await _asked(http, "POST", served.public + path, headers, data=body))[0] == 403
    assert (await cache.session("s").context(consistency=Consistency.STRONG)).version.number == 1


@pytest.mark.parametrize("page", PAGES)
async def test_a_web_page_opens_no_socket(worker, page):
    served, _, http = worker
    headers = CIMultiDict(PAGES[page])
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{served.public}/v1/ws", headers=headers)
    assert refused.value.status == 403


@pytest.mark.parametrize("page", PAGES)
async def test_health_is_for_web_pages_too_and_says_a_word(worker, page):
    served, _, http = worker
    for port in (served.public, served.operator):
        assert (await _asked(http, "GET", f"{port}/healthz", PAGES[page]))[0] == 200
        assert await _asked(http, "GET", f"{port}/readyz", PAGES[page]) == (200, '{"status": "ready"}')


@pytest.mark.parametrize("who", PEOPLE)
async def test_who_is_no_web_page_and_pages_that_are_listed_are_let_in(worker, who):
    served, _, http = worker
    turn = {"role": "user", "content": "more"}
    posted = await _asked(http, "POST", f"{served.public}/v1/sessions/s/turns", PEOPLE[who], json=turn)
    assert posted[0] == 201, posted
    assert (await _asked(http, "GET", f"{served.public}/v1/sessions/s/context", PEOPLE[who]))[0] == 200
    for path in OPERATORS:
        assert (await _asked(http, "GET", f"{served.operator}/{path}", PEOPLE[who]))[0] == 200
    async with http.ws_connect(f"{served.public}/v1/ws", headers=PEOPLE[who]) as ws:
        await ws.send_json({"type": "open", "session_id": "s"})
        assert (await ws.receive_json(timeout=60))["type"] == "ready"


async def test_a_star_lets_every_page_in():
    async with _worker(worker_origins="*") as (served, _, http):
        for page, headers in PAGES.items():
            where = f"{served.public}/v1/sessions/s/context"
            assert (await _asked(http, "GET", where, headers))[0] == 200, page


async def test_with_keys_it_is_the_credential_that_counts_and_not_the_name(tmp_path):
    """As before: a page has no credential, and behind a load balancer any name may lead here."""
    from mangacache.worker.auth.apikeys import ApiKeys, new_key

    given, kept = new_key("b1", "operator")
    (tmp_path / "keys.json").write_bytes(ApiKeys(()).with_key(kept))
    key = {"Authorization": f"Bearer {given}"}
    async with _worker(worker_keys=str(tmp_path / "keys.json")) as (served, _, http):
        for page, headers in PAGES.items():
            if isinstance(headers, dict):
                where = f"{served.public}/v1/sessions/s/context"
                assert (await _asked(http, "GET", where, headers | key))[0] == 200, page
                assert (await _asked(http, "GET", f"{served.operator}/state", headers | key))[0] == 200, page
                assert (await _asked(http, "GET", where, headers))[0] == 401, page


@pytest.mark.parametrize(
    ("bound", "host", "good"),
    [
        ("127.0.0.1", "127.0.0.2", True),
        ("127.0.0.1", "10.0.0.7", False),
        ("127.0.0.1", "LOCALHOST.:80", True),
        ("127.0.0.1", "[::ffff:127.0.0.1]", True),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "worker:8080", True),
        ("10.0.0.7", "10.0.0.7:8080", True),
        ("10.0.0.7", "10.0.0.8:8080", False),
        ("inside.example", "inside.example", True),
        ("0.0.0.0", "10.0.0.7:8080", True),  # noqa: S104 - every address
        ("0.0.0.0", "[fd00::7]", True),  # noqa: S104
        ("0.0.0.0", "0.0.0.0", False),  # noqa: S104 - it leads to loopback for any page
        ("::", "[::]:8080", False),
        ("::", "10.0.0.7", True),
        ("::", "evil.example", False),
    ],
)
def test_an_open_worker_answers_to_the_names_of_its_machine_and_of_where_it_was_bound(bound, host, good):
    """A page can make its own name lead here, but no address: so where every address is bound, each is its own."""
    gate = OpenGate("http://worker:8080", bound=(bound, "127.0.0.1"))
    if good:
        gate.check({"Host": host})
        return
    with pytest.raises(Forbidden, match="worker_keys"):
        gate.check({"Host": host})


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example.:80", "a.example"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("a:", "a"),
        ("::1", None),
        ("[::1", None),
        ("[::1]x", None),
        ("localhost:80@evil.example", None),
        ("localhost:80, evil.example", None),
        ("localhost/evil.example", None),
        ("", None),
        (":80", None),
    ],
)
def test_a_host_is_a_name_or_an_address_and_perhaps_a_port_and_else_nobody(given, host):
    assert host_of(given) == host


def test_the_page_lists_what_web_pages_try():
    """`docs/security.md` holds this list; what is missing there is printed."""
    wanted = "\n".join(["| a browser asks for | is |", "|---|---|"] + [f"| {page} | refused |" for page in PAGES])
    assert wanted in PAGE.read_text(encoding="utf-8"), f"put this list into docs/security.md:\n{wanted}"


def test_what_is_answered_to_anybody_is_known():
    """The pages that this suite leaves out are those that say nothing of anybody."""
    assert {path for _, path in WITHOUT_CREDENTIAL} == {"/healthz", "/readyz", "/v1/openapi.json", "/v1/ws"}
