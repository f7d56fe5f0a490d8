"""Which local DynamoDB is taken, and what is said of it."""

from __future__ import annotations

import sys

import pytest

from mangacache import NotFound
from mangacache.local import find_engine


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without dynoxide: not named, not on PATH, not beside the interpreter."""
    monkeypatch.delenv("MANGACACHE_DYNOXIDE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


def _program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("bare")
def test_auto_takes_moto_where_dynoxide_is_missing_and_says_why():
    engine = find_engine("auto")
    assert (engine.name, engine.binary, engine.faithful_transactions) == ("moto", sys.executable, False)
    assert engine.version in engine.meaning
    assert "because dynoxide was not found" in engine.meaning


@pytest.mark.usefixtures("bare")
def test_moto_asked_for_by_name_makes_no_excuse():
    assert "not found" not in find_engine("moto").meaning


@pytest.mark.usefixtures("bare")
def test_dynoxide_asked_for_by_name_is_needed():
    with pytest.raises(NotFound, match="MANGACACHE_DYNOXIDE"):
        find_engine("dynoxide")


def test_the_one_that_is_named_goes_before_the_one_on_path_and_that_before_the_installed_one(bare, monkeypatch):
    installed = _program(bare / "npm" / "node_modules" / "@dynoxide" / "linux-x64" / "dynoxide")
    assert find_engine("auto").binary == installed
    on_path = _program(bare / "dynoxide")
    assert find_engine("auto").binary == on_path
    monkeypatch.setenv("MANGACACHE_DYNOXIDE", _program(bare / "own" / "engine"))
    engine = find_engine("dynoxide")
    assert engine.binary == str(bare / "own" / "engine")
    assert engine.faithful_transactions
    assert engine.version == "of unknown version"


def test_its_version_is_that_of_the_package_it_came_in(bare):
    installed = bare / "npm" / "node_modules" / "@dynoxide" / "linux-x64" / "dynoxide"
    _program(installed)
    installed.with_name("package.json").write_text('{"version": "1.2.3"}')
    assert find_engine("auto").version == "1.2.3"


def test_a_named_program_that_cannot_be_run_is_refused(bare, monkeypatch):
    plain = bare / "engine"
    plain.write_text("")
    monkeypatch.setenv("MANGACACHE_DYNOXIDE", str(plain))
    with pytest.raises(NotFound, match="no program that can be run"):
        find_engine("auto")


@pytest.mark.usefixtures("bare")
def test_without_any_engine_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr("mangacache.local.dynamodb.find_spec", lambda _: None)
    with pytest.raises(NotFound, match=r"pip install 'mangacache\[local\]'"):
        find_engine("auto")
