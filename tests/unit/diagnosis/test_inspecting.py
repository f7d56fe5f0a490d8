"""What a session's tiers say, read field by field, and compared: which differences are allowed for and which not."""

from __future__ import annotations

import sys

import msgspec
import pytest
from redises import MemoryHost

from mangacache import Settings
from mangacache.context.calls import Calls
from mangacache.diagnosis.inspection.command import as_json, quiet
from mangacache.diagnosis.inspection.comparing import differences, failures
from mangacache.diagnosis.inspection.hashes import context_of, lock_of, with_life
from mangacache.diagnosis.inspection.showing import lines, show, table_lines
from mangacache.diagnosis.inspection.tiers import (
    Failed,
    InDax,
    InDynamoDB,
    InMemory,
    InRedis,
    Lock,
    Socket,
    Tiers,
)
from mangacache.diagnosis.printable import printable
from mangacache.model import Summary, Turn, Version
from mangacache.sessions.actor import Actor
from mangacache.sessions.copies import Remembered, copy_of, meta_copy, remembered, turn_copy, without_words
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot

WORDS = "in the strictest confidence"
SETTINGS = Settings()
replace = msgspec.structs.replace


def turn(number, content=WORDS):
    return Turn(number, f"id-{number}", "user", content, "2026-11-25T12:00:00.000Z", {"mood": WORDS}, 4102444800)


def known(number=3, revision=2, *, incarnation=1, content=WORDS, **meta):
    record = MetaRecord(
        **{"incarnation": incarnation, "revision": revision, "customer_id": "c-1", "summary_upto": 2} | meta,
        attributes={"lang": WORDS},
    )
    return Snapshot(
        meta=record,
        version=Version(incarnation, number, revision),
        turns=tuple(turn(n, content) for n in range(1, number + 1)),
        summary=Summary(2, WORDS, "2026-11-25T12:00:00.000Z"),
    )


def copied(*args, **changes):
    return copy_of(known(*args, **changes), words=True)


TRUTH = copied()


def table(copy=TRUTH, **changes):
    facts = {
        "fence": 4,
        "last_number": 3,
        "last_active_at": "2026-11-25T12:00:00.000Z",
        "unswept": False,
        "adopting": "",
    }
    return InDynamoDB(**{"copy": copy, "item_bytes": 99, "expires_in_s": 86400.0, "epoch": 1} | facts | changes)


def full(copy=TRUTH, **changes):
    return InRedis(**{"key": "k", "state": "full", "copy": copy, "age_s": 1.0, "ttl_ms": 9000} | changes)


def memory(copy):
    held = Remembered(copy=copy, validated_s=0.5, changed_s=None, waiting=0, busy=False, kib=3)
    return InMemory(worker="http://w:1", remembered=held)


def tiers(**changes):
    return Tiers(**{"session_id": "s", "dynamodb": table()} | changes)


def dax(meta=TRUTH.meta, newest=TRUTH.turns[-1]):
    return InDax(meta=meta, newest=newest)


def other_words(copy):
    return replace(copy, turns=(*copy.turns[:-1], replace(copy.turns[-1], content="other", content_bytes=5)))


AGREE = {
    "every tier": {"redis": full(), "dax": dax(), "memory": (memory(without_words(TRUTH)),)},
    "nothing cached": {"redis": InRedis(key="k", state="absent"), "memory": (InMemory(worker="w", remembered=None),)},
    "an empty shell of an actor": {"memory": (memory(None),)},
    "a fill under way": {"redis": InRedis(key="k", state="filling", lease_left_ms=900, ttl_ms=8000)},
    "a META that was touched since": {"redis": full(copied(expires_at=4102444800))},
}


@pytest.mark.parametrize("what", AGREE)
def test_tiers_that_agree_are_said_to_agree(what):
    found = tiers(**AGREE[what])
    assert differences(found, TRUTH, SETTINGS) == []
    assert "The tiers agree." in list(lines(found, []))


