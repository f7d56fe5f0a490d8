"""What /readyz says: ready, degraded and why, or not ready."""

from __future__ import annotations

import msgspec
import pytest
from mangatest import SetClock

from mangacache.sessions.state import Health, SupervisorState
from mangacache.worker.readiness import DYNAMODB_AWAY_S, Phase, Readiness, judge

OPEN = SupervisorState(
    status="open",
    sessions=0,
    memory_kib=0,
    running=0,
    inside=0,
    window=1,
    limit=1,
    waiting=0,
    refused=0,
    loop_lag_ms=0.0,
    loop_lag_worst_ms=0.0,
    tick_ms=0.0,
    used_bytes=0,
    limit_bytes=0,
    sheddings=0,
    evicted={},
    farewells=0,
    farewells_dropped=0,
    dead_letters=0,
    restarts=0,
    fatal="",
    health={},
)


def _judged(phase=Phase.SERVING, *, status="open", away_s=None, hit_ratio_low=False, shedding=False):
    state = msgspec.structs.replace(OPEN, status=status)
    return judge(phase, state, away_s=away_s or {}, hit_ratio_low=hit_ratio_low, shedding=shedding)


def test_a_worker_with_all_it_needs_is_ready():
    verdict = _judged()
    assert (verdict.ready, verdict.status, verdict.reasons) == (True, "ready", ())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"away_s": {"redis": 1e6}}, "redis away"),
        ({"away_s": {"dax": 1e6}}, "dax away"),
        ({"away_s": {"dynamodb": DYNAMODB_AWAY_S - 1}}, "dynamodb away"),
        ({"hit_ratio_low": True}, "hit ratio low"),
        ({"shedding": True}, "shedding sessions"),
    ],
)
def test_a_degraded_worker_is_ready_and_says_why(how, reason):
    verdict = _judged(**how)
    assert (verdict.ready, verdict.status, verdict.reasons) == (True, "degraded", (reason,))


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"phase": Phase.STARTING}, "starting"),
        ({"phase": Phase.LEAVING}, "draining"),
        ({"phase": Phase.DRAINING}, "draining"),
        ({"status": "draining"}, "draining"),
        ({"status": "closed"}, "draining"),
        ({"status": "failing"}, "failing"),
        ({"away_s": {"dynamodb": DYNAMODB_AWAY_S}}, "unreachable"),
    ],
)
def test_who_cannot_serve_is_not_ready(how, status):
    verdict = _judged(**how)
    assert (verdict.ready, verdict.status) == (False, status)


def test_all_reasons_are_told():
    verdict = _judged(away_s={"redis": 2.0, "dax": 1.0}, hit_ratio_low=True, shedding=True)
    assert verdict.reasons == ("dax away", "redis away", "hit ratio low", "shedding sessions")


class StandingClock(SetClock):
    def monotonic_s(self):
        return self.age_offset_s


def test_how_long_a_service_is_away_is_counted_from_when_it_went_until_it_is_back():
    clock = StandingClock()
    readiness = Readiness(clock=clock)
    readiness.look({"redis": Health("open"), "dax": Health("closed")})
    clock.age_offset_s = 20.0
    readiness.look({"redis": Health("half-open"), "dax": Health("open")})
    clock.age_offset_s = 25.0
    assert readiness.away_s() == {"redis": 25.0, "dax": 5.0}
    readiness.look({"redis": Health("closed"), "dax": Health("open")})
    assert readiness.away_s() == {"dax": 5.0}
    readiness.look({"redis": Health("open"), "dax": Health("open")})
    assert readiness.away_s()["redis"] == 0.0


@pytest.mark.parametrize(("phase", "takes_in"), list(zip(Phase, (False, True, True, False), strict=True)))
def test_requests_are_taken_in_until_the_drain_begins(phase, takes_in):
    readiness = Readiness(clock=StandingClock())
    readiness.phase = phase
    assert readiness.takes_in is takes_in
