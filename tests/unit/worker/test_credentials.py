"""API keys, customers' tokens, revocations, and where their lists come from: judged by a clock that is set."""

from __future__ import annotations

import ast
import base64
import json
import os
import threading
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import mangacache.worker.auth
from mangacache import Invalid, Settings
from mangacache.cli import main
from mangacache.clock import SystemClock
from mangacache.worker.auth import apikeys, command
from mangacache.worker.auth.apikeys import ApiKeys, new_key
from mangacache.worker.auth.gate import KeyGate, OpenGate, gate_of
from mangacache.worker.auth.origins import check_origin
from mangacache.worker.auth.revocations import Revocations
from mangacache.worker.auth.sources import Source
from mangacache.worker.auth.tokens import NotGood, Rules, SigningKeys, new_signing_key
from mangacache.worker.caller import Forbidden, Scope, Unauthenticated

RULES = Rules(issuer="i", audience="a", longest_s=600, leeway_s=5)
NOW_S = 1_000_000.0
MARK = "marked-and-nobodys-business-0123456789"


class SetClock(SystemClock):
    def __init__(self):
        self.now_s = NOW_S

    def time_s(self):
        return self.now_s

    def monotonic_s(self):
        return self.now_s


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def signing():
    return SigningKeys.parse(new_signing_key("s1"))


def _jwks(*keys):
    return json.dumps({"keys": list(keys)}).encode()


def _oct(kid, secret=b"0" * 32):
    return {"kty": "oct", "kid": kid, "alg": "HS256", "k": base64.urlsafe_b64encode(secret).decode()}


# API keys


def test_a_new_key_is_found_by_what_was_shown_and_kept_as_a_hash():
    given, kept = new_key("b1", "bot")
    text = ApiKeys(()).with_key(kept)
    assert given.encode() not in text
    assert given.split("_", 2)[2].encode() not in text
    assert ApiKeys.parse(text).find(given, now_s=NOW_S) == kept
    assert ApiKeys.parse(text).find(given + "x", now_s=NOW_S) is None
    assert ApiKeys.parse(text).find(given[:-1], now_s=NOW_S) is None


def test_each_key_is_new_and_has_256_random_bits():
    made = {new_key("b1", "bot")[0] for _ in range(50)}
    assert len(made) == 50
    assert all(len(base64.urlsafe_b64decode(key.split("_", 2)[2] + "=")) == 32 for key in made)


def test_a_key_ends_when_its_list_says_so():
    from datetime import UTC, datetime

    given, kept = new_key("b1", "bot", until=datetime.fromtimestamp(NOW_S, UTC))
    keys = ApiKeys.parse(ApiKeys(()).with_key(kept))
    assert keys.find(given, now_s=NOW_S - 1) == kept
    assert keys.find(given, now_s=NOW_S) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"keys": [{"id": "b1", "role": "bot", "sha256": "' + MARK.encode() + b'"}]}',
        b'{"keys": [{"id": "b1", "role": "' + MARK.encode() + b'", "sha256": "' + b"0" * 64 + b'"}]}',
        b'{"keys": [{"id": "b1", "role": "bot", "sha256": "' + b"0" * 64 + b'", "' + MARK.encode() + b'": 1}]}',
        b'{"keys": [{"id": "b1", "role": "bot", "sha256": "' + b"0" * 64 + b'", "until": "2026-01-01T00:00:00"}]}',
        b"\xff" + MARK.encode(),
    ],
)
def test_a_list_that_is_none_is_refused_without_a_word_of_it(text):
    with pytest.raises(Invalid) as refused:
        ApiKeys.parse(text)
    assert MARK not in str(refused.value)
    assert refused.value.__cause__ is None


def test_two_keys_of_one_id_are_refused():
    _, kept = new_key("b1", "bot")
    keys = ApiKeys.parse(ApiKeys(()).with_key(kept))
    with pytest.raises(Invalid, match="already"):
        keys.with_key(kept)