BEHIND, AHEAD = copied(2), copied(4)
CASES = [
    ({"redis": full(BEHIND)}, "redis", "behind", True),
    ({"redis": full(copied(3, 1))}, "redis", "behind", True),
    ({"redis": full(copied(9, 9, incarnation=0))}, "redis", "behind", True),
    ({"redis": full(AHEAD)}, "redis", "ahead", False),
    ({"redis": full(copied(3, 3))}, "redis", "ahead", False),
    ({"redis": full(copied(1, 1, incarnation=2))}, "redis", "ahead", False),
    ({"redis": full(ttl_ms=-1)}, "redis", "no TTL", False),
    ({"redis": full(age_s=4000.0)}, "redis", "filled 4000 s ago", True),
    ({"redis": InRedis(key="k", state="damaged", damage="META: no", ttl_ms=1)}, "redis", "META: no", False),
    ({"redis": InRedis(key="k", state="filling", lease_left_ms=-5, ttl_ms=1)}, "redis", "not finished", True),
    ({"redis": full(other_words(TRUTH))}, "redis", "turn 3 differs in content, content_bytes", False),
    ({"redis": full(copied(customer_id="c-2"))}, "redis", "META of the same revision differs in customer_id", False),
    ({"redis": full(replace(TRUTH, summary=replace(TRUTH.summary, text="x")))}, "redis", "the summary", False),
    ({"dynamodb": table(replace(TRUTH, foreign=True)), "redis": full()}, "redis", "another writer's", False),
    ({"memory": (memory(without_words(BEHIND)),)}, "memory of http://w:1", "behind", True),
    ({"memory": (memory(without_words(AHEAD)),)}, "memory of http://w:1", "ahead", False),
    ({"memory": (memory(without_words(other_words(TRUTH))),)}, "memory of http://w:1", "turn 3 differs", False),
    ({"dax": dax(meta=None)}, "dax", "META is absent", True),
    ({"dax": dax(meta=copied(3, 1).meta)}, "dax", "revision 1, DynamoDB 2", True),
    ({"dax": dax(meta=copied(3, 3).meta)}, "dax", "revision 3, DynamoDB 2", False),
    ({"dax": dax(newest=other_words(TRUTH).turns[-1])}, "dax", "turn 3 differs", False),
]


@pytest.mark.parametrize(("changes", "tier", "what", "allowed"), CASES)
def test_each_difference_is_named_and_judged(changes, tier, what, allowed):
    found = differences(tiers(**changes), TRUTH, SETTINGS)
    assert [(one.tier, one.allowed) for one in found] == [(tier, allowed)]
    assert what in found[0].what
    assert found[0].why


@pytest.mark.parametrize("seen", [copied(3), copied(4), copied(5)])
def test_what_was_written_while_it_was_looked_at_is_no_difference(seen):
    found = tiers(dynamodb=table(copied(5), moved=True), redis=full(seen))
    assert differences(found, copied(3), SETTINGS) == []
    assert "the session was written to while it was looked at" in list(lines(found, []))


def test_a_tier_that_could_not_be_looked_at_is_said_and_is_no_difference():
    found = tiers(redis=Failed("refused"), dax=Failed("silent"), memory=(Failed("gone"), memory(without_words(TRUTH))))
    assert differences(found, TRUTH, SETTINGS) == []
    assert failures(found) == ["redis: refused", "dax: silent", "memory 0: gone"]
    assert "could not be looked at: refused" in "\n".join(table_lines(found))


EVERYWHERE = tiers(
    redis=full(),
    dax=dax(),
    memory=(memory(without_words(TRUTH)),),
    lock=Lock(held=True, lease_left_ms=900, waiting=2, ttl_ms=1000),
    connections=(Socket(id="conn-1", customer_id="c-1", endpoint="w1", mapped=True, ttl_ms=7_000_000),),
)


def test_nothing_of_what_was_said_is_shown_unless_it_is_asked_for():
    said = "\n".join(
        [*table_lines(quiet(EVERYWHERE)), *lines(quiet(EVERYWHERE), []), as_json(quiet(EVERYWHERE), [], 0)]
    )
    assert WORDS not in said
    assert as_json(EVERYWHERE, [], 0).count(WORDS) >= 9
    assert f"turn 1, user: {WORDS}" in list(lines(EVERYWHERE, []))


def test_the_tiers_stand_side_by_side():
    said = list(table_lines(EVERYWHERE))
    assert said[0].split() == ["dynamodb", "redis", "dax", "memory", "1"]
    rows = {line.split("  ")[0]: line for line in said[1:]}
    assert rows["version"].split()[1:] == ["1.3.2", "1.3.2", "1.3.2"]
    assert rows["turns"].count("3: 1 to 3") == 3
    assert rows["newest turn"].count("3 user id-3, 27 bytes") == 4
    assert rows["lock's fence"].split()[2:] == ["4"]
    assert list(lines(EVERYWHERE, []))[:2] == [
        "lock: held for another 900 ms, 2 waiting",
        "connection: conn-1 at w1, for another 7000 s",
    ]


