"""Two customers on one worker, and every way that is tried to come from the one to the other's data."""

from __future__ import annotations

import base64
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from instances import Instances

from mangacache.clock import SystemClock
from mangacache.worker.auth.apikeys import ApiKeys, new_key
from mangacache.worker.caller import ROLES, Scope
from mangacache.worker.process import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MARK = "7d1c-only-the-victim-knows"
"""Stands in everything that is the victim's: content, attributes, summary, ids."""
VICTIM, MALLORY = f"victim-{MARK}", "mallory"
THEIRS, OWN, FREE = f"chat-{MARK}", "chat-of-mallory", "chat-of-nobody"
ISSUER, AUDIENCE = "https://id.example", "chat"
SECRET = b"0123456789abcdef0123456789abcdef"
OTHER_SECRET = b"fedcba9876543210fedcba9876543210"

S, C = "/v1/sessions/{session_id}", "/v1/customers/{customer_id}"
ASKED: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", f"{S}/context"): {},
    ("POST", f"{S}/turns"): {"json": {"role": "user", "content": "mine now"}},
    ("GET", f"{S}/turns"): {"params": [{}, {"cursor": "CURSOR", "order": "newest"}, {"after": ""}]},
    ("GET", S): {},
    ("PATCH", S): {"json": {"attributes": {"taken": True}}, "headers": {"If-Match": "*"}},
    ("PUT", f"{S}/summary"): {"json": {"text": "mine now"}},
    ("POST", f"{S}/close"): {},
    ("DELETE", S): {},
    ("POST", f"{S}/adopt"): {},
    ("POST", f"{S}/lock"): {},
    ("PUT", f"{S}/lock"): {"headers": {"Lock-Token": "LOCK"}},
    ("DELETE", f"{S}/lock"): {"headers": {"Lock-Token": "LOCK"}},
    ("GET", f"{C}/sessions"): {"params": [{}, {"cursor": "SESSIONS-CURSOR"}]},
    ("DELETE", C): {},
    ("GET", f"{C}/presence"): {},
    ("PUT", f"{C}/presence"): {},
    ("DELETE", f"{C}/presence"): {},
    ("GET", "/v1/presence"): {},
    ("POST", f"{C}/rate-limits/{{limit}}"): {"json": {"cost": 1}},
    ("GET", "/v1/trending"): {},
    ("POST", "/v1/trending"): {"json": {"title": "t"}},
    ("POST", "/v1/prefetch"): {"json": {"session_ids": [THEIRS]}},
}
"""How each route is asked; a route that is not here fails the suite."""
WITHOUT_CREDENTIAL = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/v1/openapi.json"), ("GET", "/v1/ws")}
OF_NOBODY = {"/v1/presence", "/v1/trending", "/v1/prefetch"}
"""Routes that name neither a session nor a customer in their path."""
CUSTOMER_IDS = (None, VICTIM, MALLORY)
"""What the header Customer-Id says."""


class Credential(NamedTuple):
    """One that is tried.

    Attributes:
        headers: that bring it.
        good: whether it is let in at all.
        scopes: what it is good for, where it is.
        customer: whose it is; None: a bot's or a gateway's.
    """

    headers: Any
    good: bool = False
    scopes: frozenset[Scope] = frozenset()
    customer: str | None = None


