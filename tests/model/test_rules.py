"""Each rule taken out goes wrong, by a trace a reader can follow: the shortest there is."""

from __future__ import annotations

from dataclasses import fields

import pytest
from contextmodel.catalogue import DEAD_WITHOUT, WITHOUT
from contextmodel.exploring import explore, live
from contextmodel.page import PAGE, section
from contextmodel.rules import Rules, without

NOT_NEEDED = {"begin_again"}
"""Rules without which nothing was found to go wrong; docs/model.md says why they stay."""

LONGEST = 12


@pytest.mark.parametrize("rule", WITHOUT)
def test_a_rule_taken_out_goes_wrong(rule, explored):
    found = explore(without(WITHOUT[rule], rule))
    explored(f"without {rule}", found.states, f"wrong after {len(found.trace)} steps")
    print(found)
    assert found.wrong is not None
    assert len(found.trace) <= LONGEST
    assert section(rule, found) in PAGE.read_text(encoding="utf-8"), f"docs/model.md is older than the model:\n{found}"


@pytest.mark.parametrize("rule", DEAD_WITHOUT)
def test_a_rule_taken_out_leaves_states_without_a_future(rule, explored):
    found = live(without(DEAD_WITHOUT[rule], rule))
    explored(f"without {rule}", found.states, f"{found.dead} dead states")
    print(found)
    assert found.dead
    assert len(found.trace) <= LONGEST
    assert section(rule, found) in PAGE.read_text(encoding="utf-8"), f"docs/model.md is older than the model:\n{found}"


def test_every_rule_is_taken_out_somewhere():
    taken_out = {*WITHOUT, *DEAD_WITHOUT, *NOT_NEEDED}
    assert taken_out == {field.name for field in fields(Rules) if field.default}
