"""Nodes that die, replies that do not come, numbers that outlive a server, and who is let in."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from amazondax.DaxError import DaxServiceError
from botocore.exceptions import ClientError
from daxes import MovableClock, Wire, direct_client, emulated, node_client, real_client, refused

from mangacache.errors import Invalid
from mangacache.local.dax.connection import Connection
from mangacache.local.dax.control import fetch_status
from mangacache.local.process import free_port

HANG_GUARD_S = 60


def text(value):
    return {"S": value}


@pytest.fixture(scope="module")
def direct(dynoxide):
    with direct_client(dynoxide) as client:
        yield client


@pytest.fixture
def opened(dynoxide, direct):
    """Opens an emulator and a client of it."""

    @contextmanager
    def open_wire(*, retries=0, **options):
        clock = MovableClock()
        with (
            emulated(dynoxide, clock=clock, **options) as emulator,
            real_client(emulator.endpoint, retries=retries) as client,
        ):
            yield Wire(emulator, client, direct, clock)

    return open_wire


def until(condition, what):
    """Wait until something is so; bounded only so that a hang is seen."""
    for _ in range(HANG_GUARD_S * 100):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail(f"waited {HANG_GUARD_S} s {what}")


def attempt(call):
    """Return whether a call went through."""
    try:
        call()
    except (ClientError, OSError):
        return False
    return True


# Nodes.


def test_a_leader_that_is_killed_is_followed_by_another_and_the_client_finds_out_by_itself(opened):
    with opened(nodes=2) as wire:
        key = wire.key()
        wire.put(key, a=text("1"))
        wire.emulator.kill(0)
        until(lambda: attempt(lambda: wire.put(key, a=text("2"))), "for the client to find the new leader")
        status = wire.emulator.status()
        assert (status["leader"], [node["alive"] for node in status["nodes"]]) == (1, [False, True])
        assert wire.get(key, by=wire.direct)["a"] == text("2")


def test_a_killed_node_loses_its_caches_and_comes_back_on_its_port_without_them(opened):
    with opened(nodes=2) as wire:
        key = wire.key()
        wire.put(key)
        before = wire.emulator.endpoints
        wire.emulator.kill(1)
        with pytest.raises(ConnectionError), node_client(before[1]) as node:
            wire.get(key, by=node)
        wire.emulator.restart(1)
        assert wire.emulator.endpoints == before
        with node_client(before[1]) as node:
            assert wire.counted(lambda: wire.get(key, by=node)) == {"items.misses": 1, "passed_on.GetItem": 1}
        with node_client(before[0]) as node:
            assert wire.counted(lambda: wire.get(key, by=node)) == {"items.hits": 1}


def test_a_client_made_after_the_leader_died_starts_with_the_one_that_leads_now(opened):
    with opened(nodes=3) as wire:
        wire.emulator.kill(0)
        with real_client(wire.emulator.endpoints[2]) as client:
            key = wire.key()
            wire.put(key, by=client)
            assert wire.get(key, by=client) == key
        assert wire.emulator.status()["leader"] == 1


@pytest.mark.parametrize("advertise", [None, "127.0.0.1", "localhost"])
def test_the_advertised_address_is_the_one_that_clients_are_told(opened, advertise):
    with opened(advertise=advertise, nodes=2) as wire, node_client(wire.emulator.endpoints[0]) as node:
        told = node.endpoints()
        assert {endpoint["address"] for endpoint in told} == {"127.0.0.1"}
        assert [endpoint["hostname"] for endpoint in told] == [advertise or "127.0.0.1"] * 2
        assert sorted(endpoint["role"] for endpoint in told) == [1, 2]
        assert all(f":{endpoint['port']}" in " ".join(wire.emulator.endpoints) for endpoint in told)


def test_an_advertised_name_that_has_no_address_is_refused(dynoxide):
    with pytest.raises(Invalid, match="cannot be resolved"), emulated(dynoxide, advertise="no.such.name.invalid"):
        pass


# Faults.


def test_a_lost_reply_is_the_end_of_the_connection_after_the_write_was_done(opened):
    with opened() as wire:
        key = wire.key()
        wire.emulator.lose_replies(operation="PutItem")
        with pytest.raises(DaxServiceError) as lost:
            wire.put(key, a=text("x"))
        assert lost.value.response["ResponseMetadata"]["HTTPStatusCode"] == 408
        assert "Code" not in lost.value.response["Error"]
        assert wire.get(key, by=wire.direct)["a"] == text("x")
        assert wire.counted(lambda: wire.get(key)) == {"items.hits": 1}


def test_a_client_that_repeats_does_a_write_again_whose_reply_was_lost(opened):
    with opened(retries=2) as wire:
        key = wire.key()
        wire.emulator.lose_replies(2, operation="UpdateItem")
        wire.client.update_item(
            TableName=wire.indexed,
            Key=key,
            UpdateExpression="ADD n :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
        assert wire.get(key, by=wire.direct)["n"] == {"N": "3"}


def test_throttled_requests_are_refused_as_many_as_were_asked_for(opened):
    with opened() as wire:
        key = wire.key()
        wire.put(key)
        wire.emulator.throttle(2)
        for _ in range(2):
            with refused("ThrottlingException"):
                wire.get(key)
        assert wire.get(key) == key


def test_replies_that_are_stopped_come_when_the_faults_are_over(opened):
    with opened() as wire, ThreadPoolExecutor(1) as pool:
        key = wire.key()
        wire.put(key)
        received = wire.emulator.status()["received"].get("GetItem", 0)
        wire.emulator.stop_replies()
        got = pool.submit(wire.get, key)
        until(lambda: wire.emulator.status()["received"].get("GetItem", 0) == received + 1, "for the request to come")
        assert not got.done()
        wire.emulator.heal()
        assert got.result(HANG_GUARD_S) == key


def test_a_client_s_own_time_out_ends_what_is_held_back(opened):
    with opened() as wire:
        key = wire.key()
        wire.put(key)
        wire.emulator.stop_replies()
        with node_client(wire.emulator.endpoint, read_timeout_s=0.1) as impatient, pytest.raises(TimeoutError):
            wire.get(key, by=impatient)
        wire.emulator.heal()
        assert wire.get(key) == key


def test_one_slow_node_leaves_the_others_as_fast_as_they_are(opened):
    with opened(nodes=2) as wire:
        key = wire.key()
        wire.put(key)
        wire.emulator.stop_replies(node=1)
        with node_client(wire.emulator.endpoints[0]) as node:
            assert wire.get(key, by=node) == key
        wire.emulator.heal()
        with node_client(wire.emulator.endpoints[1]) as node:
            assert wire.get(key, by=node) == key


def test_healing_brings_back_the_nodes_the_replies_and_the_lag(opened):
    with opened(nodes=2, replication_lag_s=3.0) as wire:
        wire.emulator.kill(1)
        wire.emulator.lag(0.0)
        wire.emulator.throttle(100)
        wire.emulator.lose_replies(100)
        wire.emulator.heal()
        status = wire.emulator.status()
        assert [node["alive"] for node in status["nodes"]] == [True, True]
        assert status["replication_lag_s"] == 3.0
        key = wire.key()
        for endpoint in wire.emulator.endpoints:  # the routed client may hold a connection that died with the node
            with node_client(endpoint) as node:
                wire.put(key, by=node)
                assert wire.get(key, by=node) == key


class Accepted:
    """A connection that the system has taken in, and the event loop comes to know."""

    aborted = False

    def set_write_buffer_limits(self, high):
        assert high > 0

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


def test_a_connection_that_was_being_opened_when_its_node_died_is_not_served_by_the_dead(opened):
    with opened(nodes=2) as wire:
        server, emulator = wire.emulator._emulator.servers[1], wire.emulator

        def arriving():
            transport = Accepted()
            Connection(server).connection_made(transport)
            return transport.aborted

        assert not emulator._call(arriving)
        emulator.kill(1)
        assert emulator._call(arriving)
        emulator.restart(1)
        assert not emulator._call(arriving)


@pytest.mark.parametrize(
    "mistake", [lambda e: e.kill(7), lambda e: e.slow(-1), lambda e: e.throttle(0), lambda e: e.lag(float("nan"))]
)
def test_a_fault_that_cannot_be_meant_is_refused(opened, mistake):
    with opened() as wire, pytest.raises(Invalid):
        mistake(wire.emulator)


# The fault port.


def post(port, path):
    opener = build_opener(ProxyHandler({}))
    with opener.open(Request(f"http://127.0.0.1:{port}/{path}", method="POST")) as answer:
        return answer.read().decode()


def test_the_fault_port_does_over_http_what_the_object_does(opened):
    with opened(nodes=2) as wire:
        port, key = wire.emulator.fault_port, wire.key()
        wire.put(key)
        post(port, "throttle?count=1&operation=GetItem")
        with refused("ThrottlingException"):
            wire.get(key)
        post(port, "kill?node=1")
        assert [node["alive"] for node in fetch_status(port)["nodes"]] == [True, False]
        post(port, "restart?node=1")
        post(port, "lag?seconds=inf")
        assert wire.emulator.status()["replication_lag_s"] == float("inf")
        post(port, "lose-replies?operation=PutItem")
        assert not attempt(lambda: wire.put(key, a=text("x")))
        assert wire.get(key, by=wire.direct)["a"] == text("x")
        post(port, "slow?seconds=0.001")
        post(port, "stop?node=1")
        assert '"done": "heal"' in post(port, "heal")
        assert wire.emulator.status()["replication_lag_s"] == 0.0
        assert fetch_status(port)["items"] == wire.emulator.status()["items"]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("explode", "there is no 'explode'"),
        ("kill?node=x", "is no whole number"),
        ("kill?node=5", "there is no node 5"),
        ("slow?seconds=-1", "is no number of seconds"),
        ("throttle?operation=Explode", "there is no operation"),
        ("heal?node=1", "heal takes nothing"),
    ],
)
def test_the_fault_port_says_what_it_does_not_understand(opened, path, complaint):
    with opened() as wire, pytest.raises(HTTPError) as refusal:
        post(wire.emulator.fault_port, path)
    with refusal.value as answer:
        assert answer.code == 400
        assert complaint in answer.read().decode()


# Numbers of attribute lists.


def test_a_number_given_out_before_a_restart_never_means_other_names(dynoxide, direct):
    """With numbers counted from the start, the first client's `left` and `right` would be stored as `up` and `down`."""
    port = free_port()
    with emulated(dynoxide, port=port) as emulator:
        wire = Wire(emulator, None, direct, MovableClock())
        old = node_client(emulator.endpoint)
        client = old.__enter__()
        key = wire.key()
        wire.put(key, by=client, left=text("l"), right=text("r"))
    with emulated(dynoxide, port=port) as emulator, node_client(emulator.endpoint) as other:
        up_down = wire.put(wire.key(), by=other, up=text("u"), down=text("d"))
        until(lambda: attempt(client.endpoints), "for the client's old connections to be gone")
        with refused("InternalServerErrorException"):
            wire.put(key, by=client, left=text("l2"), right=text("r2"))
        assert wire.get(key, by=direct) == {**key, "left": text("l"), "right": text("r")}
        wire.put(wire.key(), by=other, left=text("x"), right=text("y"))
        wire.put(key, by=client, left=text("l3"), right=text("r3"))
        assert wire.get(key, by=direct) == {**key, "left": text("l3"), "right": text("r3")}
        assert wire.get({"pk": up_down["pk"], "sk": up_down["sk"]}, by=client) == up_down
        old.__exit__(None, None, None)