def bearer(given: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {given}"}


def _segment(said: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()


class Stage:
    """The worker, the victim's things, and the credentials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worker: Any = None
        self.cache: Any = None
        self.known: dict[str, str] = {}
        self.credentials: dict[str, Credential] = {}
        self.secrets: list[str] = []
        self._public_pem = b""

    def files(self) -> dict[str, Any]:
        """Write the lists of keys, and return the settings that name them."""
        keys = ApiKeys(())
        made = {}
        for role in ROLES:
            made[role], kept = new_key(f"key-{role}", role)
            keys = ApiKeys((*keys.keys, kept))
        from datetime import UTC, datetime

        ended, kept = new_key("key-ended", "operator", until=datetime.fromtimestamp(1, UTC))
        keys = ApiKeys((*keys.keys, kept))
        last, kept = new_key("key-last", "bot")
        (self.folder / "keys.json").write_bytes(keys.with_key(kept))
        edwards = Ed25519PrivateKey.generate()
        raw = edwards.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self._public_pem = edwards.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signing = {
            "keys": [
                {"kty": "oct", "kid": "s2", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET).decode()},
                {"kty": "OKP", "kid": "e1", "alg": "EdDSA", "crv": "Ed25519", "x": _raw(raw)},
            ]
        }
        (self.folder / "signing.json").write_text(json.dumps(signing))
        (self.folder / "revoked.json").write_text(
            json.dumps({"tokens": {"revoked-one": time.time() + 9999}, "customers": {"left": time.time() + 5}})
        )
        self._credentials(made, ended, last, edwards)
        return {
            "worker_keys": str(self.folder / "keys.json"),
            "worker_token_keys": str(self.folder / "signing.json"),
            "worker_revoked": str(self.folder / "revoked.json"),
            "worker_token_issuer": ISSUER,
            "worker_token_audience": AUDIENCE,
            "worker_port": 0,
            "operator_port": 0,
            "worker_notice_s": 0.0,
            "log_level": "debug",
        }

    def token(self, customer: str = VICTIM, *, key: Any = SECRET, alg: str = "HS256", kid: Any = "s2", **says) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": customer, "iat": now, "exp": now + 600, "jti": "j1"} | says
        claims = {name: value for name, value in claims.items() if value is not None}
        made = jwt.encode(claims, key, algorithm=alg, headers={"kid": kid})
        self.secrets.append(made)
        return made

    def _credentials(self, keys: dict[str, str], ended: str, last: str, edwards: Any) -> None:
        now = int(time.time())
        theirs = {"iss": ISSUER, "aud": AUDIENCE, "sub": VICTIM, "iat": now, "exp": now + 600, "jti": "j"}
        unsigned = f"{_segment({'alg': 'none', 'kid': 's2', 'typ': 'JWT'})}.{_segment(theirs)}."
        good = self.token(MALLORY)
        head, _, signature = good.split(".")
        confused = _hmac_by(self._public_pem, {"alg": "HS256", "kid": "e1"}, theirs)
        nobody = {
            "none at all": {},
            "not a bearer": {"Authorization": f"Basic {base64.b64encode(b'victim:x').decode()}"},
            "an empty bearer": {"Authorization": "Bearer "},
            "nonsense": bearer("nonsense"),
            "an API key with an unknown id": bearer(f"mck_nobody_{last.rpartition('_')[2]}"),
            "an API key's id with another key's secret": bearer(f"mck_key-operator_{last.split('_', 2)[2]}"),
            "an API key whose time is over": bearer(ended),
            "an API key's hash": bearer(ApiKeys.parse((self.folder / "keys.json").read_bytes()).keys[0].sha256),
            "two credentials": [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {keys['operator']}")],
            "a good key in another header": {"X-Api-Key": keys["bot"]},
            "a token without a signature (alg none)": bearer(unsigned),
            "a token signed by the public key taken for a secret": bearer(confused),
            "a token signed by an unknown key": bearer(self.token(key=OTHER_SECRET)),
            "a token whose kid is unknown": bearer(self.token(kid="s1")),
            "a token with the kid of another kind of key": bearer(self.token(kid="e1")),
            "a token whose kid is a path": bearer(self.token(kid="../../dev/null")),
            "a token by another algorithm (HS512)": bearer(
                self.token(key=SECRET * 2, alg="HS512"),
            ),
            "a token of a customer's with another's claims": bearer(f"{head}.{_segment(theirs)}.{signature}"),
            "a token for another audience": bearer(self.token(aud="shop")),
            "a token for several audiences": bearer(self.token(aud=[AUDIENCE, "shop"])),
            "a token of another issuer": bearer(self.token(iss="https://evil.example")),
            "a token whose time is over": bearer(self.token(iat=now - 900, exp=now - 60)),
            "a token whose time has not begun": bearer(self.token(iat=now + 600, exp=now + 900)),
            "a token that is not to be used yet (nbf)": bearer(self.token(nbf=now + 600)),
            "a token that is good for too long": bearer(self.token(exp=now + 10**6)),
            "a token without an end": bearer(self.token(exp=None)),
            "a token without an id": bearer(self.token(jti=None)),
            "a token without a customer": bearer(self.token(sub=None)),
            "a token with an empty customer": bearer(self.token("")),
            "a revoked token": bearer(self.token(jti="revoked-one")),
            "a token from before its customer's were revoked": bearer(self.token("left")),
        }
        self.credentials = {name: Credential(headers) for name, headers in nobody.items()}
        own = frozenset({Scope.READ, Scope.APPEND})
        self.credentials["another customer's token"] = Credential(bearer(good), True, own, MALLORY)
        other = self.token(MALLORY, key=edwards, alg="EdDSA", kid="e1")
        self.credentials["another customer's token, EdDSA"] = Credential(bearer(other), True, own, MALLORY)
        for role, given in keys.items():
            self.credentials[f"an API key of role {role}"] = Credential(bearer(given), True, ROLES[role])
        self.secrets += [*keys.values(), ended, last]

    async def prepare(self) -> None:
        """Give the victim and Mallory what they have."""
        session = self.cache.session(THEIRS, customer_id=VICTIM)
        for number in range(5):
            await session.append(role="user", content=f"content {number} {MARK}", attributes={"note": MARK})
        await session.update({"address": MARK})
        await session.summarise(f"summary {MARK}", upto=2)
        await self.cache.session(f"second-{THEIRS}", customer_id=VICTIM).append(role="user", content=MARK)
        await self.cache.session(OWN, customer_id=MALLORY).append(role="user", content="hello")
        await self.cache.presence.heartbeat(VICTIM)
        self.known["CURSOR"] = (await session.history(limit=2)).older or ""
        sessions = await self.cache.customer(VICTIM).sessions(limit=1)
        self.known["SESSIONS-CURSOR"] = sessions.cursor or ""

    def routes(self) -> set[tuple[str, str]]:
        """The routes of the public port, from the application itself."""
        app = self.worker._public._runner.app
        return {(route.method, _plain(route.resource.canonical)) for route in app.router.routes()}

    def operator_routes(self) -> set[tuple[str, str]]:
        app = self.worker._operator._runner.app
        return {(route.method, _plain(route.resource.canonical)) for route in app.router.routes()}


def _plain(canonical: str) -> str:
    return canonical.replace(":[^/]+", "")


def _raw(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def _hmac_by(key: bytes, header: Any, says: Any) -> str:
    """Sign by hand: PyJWT refuses to use a public key so, which is what is tried."""
    import hashlib
    import hmac

    signed = f"{_segment(header)}.{_segment(says)}"
    return f"{signed}.{_raw(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


@asynccontextmanager
async def stage(folder: Path, **changes: Any) -> AsyncIterator[Stage]:
    """Set it up on the doubles of DynamoDB and Redis."""
    made = Stage(folder)
    more = {"worker_origins": "https://shop.example", "rate_limits": "messages=1000/60", "presence_online_s": 3600}
    settings = made.files() | more | changes
    async with Instances.open() as instances, instances.cache(**settings) as cache:
        made.cache = cache
        await made.prepare()
        full = instances.settings.replace(**settings)
        async with Worker.open(cache, full, clock=SystemClock()) as worker:
            made.worker = worker
            async with aiohttp.ClientSession(worker.public) as http:
                made.known["LOCK"] = await _locked(made, http)
                made.http = http
                yield made


async def _locked(made: Stage, http: aiohttp.ClientSession) -> str:
    headers = made.credentials["an API key of role bot"].headers
    async with http.post(f"/v1/sessions/{THEIRS}/lock", json={"lease_s": 300}, headers=headers) as answer:
        assert answer.status in {200, 201}, await answer.text()
        return (await answer.json())["lock_token"]
