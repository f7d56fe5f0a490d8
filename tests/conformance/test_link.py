"""Both links on real servers: each connection admitted, nothing sent twice, nothing mixed up."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import ssl
import warnings
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mangatest import HANG_GUARD_S
from redis.asyncio import Redis
from redises import debian_redis_binary

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.context import scripts
from mangacache.errors import Invalid, Transient
from mangacache.local.process import free_port
from mangacache.local.valkey import valkey_process
from mangacache.redis import FindingLink, LinkLost, Moved, MultiplexedLink, RedisPyLink, Script, ScriptFailed, open_link
from mangacache.redis.channels import Hears, Said
from mangacache.redis.ears import EarDialer
from mangacache.redis.subscriptions import Subscriptions
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from mangacache.local.process import ServerProcess
    from mangacache.redis import Admission, Link, Server

ECHO = Script.of("echo", "return ARGV[1]")
COUNT = Script.of("count", "redis.call('PEXPIRE', KEYS[1], 60000) return redis.call('INCR', KEYS[1])")
READ = Script.of("read", "return redis.call('GET', KEYS[1])")

PATIENT_S = 5.0
"""A machine that is busy with other tests is no outage."""


KINDS = {"redis-py": RedisPyLink, "multiplexed": MultiplexedLink, "found": FindingLink}
"""The last is the multiplexed one, behind the look whether there is a cluster."""


@pytest.fixture(params=["redis-py", "multiplexed"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def linked(kind: str) -> Callable[..., AbstractAsyncContextManager[Link]]:
    """What opens a link whose connections are admitted under 1, unless said otherwise."""

    @asynccontextmanager
    async def opened(endpoint: str | int, admission: Admission | None = None, **changes) -> AsyncIterator[Link]:
        if isinstance(endpoint, int):
            endpoint = f"redis://127.0.0.1:{endpoint}"
        settings = Settings(
            redis_endpoint=endpoint,
            redis_link="redis-py" if kind == "redis-py" else "multiplexed",
            redis_cluster="auto" if kind == "found" else "off",
            **{"redis_timeout_s": PATIENT_S, "connect_timeout_s": PATIENT_S} | changes,
        )
        link = open_link(settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
        assert type(link) is (KINDS[kind] if not endpoint.startswith("unix") or kind != "found" else MultiplexedLink)
        link.admit_with(admission if admission is not None else admit)
        try:
            yield link
        finally:
            async with asyncio.timeout(HANG_GUARD_S):
                await link.close()

    return opened


async def admit(server: Server) -> int:
    del server
    return 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        while not condition():  # noqa: ASYNC110 - the link has no event for it
            await asyncio.sleep(0.005)


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server of the test's own, to be killed and stopped."""
    server = valkey_process(folder=tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(own_valkey: ServerProcess) -> AsyncIterator[Redis]:
    async with Redis(port=own_valkey.port) as client:
        yield client


async def calls_of(client: Redis, command: str) -> int:
    stats = await client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


@pytest.fixture
def key() -> str:
    return f"link:{uuid4().hex}"


# Admission


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_sent_on_a_connection_before_it_is_admitted(linked, own_valkey, client, key):
    asked, opened = asyncio.Event(), asyncio.Event()

    async def slowly(server: Server) -> int:
        assert (await server.info())["role"] == "master"
        asked.set()
        await opened.wait()
        return 1

    async with linked(own_valkey.port, slowly) as link:
        running = asyncio.create_task(link.run(COUNT, key, [], tag=1))
        await asked.wait()
        assert await calls_of(client, "evalsha") == 0
        opened.set()
        assert await running == 1


async def test_each_connection_is_admitted_once(linked, kind, own_valkey, client, key):
    admitted = []

    async def counting(server: Server) -> int:
        admitted.append((await server.info())["run_id"])
        return 1

    async with linked(own_valkey.port, counting, redis_connections=8) as link:
        for _ in range(20):
            await asyncio.gather(*(link.run(ECHO, key, [n], tag=1) for n in range(50)))
        connected = len(await client.client_list()) - 1
        assert len(admitted) == connected
        assert connected == 1 if kind != "redis-py" else 2 <= connected <= 8
        assert len(set(admitted)) == 1


async def test_admission_may_run_scripts_on_the_very_connection(linked, own_valkey, key):
    async def owing(server: Server) -> int:
        return await server.run(COUNT, key, [])

    async with linked(own_valkey.port, owing, redis_connections=1) as link:
        assert await link.run(COUNT, key, [], tag=1) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_command_under_another_tag_is_not_sent(linked, own_valkey, client, key):
    async with linked(own_valkey.port) as link:
        assert await link.run(COUNT, key, [], tag=1) == 1
        with pytest.raises(Moved):
            await link.run(COUNT, key, [], tag=2)
        assert await client.get(key) == b"1"
        assert await link.run(COUNT, key, [], tag=1) == 2


async def test_after_drop_connections_are_admitted_anew(linked, own_valkey, client, key):
    tags = iter((1, 2))

    async def next_tag(server: Server) -> int:
        del server
        return next(tags)

    async with linked(own_valkey.port, next_tag) as link:
        await link.run(COUNT, key, [], tag=1)
        link.drop()
        assert link.up
        assert await link.run(COUNT, key, [], tag=2) == 2
        await gone(client, but=1)


async def gone(client: Redis, *, but: int) -> None:
    """Wait until the server has no connections but so many, and the test's own."""
    async with asyncio.timeout(HANG_GUARD_S):
        while len(await client.client_list()) > but + 1:  # noqa: ASYNC110 - it is the server that must notice
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_is_refused_is_closed_and_tried_again(linked, own_valkey, client, key):
    refusals = iter([True] * 3)

    async def thrice_not(server: Server) -> int:
        await server.info()
        if next(refusals, False):
            raise Transient("not now")
        return 1

    async with linked(own_valkey.port, thrice_not) as link:
        with pytest.raises(LinkLost, match="not now") as lost:
            await link.run(COUNT, key, [], tag=1)
        assert not lost.value.sent
        assert not link.up
        await until(lambda: link.up)
        assert await link.run(COUNT, key, [], tag=1) == 1
        await gone(client, but=1)


# Servers that end, stand still, or are no primaries


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_server_is_lost_and_found_again_with_a_new_admission(linked, own_valkey, key):
    runs = []

    async def naming(server: Server) -> int:
        runs.append((await server.info())["run_id"])
        return len(set(runs))

    async with linked(own_valkey.port, naming) as link:
        assert await link.run(COUNT, key, [], tag=1) == 1
        own_valkey.kill()
        await until(lambda: not own_valkey.running)
        with pytest.raises(LinkLost):
            await link.run(COUNT, key, [], tag=1)
        with pytest.raises(LinkLost):
            await link.run(COUNT, key, [], tag=1)
        assert not link.up
        await own_valkey.restart()
        await until(lambda: link.up)
        with pytest.raises(Moved):
            await link.run(COUNT, key, [], tag=1)
        assert await link.run(COUNT, key, [], tag=2) == 1


async def test_a_stalled_server_is_lost_within_the_time_out_and_then_at_once(linked, own_valkey, client, key):
    async with linked(own_valkey.port, ask_role, redis_timeout_s=1.0, redis_connections=4) as link:
        await link.run(COUNT, key, [], tag=1)
        own_valkey.pause()
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                with pytest.raises(LinkLost, match="within 1 s") as lost:
                    await link.run(COUNT, key, [], tag=1)
                assert lost.value.sent
                outcomes = await asyncio.gather(
                    *(link.run(COUNT, key, [], tag=1) for _ in range(100)), return_exceptions=True
                )
            assert {type(outcome) for outcome in outcomes} == {LinkLost}
            assert not link.up
            refused_without_waiting(link, key)
        finally:
            own_valkey.resume()
        await until(lambda: link.up)
        before = int(await client.get(key))
        assert before in {1, 2}, "what timed out once was sent more than once"
        assert await link.run(COUNT, key, [], tag=1) == before + 1


def refused_without_waiting(link: Link, key: str) -> None:
    """Take one step of a call, which is all there is of it."""
    call = link.run(COUNT, key, [], tag=1)
    with pytest.raises(LinkLost):
        call.send(None)


async def ask_role(server: Server) -> int:
    if (await server.info())["role"] != "master":
        raise Transient("no primary")
    return 1


async def test_a_server_that_stands_still_while_it_is_connected_to_is_given_up_too(linked, own_valkey, key):
    own_valkey.pause()
    try:
        async with linked(own_valkey.port, ask_role, redis_timeout_s=0.1, connect_timeout_s=0.2) as link:
            with pytest.raises(LinkLost) as lost:
                await link.run(COUNT, key, [], tag=1)
            assert not lost.value.sent
    finally:
        own_valkey.resume()


async def test_a_primary_that_steps_down_takes_no_writes_and_is_not_admitted_again(linked, own_valkey, client, key):
    async with linked(own_valkey.port, ask_role) as link:
        await link.run(COUNT, key, [], tag=1)
        await client.replicaof("127.0.0.1", free_port())
        with pytest.raises(LinkLost, match="read only replica") as lost:
            await link.run(COUNT, key, [], tag=1)
        assert not lost.value.sent
        with pytest.raises(LinkLost, match="no primary"):
            await link.run(COUNT, key, [], tag=1)
        assert not link.up
        await client.replicaof("NO", "ONE")
        await until(lambda: link.up)
        assert await link.run(COUNT, key, [], tag=1) == 2


# Replies


async def test_a_cancelled_callers_reply_reaches_nobody_else(linked, shared_valkey):
    """Thousands of calls, each with an answer of its own, some of them cancelled at some moment or other."""
    chance = random.Random(5)
    heard = 0

    async with linked(shared_valkey, redis_connections=8) as link:

        async def call(number: int) -> int:
            answer = f"{number}:".encode() + bytes(chance.randrange(60_000))
            assert await link.run(ECHO, "any", [answer], tag=1) == answer
            return 1

        for start in range(0, 4_000, 50):
            tasks = [asyncio.create_task(call(number)) for number in range(start, start + 50)]
            for task in chance.sample(tasks, 15):
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {int, asyncio.CancelledError}, outcomes
            heard += outcomes.count(1)
        assert 2_000 < heard < 3_900, "all, or nearly all, were cancelled or were not"


async def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(linked, own_valkey, client, key):
    async with linked(own_valkey.port) as link:
        assert await link.run(COUNT, key, [], tag=1) == 1
        await client.script_flush()
        assert await link.run(COUNT, key, [], tag=1) == 2
        assert await link.run(COUNT, key, [], tag=1) == 3
        assert await calls_of(client, "eval") == 2


async def test_a_command_that_is_refused_fails_alone(linked, own_valkey, client, key):
    await client.rpush(key, "a list")
    admitted = []

    async def counting(server: Server) -> int:
        del server
        admitted.append(1)
        return 1

    async with linked(own_valkey.port, counting) as link:
        with pytest.raises(ScriptFailed, match="WRONGTYPE"):
            await link.run(READ, key, [], tag=1)
        assert link.up
        assert await link.run(COUNT, f"{key}2", [], tag=1) == 1
        assert admitted == [1]


async def test_arguments_and_replies_are_bytes_whatever_they_were(linked, shared_valkey, key):
    lists = Script.of("lists", "return {ARGV[1], {ARGV[2], ARGV[3]}, false, 7}")
    async with linked(shared_valkey) as link:
        sent = [b"\xff\x00", "漫画", 12]
        assert await link.run(lists, key, sent, tag=1) == [b"\xff\x00", ["漫画".encode(), b"12"], None, 7]
        assert await link.run(scripts.RELEASE, key, ["nobody's"], tag=1) == 0


async def test_a_call_that_names_no_tag_takes_any_connection_that_was_admitted(linked, own_valkey, key):
    tags = iter((7, 8))

    async def next_tag(server: Server) -> int:
        del server
        return next(tags)

    async with linked(own_valkey.port, next_tag) as link:
        assert await link.run(COUNT, key, []) == 1
        link.drop()
        assert await link.run(COUNT, key, []) == 2


async def test_a_script_may_have_several_keys(linked, shared_valkey, key):
    keys = Script.of("keys", "return {#KEYS, KEYS[1], KEYS[3], ARGV[1]}")
    async with linked(shared_valkey) as link:
        heard = await link.run(keys, key, ["x"], more_keys=["b", "c"])
        assert heard == [3, key.encode(), b"c", b"x"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_command_is_sent_as_it_is(linked, shared_valkey, key):
    async with linked(shared_valkey) as link:
        assert await link.call("SET", key, b"\xff", "PX", 60_000, key=key) == b"OK"
        assert await link.call("GET", key, key=key) == b"\xff"
        with pytest.raises(ScriptFailed, match="WRONGTYPE"):
            await link.call("LLEN", key, key=key)
        with pytest.raises(Moved):
            await link.call("GET", key, key=key, tag=2)


@pytest.mark.parametrize("kind", KINDS)
async def test_only_what_may_be_repeated_is_sent_again_where_the_connection_breaks(linked, own_valkey, client, key):
    async with linked(own_valkey.port) as link:
        for repeatable, least in ((False, 0), (True, 1)):
            await link.run(COUNT, key, [])
            await client.set(key, 0, px=60_000)
            own_valkey.pause()
            asked = asyncio.create_task(link.run(COUNT, key, [], repeatable=repeatable))
            await all_under_way(link, 1)
            break_all(link)
            own_valkey.resume()
            if repeatable:
                assert await asked in {1, 2}
            else:
                with pytest.raises(LinkLost) as lost:
                    await asked
                assert (lost.value.sent, lost.value.broke) == (True, True)
            assert least <= int(await client.get(key)) <= least + 1


# Bounds and the end


async def test_no_more_connections_are_opened_than_allowed(linked, own_valkey, client):
    async with linked(own_valkey.port, redis_connections=3) as link:
        done = await asyncio.gather(*(link.run(ECHO, "k", [n], tag=1) for n in range(300)))
        assert done == [str(n).encode() for n in range(300)]
        assert len(await client.client_list()) - 1 <= 3


ENDED = {name: "Connection closed by server" if name == "redis-py" else "the link was closed" for name in KINDS}


def itself(link: Link) -> Link:
    """Return the link to the server, whatever it was found by."""
    return link.link if isinstance(link, FindingLink) else link


def under_way_on(link: Link) -> int:
    link = itself(link)
    if isinstance(link, MultiplexedLink):
        return sum(line.sent for line in link._lines)
    return len(link._busy)


async def all_under_way(link: Link, count: int) -> None:
    await until(lambda: under_way_on(link) == count)


def break_all(link: Link) -> None:
    """Have the connections break on which something is under way."""
    link = itself(link)
    if isinstance(link, MultiplexedLink):
        for line in tuple(link._lines):
            line.connection_lost(ConnectionResetError("reset on purpose"))
    else:
        for lent in tuple(link._busy):
            lent.line.abort()


def idle_on(link: Link) -> int:
    link = itself(link)
    return len(link._lines if isinstance(link, MultiplexedLink) else link._idle)


@pytest.mark.parametrize("kind", KINDS)
async def test_close_ends_what_is_under_way_and_leaves_nothing(linked, kind, own_valkey, client):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with linked(own_valkey.port) as link:
            await asyncio.gather(*(link.run(ECHO, "k", [n], tag=1) for n in range(20)))
            own_valkey.pause()
            under_way = [asyncio.create_task(link.run(ECHO, "k", [n], tag=1)) for n in range(5)]
            await all_under_way(link, 5)
        for task in under_way:
            with pytest.raises(LinkLost, match=ENDED[kind]):  # and not: no answer within ...
                await task
        own_valkey.resume()
        with pytest.raises(LinkLost, match="closed"):
            await link.run(ECHO, "k", [1], tag=1)
        await link.close()
        await gone(client, but=0)
        assert (under_way_on(link), idle_on(link), len(itself(link)._tasks)) == (0, 0, 0)
        del link, under_way
        gc.collect()


async def test_a_link_that_is_down_closes_at_once(linked):
    async with linked(free_port()) as link:
        with pytest.raises(LinkLost, match="no connection"):
            await link.run(ECHO, "k", [1], tag=1)
        assert not link.up
    assert len(itself(link)._tasks) == 0
    assert "closed" in repr(link)


async def test_connections_of_a_stalled_server_are_let_go_of_too(linked, own_valkey):
    """What a server does not take any more must not be kept for it."""
    async with linked(own_valkey.port, redis_timeout_s=1.0) as link:
        await link.run(ECHO, "k", [1], tag=1)
        own_valkey.pause()
        try:
            with pytest.raises(LinkLost):
                await link.run(ECHO, "k", [bytes(20_000_000)], tag=1)
            await until(lambda: open_sockets(own_valkey.port) == [])
        finally:
            own_valkey.resume()


def open_sockets(port: int) -> list[str]:
    """Return this process's connections to a port."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    inodes = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[2].endswith(f":{port:04X}")}
    return [
        link for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and (link := str(fd.readlink())) in inodes
    ]


# Ways in


async def test_a_unix_socket_leads_in(linked, tmp_path, key):
    server = valkey_process(folder=tmp_path, unix_socket=tmp_path / "s")
    await server.start()
    try:
        async with linked(f"unix://{tmp_path}/s", ask_role) as link:
            assert await link.run(COUNT, key, [], tag=1) == 1
    finally:
        await server.stop()


async def test_a_login_and_a_database_are_those_of_the_address(linked, own_valkey, client, key):
    await client.execute_command("ACL", "SETUSER", "shop", "on", ">p/w", "~*", "+@all")
    await client.execute_command("ACL", "SETUSER", "guest", "on", ">p", "~*", "+@all", "-@scripting")
    await client.execute_command("CONFIG", "SET", "requirepass", "main")
    address = f"127.0.0.1:{own_valkey.port}"
    for login in ("shop:p%2Fw@", ":main@"):
        async with linked(f"redis://{login}{address}/3", ask_role) as link:
            await link.run(COUNT, key, [], tag=1)
    async with Redis.from_url(f"redis://:main@{address}/3") as third:
        assert await third.get(key) == b"2"
    for login in ("shop:wrong@", "", "nobody:p@"):
        async with linked(f"redis://{login}{address}", ask_role) as link:
            with pytest.raises(LinkLost, match=r"(?i)password|auth") as lost:
                await link.run(COUNT, key, [], tag=1)
            assert "wrong" not in str(lost.value)
            assert not link.up
    async with linked(f"redis://guest:p@{address}") as link:
        with pytest.raises(ScriptFailed, match=r"(?i)permission"):
            await link.run(COUNT, key, [], tag=1)


# TLS


class Authority:
    """Somebody who signs certificates, for a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(self, subject, public_key, *extensions) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())

    def server(self, *names: x509.GeneralName) -> tuple[Path, Path]:
        """Return a server's certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
        certificate = self._signed(subject, key.public_key(), x509.SubjectAlternativeName(names))
        files = self._folder / "server.pem", self._folder / "server.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
async def tls_port(tmp_path: Path, authority: Authority) -> AsyncIterator[int]:
    """Debian's Redis behind TLS, with a certificate for 127.0.0.1 alone."""
    certificate, private_key = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
    port = free_port()
    options = ["--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", private_key]
    server = valkey_process(
        folder=tmp_path,
        binary=debian_redis_binary(),
        options=[*map(str, options), "--tls-auth-clients", "no"],
    )
    await server.start()
    yield port
    await server.stop()


async def test_tls_trusts_the_authorities_of_the_file_and_no_others(linked, tls_port, authority, tmp_path, key):
    address = f"rediss://127.0.0.1:{tls_port}"
    other = Authority(tmp_path, "another")
    async with linked(address, ask_role, redis_ca_file=str(authority.file), redis_connections=4) as link:
        counts = await asyncio.gather(*(link.run(COUNT, key, [], tag=1) for _ in range(50)))
        assert sorted(counts) == list(range(1, 51))
    for trust in ({"redis_ca_file": str(other.file)}, {}):
        async with linked(address, ask_role, **trust) as link:
            with pytest.raises(LinkLost, match="CERTIFICATE_VERIFY_FAILED"):
                await link.run(COUNT, key, [], tag=1)


async def test_tls_compares_the_name(linked, tls_port, authority, key):
    async with linked(f"rediss://localhost:{tls_port}", redis_ca_file=str(authority.file)) as link:
        with pytest.raises(LinkLost, match="CERTIFICATE_VERIFY_FAILED"):
            await link.run(COUNT, key, [], tag=1)


async def test_what_is_published_is_heard_over_tls_and_only_from_who_is_trusted(linked, tls_port, authority, key):
    address, trusted = f"rediss://127.0.0.1:{tls_port}", {"redis_ca_file": str(authority.file)}
    for trust in (trusted, {}):
        dial = EarDialer(Settings(redis_endpoint=address, **trust), clock=SystemClock())
        heard = Subscriptions(dial, timeout_s=5.0, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
        async with heard.listen(key) as listener:
            signal = await listener.next()
            if trust:
                async with linked(address, ask_role, **trusted) as link:
                    await link.call("SPUBLISH", key, "a", key=key)
                assert [signal, await listener.next()] == [Hears(), Said(b"a")]
            else:
                assert "CERTIFICATE_VERIFY_FAILED" in signal.why
        await heard.close()


async def test_all_connections_share_one_tls_context(linked, tls_port, authority, monkeypatch):
    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: made.append(1) or make(**options))
    async with linked(f"rediss://127.0.0.1:{tls_port}", redis_ca_file=str(authority.file)) as link:
        for _ in range(3):
            await asyncio.gather(*(link.run(ECHO, "k", [n], tag=1) for n in range(50)))
            link.drop()
    assert made == [1]


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_a_file_that_holds_no_certificate_is_named_at_once(linked, tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Invalid, match="redis_ca_file"):
        async with linked("rediss://127.0.0.1:1", redis_ca_file=str(file)):
            pass


async def test_a_tls_server_that_does_not_shake_hands_is_given_up_within_the_time_out(linked):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with linked(f"rediss://127.0.0.1:{deaf.getsockname()[1]}", connect_timeout_s=0.2) as link:
            with pytest.raises(LinkLost, match="no connection"):
                await link.run(ECHO, "k", [1], tag=1)
