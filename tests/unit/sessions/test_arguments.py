"""Arguments that cannot be meant are refused, rather than taken for something else."""

from __future__ import annotations

import pytest
from fleet import Fleet, InMemory, table_in_memory

from mangacache import Invalid
from mangacache.testing.redis import MemoryRedis


@pytest.fixture
async def session():
    async with Fleet(await table_in_memory(), InMemory(MemoryRedis())).worker() as worker:
        session = worker.session()
        await session.append(role="user", content="hello")
        await session.update({"d": 1, "draft": "x"})
        yield session


@pytest.mark.parametrize("level", ["strong", "LATEST", None, 1.0])
async def test_a_level_of_consistency_that_is_none_is_not_taken_for_a_weaker_one(session, level):
    with pytest.raises(Invalid, match="consistency"):
        await session.context(consistency=level)


@pytest.mark.parametrize("turns", [2.0, "2", None])
async def test_a_number_of_turns_is_a_whole_number(session, turns):
    with pytest.raises(Invalid, match="1 to 32 turns"):
        await session.context(turns=turns)


async def test_a_name_alone_does_not_remove_the_attributes_that_are_called_like_its_letters(session):
    with pytest.raises(Invalid, match="list"):
        await session.update(remove="draft")
    assert (await session.context()).meta.attributes == {"d": 1, "draft": "x"}


@pytest.mark.parametrize("upto", ["1", True, 1.0])
async def test_a_summary_reaches_a_number(session, upto):
    with pytest.raises(Invalid, match="upto"):
        await session.summarise("greetings", upto=upto)