def test_a_terminal_gets_a_table_with_a_column_a_tier(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    show(replace(quiet(EVERYWHERE), session_id="s\x1b[2J"), [])
    drawn = capsys.readouterr().out
    assert "session s\\x1b[2J" in drawn
    assert drawn.count("1.3.2") == 3
    assert "\x1b[2J" not in drawn
    assert WORDS not in drawn
    assert drawn.rstrip().endswith("The tiers agree.")


# The hash in Redis, as the scripts themselves leave it


class Hash:
    """A session's hash on the double of Redis, written by the protocol's scripts."""

    def __init__(self):
        self.host = MemoryHost()
        self.calls = Calls(SETTINGS)
        self.key = self.calls.key("s", 1)

    def get(self, token="lease"):  # noqa: S107 - no password
        return self.host.run("get", self.key, self.calls.get(token, least=Version(), have=None))

    def fill(self, snapshot):
        self.get()
        assert self.host.run("fill", self.key, self.calls.fill("lease", snapshot)) == b"filled"

    def observe(self, version):
        self.host.run("commit", self.key, self.calls.observe(version))

    def seen(self, *, late_ms=0, **fields):
        there = self.host.fields(self.key) | {name.encode(): value for name, value in fields.items()}
        now_ms = int(there.get(b"at") or there.get(b"lx") or 0) + late_ms
        return context_of(self.key, there, now_ms=now_ms)


def test_an_absent_hash_is_absent():
    assert Hash().seen() == InRedis(key=Hash().key, state="absent")


def test_a_hash_that_is_being_filled_shows_its_lease_and_its_floor():
    hashed = Hash()
    hashed.get()
    assert (hashed.seen(late_ms=-700).lease_left_ms, hashed.seen().floor) == (700, None)
    hashed.observe(Version(1, 7, 2))
    assert hashed.seen().floor == (1, 7, 2)
    assert hashed.seen().state == "filling"
    assert hashed.seen(late_ms=50).lease_left_ms == -50


@pytest.mark.parametrize("number", [1, 31, 32, 33, 70])
def test_a_full_hash_shows_its_turns_in_order_however_often_the_ring_was_written_over(number):
    hashed = Hash()
    hashed.fill(known(number))
    seen = hashed.seen(late_ms=2500)
    assert (seen.state, seen.age_s, seen.damage) == ("full", 2.5, "")
    assert seen.copy.version == (1, number, 2)
    assert [one.number for one in seen.copy.turns] == list(range(max(1, number - 31), number + 1))
    assert {one.content for one in seen.copy.turns} == {WORDS}
    assert seen.copy == replace(copied(number), turns=copied(number).turns[-32:])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"1": b"\x01junk"}, "turn 1"),
        ({"m": b"\x02of a newer release"}, "format 02 is not known here"),
        ({"m": b"\x01\xc0"}, "META"),
        ({"t": b"many"}, "none of ours"),
        ({"lo": b"0"}, "is missing"),
    ],
)
def test_a_hash_that_cannot_be_read_says_where(fields, complaint):
    hashed = Hash()
    hashed.fill(known())
    seen = hashed.seen(**fields)
    assert seen.state == "damaged"
    assert complaint in seen.damage


def test_a_hash_of_somebody_elses_is_damage_too():
    seen = context_of("k", {b"colour": b"blue"}, now_ms=0)
    assert (seen.state, seen.copy) == ("damaged", None)
    assert with_life(seen, ttl_ms=-1, memory_bytes=b"no", earlier=True) == replace(seen, ttl_ms=-1, earlier=True)


def test_a_lock_shows_how_long_it_is_held_and_who_waits_and_never_its_token():
    fields = {b"h": b"a-token", b"x": b"1500", b"n": b"3", b"w1": b"1 2000", b"w2": b"2 900"}
    lock = lock_of(fields, now_ms=1000, ttl_ms=77)
    assert lock == Lock(held=True, lease_left_ms=500, waiting=1, ttl_ms=77)
    assert b"a-token" not in msgspec.json.encode(lock)
    assert lock_of(fields, now_ms=1600, ttl_ms=77).held is False
    assert lock_of({}, now_ms=0, ttl_ms=-2) is None
    assert lock_of({b"h": b"x", b"x": b"soon"}, now_ms=0, ttl_ms=1) is None


def test_what_memory_holds_is_told_without_a_word_and_comes_back_as_it_was():
    actor = Actor("s", known=known(), validated_at_s=90.0, size_kib=7)
    told = remembered(actor, now_age_s=100.0)
    encoded = msgspec.json.encode(told)
    assert WORDS.encode() not in encoded
    assert msgspec.json.decode(encoded, type=Remembered) == told
    assert (told.validated_s, told.changed_s, told.busy, told.waiting, told.kib) == (10.0, None, False, 0, 7)
    assert told.copy == without_words(TRUTH)
    assert remembered(Actor("s"), now_age_s=1.0).copy is None


def test_a_copy_names_attributes_and_gives_their_values_only_with_the_words():
    assert meta_copy(known().meta).attributes == ("lang",)
    assert meta_copy(known().meta).values is None
    assert meta_copy(known().meta, words=True).values == {"lang": repr(WORDS)}
    assert turn_copy(turn(1)).content is None
    assert turn_copy(turn(1)).attributes == ("mood",)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Berserk 漫画 é", "Berserk 漫画 é"), ("a\x1b[2Jb\n", "a\\x1b[2Jb\\n"), ("\u202eevil", "\\u202eevil")],
)
def test_a_terminal_is_given_no_sign_that_commands_it(text, shown):
    assert printable(text) == shown
