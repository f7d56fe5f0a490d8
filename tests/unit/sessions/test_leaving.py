"""Who stays in memory and who leaves it: by idleness, by number, by bytes, and where the process is short of memory."""

from __future__ import annotations

import math

import pytest
from mangatest import SetClock

from mangacache import Closed, Settings, Turn, Version
from mangacache.sessions.memory import ProcessMemory
from mangacache.sessions.residents import Residents
from mangacache.sessions.shedding import Shedding
from mangacache.sessions.sizes import size_kib
from mangacache.sessions.wheel import Wheel
from mangacache.store.effects import Touch
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot


class TurnedClock(SetClock):
    """A clock that stands still but where a test turns it."""

    def monotonic_s(self):
        return 0.0

    def age_s(self):
        return 1000.0 + self.age_offset_s


class NoTouches:
    """META is up to date, but where a test says otherwise."""

    lagging = frozenset()

    def lacking(self, actor):
        return Touch(1, 5, "", 0) if actor.session_id in self.lagging else None

    def is_due(self, _):
        return False


class Heard:
    """What is said at leaving."""

    crowded = False

    def __init__(self):
        self.said = []

    def say(self, session_id, touch):
        self.said.append((session_id, touch.number))


class House:
    def __init__(self, **settings):
        self.clock, self.touches, self.farewells = TurnedClock(), NoTouches(), Heard()
        self.residents = Residents(
            settings=Settings(**settings), clock=self.clock, touches=self.touches, farewells=self.farewells
        )

    def use(self, *names):
        for name in names:
            self.residents.actor(name)

    def know(self, name, content):
        actor = self.residents.actor(name)
        actor.known = _knowledge(content)
        self.residents.weigh(actor)
        return actor

    @property
    def names(self):
        return set(self.residents.actors)

    def tick(self):
        return self.residents.tick(math.inf)


def _knowledge(content):
    turn = Turn(1, "t", "user", content, "2026-01-01T00:00:00.000Z")
    return Snapshot(MetaRecord(incarnation=1, revision=1), Version(1, 1, 1), (turn,))


# Idleness


def test_a_session_leaves_when_its_idle_time_has_passed_and_not_before():
    house = House(idle_s=900)
    house.use("idle")
    house.clock.age_offset_s = 890
    house.tick()
    assert house.names == {"idle"}
    house.clock.age_offset_s = 900 + 2 * 900 / 256 + 1
    house.tick()
    house.tick()
    assert house.names == set()
    assert house.residents.evicted["idle"] == 1


def test_a_session_that_is_used_stays():
    house = House(idle_s=900)
    house.use("used", "idle")
    for _ in range(6):
        house.clock.age_offset_s += 300
        house.tick()
        house.use("used")
    house.tick()
    assert house.names == {"used"}


def test_a_busy_session_stays_until_it_is_idle():
    house = House(idle_s=1)
    actor = house.residents.actor("busy")
    actor.begin_activity()
    for _ in range(3):
        house.clock.age_offset_s += 10
        house.tick()
    assert house.names == {"busy"}
    actor.end_activity()
    for _ in range(2):
        house.clock.age_offset_s += 10
        house.tick()
    assert house.names == set()


def test_only_those_are_looked_at_whose_time_has_come():
    house = House(idle_s=900)
    looks = []
    take = Wheel.take
    house.residents._wheel.take = lambda: looks.append(1) or take(house.residents._wheel)
    house.use(*(f"s{n}" for n in range(1000)))
    for _ in range(100):
        house.clock.age_offset_s += 8
        house.tick()
    assert looks == []


def test_a_step_ends_at_its_time_and_says_that_there_is_more():
    house = House(idle_s=1)
    house.use(*(f"s{n}" for n in range(1000)))
    house.clock.age_offset_s = 100
    assert house.residents.tick(0.0) is True  # no time at all
    assert len(house.names) == 1000
    assert house.tick() is False
    assert house.names == set()


def test_who_leaves_has_meta_brought_up_to_date():
    house = House(idle_s=1)
    house.touches.lagging = {"lags"}
    house.use("lags", "does not")
    house.clock.age_offset_s = 100
    house.tick()
    assert house.farewells.said == [("lags", 5)]


def test_nobody_leaves_for_idleness_while_too_many_touches_wait():
    house = House(idle_s=1)
    house.use("idle")
    house.farewells.crowded = True
    house.clock.age_offset_s = 100
    house.tick()
    assert house.names == {"idle"}


# Numbers and bytes


def test_beyond_the_number_of_sessions_who_was_used_longest_ago_leaves():
    house = House(memory_sessions=3)
    house.use("a", "b", "c", "a", "d")
    assert house.names == {"a", "c", "d"}
    assert house.residents.evicted["number"] == 1


def test_beyond_the_bytes_who_was_used_longest_ago_leaves():
    house = House(memory_bytes=100 * 1024)
    for name in "abc":
        house.know(name, "x" * 30_000)
    assert house.names == {"a", "b", "c"}
    house.use("a")
    house.know("d", "x" * 30_000)
    assert house.names == {"a", "c", "d"}
    assert house.residents.kib <= 100
    assert house.residents.evicted["bytes"] == 1


def test_what_is_forgotten_and_what_has_left_does_not_count():
    house = House(idle_s=1)
    actor = house.know("a", "x" * 30_000)
    house.know("b", "x" * 30_000)
    assert house.residents.kib > 58
    actor.forget()
    house.residents.weigh(actor)
    assert 29 < house.residents.kib < 35
    house.clock.age_offset_s = 100
    house.tick()
    assert house.residents.kib == 0


