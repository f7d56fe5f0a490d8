"""The HTTP API: what each call answers, by status, headers and body; on doubles."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import quote

import pytest
from fleet import until
from httpworlds import JSON, NamedGate, http_world
from instances import HurriedClock, Instances
from mangatest import HANG_GUARD_S
from multidict import CIMultiDict

from mangacache.worker.app import api_routes
from mangacache.worker.caller import ROLES, Caller

ODD_IDS = ["a/b", "ü {x} % ?#&", "..", ".", "漫画", "%2F", "%FF", "a\nb", "x" * 128]


@pytest.fixture
async def ask():
    async with http_world() as world:
        yield world


def kind(answer):
    """Return the kind of a problem, having looked at what each has."""
    problem = answer.json
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == answer.status
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert problem["title"]
    assert problem["detail"]
    return problem["type"].rpartition(":")[2]


async def begun(ask, session="s", **more):
    answer = await ask("POST", f"/v1/sessions/{session}/turns", json={"role": "user", "content": "hi"} | more)
    assert answer.status == 201
    return answer.json


def twice(name, first, second):
    return CIMultiDict([(name, first), (name, second)])


# Turns and contexts


async def test_a_list_may_come_in_several_lines_and_what_says_one_thing_may_not(ask):
    await begun(ask)
    for first, second in (('"9"', '"1.1.1"'), ('"1.1.1"', '"9"')):
        known = twice("If-None-Match", first, second)
        assert (await ask("GET", "/v1/sessions/s/context", headers=known)).status == 304
    change = {"json": {"attributes": {"mood": "glad"}}}
    said = {"json": {"role": "user", "content": "hi"}}
    for method, path, headers, body in (
        ("PATCH", "/v1/sessions/s", twice("If-Match", '"1.1"', '"1.7"'), change),
        ("PATCH", "/v1/sessions/s", twice("If-Match", "*", '"1.7"'), change),
        ("POST", "/v1/sessions/s/turns", twice("Idempotency-Key", "k", "l"), said),
        ("POST", "/v1/sessions/s/turns", twice("Customer-Id", "ada", "bob"), said),
        ("PUT", "/v1/sessions/s/lock", twice("Lock-Token", "k", "l"), {}),
    ):
        assert kind(await ask(method, path, headers=headers, **body)) == "bad-request", (path, headers)
    assert (await ask("GET", "/v1/sessions/s/context")).json["version"] == "1.1.1"


async def test_a_turn_is_stored_once_by_its_turn_id_and_by_the_idempotency_key(ask):
    first = await begun(ask, turn_id="t1")
    assert first["turns"] == [{"number": 1, "turn_id": "t1", "version": "1.1.1", "duplicate": False, "degraded": False}]
    again = await ask("POST", "/v1/sessions/s/turns", json={"role": "user", "content": "hi", "turn_id": "t1"})
    assert (again.status, again.json["turns"][0]["duplicate"]) == (200, True)
    by_key = {"json": {"role": "user", "content": "hi"}, "headers": {"Idempotency-Key": "k"}}
    assert (await ask("POST", "/v1/sessions/s/turns", **by_key)).status == 201
    again = await ask("POST", "/v1/sessions/s/turns", **by_key)
    assert (again.status, again.json["turns"][0]["turn_id"], again.json["version"]) == (200, "k", "1.2.1")
    both = {"json": {"role": "user", "content": "hi", "turn_id": "x"}, "headers": {"Idempotency-Key": "k"}}
    assert kind(await ask("POST", "/v1/sessions/s/turns", **both)) == "invalid"


async def test_several_turns_are_stored_together_each_by_the_key_and_its_place(ask):
    turns = {"json": {"turns": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}}
    answer = await ask("POST", "/v1/sessions/s/turns", headers={"Idempotency-Key": "k"}, **turns)
    assert answer.status == 201
    assert [(each["number"], each["turn_id"]) for each in answer.json["turns"]] == [(1, "k.0"), (2, "k.1")]
    assert (await ask("POST", "/v1/sessions/s/turns", headers={"Idempotency-Key": "k"}, **turns)).status == 200


async def test_a_context_has_its_version_as_etag_and_is_not_sent_twice(ask):
    await begun(ask, attributes={"price": 1.5, "deep": {"list": [1, None, True]}})
    answer = await ask("GET", "/v1/sessions/s/context")
    assert answer.headers["ETag"] == 'W/"1.1.1"'
    context = answer.json
    assert (context["version"], context["last_number"], context["turns"][0]["content"]) == ("1.1.1", 1, "hi")
    assert context["turns"][0]["attributes"] == {"price": 1.5, "deep": {"list": [1, None, True]}}
    for known in ('"1.1.1"', 'W/"1.1.1"', '"9", "1.1.1"', "*"):
        same = await ask("GET", "/v1/sessions/s/context", headers={"If-None-Match": known})
        assert (same.status, same.body) == (304, b"")
    await begun(ask)
    newer = await ask("GET", "/v1/sessions/s/context?turns=1", headers={"If-None-Match": '"1.1.1"'})
    assert [turn["number"] for turn in newer.json["turns"]] == [2]


@pytest.mark.parametrize("query", ["consistency=latest", "consistency=strong", "consistency=eventual&age_s=2.5"])
async def test_a_context_is_as_fresh_as_is_asked_for(ask, query):
    await begun(ask)
    assert (await ask("GET", f"/v1/sessions/s/context?at_least=1.1.1&{query}")).json["version"] == "1.1.1"


async def test_a_version_that_is_newer_than_what_is_stored_has_a_problem_of_its_own(ask):
    await begun(ask)
    answer = await ask("GET", "/v1/sessions/s/context?at_least=1.9.1")
    assert (answer.status, kind(answer)) == (409, "version-gone")


@pytest.mark.parametrize("session_id", ODD_IDS)
async def test_any_id_is_percent_encoded_and_comes_back_as_it_is(ask, session_id):
    path = {".": "%2E", "..": "%2E%2E"}.get(session_id, quote(session_id, safe=""))
    await begun(ask, path)
    context = (await ask("GET", f"/v1/sessions/{path}/context")).json
    assert (context["session_id"], context["last_number"]) == (session_id, 1)
    assert (await ask.cache.session(session_id).context()).version.number == 1


async def test_an_id_that_is_no_utf8_is_nobodys(ask):
    assert (await ask("GET", "/v1/sessions/%FF/context")).status == 400
    assert (await ask("GET", "/v1/sessions/s/context", headers={"Customer-Id": "%FF"})).status == 400


async def test_a_history_is_read_by_page_in_both_orders(ask):
    turns = [{"role": "user", "content": str(number)} for number in range(1, 6)]
    await ask("POST", "/v1/sessions/s/turns", json={"turns": turns})
    for order, expected in (("newest", [[4, 5], [2, 3], [1]]), ("oldest", [[1, 2], [3, 4], [5]])):
        pages, cursor = [], ""
        while cursor is not None:
            path = f"/v1/sessions/s/turns?limit=2&order={order}" + (f"&cursor={cursor}" if cursor else "")
            page = (await ask("GET", path)).json
            pages.append([turn["number"] for turn in page["turns"]])
            cursor = page["cursor"]
        assert pages == expected
    page = (await ask("GET", "/v1/sessions/s/turns?limit=2&after=")).json
    assert [turn["number"] for turn in page["turns"]] == [1, 2]
    assert kind(await ask("GET", "/v1/sessions/s/turns?order=oldest&before=x")) == "invalid"


# META, summary, end


async def test_meta_is_changed_by_whoever_has_its_newest_etag(ask):
    await begun(ask)
    assert kind(await ask("GET", "/v1/sessions/nobody")) == "not-found"
    answer = await ask("GET", "/v1/sessions/s")
    assert (answer.headers["ETag"], answer.json["status"]) == ('"1.1"', "active")
    assert (await ask("GET", "/v1/sessions/s", headers={"If-None-Match": '"1.1"'})).status == 304
    change = {"json": {"attributes": {"mood": "calm"}}}
    changed = await ask("PATCH", "/v1/sessions/s", headers={"If-Match": '"1.1"'}, **change)
    assert (changed.status, changed.headers["ETag"], changed.json["version"]) == (200, '"1.2"', "1.1.2")
    for stale in ('"1.1"', 'W/"1.2"', '"rubbish"', '"1.99999999999999999"'):
        answer = await ask("PATCH", "/v1/sessions/s", headers={"If-Match": stale}, **change)
        assert (answer.status, kind(answer)) == (412, "precondition-failed")
    assert (await ask("PATCH", "/v1/sessions/s", headers={"If-Match": "1.2"}, **change)).status == 400
    assert (await ask("PATCH", "/v1/sessions/s", headers={"If-Match": "*"}, **change)).status == 200
    assert (await ask("PATCH", "/v1/sessions/nobody", headers={"If-Match": "*"}, **change)).status == 412
    assert (await ask("PATCH", "/v1/sessions/nobody", **change)).status == 404


async def test_a_summary_is_guarded_by_the_fence_of_the_lock(ask):
    await begun(ask)
    lock = await ask("POST", "/v1/sessions/s/lock")
    assert lock.status == 201
    refused = await ask("POST", "/v1/sessions/s/lock")
    assert (refused.status, kind(refused)) == (429, "rejected")
    assert int(refused.headers["Retry-After"]) >= refused.json["retry_after_s"] > 0
    held = {"headers": {"Lock-Token": lock.json["lock_token"]}}
    assert (await ask("PUT", "/v1/sessions/s/lock", **held)).json == lock.json
    assert (await ask("DELETE", "/v1/sessions/s/lock", **held)).status == 204
    assert kind(await ask("PUT", "/v1/sessions/s/lock", **held)) == "conflict"
    assert (await ask("PUT", "/v1/sessions/s/lock")).status == 400
    later = (await ask("POST", "/v1/sessions/s/lock", json={"lease_s": 5})).json
    assert (later["fence"], later["ttl_s"]) == (2, 5)
    lost = await ask("PUT", "/v1/sessions/s/summary", json={"text": "x", "fence": 1})
    assert kind(lost) == "conflict"
    assert (await ask("PUT", "/v1/sessions/s/summary", json={"text": "x", "upto": 1, "fence": 2})).status == 200
    assert (await ask("GET", "/v1/sessions/s/context")).json["summary"]["text"] == "x"


async def test_a_lock_is_not_for_who_speaks_for_another_customer_than_the_sessions(ask):
    mine, others = {"Customer-Id": "ada"}, {"Customer-Id": "bob"}
    await ask("POST", "/v1/sessions/s/turns", json={"role": "user", "content": "x"}, headers=mine)
    assert kind(await ask("POST", "/v1/sessions/s/lock", headers=others)) == "conflict"
    held = {"Lock-Token": (await ask("POST", "/v1/sessions/s/lock", headers=mine)).json["lock_token"]}
    for method in ("PUT", "DELETE"):
        assert kind(await ask(method, "/v1/sessions/s/lock", headers=held | others)) == "conflict"
    assert (await ask("PUT", "/v1/sessions/s/lock", headers=held | mine)).status == 200
    assert (await ask("PUT", "/v1/sessions/s/lock", headers=held)).status == 200, "who names no customer opens any"
    assert (await ask("DELETE", "/v1/sessions/s/lock", headers=held | mine)).status == 204
    assert (await ask("POST", "/v1/sessions/not-begun/lock", headers=others)).status == 201


async def test_a_session_is_closed_deleted_and_adopted(ask):
    await begun(ask)
    assert (await ask("POST", "/v1/sessions/s/close")).json["meta"]["status"] == "closed"
    deleted = (await ask("DELETE", "/v1/sessions/s")).json
    assert (deleted["existed"], deleted["swept"]) == (True, True)
    assert (await ask("GET", "/v1/sessions/s/context")).json["meta"] is None
    assert (await ask("POST", "/v1/sessions/s/adopt")).json == {"adopted": 0}


# Customers


async def test_a_customer_has_sessions_presence_and_limits(ask):
    whose = {"Customer-Id": quote("c/ü", safe="")}
    await ask("POST", "/v1/sessions/s/turns", json={"role": "user", "content": "hi"}, headers=whose)
    path = f"/v1/customers/{whose['Customer-Id']}"
    assert [each["session_id"] for each in (await ask("GET", f"{path}/sessions")).json["sessions"]] == ["s"]
    other = await ask("GET", "/v1/sessions/s/context", headers={"Customer-Id": "d"})
    assert kind(other) == "conflict"
    assert kind(await ask("GET", f"{path}/presence")) == "not-found"
    assert (await ask("PUT", f"{path}/presence")).status == 204
    assert (await ask("GET", f"{path}/presence")).json["online"]
    assert (await ask("GET", "/v1/presence")).json["customers"][0]["customer_id"] == "c/ü"
    assert (await ask("DELETE", f"{path}/presence")).status == 204
    assert (await ask("GET", "/v1/presence")).json["count"] == 0
    allowed = await ask("POST", f"{path}/rate-limits/messages", json={"cost": 30})
    assert (allowed.json["allowed"], allowed.json["remaining"]) == (True, 0)
    used_up = await ask("POST", f"{path}/rate-limits/messages")
    assert (used_up.status, used_up.json["allowed"]) == (200, False)
    assert int(used_up.headers["Retry-After"]) >= used_up.json["retry_after_s"] > 0
    append = {"json": {"role": "user", "content": "x", "rate_limit": "messages"}, "headers": whose}
    assert (await ask("POST", "/v1/sessions/s/turns", **append)).status == 429


async def test_all_of_a_customers_is_forgotten():
    async with http_world(clock=HurriedLooks()) as ask:
        whose = {"Customer-Id": "c"}
        for session in "ab":
            await ask("POST", f"/v1/sessions/{session}/turns", json={"role": "user", "content": "x"}, headers=whose)
        assert (await ask("DELETE", "/v1/customers/c")).json == {"deleted": 2}


async def test_titles_are_counted_and_contexts_loaded_beforehand(ask):
    assert (await ask("POST", "/v1/trending", json={"title": "One Piece", "weight": 3})).status == 204
    assert (await ask("GET", "/v1/trending?span=day&limit=5")).json["titles"] == [
        {"title": "One Piece", "count": 3, "over": 0}
    ]
    loaded = (await ask("POST", "/v1/prefetch", json={"session_ids": ["a", "b"]})).json
    assert sum(loaded.values()) == 2


class HurriedLooks(HurriedClock):
    """A clock whose sleeps of more than a second end at once."""

    async def sleep(self, seconds):
        await super().sleep(0 if seconds > 1 else seconds)


# Who may


async def test_a_customers_own_credential_opens_that_customers_sessions_and_nothing_else():
    mine = Caller(kind="customer", scopes=ROLES["bot"], customer_id="me", key_id="k")
    bot = Caller(kind="key", scopes=ROLES["bot"], key_id="b")
    reader = Caller(kind="key", scopes=ROLES["read-only"], key_id="r")
    async with http_world(gate=NamedGate({"me": mine, "bot": bot, "reader": reader})) as ask:
        by = {name: {"Authorization": name} for name in ("me", "bot", "reader")}
        turn = {"json": {"role": "user", "content": "secret"}}
        for session, whose in (("theirs", {"Customer-Id": "them"}), ("nobodys", {})):
            await ask("POST", f"/v1/sessions/{session}/turns", headers=by["bot"] | whose, **turn)
        answer = await ask("GET", "/v1/sessions/theirs/context")
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        for session in ("theirs", "nobodys"):
            for method, what, body in (
                ("GET", "/context", {}),
                ("GET", "/turns", {}),
                ("POST", "/turns", turn),
                ("GET", "", {}),
                ("PATCH", "", {"json": {"status": "x"}}),
                ("PUT", "/summary", {"json": {"text": "x"}}),
                ("POST", "/close", {}),
                ("DELETE", "", {}),
                ("POST", "/lock", {}),
            ):
                answer = await ask(method, f"/v1/sessions/{session}{what}", headers=by["me"], **body)
                assert (answer.status, kind(answer)) == (403, "forbidden"), (session, method, what)
                assert b"secret" not in answer.body
        assert (await ask("GET", "/v1/customers/them/sessions", headers=by["me"])).status == 403
        assert (await ask("GET", "/v1/presence", headers=by["me"])).status == 403
        assert (await ask("POST", "/v1/sessions/mine/turns", headers=by["me"], **turn)).status == 201
        assert (await ask("GET", "/v1/sessions/mine", headers=by["me"])).json["customer_id"] == "me"
        assert (await ask("POST", "/v1/sessions/mine/turns", headers=by["reader"], **turn)).status == 403
        assert (await ask("POST", "/v1/sessions/mine/adopt", headers=by["bot"])).status == 403


# What is wrong with a request


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b'{"role": "user", "content": "\xff"}', 400, "UTF-8"),
        (b'{"role": "user", "role": "user", "content": "x"}', 400, "'role' is given twice"),
        (b'{"attributes": {"x": {"y": 1, "y": 2}}}', 400, "'y' is given twice"),
        (b'{"attributes": ' + b'{"x":' * 40 + b"1" + b"}" * 41, 400, "nested"),
        (b'{"role": "user", "content": "\\ud800"}', 400, "JSON"),
        (b'{"attributes": {"x": NaN}}', 400, "JSON"),
        (b"[]", 422, "the body: Expected `object`"),
        (b'{"rol": "user"}', 422, "`rol`"),
        (b'{"role": 7, "content": "x"}', 422, "/role"),
        (b'{"turns": [{"role": "user", "content": ["x"]}]}', 422, "/turns/0/content"),
        (b'{"role": "user"}', 422, "content"),
        (b'{"role": "pirate", "content": "x"}', 422, "/role"),
        (b'{"role": "user", "content": "x", "after": "1.1"}', 422, "/after"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_and_what_is_wrong_is_named(ask, body, status, says):
    answer = await ask("POST", "/v1/sessions/s/turns", data=body, headers=JSON)
    assert answer.status == status
    assert kind(answer) == ("bad-request" if status == 400 else "invalid")
    assert says in answer.json["detail"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("turns=x", "/turns"),
        ("turns=33", "/turns"),
        ("turns=1&turns=2", "'turns' is given twice"),
        ("turn=1", "`turn`"),
        ("consistency=total", "/consistency"),
        ("age_s=1", "age"),
        ("consistency=eventual", "EVENTUAL"),
        ("at_least=new", "/at_least"),
        ("rate_limit=messages", "customer"),
    ],
)
async def test_a_parameter_that_is_wrong_is_named(ask, query, says):
    answer = await ask("GET", f"/v1/sessions/s/context?{query}")
    assert (answer.status, kind(answer)) == (422, "invalid")
    assert says.lower() in answer.json["detail"].lower()


async def test_what_aiohttp_refuses_has_problem_details_too(ask):
    assert kind(await ask("GET", "/nowhere")) == "not-found"
    answer = await ask("PUT", "/v1/prefetch")
    assert (answer.status, answer.headers["Allow"], kind(answer)) == (405, "POST", "method-not-allowed")
    answer = await ask("POST", "/v1/prefetch", data=b"{}")
    assert (answer.status, kind(answer)) == (415, "unsupported-media-type")
    answer = await ask("POST", "/v1/sessions/s/close", data=b"{}", headers=JSON)
    assert (answer.status, kind(answer)) == (400, "bad-request")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(chunked):
    async with http_world(worker_max_body_bytes=2048) as ask:

        async def parts():
            for _ in range(20):
                yield b" " * 1000

        data = parts() if chunked else b" " * 20_000
        answer = await ask("POST", "/v1/prefetch", data=data, headers=JSON)
        assert (answer.status, kind(answer)) == (413, "too-large")


async def test_a_request_id_is_taken_over_where_it_is_sane_and_made_where_not(ask):
    for given, taken in (("abc-1.2:3_x", True), ("a b", False), ("x" * 65, False), ("é", False)):
        answer = await ask("GET", "/nowhere", headers={"X-Request-Id": given})
        assert kind(answer) == "not-found"
        assert (answer.headers["X-Request-Id"] == given) == taken
    made = {(await ask("GET", "/v1/trending")).headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3


async def raw(ask, sent, *, half_close=False):
    """Send bytes, and return what comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ask.port)
    try:
        writer.write(sent)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(HANG_GUARD_S):
            return await reader.read()
    finally:
        writer.close()


