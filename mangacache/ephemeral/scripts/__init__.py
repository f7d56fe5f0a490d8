"""The services' Lua scripts; the header of each says keys, arguments, replies and invariant."""

from __future__ import annotations

from importlib.resources import files

from mangacache.redis import Script


def _script(name: str) -> Script:
    return Script.of(name, files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8"))