def test_who_still_holds_an_actor_that_has_left_finds_it_gone_and_another_in_its_place():
    house = House(memory_sessions=1)
    before = house.residents.actor("a")
    house.use("b")
    assert before.gone
    assert before.known is None
    assert house.residents.actor("a") is not before
    before.known = _knowledge("x" * 30_000)
    house.residents.weigh(before)  # a late lesson counts for nothing
    assert house.residents.kib == 0


def test_when_nobody_is_taken_in_any_more_those_who_are_there_are_still_found():
    house = House()
    house.use("a")
    house.residents.close()
    assert house.residents.actor("a") is not None
    with pytest.raises(Closed):
        house.residents.actor("b")


@pytest.mark.parametrize("content", ["x" * 10_000, "漫" * 10_000, "𝔪" * 10_000])
def test_a_text_counts_for_the_bytes_that_it_takes_in_memory(content):
    width = {1: 1, 3: 2, 4: 4}[len(content[0].encode())]
    assert 0 < size_kib(_knowledge(content)) - 10_000 * width / 1024 < 3


def test_attributes_count_too():
    plain = _knowledge("x")
    rich = Snapshot(MetaRecord(incarnation=1, revision=1, attributes={"a": ["y" * 5000, {"b": b"z" * 5000}]}))
    assert size_kib(rich) - size_kib(plain) >= 9
    assert size_kib(None) == 0


# Short of memory


class SetMemory:
    used, limit = 0, 1_000_000

    def used_bytes(self):
        return self.used

    def limit_bytes(self):
        return self.limit


def _shedding(house):
    memory = SetMemory()
    return memory, Shedding(memory, house.residents)


def test_from_80_percent_of_the_limit_on_the_oldest_leave_until_75():
    house = House()
    for n in range(20):
        house.know(f"s{n}", "x" * 9_000)
        house.clock.age_offset_s += 20
        house.tick()
    memory, shedding = _shedding(house)
    memory.used = 790_000
    shedding.look()
    house.tick()
    assert len(house.names) == 20
    memory.used = 800_001
    shedding.look()
    house.tick()
    gone = 20 - len(house.names)
    assert 50_000 <= gone * 11 * 1024 <= 50_000 + 11 * 1024 * 2
    assert house.names == {f"s{n}" for n in range(gone, 20)}
    assert house.residents.evicted["memory"] == gone


def test_memory_that_the_kernel_does_not_get_back_is_not_shed_for_again_and_again():
    house = House()
    for n in range(20):
        house.know(f"s{n}", "x" * 9_000)
    memory, shedding = _shedding(house)
    memory.used = 850_000
    for _ in range(5):
        shedding.look()
        house.tick()
    left = len(house.names)
    assert shedding.sheddings == 1
    assert left > 8
    memory.used = 870_000  # it has grown all the same
    shedding.look()
    house.tick()
    assert shedding.sheddings == 2
    assert len(house.names) < left


def test_where_all_are_busy_a_shedding_ends_and_is_tried_again_later():
    house = House()
    for n in range(5):
        house.know(f"s{n}", "x" * 9_000).begin_activity()
    memory, shedding = _shedding(house)
    memory.used = 900_000
    shedding.look()
    assert house.tick() is False
    assert len(house.names) == 5


def test_the_limit_is_the_containers_where_it_has_one(tmp_path):
    group = tmp_path / "cgroup" / "ecs" / "task"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("5368709\n")
    (group / "memory.current").write_text("4000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 1000000\n")
    proc = _proc(tmp_path, "0::/ecs/task\n", pages=10)
    memory = ProcessMemory(proc=proc, cgroup=tmp_path / "cgroup")
    assert memory.limit_bytes() == 5_368_709
    assert memory.used_bytes() == 3_000_000


def test_a_group_without_a_limit_is_bounded_by_the_one_above_it(tmp_path):
    group = tmp_path / "cgroup" / "ecs" / "task"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("1048576\n")
    memory = ProcessMemory(proc=_proc(tmp_path, "0::/ecs/task\n"), cgroup=tmp_path / "cgroup")
    assert memory.limit_bytes() == 1_048_576


def test_the_first_version_of_cgroups_is_understood(tmp_path):
    group = tmp_path / "cgroup" / "memory" / "docker"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("2097152\n")
    (group / "memory.usage_in_bytes").write_text("1000000\n")
    memory = ProcessMemory(proc=_proc(tmp_path, "3:cpu:/x\n2:memory:/docker\n", pages=1), cgroup=tmp_path / "cgroup")
    assert (memory.limit_bytes(), memory.used_bytes()) == (2_097_152, 1_000_000)


def test_without_a_container_it_is_the_machine_and_the_process_itself(tmp_path):
    memory = ProcessMemory(proc=_proc(tmp_path, "0::/\n", pages=7), cgroup=tmp_path / "none")
    assert memory.limit_bytes() == 8_000 * 1024
    assert memory.used_bytes() == 7 * memory._page
    assert ProcessMemory(123, proc=tmp_path / "proc").limit_bytes() == 123


def test_where_the_kernel_says_nothing_nothing_is_shed(tmp_path):
    memory = ProcessMemory(proc=tmp_path / "none", cgroup=tmp_path / "none")
    house = House()
    house.know("a", "x")
    shedding = Shedding(memory, house.residents)
    shedding.look()
    house.tick()
    assert (memory.limit_bytes(), memory.used_bytes(), house.names) == (0, 0, {"a"})


def _proc(path, cgroup, *, pages=1):
    proc = path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    (proc / "self" / "statm").write_text(f"100 {pages} 1 1 0 1 0\n")
    (proc / "meminfo").write_text("MemFree: 1 kB\nMemTotal:        8000 kB\n")
    return proc
