"""HTTP/1.1 answers out of bytes as they come: no input or output here.

Strict on purpose. A server that is well writes few forms; what is none of them is refused, its connection is given
up, and the request counts as unanswered. An answer of an unknown end is refused too, since it cannot be told from one
that was cut off.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 48 * 1024 * 1024  # a batch of 16 MB, whose binary values are a third longer in JSON, and more

_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,12}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_INTERIM: Final = 200
_BODILESS: Final = (204, 304)


class Malformed(Exception):
    """What came is not an answer that this package reads."""


class Answer(msgspec.Struct):
    """A whole answer.

    Attributes:
        status: 200 and above.
        headers: by name in lower case; of several of one name the last.
        body: without the encoding in chunks.
        keep: whether the connection may be used again.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    keep: bool


class AnswerReader:
    """Reads the answer to one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Answer | None = None
        self._length = 0
        self._chunks: _Chunks | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Take what has come; return the answer as soon as it is whole.

        Bytes beyond the answer's end, which nobody asked for, make its connection one not to be used again.

        Raises:
            Malformed: it is none; the reader is of no use any more.
        """
        if self._head is None:
            if self._buffer:
                self._buffer += data
                data = bytes(self._buffer)
            found = self._begin(data)
            if found is None:
                return None
            data = found
        return self._go_on(data)

    def _begin(self, data: bytes) -> bytes | None:
        """Read the head; return what follows it, or `None` where it is not whole yet."""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD_BYTES:
                if len(data) > MAX_HEAD_BYTES:
                    raise Malformed(f"a head of more than {MAX_HEAD_BYTES} bytes")
                self._buffer = bytearray(data)
                return None
            head = _read_head(data[:end])
            data = data[end + 4 :]
            if head.status >= _INTERIM:
                break
        self._head = head
        self._buffer = bytearray()
        self._measure(head)
        return data

    def _measure(self, head: Answer) -> None:
        """Find how the body's end is told."""
        headers = head.headers
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Malformed("an encoded body, which was not asked for")
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise Malformed("a transfer encoding other than chunked, or one beside a length")
            self._chunks = _Chunks()
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise Malformed("a length that is no number")
            self._length = int(length)
            if self._length > MAX_BODY_BYTES:
                raise Malformed(f"a body of more than {MAX_BODY_BYTES} bytes")
        elif head.status not in _BODILESS:
            raise Malformed("an answer that does not say where it ends")

    def _go_on(self, data: bytes) -> Answer | None:
        if self._chunks is not None:
            body = self._chunks.feed(data)
            if body is None:
                return None
            return self._whole(body, beyond=self._chunks.beyond)
        if not self._buffer and len(data) == self._length:
            return self._whole(data, beyond=False)
        self._buffer += data
        if len(self._buffer) < self._length:
            return None
        return self._whole(bytes(self._buffer[: self._length]), beyond=len(self._buffer) > self._length)

    def _whole(self, body: bytes, *, beyond: bool) -> Answer:
        answer = self._head
        if answer is None:
            raise AssertionError("a body without a head")
        answer.body = body
        answer.keep = answer.keep and not beyond
        self._head, self._chunks, self._length = None, None, 0
        self._buffer = bytearray()
        return answer


def _read_head(head: bytes) -> Answer:
    lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None:
        raise Malformed("it does not begin as an HTTP/1 answer")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise Malformed("a header that is none")
        name, value = header[1].lower(), header[2].rstrip(b" \t")
        if name in (b"content-length", b"transfer-encoding") and headers.get(name, value) != value:
            raise Malformed("two lengths")
        headers[name] = value
    keep = status[1] == b"1" and b"close" not in headers.get(b"connection", b"").lower()
    return Answer(status=int(status[2]), headers=headers, body=b"", keep=keep)


class _Chunks:
    """Puts a body together that comes in chunks.

    Attributes:
        beyond: whether more has come than the body.
    """

    def __init__(self) -> None:
        self.beyond = False
        self._buffer = bytearray()
        self._body = bytearray()
        self._size: int | None = None  # of the chunk that is read; None between chunks
        self._last = False

    def feed(self, data: bytes) -> bytes | None:
        """Take what has come; return the body when it is whole."""
        self._buffer += data
        while not self._last:
            if self._size is None:
                line = self._line()
                if line is None:
                    return None
                self._begin_chunk(line)
            elif not self._end_chunk(self._size):
                return None
        while (line := self._line()) is not None:
            if not line:
                self.beyond = bool(self._buffer)
                return bytes(self._body)
        return None

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise Malformed("a chunk without a size")
        self._size = int(found[1], 16)
        self._last = self._size == 0
        if len(self._body) + self._size > MAX_BODY_BYTES:
            raise Malformed(f"a body of more than {MAX_BODY_BYTES} bytes")

    def _end_chunk(self, size: int) -> bool:
        if len(self._buffer) < size + 2:
            return False
        if self._buffer[size : size + 2] != b"\r\n":
            raise Malformed("a chunk that is longer than it says")
        self._body += self._buffer[:size]
        del self._buffer[: size + 2]
        self._size = None
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise Malformed("a line without an end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line
