"""What cannot be reached or read: one line that says what to do, status 2, and no traceback."""

from __future__ import annotations

import socket

import pytest
from commands import one_line

from mangacache import MangaCache, Settings, Transient
from mangacache.local import free_port

CREATE = ("tables", "create")


@pytest.fixture
def silent():
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("command", [CREATE, ("replay",)])
def test_without_credentials_it_says_where_to_get_them(mangacache, table, chats, command):
    del table["AWS_ACCESS_KEY_ID"], table["AWS_SECRET_ACCESS_KEY"]
    ended = mangacache(*command, *([chats(1)] if command == ("replay",) else []), **table)
    assert (ended.returncode, ended.stdout) == (2, "")
    complaint = one_line(ended.stderr)
    assert complaint.startswith("no AWS credentials were found")
    assert "AWS_ACCESS_KEY_ID" in complaint


def test_a_table_that_does_not_exist_is_named_with_the_command_that_makes_it(mangacache, table, chats):
    ended = mangacache("replay", chats(1), **table)
    assert (ended.returncode, ended.stdout) == (2, "")
    complaint = one_line(ended.stderr)
    assert f"there is no table '{table['SESSION_TABLE']}'" in complaint
    assert "run `mangacache tables create`" in complaint


@pytest.mark.parametrize("command", [CREATE, ("replay",)])
def test_an_endpoint_where_nobody_listens_is_given_up_within_the_deadline(mangacache, table, chats, command):
    table["AWS_ENDPOINT_URL_DYNAMODB"] = f"http://127.0.0.1:{free_port()}"
    limits = {"MANGACACHE_REQUEST_DEADLINE_S": "0.3", "MANGACACHE_REQUEST_TIMEOUT_S": "0.1"}
    ended = mangacache(*command, *([chats(1)] if command == ("replay",) else []), **table, **limits)
    assert (ended.returncode, ended.stdout) == (2, "")
    complaint = one_line(ended.stderr)
    assert complaint.startswith("DynamoDB gave no definite answer to DescribeTable in ")
    assert "(0.3 s)" in complaint
    # Of a try that the deadline cuts off nobody knows how far it came; all others were refused.
    assert complaint.endswith(("; nothing was done", "; whether it was done is unknown, repeating the call is safe"))


async def test_a_server_that_never_answers_is_given_up_within_the_deadline(silent):
    settings = Settings(dynamodb_endpoint=silent, request_timeout_s=0.1, request_deadline_s=0.3, retry_base_s=0.001)
    with pytest.raises(Transient, match=r"no definite answer to DescribeTable in [2-9] tries") as caught:
        async with MangaCache.open(settings):
            pass
    assert caught.value.retry_after_s == settings.retry_cap_s


def test_all_that_is_wrong_in_the_settings_is_listed(mangacache, chats):
    wrong = {"SESSION_TABLE": "no", "AWS_ENDPOINT_URL_DYNAMODB": "nowhere", "RETENTION_DAYS": "many"}
    ended = mangacache("replay", chats(1), **wrong)
    assert (ended.returncode, ended.stdout) == (2, "")
    first, *problems = ended.stderr.splitlines()
    assert first.startswith("mangacache: 3 problems in the settings")
    assert [name for name in wrong if sum(name in problem for problem in problems) == 1] == list(wrong)


def test_a_file_of_settings_that_is_missing_is_named(mangacache, chats):
    ended = mangacache("replay", chats(1), "--config", "/nowhere/mangacache.toml")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "/nowhere/mangacache.toml" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["tables"], ["replay"], ["replay", "f", "--timing", "slow"], ["demo", "--limit", "x"]],
)
def test_a_command_that_is_none_is_answered_with_its_usage(mangacache, arguments):
    ended = mangacache(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: mangacache")
