"""What is not the protocol ends its own connection and nothing else; who reads slowly holds nobody up."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from contextlib import contextmanager

import pytest
from daxes import MovableClock, Wire, direct_client, emulated, real_client
from mangatest import HastyClock

HANG_GUARD_S = 60
PRELUDE = bytes.fromhex("674a37796e65354700f6a000")
ENDPOINTS = bytes.fromhex("011a1b2bcf02")
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def wire(dynoxide):
    clock = MovableClock()
    with (
        direct_client(dynoxide) as direct,
        emulated(dynoxide, clock=clock) as emulator,
        real_client(emulator.endpoint) as client,
    ):
        yield Wire(emulator, client, direct, clock)


@contextmanager
def connected(wire):
    port = int(wire.emulator.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_GUARD_S) as raw:
        yield raw


def until(condition, what):
    for _ in range(HANG_GUARD_S * 100):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail(f"waited {HANG_GUARD_S} s {what}")


def is_ended(raw):
    """Wait until the server ends the connection, whatever it says before."""
    try:
        while raw.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def ended(wire):
    (node,) = wire.emulator.status()["nodes"]
    return sum(node["ended"].values())


def as_well_as_ever(wire):
    key = wire.key()
    item = wire.put(key, a={"S": "x"})
    return wire.get(key) == item == wire.get(key, ConsistentRead=True)


def string(data):
    assert len(data) < 256
    return (bytes([0x40 + len(data)]) if len(data) < 24 else bytes([0x58, len(data)])) + data


def key_bytes(key):
    pk = key["pk"]["S"].encode()
    assert len(pk) < 24
    return string(bytes([0x60 + len(pk)]) + pk + key["sk"]["S"].encode())


def get_item(table, key):
    """Return a GetItem as bytes, with no options."""
    return bytes.fromhex("011a0fb0cc6a") + string(table.encode()) + key_bytes(key) + b"\xf6"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes.fromhex("674a37796e65354800f6a000"),
        PRELUDE + b"\xff",
        PRELUDE + b"\x02\x00",
        PRELUDE + bytes.fromhex("0118ff"),
        PRELUDE + ENDPOINTS + b"\x9f" * 10_000,
        PRELUDE + bytes.fromhex("013a495927bb") + b"\x9f" * 100_000,
        PRELUDE + bytes.fromhex("011a0fb0cc6a") + b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        PRELUDE + bytes.fromhex("011a0fb0cc6a") + b"\x5a\x7f\xff\xff\xff",
    ],
    ids=["HTTP", "TLS", "magic", "break", "service", "method", "garbage", "nesting", "length", "large"],
)
def test_malformed_bytes_end_their_connection_with_a_reason_and_disturb_nobody(wire, data):
    before = ended(wire)
    with connected(wire) as raw:
        raw.sendall(data)
        assert is_ended(raw)
    until(lambda: ended(wire) == before + 1, "for it to be counted")
    assert as_well_as_ever(wire)


def test_who_does_not_speak_tls_to_a_node_that_does_disturbs_nobody(dynoxide, tls_files):
    certificate, key_file = tls_files
    with (
        pytest.MonkeyPatch.context() as patch,
        direct_client(dynoxide) as direct,
        emulated(dynoxide, certificate=certificate, key=key_file) as emulator,
    ):
        patch.setenv("SSL_CERT_FILE", str(certificate))
        with real_client(emulator.endpoint) as client:
            wire = Wire(emulator, client, direct, MovableClock())
            for data in (PRELUDE + ENDPOINTS, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100_000)):
                with connected(wire) as raw:
                    with contextlib.suppress(ConnectionError):
                        raw.sendall(data)
                    assert is_ended(raw)
                assert as_well_as_ever(wire)


def test_a_request_with_an_item_that_is_none_is_refused_and_the_connection_goes_on(wire):
    key = wire.key()
    wire.put(key)
    good = get_item(wire.indexed, key)
    bad = bytes.fromhex("011a0fb0cc6a") + string(wire.indexed.encode()) + b"\x42\xff\xff\xf6"
    with connected(wire) as raw:
        raw.sendall(PRELUDE + bad)
        assert b"ValidationException" in raw.recv(65_536)
        raw.sendall(good)
        assert raw.recv(65_536)[:1] == b"\x80"


def test_requests_sent_ahead_are_answered_in_order(wire):
    keys = [wire.key() for _ in range(100)]
    for place, key in enumerate(keys):
        wire.put(key, a={"S": f"place-{place}-"})
    wire.clock.moved_s += 300  # none is in the cache but each third
    for key in keys[::3]:
        wire.get(key)
    with connected(wire) as raw:
        raw.sendall(PRELUDE + b"".join(get_item(wire.indexed, key) for key in keys))
        data = b""
        while len(found := [int(each) for each in re.findall(rb"place-(\d+)-", data)]) < len(keys):
            data += raw.recv(65_536)
    assert found == list(range(100))


def test_a_request_cut_into_single_bytes_is_answered(wire):
    key = wire.key()
    wire.put(key)
    with connected(wire) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PRELUDE + get_item(wire.indexed, key):
            raw.sendall(bytes([byte]))
        assert raw.recv(65_536)[:1] == b"\x80"


def test_a_connection_that_ends_within_a_request_is_nobody_s_trouble(wire):
    with connected(wire) as raw:
        raw.sendall(PRELUDE + get_item(wire.indexed, wire.key())[:-3])
    until(lambda: wire.emulator.status()["nodes"][0]["cut_off"] > 0, "for the end to be seen")
    assert as_well_as_ever(wire)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_and_changed_requests_are_survived(wire, seed):
    rng = random.Random(seed)
    key = wire.key()
    wire.put(key, a={"S": "x"})
    good = PRELUDE + ENDPOINTS + get_item(wire.indexed, key)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            data = bytearray(rng.randbytes(rng.randint(1, 200)))
        with connected(wire) as raw:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            assert is_ended(raw)
    assert as_well_as_ever(wire)
    until(lambda: wire.emulator.status()["nodes"][0]["held_bytes"] == 0, "for nothing to be left of them")


def test_a_reader_that_takes_nothing_is_waited_for_within_bounds_and_holds_nobody_up(wire):
    key = wire.key()
    wire.put(key, big={"B": bytes(380_000)})
    asked = 200  # 76 MB of replies; what the kernel holds between two sockets is a tenth of it
    with connected(wire) as raw:
        raw.sendall(PRELUDE + get_item(wire.indexed, key) * asked)
        until(lambda: wire.emulator.status()["nodes"][0]["stalled"] == 1, "for the server to wait")
        assert wire.emulator.status()["nodes"][0]["held_bytes"] < 3 * MEGABYTE
        assert as_well_as_ever(wire)
        assert wire.emulator.status()["nodes"][0]["stalled"] == 1
        taken = 0
        while taken < asked * 380_000:
            data = raw.recv(MEGABYTE)
            assert data
            taken += len(data)
    assert as_well_as_ever(wire)
    until(lambda: not wire.emulator._emulator.tasks, "for nobody to look after it any more")


def test_a_reader_that_has_taken_nothing_for_a_minute_is_given_up(dynoxide):
    with (
        direct_client(dynoxide) as direct,
        emulated(dynoxide, clock=HastyClock()) as emulator,
        real_client(emulator.endpoint) as client,
    ):
        wire = Wire(emulator, client, direct, MovableClock())
        key = wire.key()
        wire.put(key, big={"B": bytes(380_000)})
        with connected(wire) as raw:
            raw.sendall(PRELUDE + get_item(wire.indexed, key) * 200)
            until(lambda: ended(wire) == 1, "for it to be given up")
        (reason,) = wire.emulator.status()["nodes"][0]["ended"]
        assert reason == "it has taken nothing for 60 s"
        assert as_well_as_ever(wire)


def test_connections_beyond_the_limit_are_ended_and_those_within_it_go_on(dynoxide):
    with emulated(dynoxide, max_connections=3) as emulator:
        port = int(emulator.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(PRELUDE + ENDPOINTS)
            assert first.recv(4096)
            others = [socket.create_connection(("127.0.0.1", port), timeout=HANG_GUARD_S) for _ in range(5)]
            until(lambda: emulator.status()["nodes"][0]["ended"], "for one too many")
            first.sendall(ENDPOINTS)
            assert first.recv(4096)
            for other in others:
                other.close()


def test_what_is_read_ahead_of_a_request_under_way_is_bounded(wire):
    """Of forty megabytes of requests it takes in one, and leaves the rest with whoever sends them."""
    key = wire.key()
    wire.put(key)
    wire.emulator.stop_replies()
    with connected(wire) as raw:
        raw.setblocking(False)
        raw.send(PRELUDE)
        requests = memoryview(get_item(wire.indexed, key) * (40 * MEGABYTE // len(get_item(wire.indexed, key))))
        sent, most = 0, 0
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                sent += raw.send(requests[sent:])
            most = max(most, wire.emulator.status()["nodes"][0]["held_bytes"])
        assert most < 2 * MEGABYTE
    wire.emulator.heal()
    assert as_well_as_ever(wire)
