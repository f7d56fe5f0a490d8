"""What comes in: the JSON of a body and the parameters of a query, read strictly into structs.

A wrong type is named by its place (RFC 6901), an unknown or doubled name by itself; what is not JSON, or is nested too
deeply, or is no UTF-8, is refused before anything looks at it.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import msgspec

from mangacache.errors import Invalid
from mangacache.worker.problems import HttpError, Malformed

if TYPE_CHECKING:
    from aiohttp import web

T = TypeVar("T")

MOST_DEPTH: Final = 32
"""Brackets inside brackets; DynamoDB keeps 32 levels of an attribute."""
_UNSUPPORTED: Final = 415
_TOO_LARGE: Final = 413
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_PLACE: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_SHOWN: Final = 80


async def body_of(request: web.Request, *, most_bytes: int) -> bytes:
    """Return a request's body.

    Raises:
        HttpError: it is too large, or is not said to be JSON.
    """
    if not request.body_exists:
        return b""
    length = request.content_length
    if length is not None and length > most_bytes:
        raise HttpError(_TOO_LARGE, f"the body has {length} bytes, and may have {most_bytes} (worker_max_body_bytes)")
    if request.content_type != "application/json":
        raise HttpError(_UNSUPPORTED, f"bodies are application/json here, not {request.content_type[:_SHOWN]!a}")
    try:
        return await request.read()
    except ConnectionError as error:
        raise Malformed("the client has gone before the end of its body") from error


def decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Return what a body says.

    Raises:
        Malformed: it is no JSON, no UTF-8, nested too deeply, or names something twice.
        Invalid: it is JSON, and not what is asked for.
    """
    _check_depth(body)
    _check_text(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _refuse(error, "the body")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, ArithmeticError) as error:
        raise Malformed(f"the body cannot be read as JSON: {str(error)[:_SHOWN]}") from error


def parameters(request: web.Request, kind: type[T], nothing: T) -> T:
    """Return what the query says.

    Raises:
        Invalid: a parameter that is unknown, or given twice, or is not what it should be.
    """
    if not request.query_string:
        return nothing
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Invalid(f"the parameter {name[:_SHOWN]!a} is given twice")
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        _refuse(error, "the query")


def exactly(text: str) -> Decimal:
    """Return a number that is not whole, as it is written."""
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{text[:_SHOWN]} is no number that can be kept") from error


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return
    depth = 0
    for found in _BRACKETS.finditer(body):
        sign = found.group()
        if sign in b"[{":
            depth += 1
            if depth > MOST_DEPTH:
                raise Malformed(f"the body is nested more than {MOST_DEPTH} deep, at byte {found.start()}")
        elif sign in b"]}":
            depth -= 1


def _check_text(body: bytes) -> None:
    try:
        _pairs.decode(body.decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is no UTF-8, at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body cannot be read as JSON: {str(error)[:_SHOWN]}") from error


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that names something twice: which of the two would count is anybody's guess."""
    if len(pairs) > 1:
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{name[:_SHOWN]!a} is given twice")
            seen.add(name)


_pairs: Final = json.JSONDecoder(object_pairs_hook=_once, parse_int=len, parse_float=len)


def _refuse(error: msgspec.ValidationError, where: str) -> NoReturn:
    found = _PLACE.match(str(error))
    what, path = (found["what"], found["where"]) if found is not None else (str(error), None)
    pointer = "".join(f"/{name or index}" for name, index in _STEP.findall(path or ""))
    place = f"{where} at {pointer}" if pointer else where
    raise Invalid(f"{place}: {what}") from error
