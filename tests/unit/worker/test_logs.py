"""The worker's logs: one format for every logger, by level, and nothing that is personal."""

from __future__ import annotations

import io
import json
import logging
import warnings

import pytest
import structlog

from mangacache.telemetry import Telemetry, logger
from mangacache.worker.logs import logging_to


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line_of_json_with_its_fields():
    stream = io.StringIO()
    with logging_to(stream, level="info"):
        logger().info("redis_up", tries=3, odd=object)
    (event,) = _lines(stream)
    assert event.pop("timestamp").endswith("Z")
    event.pop("message", None)  # pytest's own handler leaves it in the record
    assert event == {"event": "redis_up", "level": "info", "logger": "mangacache", "tries": 3, "odd": repr(object)}


def test_loggers_of_the_standard_library_speak_the_same_way():
    stream = io.StringIO()
    with logging_to(stream):
        logging.getLogger("aiohttp.server").error("Error handling %s", "it")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    served, warned = _lines(stream)
    assert (served["event"], served["level"], served["logger"]) == ("Error handling it", "error", "aiohttp.server")
    assert "DeprecationWarning" in warned["event"]


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_ours_are_heard_from_the_level_that_is_set(level, heard):
    stream = io.StringIO()
    with logging_to(stream, level=level):
        for name in ("debug", "info", "warning", "error"):
            getattr(logger(), name)("said")
    assert len(_lines(stream)) == heard


def test_the_aws_client_is_never_heard_below_a_warning_since_it_says_what_it_sends():
    stream = io.StringIO()
    with logging_to(stream, level="debug"):
        logging.getLogger("botocore.endpoint").debug("Making request: %s", {"content": "secret"})
        logging.getLogger("botocore.endpoint").info("sent")
    assert stream.getvalue() == ""


def test_an_error_is_told_with_its_stack_and_without_what_variables_held():
    def fail(content):
        raise ValueError(f"{len(content)} characters")

    stream, said = io.StringIO(), "a secret"
    with logging_to(stream):
        try:
            fail(said)
        except ValueError:
            logging.getLogger("aiohttp.server").exception("failed")
    (event,) = _lines(stream)
    assert "in fail" in event["exception"]
    assert "a secret" not in stream.getvalue()


def test_whose_a_key_is_stands_in_no_line():
    stream = io.StringIO()
    with logging_to(stream):
        Telemetry().count_survived("commit_lost", RuntimeError("told of mc:session:{alice-1}:1: no answer within 1 s"))
    (event,) = _lines(stream)
    assert event["error"] == "RuntimeError: told of mc:session:{*}:1: no answer within 1 s"


def test_on_a_terminal_it_is_for_people():
    stream = Terminal()
    with logging_to(stream):
        logger().warning("redis_down", why="no answer")
    assert "redis_down" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        _lines(stream)


def test_json_on_a_terminal_and_words_in_a_file_can_be_had():
    terminal, file = Terminal(), io.StringIO()
    with logging_to(terminal, form="json"):
        logger().warning("said")
    with logging_to(file, form="pretty"):
        logger().warning("said")
    assert _lines(terminal)[0]["event"] == "said"
    assert "\x1b[" not in file.getvalue()
    assert "said" in file.getvalue()


def test_at_the_end_all_is_as_it_was():
    root, ours = logging.getLogger(), logging.getLogger("mangacache")
    before = root.handlers[:], root.level, ours.level
    with logging_to(io.StringIO(), level="debug"):
        assert ours.level == logging.DEBUG
    assert (root.handlers, root.level, ours.level) == before
    assert not structlog.is_configured()
