"""Signatures are botocore's, byte for byte, whatever is signed; and what cannot stand in a header is refused."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mangacache.errors import Invalid
from mangacache.store.direct.endpoint import parse_endpoint
from mangacache.store.direct.signing import Signer
from mangacache.store.direct.wire import OPERATIONS

SEEDS, SIGNERS, REQUESTS = 10, 25, 10  # 2,500 requests
PRINTABLE = string.ascii_letters + string.digits + string.punctuation
ODD = PRINTABLE + "  \u00a0\u3000é漫🗡"
HOSTS = [
    "http://127.0.0.1:8000",
    "http://localhost",
    "http://LocalHost:80/",
    "http://[::1]:8000",
    "https://[2001:db8::1]",
    "https://dynamodb.{region}.amazonaws.com",
    "https://dynamodb.{region}.amazonaws.com:443",
    "https://123456789012.ddb.{region}.amazonaws.com:8443/",
    "http://a-b.c_d.example:65535",
]
REGIONS = ["us-east-1", "eu-central-2", "ap-northeast-3", "us-gov-west-1", "cn-north-1", "local"]
DAY_S = 86_400


def _text(rng, alphabet, most):
    return "".join(rng.choices(alphabet, k=rng.randint(1, most)))


def _token(rng):
    return rng.choice([None, "", _text(rng, PRINTABLE, 1500), "a" + _text(rng, ODD, 60) + "z", "a  b   c"])


def _body(rng):
    return rng.choice(
        [
            b"",
            b"{}",
            rng.randbytes(rng.randint(1, 200)),
            _text(rng, ODD + "\n\r\t\0", 300).encode(),
            b"x" * rng.choice([55, 56, 63, 64, 65, 100_000]),
        ]
    )


def _times(rng):
    """Seconds that jump within a day, over its ends and back, as a clock does that is set right."""
    midnight_s = rng.randint(11_000, 40_000) * DAY_S
    steps = [0.0, -0.001, 0.999, 1.0, -1.0, DAY_S, -300.5, 300.5, rng.random() * DAY_S, -rng.random() * DAY_S]
    rng.shuffle(steps)
    return [midnight_s + step for step in steps[:REQUESTS]]


def _headers(request):
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert lines[0] == "POST / HTTP/1.1"
    pairs = [line.split(": ", 1) for line in lines[1:]]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_signature_is_botocores_byte_for_byte(seed, monkeypatch):
    rng = random.Random(seed)
    now = {}
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(now["s"], UTC))
    for _ in range(SIGNERS):
        region = rng.choice(REGIONS)
        url = rng.choice(HOSTS).format(region=region)
        access_key, secret_key, token = _text(rng, PRINTABLE, 40), _text(rng, ODD, 60), _token(rng)
        signer = Signer(access_key, secret_key, token, endpoint=parse_endpoint(url, region))
        theirs = botocore.auth.SigV4Auth(Credentials(access_key, secret_key, token), "dynamodb", region)
        for at_s in _times(rng):
            now["s"] = int(at_s)
            target, body = rng.choice(list(OPERATIONS.values())).target, _body(rng)
            expected = AWSRequest(method="POST", url=url, data=body, headers=_given(target))
            theirs.add_auth(expected)
            _check(signer.signed(target, body, at_s), expected)


def _given(target):
    return {"X-Amz-Target": target.decode(), "Content-Type": "application/x-amz-json-1.0", "User-Agent": "mangacache"}


def _check(signed, expected):
    """Hold a whole request to the client's, and what the client adds after its signature to what it adds."""
    assert signed.endswith(b"\r\n\r\n" + expected.data)
    headers = _headers(signed)
    assert headers.pop("Accept-Encoding") == "identity"
    assert headers.pop("Content-Length") == str(len(expected.data))
    assert headers.pop("Host") == botocore.auth._host_from_url(expected.url)
    assert headers == dict(expected.headers.items())


@pytest.mark.parametrize("sign", ["\r", "\n", "\0", "\x1f", "\x7f"])
def test_a_credential_that_would_write_headers_of_its_own_is_refused(sign):
    endpoint = parse_endpoint("http://127.0.0.1", "us-east-1")
    with pytest.raises(Invalid, match="AWS_SESSION_TOKEN"):
        Signer("a", "b", f"token{sign}X-Evil: 1", endpoint=endpoint)
    with pytest.raises(Invalid, match="AWS_ACCESS_KEY_ID"):
        Signer(f"a{sign}", "b", None, endpoint=endpoint)


def test_a_signer_shows_neither_its_secret_nor_its_token():
    endpoint = parse_endpoint("http://127.0.0.1", "us-east-1")
    shown = repr(Signer("AKIAEXAMPLE", "the secret", "the token", endpoint=endpoint))
    assert shown == "<Signer AKIA..., us-east-1>"


@pytest.mark.parametrize(
    "url", ["http://host/path", "http://user@host", "http://host?x=1", "http://host/#f", "ftp://host", "unix:///socket"]
)
def test_an_address_that_is_more_than_a_host_is_no_endpoint_of_ours(url):
    assert parse_endpoint(url, "us-east-1") is None
