"""Arguments that cannot be meant are refused, rather than taken for something else."""

from __future__ import annotations

import pytest
from fleet import Fleet, InMemory, table_in_memory

from mangacache import Consistency, Invalid, NewTurn
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


@pytest.mark.parametrize("limit", ["5", 5.0, True, None])
async def test_a_page_of_history_holds_a_whole_number_of_turns(session, limit):
    with pytest.raises(Invalid, match="limit"):
        await session.history(limit=limit)


async def test_a_cursor_is_text(session):
    with pytest.raises(Invalid, match="cursor"):
        await session.history(before=5)


@pytest.mark.parametrize("turns", [[{"role": "user", "content": "hello"}], ["hello"], 5, None])
async def test_what_is_appended_together_are_turns(session, turns):
    with pytest.raises(Invalid, match="append_many takes"):
        await session.append_many(turns)


@pytest.mark.parametrize("attributes", [["mood"], "mood", 5, {("a",): 1}])
async def test_attributes_are_a_mapping_of_names(session, attributes):
    with pytest.raises(Invalid, match=r"attributes|name"):
        await session.update(attributes)
    with pytest.raises(Invalid, match=r"attributes|name"):
        await session.append(role="user", content="hello", attributes=attributes)
    with pytest.raises(Invalid, match=r"attributes|name"):
        await session.append_many([NewTurn(role="user", content="hello", attributes=attributes)])


async def test_a_role_is_a_word(session):
    with pytest.raises(Invalid, match="role"):
        await session.append(role=["user"], content="hello")


@pytest.mark.parametrize("remove", [5, [5], [None]])
async def test_what_is_removed_are_names(session, remove):
    with pytest.raises(Invalid, match="remove"):
        await session.update(remove=remove)


@pytest.mark.parametrize(("name", "age_s"), [("nonsense", None), ("session", 5.0), ("eventual", None), ("latest", 0)])
def test_a_level_of_consistency_is_one_of_four(name, age_s):
    with pytest.raises(Invalid, match="consistency"):
        Consistency(name, age_s)


@pytest.mark.parametrize("age_s", [-1, "5", float("nan"), True])
def test_an_age_is_a_number_of_seconds(age_s):
    with pytest.raises(Invalid, match="age"):
        Consistency.EVENTUAL(age_s)


@pytest.mark.parametrize("given", [{"when_full": "queue"}, {"when_full": None}, {"deadline_s": 0}, {"deadline_s": "5"}])
async def test_what_a_call_does_where_there_is_no_room_is_said_in_known_words(given):
    async with Fleet(await table_in_memory(), InMemory(MemoryRedis())).worker() as worker:
        with pytest.raises(Invalid, match=r"when_full|deadline_s"):
            worker.session(**given)