GETS = sorted(re.sub(r"\{(\w+)[^{}]*\}", "s", route.path) for route in api_routes() if route.method == "GET")
FAILING = ["/nowhere", "/v1/sessions/s/context?turns=99", "/v1/sessions/none", "/v1/sessions/s/lock"]


@pytest.mark.parametrize("path", [*GETS, *FAILING])
async def test_head_is_answered_as_get_is_but_for_the_body(ask, path):
    """RFC 9110, section 9.3.2: the same status and headers, the length of the body among them, and no body."""
    await begun(ask)
    answers = []
    for method in ("GET", "HEAD"):
        sent = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: r\r\nConnection: close\r\n\r\n"
        head, _, body = (await raw(ask, sent.encode())).partition(b"\r\n\r\n")
        answers.append((sorted(line for line in head.split(b"\r\n") if not line.startswith(b"Date:")), body))
    (wanted, body), (got, nothing) = answers
    assert got == wanted
    assert f"Content-Length: {len(body)}".encode() in got
    assert (len(body) > 0, nothing) == (True, b"")


async def test_head_says_that_nothing_is_newer_and_that_what_takes_no_get_takes_no_head(ask):
    await begun(ask)
    known = (await ask("HEAD", "/v1/sessions/s/context")).headers["ETag"]
    same = await ask("HEAD", "/v1/sessions/s/context", headers={"If-None-Match": known})
    assert (same.status, same.headers["ETag"]) == (304, known)
    refused = await ask("HEAD", "/v1/prefetch")
    assert (refused.status, refused.headers["Allow"], refused.body) == (405, "POST", b"")
    assert (await ask("PUT", "/v1/presence")).headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\r\n\r\n",
        b"GET /v1/trending HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/prefetch HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/prefetch HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_has_problem_details(ask, sent):
    head, _, body = (await raw(ask, sent)).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"application/problem+json" in head
    assert json.loads(body)["type"] == "urn:mangacache:problem:bad-request"


