"""The Lua scripts of the context protocol; the header of each says keys, arguments, replies and invariant."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from mangacache.redis import Script


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def _script(name: str) -> Script:
    return Script.of(name, _text(name))


GET: Final = _script("get")
COMMIT: Final = _script("commit")
TOLD: Final = Script.of(COMMIT.name, _text("told") + COMMIT.text)
"""COMMIT of a write, of which those hear who listen; to the context it is COMMIT."""
FILL: Final = _script("fill")
RELEASE: Final = _script("release")
DISCARD: Final = _script("discard")

ALL: Final = (GET, COMMIT, FILL, RELEASE, DISCARD)
