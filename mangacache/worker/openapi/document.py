"""The document: each route's `Operation` and the structs of `shapes`, so that it cannot say anything else than they."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.worker.asking import CUSTOMER_ID, OPERATION, Operation
from mangacache.worker.problems import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiohttp import web

_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
_PART: Final = re.compile(r"\{(\w+)(?::[^{}]+)?\}")
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 128}
_REQUEST_ID: Final = {"X-Request-Id": {"schema": {"type": "string"}}}
_PROBLEMS: Final = {
    400: "the request cannot be read",
    401: "there is no credential, or it is not good",
    403: "the credential is not good for this, or a web page asks that may not",
    404: "there is no such thing",
    408: "the body did not come in time",
    409: "somebody else changed what this builds on, or the version is newer than what is stored (version-gone)",
    412: "it is not what If-Match names",
    413: "the body is too large",
    415: "the body is not application/json",
    422: "the request cannot be carried out as it is",
    429: "a limit is reached",
    500: "the worker failed",
    502: "what is stored cannot be read",
    503: "it may succeed when tried again",
}


def operations(routes: Iterable[web.RouteDef]) -> list[Operation]:
    """Return what routes say about themselves."""
    return [getattr(each.handler, OPERATION) for each in routes]


def document(told: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of operations."""
    shapes: dict[str, type[msgspec.Struct]] = {"Problem": Problem}
    for each in told:
        for shape in (each.query, each.body, *each.answers.values()):
            if shape is not None:
                shapes[shape.__name__] = shape
    schemas, components = msgspec.json.schema_components(list(shapes.values()), ref_template=_REF)
    found = dict(zip(shapes, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in told:
        paths.setdefault(_PART.sub(r"{\1}", each.path), {})[each.method.lower()] = _operation(each, found, components)
    used = {name: schema for name, schema in components.items() if not name.endswith("Query") and name != "Freshness"}
    used.pop("Nothing", None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mangacache",
            "version": version,
            "description": (
                "Sessions of a chatbot: durable, ordered, once. Ids are percent-encoded in paths. Where GET is taken,"
                " HEAD is too: the same answer without its body."
            ),
        },
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": used,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {
                str(status): {
                    "description": what,
                    "headers": _REQUEST_ID
                    | ({"Retry-After": {"schema": {"type": "string"}}} if status in {429, 503} else {}),
                    "content": {CONTENT_TYPE: {"schema": found["Problem"]}},
                }
                for status, what in _PROBLEMS.items()
            },
        },
    }


def _operation(told: Operation, schemas: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    path = _PART.sub(r"\1", told.path).removeprefix("/v1/")
    said: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{told.method.lower()} {path}"),
        "summary": told.summary,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _ID} for name in _PART.findall(told.path)),
            *_query(told, components),
            *_headers(told),
        ],
        "responses": {str(status): _answer(status, shape, schemas) for status, shape in told.answers.items()},
    }
    if told.scope is not None:
        said["description"] = f"For callers who may {told.scope.value}."
        said["responses"] |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in _PROBLEMS}
    if told.body is not None:
        content = {_JSON: {"schema": schemas[told.body.__name__]}}
        said["requestBody"] = {"required": told.needs_body, "content": content}
    return said


def _query(told: Operation, components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = components[told.query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _without_null(each),
        }
        for name, each in schema.get("properties", {}).items()
    ]


def _headers(told: Operation) -> list[dict[str, Any]]:
    text = {"type": "string"}
    said = [
        {"name": name, "in": "header", "required": "(required)" in what, "description": what, "schema": text}
        for name, what in told.headers.items()
    ]
    if told.scope is not None and "{session_id" in told.path:
        what = "whose session it is, percent-encoded; a customer token says so by itself"
        said.append({"name": CUSTOMER_ID, "in": "header", "required": False, "description": what, "schema": text})
    return said


def _answer(status: int, shape: type[msgspec.Struct] | None, schemas: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"description": str(status), "headers": _REQUEST_ID}
    if shape is not None:
        said["description"] = (shape.__doc__ or "").partition("\n")[0]
        said["content"] = {_JSON: {"schema": schemas[shape.__name__]}}
    return said


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a parameter that is given may be: one that is left out is no null."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    if len(kinds) == 1:
        rest |= kinds[0]
    elif kinds:
        rest["anyOf"] = kinds
    if schema.get("default") is not None:
        rest["default"] = schema["default"]
    return rest