HEAD = b"POST /v1/prefetch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def test_a_body_that_does_not_come_ends_in_time():
    async with http_world(worker_receive_timeout_s=0.1) as ask:
        answer = await raw(ask, HEAD + b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not come" in answer


async def test_headers_that_do_not_come_end_in_time():
    async with http_world(worker_receive_timeout_s=0.1) as ask:
        assert await raw(ask, HEAD) == b""


async def test_an_answer_that_does_not_come_is_given_up_in_time_and_may_be_asked_for_again():
    gate = Stuck()
    async with http_world(wrap=gate.around, worker_request_timeout_s=0.1) as ask:
        gate.shut()
        asked = asyncio.ensure_future(ask("GET", "/v1/sessions/s/context?consistency=strong"))
        answer = await asked
        gate.open()
        assert (answer.status, kind(answer)) == (503, "transient")
        assert answer.headers["Retry-After"] == "1"


async def test_a_write_goes_on_when_its_client_has_gone():
    gate = Stuck()
    async with Instances.open() as instances, http_world(instances=instances, wrap=gate.around) as ask:
        await begun(ask)
        gate.shut()
        body = b'{"role": "user", "content": "late", "turn_id": "late"}'
        sent = HEAD.replace(b"prefetch", b"sessions/s/turns") + b"Content-Length: %d\r\n\r\n" % len(body) + body
        _, writer = await asyncio.open_connection("127.0.0.1", ask.port)
        writer.write(sent)
        await until(lambda: gate.waiting, "the write is on its way")
        writer.transport.abort()
        await until(lambda: not ask.runner.server.connections or gone(ask), "the worker has heard that it is gone")
        gate.open()
        again = await ask("POST", "/v1/sessions/s/turns", data=body, headers=JSON)
        assert (again.status, again.json["turns"][0]["duplicate"]) == (200, True)


async def test_a_lock_whose_client_has_gone_before_it_was_told_of_it_is_given_back():
    gate = Stuck()
    async with http_world(wrap=gate.around) as ask:
        await begun(ask)
        gate.shut()
        sent = HEAD.replace(b"prefetch", b"sessions/s/lock") + b'Content-Length: 16\r\n\r\n{"lease_s": 300}'
        _, writer = await asyncio.open_connection("127.0.0.1", ask.port)
        writer.write(sent)
        await until(lambda: gate.waiting, "the fence is asked for")
        writer.transport.abort()
        await until(lambda: gone(ask), "the worker has heard that it is gone")
        gate.open()
        await until(lambda: not gone(ask), "its request has ended")
        assert (await ask.cache.locks.lend("s", wait_s=60)).fence == 2


def gone(ask):
    """Tell whether a connection is there no more whose request is still under way."""
    return any(each.transport is None for each in ask.runner.server.connections)


class Stuck:
    """A way to DynamoDB that can be shut."""

    def __init__(self):
        self._free = asyncio.Event()
        self._free.set()
        self.waiting = 0

    def around(self, inner):
        self._inner = inner
        return self

    def shut(self):
        self._free.clear()

    def open(self):
        self._free.set()

    async def request(self, operation, parameters):
        self.waiting += 1
        try:
            await self._free.wait()
        finally:
            self.waiting -= 1
        return await self._inner.request(operation, parameters)


async def test_what_should_not_happen_says_nothing_but_its_request_id(ask, monkeypatch):
    async def broken(*_, **__):
        raise RuntimeError("a secret")

    monkeypatch.setattr(type(ask.cache.trending), "top", broken)
    answer = await ask("GET", "/v1/trending")
    assert (answer.status, kind(answer)) == (500, "internal")
    assert b"secret" not in answer.body