def test_lists_kept_in_a_file_are_known_again_after_a_restart(dynoxide, direct, tmp_path):
    options = {"port": free_port(), "lists": tmp_path / "lists"}
    with emulated(dynoxide, **options) as emulator:
        wire = Wire(emulator, None, direct, MovableClock())
        opening = real_client(emulator.endpoint)
        client = opening.__enter__()
        wire.put(wire.key(), by=client, left=text("l"), naïve=text("n"))
    with emulated(dynoxide, **options):
        key = wire.key()
        until(lambda: attempt(lambda: wire.get(key, by=client)), "for the client's old connections to be gone")
        wire.put(key, by=client, left=text("l"), naïve=text("n"))
        assert wire.get(key, by=direct) == {**key, "left": text("l"), "naïve": text("n")}
        opening.__exit__(None, None, None)


def test_all_nodes_of_a_cluster_give_a_list_the_same_number(opened):
    with opened(nodes=2) as wire:
        with node_client(wire.emulator.endpoints[0]) as first, node_client(wire.emulator.endpoints[1]) as second:
            item = wire.put(wire.key(), by=first, a=text("x"), b=text("y"))
            key = {name: item[name] for name in ("pk", "sk")}
            assert wire.get(key, by=second) == item
            wire.put(key, by=second, a=text("1"), b=text("2"))
            assert wire.get(key, by=first) == {**key, "a": text("1"), "b": text("2")}
        assert wire.emulator.status()["attribute_lists"] == 2, "the empty one, and this"


# Signatures.


def test_only_who_signs_with_the_secret_is_let_in(opened):
    with opened(secrets={"local": "local"}) as wire:
        key = wire.key()
        wire.put(key)
        assert wire.get(key) == key
        for wrong in ({"aws_secret_access_key": "other"}, {"aws_access_key_id": "nobody"}):
            with pytest.raises(DaxServiceError) as refusal, real_client(wire.emulator.endpoint, **wrong):
                pass
            assert refusal.value.auth_error


def test_a_connection_that_says_nothing_of_who_it_is_is_refused_each_request(opened):
    with opened(secrets={"local": "local"}) as wire:
        port = int(wire.emulator.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_GUARD_S) as unsigned:
            unsigned.sendall(bytes.fromhex("674a37796e65354700f6a000011a1b2bcf02"))
            assert unsigned.recv(4096)[:1] != b"\x80"
