"""Every state that the protocol can reach, within bounds: nothing wrong is ever answered, and a hit can be reached."""

from __future__ import annotations

import pytest
from contextmodel.bounds import within
from contextmodel.catalogue import ALIVE, ALIVE_LARGER, HOLDS, LARGER, WITHOUT
from contextmodel.exploring import explore, live
from contextmodel.page import PAGE, row

_HOLDING = within(HOLDS, LARGER)
_LIVING = within(ALIVE, ALIVE_LARGER)
_KEPT = {case: rule for rule, case in WITHOUT.items()}


@pytest.mark.parametrize("name", _HOLDING)
def test_no_state_is_wrong(name, explored):
    found = explore(_HOLDING[name])
    explored(name, found.states, "holds" if found.exhausted else "fails")
    assert found.wrong is None, f"{found.wrong}:\n{found}"
    assert found.exhausted
    assert row(name, found.states) in PAGE.read_text(encoding="utf-8"), "docs/model.md is older than the model"


@pytest.mark.parametrize("name", _LIVING)
def test_from_every_state_a_fresh_hit_can_be_reached_once_faults_stop(name, explored):
    found = live(_LIVING[name])
    explored(f"liveness: {name}", found.states, f"{found.dead} dead states")
    assert found.dead == 0, str(found)
    assert row(name, found.states) in PAGE.read_text(encoding="utf-8"), "docs/model.md is older than the model"


@pytest.mark.parametrize("case", [case for case in _KEPT if case not in HOLDS.values()], ids=_KEPT.get)
def test_the_cases_in_which_a_rule_is_missed_are_right_with_it(case, explored):
    found = explore(case)
    explored(f"with {_KEPT[case]}", found.states, "holds" if found.exhausted else "fails")
    assert found.wrong is None, f"{found.wrong}:\n{found}"
    assert found.exhausted


@pytest.mark.parametrize(("rule", "broken"), [("commit_before_ack", "I3"), ("contiguity", "I2")])
def test_the_invariants_are_broken_before_anybody_is_answered_wrongly(rule, broken):
    case = WITHOUT[rule]
    found = explore(case.with_rules(case.rules.without(rule)))
    assert found.wrong.startswith(broken), str(found)


def test_a_search_that_was_ended_early_says_so():
    found = explore(HOLDS["no fault: 2 appends, STRONG"], limit=100)
    assert found.wrong is None
    assert not found.exhausted