def test_secrets_are_compared_by_compare_digest_alone():
    """Both ways: the one comparison is there, and no `==` compares hashes, keys or tokens."""
    compared = []
    for path in Path(mangacache.worker.auth.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
                names |= {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
                assert not names & {"given", "sha256", "token", "secret", "k", "d"}, (path.name, ast.unparse(node))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "hmac.compare_digest":
                compared.append(path.name)
    assert compared == ["apikeys.py"]


def test_an_unknown_id_costs_the_same_comparison(monkeypatch):
    calls = []
    real = apikeys.hmac.compare_digest
    monkeypatch.setattr(apikeys.hmac, "compare_digest", lambda a, b: calls.append((len(a), len(b))) or real(a, b))
    given, kept = new_key("b1", "bot")
    keys = ApiKeys((kept,))
    keys.find(given, now_s=NOW_S)
    keys.find("mck_other_x", now_s=NOW_S)
    keys.find("", now_s=NOW_S)
    assert calls == [(64, 64)] * 3


# Tokens


def test_a_minted_token_says_whose_it_is_and_until_when(signing):
    token = signing.mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S)
    claims = signing.read(token, rules=RULES, now_s=NOW_S)
    assert (claims.customer_id, claims.key_id, claims.issued_s, claims.until_s) == ("c1", "s1", NOW_S, NOW_S + 60)


def test_a_token_is_good_to_its_end_and_the_leeway(signing):
    token = signing.mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S)
    signing.read(token, rules=RULES, now_s=NOW_S + 64)
    with pytest.raises(NotGood, match="over"):
        signing.read(token, rules=RULES, now_s=NOW_S + 65)
    signing.read(token, rules=RULES, now_s=NOW_S - 5)
    with pytest.raises(NotGood, match="begun"):
        signing.read(token, rules=RULES, now_s=NOW_S - 6)


@pytest.mark.parametrize("lifetime_s", [0, 601, float("nan"), float("inf"), -1])
def test_no_token_is_minted_for_too_long(signing, lifetime_s):
    with pytest.raises(Invalid, match="worker_token_longest_s"):
        signing.mint("c1", rules=RULES, lifetime_s=lifetime_s, now_s=NOW_S)


def test_keys_are_rotated_by_putting_the_new_one_first():
    old = SigningKeys.parse(_jwks(_oct("old")))
    both = SigningKeys.parse(_jwks(_oct("new", b"1" * 32), _oct("old")))
    new = SigningKeys.parse(_jwks(_oct("new", b"1" * 32)))
    token = old.mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S)
    assert both.read(token, rules=RULES, now_s=NOW_S).key_id == "old"
    assert jwt.get_unverified_header(both.mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S))["kid"] == "new"
    with pytest.raises(NotGood):
        new.read(token, rules=RULES, now_s=NOW_S)


@pytest.mark.parametrize(
    "says",
    [
        {"exp": True},
        {"exp": "1000060"},
        {"exp": 1e300},
        {"iat": -1},
        {"nbf": "soon"},
        {"sub": "x" * 129},
        {"sub": 7},
        {"sub": "\ud800"},
        {"jti": 7},
        {"aud": ["a"]},
        {"aud": "A"},
        {"iss": "I"},
    ],
)
def test_claims_of_other_kinds_are_not_believed(says):
    keys = SigningKeys.parse(_jwks(_oct("s1")))
    good = {"iss": "i", "aud": "a", "sub": "c1", "iat": int(NOW_S), "exp": int(NOW_S) + 60, "jti": "j"}
    keys.read(jwt.encode(good, b"0" * 32, headers={"kid": "s1"}), rules=RULES, now_s=NOW_S)
    with pytest.raises((NotGood, TypeError)) as refused:
        keys.read(_signed(good | says), rules=RULES, now_s=NOW_S)
    assert refused.type is NotGood


def _signed(says):
    """Sign claims that PyJWT would not write."""
    return jwt.PyJWS().encode(json.dumps(says).encode(), b"0" * 32, algorithm="HS256", headers={"kid": "s1"})


@pytest.mark.parametrize("given", ["", ".", "..", "a.b.c", "\ud800", "x" * 5000, "e30.e30.", "null.null.null"])
def test_what_is_no_token_is_not_good_and_nothing_worse(signing, given):
    with pytest.raises(NotGood):
        signing.read(given, rules=RULES, now_s=NOW_S)


@pytest.mark.parametrize(
    "key",
    [
        _oct("s1", b"short"),
        _oct("s1") | {"alg": "none"},
        _oct("s1") | {"alg": "HS512"},
        _oct("s1") | {"alg": "EdDSA"},
        {"kty": "OKP", "kid": "e", "alg": "HS256", "crv": "Ed25519", "x": "AAAA"},
        {"kty": "OKP", "kid": "e", "alg": "EdDSA", "crv": "Ed25519", "x": MARK},
        {"kty": "oct", "kid": "", "alg": "HS256", "k": MARK},
    ],
)
def test_weak_or_mixed_up_signing_keys_are_refused_without_a_word_of_them(key):
    with pytest.raises(Invalid) as refused:
        SigningKeys.parse(_jwks(key))
    assert MARK not in str(refused.value)


