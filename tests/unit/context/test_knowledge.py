"""What a worker knows of the epoch, at each edge of its time (rule R7)."""

from __future__ import annotations

import pytest

from mangacache.context.knowledge import PERIOD_S, EpochKnowledge, Standing
from mangacache.store.epochs import EpochRecord

SETTLED = EpochRecord(1, "A", settled=True)
RAISED = EpochRecord(2, "A", settled=False)


def _knowing(record=SETTLED, *, sent_at_s=10.0, now_s=10.25):
    knowledge = EpochKnowledge()
    knowledge.learn(record, sent_at_s=sent_at_s, now_s=now_s)
    return knowledge


def test_before_the_first_read_nothing_is_known():
    assert EpochKnowledge().standing(0.0) is Standing.UNSURE
    assert not EpochKnowledge().should_settle(1e9)


def test_the_period_is_the_protocols():
    assert PERIOD_S == 1.5


@pytest.mark.parametrize(
    ("now_s", "standing"),
    [(10.25, Standing.SURE), (11.499, Standing.SURE), (11.5, Standing.UNSURE), (99.0, Standing.UNSURE)],
)
def test_knowledge_holds_for_the_period_from_when_the_read_was_sent_not_from_when_it_was_answered(now_s, standing):
    assert _knowing().standing(now_s) is standing


def test_each_read_renews_the_knowledge_and_none_shortens_it():
    knowledge = _knowing()
    assert not knowledge.learn(SETTLED, sent_at_s=11.0, now_s=11.1)
    assert knowledge.standing(12.4) is Standing.SURE
    assert not knowledge.learn(SETTLED, sent_at_s=10.5, now_s=11.2)  # overtaken by the one before
    assert knowledge.standing(12.4) is Standing.SURE
    assert knowledge.standing(12.5) is Standing.UNSURE


def test_a_new_epoch_is_waited_out_for_the_period_from_when_it_was_learned():
    knowledge = _knowing()
    assert knowledge.learn(RAISED, sent_at_s=10.5, now_s=10.75)
    knowledge.learn(RAISED, sent_at_s=11.5, now_s=11.6)
    assert knowledge.standing(10.75) is Standing.WAITING
    assert knowledge.standing(12.249) is Standing.WAITING
    assert knowledge.standing(12.25) is Standing.SURE


def test_knowledge_that_has_lapsed_does_not_wait_it_is_unsure():
    knowledge = _knowing()
    knowledge.learn(RAISED, sent_at_s=10.5, now_s=11.9)
    assert knowledge.standing(11.95) is Standing.WAITING
    assert knowledge.standing(12.0) is Standing.UNSURE


def test_a_worker_that_starts_with_an_epoch_that_is_not_settled_has_learned_it():
    knowledge = _knowing(RAISED)
    assert knowledge.standing(10.25) is Standing.WAITING
    knowledge.learn(RAISED, sent_at_s=11.0, now_s=11.0)
    assert knowledge.standing(11.74) is Standing.WAITING
    assert knowledge.standing(11.75) is Standing.SURE


def test_a_worker_that_starts_with_a_settled_epoch_need_not_wait():
    assert _knowing(SETTLED).standing(10.25) is Standing.SURE


def test_who_hears_that_the_epoch_is_settled_waits_no_longer():
    knowledge = _knowing(RAISED)
    knowledge.learn(EpochRecord(2, "A", settled=True), sent_at_s=10.5, now_s=10.6)
    assert knowledge.standing(10.6) is Standing.SURE


def test_that_the_one_before_was_settled_does_not_settle_a_new_epoch():
    knowledge = _knowing(SETTLED)
    knowledge.learn(RAISED, sent_at_s=10.5, now_s=10.5)
    assert knowledge.standing(10.6) is Standing.WAITING


def test_a_read_of_an_older_epoch_is_one_that_was_overtaken_and_changes_nothing():
    knowledge = _knowing(RAISED, sent_at_s=10.0, now_s=10.0)
    assert not knowledge.learn(SETTLED, sent_at_s=11.0, now_s=11.0)
    assert knowledge.record == RAISED
    assert knowledge.standing(11.5) is Standing.UNSURE, "an overtaken read renews nothing"


def test_a_raise_by_two_is_one_change():
    knowledge = _knowing(SETTLED)
    assert knowledge.learn(EpochRecord(3, "B"), sent_at_s=10.5, now_s=10.5)
    assert knowledge.record.epoch == 3


def test_another_identity_under_the_same_epoch_is_no_new_epoch():
    knowledge = _knowing(EpochRecord(1, "", settled=True))
    assert not knowledge.learn(SETTLED, sent_at_s=10.5, now_s=10.5)
    assert knowledge.record.identity == "A"


@pytest.mark.parametrize(
    ("record", "now_s", "expected"),
    [(RAISED, 11.749, False), (RAISED, 11.75, True), (SETTLED, 99.0, False)],
)
def test_an_epoch_is_settled_by_who_has_waited_it_out_and_once(record, now_s, expected):
    assert _knowing(record).should_settle(now_s) is expected
