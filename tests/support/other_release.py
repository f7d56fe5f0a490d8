"""A worker of another release: `python other_release.py RELEASE serve`, as `mangacache serve` is one of today's.

`previous`  the codec and the scripts as the last format had them: those kept in tests/releases/
`next`      a format after today's, made up: it reads today's too, and its scripts have other hashes
`careless`  a release that means something else by what it writes, and did not say so by the format
"""

from __future__ import annotations

import sys
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

KEPT = Path(__file__).parents[1] / "releases" / "format-1"
CODEC = "mangacache.context.codec"


class _Kept:
    """Has the kept codec imported in the place of today's."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        return spec_from_file_location(CODEC, KEPT / "codec.py") if name == CODEC else None


def _scripts_of(text_of) -> None:
    from mangacache.context import scripts
    from mangacache.redis import Script

    for name in ("get", "commit", "fill", "release", "discard"):
        setattr(scripts, name.upper(), Script.of(name, text_of(name)))
    scripts.TOLD = Script.of("commit", text_of("told") + text_of("commit"))


def previous() -> None:
    sys.meta_path.insert(0, _Kept)
    from mangacache.context import codec

    assert codec.__file__ == str(KEPT / "codec.py")
    _scripts_of(lambda name: (KEPT / f"{name}.lua").read_text(encoding="utf-8"))


def _turned(body: bytes) -> bytes:
    """The made-up format: every bit the other way round, which no reader of another format takes for its own."""
    return bytes(byte ^ 0xFF for byte in body)


def next_() -> None:
    from mangacache.context import codec, scripts

    today, encode = codec.FORMAT, codec._ENCODER.encode
    ours = bytes([today[0] + 1])

    class Encoder:
        @staticmethod
        def encode(value):
            return _turned(encode(value))

    def body(value):
        if value is None:
            raise codec.Unreadable("a part is missing", known_format=True)
        if value[:1] == ours:
            return _turned(value[1:])
        if value[:1] == today:
            return value[1:]
        raise codec.Unreadable("another format", known_format=not value)

    codec.FORMAT = codec.GAP = ours
    codec._ENCODER, codec._body = Encoder, body
    texts = {name: vars(scripts)[name.upper()].text for name in ("get", "commit", "fill", "release", "discard")}
    texts["told"] = scripts.TOLD.text.removesuffix(texts["commit"])
    _scripts_of(lambda name: f"-- as the next release has it\n{texts[name]}")


def careless() -> None:
    from mangacache.context import codec

    encode = codec._ENCODER.encode

    class Encoder:
        @staticmethod
        def encode(value):
            if isinstance(value, codec._Turn):
                value = codec._Turn(**{name: getattr(value, name) for name in value.__struct_fields__} | {"role": "me"})
            return encode(value)

    codec._ENCODER = Encoder


if __name__ == "__main__":
    {"previous": previous, "next": next_, "careless": careless}[sys.argv.pop(1)]()
    from mangacache.cli import main

    sys.exit(main())