# Revocations, and where lists come from


def test_a_customers_tokens_so_far_are_revoked_and_later_ones_are_good(signing):
    listed = Revocations().with_customer("c1", now_s=NOW_S, keep_s=700)
    before = signing.read(signing.mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S), rules=RULES, now_s=NOW_S)
    after = signing.read(signing.mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S + 1), rules=RULES, now_s=NOW_S)
    other = signing.read(signing.mint("c2", rules=RULES, lifetime_s=60, now_s=NOW_S), rules=RULES, now_s=NOW_S)
    assert [listed.hold(claims) for claims in (before, after, other)] == [True, False, False]


def test_a_list_of_revocations_forgets_what_would_be_over_anyway():
    listed = Revocations().with_token("old", now_s=NOW_S, keep_s=700).with_customer("c", now_s=NOW_S, keep_s=700)
    listed = listed.with_token("new", now_s=NOW_S + 701, keep_s=700)
    assert set(listed.tokens) == {"new"}
    assert listed.customers == {}
    assert Revocations.parse(listed.text()) == listed


async def test_a_changed_file_is_read_again_within_a_second(tmp_path, clock):
    path = tmp_path / "keys.json"
    given, kept = new_key("b1", "bot")
    path.write_bytes(ApiKeys(()).with_key(kept))
    failures = []
    gate = KeyGate(
        Source(
            str(path), "keys", ApiKeys.parse, clock=clock, on_failure=lambda what, error: failures.append((what, error))
        ),
        clock=clock,
    )
    headers = {"Authorization": f"Bearer {given}"}
    caller = await gate.authenticate(headers, None)
    assert caller.key_id == "b1"
    assert caller.stands()
    path.write_bytes(ApiKeys(()).with_key(new_key("other", "bot")[1]))
    os.utime(path, ns=(1, 1))
    clock.now_s += 1
    with pytest.raises(Unauthenticated):
        await gate.authenticate(headers, None)
    assert not caller.stands(), "who stays, by a socket, stays no longer than the key"
    assert failures == []


@pytest.mark.parametrize("how", ["revoked", "signing key taken out", "another key by the same kid"])
async def test_who_stays_by_a_token_stays_no_longer_than_it_is_good(how, tmp_path, clock):
    def source(name, text, parse):
        (tmp_path / name).write_bytes(text)
        return Source(str(tmp_path / name), name, parse, clock=clock, on_failure=lambda *_: None)

    signing = source("signing", _jwks(_oct("s1")), SigningKeys.parse)
    revoked = source("revoked", Revocations().text(), Revocations.parse)
    gate = KeyGate(None, signing=signing, revoked=revoked, rules=RULES, clock=clock)
    token = signing.value.mint("c1", rules=RULES, lifetime_s=60, now_s=clock.time_s())
    caller = await gate.authenticate({"Authorization": f"Bearer {token}"}, None)
    assert caller.stands()
    if how == "revoked":
        listed = Revocations().with_customer("c1", now_s=clock.time_s(), keep_s=700)
        (tmp_path / "revoked").write_bytes(listed.text())
    else:
        other = _oct("s2") if how == "signing key taken out" else _oct("s1", b"1" * 32)
        (tmp_path / "signing").write_bytes(_jwks(other))
        os.utime(tmp_path / "signing", ns=(1, 1))
    clock.now_s += 1
    assert not caller.stands()


async def test_who_stays_by_a_token_stays_when_its_key_is_joined_by_others_or_becomes_public(tmp_path, clock):
    made = jwt.algorithms.OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
    private = made | {"kid": "e1", "alg": "EdDSA"}
    path = tmp_path / "signing"
    path.write_bytes(_jwks(private))
    signing = Source(str(path), "signing", SigningKeys.parse, clock=clock, on_failure=lambda *_: None)
    gate = KeyGate(None, signing=signing, rules=RULES, clock=clock)
    token = signing.value.mint("c1", rules=RULES, lifetime_s=60, now_s=clock.time_s())
    caller = await gate.authenticate({"Authorization": f"Bearer {token}"}, None)
    public = {name: value for name, value in private.items() if name != "d"}
    path.write_bytes(_jwks(_oct("new"), public))
    clock.now_s += 1
    assert caller.stands()


