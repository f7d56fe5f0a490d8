"""The model's versions are the package's."""

from __future__ import annotations

from itertools import product

import pytest
from contextmodel.rules import Rules
from contextmodel.scripts import FILLING, FULL, HIT, LEASE, SAME, commit, fill, get
from contextmodel.versions import LOWEST, covers, join

from mangacache import Version

RULES = Rules()
SOME = list(product(range(3), repeat=3))


@pytest.mark.parametrize("one", SOME)
def test_versions_compare_and_join_as_the_packages_do(one):
    for other in SOME:
        assert covers(one, other) == Version(*one).covers(Version(*other))
        joined = Version(*one).join(Version(*other))
        assert join(one, other) == (joined.incarnation, joined.number, joined.revision)


@pytest.mark.parametrize("version", SOME)
def test_a_commit_is_idempotent_and_never_lowers_the_hash(version):
    for there in SOME:
        found = (FULL, there, True, True)
        after = commit(RULES, found, version, there[1] + 1, meta=True)
        assert after is None or covers(after[1], there)
        assert commit(RULES, after, version, there[1] + 1, meta=True) == after


@pytest.mark.parametrize("version", SOME)
def test_an_accepted_fill_reaches_the_floor_and_is_then_what_get_answers(version):
    for floor in [LOWEST, *SOME]:
        after = fill(RULES, (FILLING, 1, True, floor), 1, version)
        assert (after is not None) == covers(version, floor)
        if after is not None:
            assert get(RULES, after, 2, LOWEST, None) == (after, HIT)
            assert get(RULES, after, 2, version, version) == (after, SAME)


@pytest.mark.parametrize("least", SOME)
def test_get_gives_a_lease_where_the_content_is_older_than_what_was_seen(least):
    for there in SOME:
        found = (FULL, there, True, True)
        after, answer = get(RULES, found, 1, least, None)
        assert (answer is HIT) == covers(there, least)
        assert after == (found if answer is HIT else (FILLING, 1, True, LOWEST))
        assert answer in {HIT, LEASE}
