"""What goes over the wire: whole text frames, made once and sent to as many sockets as they are for.

A server's frames are not masked (RFC 6455, section 5.1), and nothing is compressed here, so the frame of a message is
the same for every socket: it is encoded once, and sending it is one write to a transport.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

_TEXT: Final = 0x81
_PONG: Final = 0x8A
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def text_frame(payload: bytes) -> bytes:
    """Return a message's frame: one, final, of text."""
    return _head(_TEXT, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping, which has at most 125 bytes."""
    return _head(_PONG, len(payload)) + payload


def frame(message: Any) -> bytes:
    """Return the frame of a message: of one of `messages`' structs, or of a mapping that JSON can hold."""
    return text_frame(_encoder.encode(message))


def _head(opcode: int, length: int) -> bytes:
    if length < _SHORT:
        return bytes((opcode, length))
    if length < _MEDIUM:
        return struct.pack("!BBH", opcode, 126, length)
    return struct.pack("!BBQ", opcode, 127, length)