async def test_a_file_that_breaks_leaves_the_last_sound_list_and_says_so(tmp_path, clock):
    path = tmp_path / "keys.json"
    given, kept = new_key("b1", "bot")
    path.write_bytes(ApiKeys(()).with_key(kept))
    failures = []
    source = Source(str(path), "keys", ApiKeys.parse, clock=clock, on_failure=lambda what, _: failures.append(what))
    path.write_text(MARK)
    clock.now_s += 1
    assert source.value.find(given, now_s=NOW_S) == kept
    path.unlink()
    clock.now_s += 1
    assert source.value.find(given, now_s=NOW_S) == kept
    assert failures == ["credentials_not_reloaded"] * 2


@pytest.mark.parametrize("parse", [ApiKeys.parse, SigningKeys.parse, Revocations.parse])
@pytest.mark.parametrize(
    "text", [b'{"keys":' + b"[" * 10**5, b'{"x":' + b"[" * 10**5, b'{"tokens":' + b'{"a":' * 10**5]
)
def test_a_file_that_is_nested_without_end_leaves_the_last_sound_list_too(tmp_path, clock, parse, text):
    path = tmp_path / "list.json"
    path.write_bytes(Revocations().text() if parse == Revocations.parse else b'{"keys": []}')
    failures = []
    source = Source(str(path), "list", parse, clock=clock, on_failure=lambda what, _: failures.append(what))
    sound = source.value
    path.write_bytes(text)
    clock.now_s += 1
    assert source.value is sound
    assert failures == ["credentials_not_reloaded"]


def test_a_list_may_be_a_secret_in_the_environment(monkeypatch, clock):
    _, kept = new_key("b1", "bot")
    monkeypatch.setenv("KEYS_OF_A_TEST", ApiKeys(()).with_key(kept).decode())
    source = Source("env:KEYS_OF_A_TEST", "keys", ApiKeys.parse, clock=clock, on_failure=lambda *_: None)
    assert source.value.keys == (kept,)
    with pytest.raises(Invalid, match="environment has no NO_SUCH"):
        Source("env:NO_SUCH", "keys", ApiKeys.parse, clock=clock, on_failure=lambda *_: None)


# The gate


@pytest.mark.parametrize(
    ("addresses", "open_"),
    [
        ({}, True),
        ({"worker_host": "::1", "operator_host": "localhost"}, True),
        ({"worker_host": "0.0.0.0"}, False),  # noqa: S104 - what is refused
        ({"worker_host": "::"}, False),
        ({"worker_host": "10.0.0.7"}, False),
        ({"operator_host": "0.0.0.0"}, False),  # noqa: S104 - what is refused
    ],
)
def test_a_worker_starts_open_on_loopback_only(addresses, open_):
    settings = Settings(**addresses)
    if open_:
        assert isinstance(gate_of(settings), OpenGate)
        return
    with pytest.raises(Invalid, match="worker_keys"):
        gate_of(settings)
    assert isinstance(gate_of(settings.replace(worker_open="yes")), OpenGate)


def test_a_worker_with_keys_asks_for_them_wherever_it_listens(tmp_path):
    (tmp_path / "keys.json").write_bytes(ApiKeys(()).with_key(new_key("b1", "bot")[1]))
    keys = str(tmp_path / "keys.json")
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - what is asked
        assert isinstance(gate_of(Settings(worker_host=host, worker_keys=keys, worker_open="yes")), KeyGate)
    with pytest.raises(Invalid, match="worker_revoked cannot be read"):
        gate_of(Settings(worker_keys=keys, worker_revoked=str(tmp_path / "none.json")))


async def test_what_shows_a_gate_shows_no_secret(tmp_path, clock):
    given, kept = new_key("b1", "bot")
    (tmp_path / "keys.json").write_bytes(ApiKeys(()).with_key(kept))
    (tmp_path / "signing.json").write_bytes(_jwks(_oct("s1", MARK.encode())))
    settings = Settings(
        worker_keys=str(tmp_path / "keys.json"),
        worker_token_keys=str(tmp_path / "signing.json"),
    )
    why = []
    gate = gate_of(settings, clock=clock, on_refused=why.append)
    token = SigningKeys.parse(_jwks(_oct("s1"))).mint("c1", rules=RULES, lifetime_s=60, now_s=NOW_S)
    errors = []
    for wrong in (token, given + "x", "mck_nobody_" + MARK, MARK):
        with pytest.raises(Unauthenticated) as refused:
            await gate.authenticate({"Authorization": f"Bearer {wrong}"}, None)
        errors.append(repr(refused.value) + str(refused.value))
    caller = await gate.authenticate({"Authorization": f"bearer {given}"}, None)
    shown = f"{gate!r} {caller!r} {errors} {why}"
    secrets = (MARK, base64.urlsafe_b64encode(MARK.encode()).decode().rstrip("="), given, kept.sha256, token)
    assert [secret for secret in secrets if secret in shown] == []
    assert "b1 (bot)" in shown


async def test_each_role_is_what_the_page_says():
    from mangacache.worker.caller import CUSTOMER, ROLES

    assert ROLES["read-only"] == {Scope.READ}
    assert ROLES["gateway"] == CUSTOMER == {Scope.READ, Scope.APPEND}
    assert Scope.OPERATE not in ROLES["bot"]
    assert ROLES["operator"] == set(Scope)


@pytest.mark.parametrize(
    ("origin", "allowed", "good"),
    [
        (None, "", True),
        ("https://shop.example", "https://shop.example", True),
        ("https://SHOP.example", "https://a.example, https://shop.example", True),
        ("https://shop.example", "", False),
        ("http://shop.example", "https://shop.example", False),
        ("https://shop.example.evil.example", "https://shop.example", False),
        ("https://shop.example:8443", "https://shop.example", False),
        ("null", "https://shop.example", False),
        ("", "https://shop.example", False),
        ("https://evil.example", "*", True),
    ],
)
def test_a_site_may_open_a_socket_where_it_is_listed(origin, allowed, good):
    headers = {} if origin is None else {"Origin": origin}
    if good:
        check_origin(headers, allowed)
        return
    with pytest.raises(Forbidden):
        check_origin(headers, allowed)


# The commands


def test_the_commands_make_a_key_and_a_token_that_a_gate_takes_and_revoke_it(tmp_path, monkeypatch, capsys):
    keys, signing, revoked = (tmp_path / name for name in ("keys.json", "signing.json", "revoked.json"))
    monkeypatch.setenv("MANGACACHE_WORKER_TOKEN_KEYS", str(signing))
    monkeypatch.setenv("MANGACACHE_WORKER_REVOKED", str(revoked))

    def run(*arguments):
        return main(arguments), capsys.readouterr().out.strip()

    _, given = run("key", "bot", "b1", "--file", str(keys))
    assert keys.stat().st_mode & 0o777 == 0o600
    assert run("key", "bot", "b1", "--file", str(keys)) == (2, "")
    signing.write_text(run("token", "signing-key", "s1")[1])
    _, token = run("token", "mint", "c1")
    assert ApiKeys.parse(keys.read_bytes()).find(given, now_s=NOW_S) is not None
    rules = Rules(issuer="mangacache", audience="mangacache", longest_s=3600, leeway_s=5)
    claims = SigningKeys.parse(signing.read_bytes()).read(token, rules=rules, now_s=SystemClock().time_s())
    assert claims.customer_id == "c1"
    assert run("token", "revoke", "--token-id", claims.token_id) == (0, "")
    assert Revocations.parse(revoked.read_bytes()).hold(claims)
    kept = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert sorted(kept) == ["keys.json", "revoked.json", "signing.json"]


@pytest.mark.parametrize("what", ["key", "token"])
def test_commands_that_change_a_list_at_once_lose_nothing_of_each_other(tmp_path, monkeypatch, what):
    """The second one begins when the first has read the list, and has not written it yet."""
    path = tmp_path / "list.json"
    monkeypatch.setenv("MANGACACHE_WORKER_REVOKED", str(path))
    second = []
    real = command._replace

    def run(name):
        arguments = ["key", "bot", name, "--file", str(path)]
        return main(arguments if what == "key" else ["token", "revoke", "--token-id", name])

    def replace(*arguments):
        if not second:
            second.append(threading.Thread(target=run, args=("second",)))
            second[0].start()
            second[0].join(0.5)  # where nothing holds it up, it has ended by then: and its change is overwritten
        real(*arguments)

    monkeypatch.setattr(command, "_replace", replace)
    assert run("first") == 0
    second[0].join(60)
    text = path.read_bytes()
    names = [key.id for key in ApiKeys.parse(text).keys] if what == "key" else [*Revocations.parse(text).tokens]
    assert names == ["first", "second"]
