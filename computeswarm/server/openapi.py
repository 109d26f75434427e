"""One route table makes both the routes and their OpenAPI 3.1 document, so they can't differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import computeswarm
from computeswarm.core.errors import PROBLEM_CONTENT_TYPE
from computeswarm.server.requests import RequestMeter
from computeswarm.server.web import JSON_CONTENT_TYPE, answering, json_reply, no_such_route

_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457: what went wrong, and one sentence that says what to do.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "code", "detail"],
}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: how it is reached, who handles it, and what goes in and out."""

    method: str
    path: str
    """aiohttp's spelling; a pattern as in ``{tail:.+}`` is left out of the document."""
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    replies: dict[int, type[BaseModel] | str | None] = field(default_factory=dict)
    """By status: a model, the content type of something else, or None for an empty body."""
    query: dict[str, str] = field(default_factory=dict)
    """Query parameters and what they mean."""
    headers: dict[str, str] = field(default_factory=dict)
    """Required request headers and what they mean."""

    @property
    def public_path(self) -> str:
        """The path as OpenAPI spells it."""
        return _PARAMETER.sub(r"{\1}", self.path)


def build_app(
    routes: Sequence[Route],
    *,
    title: str,
    description: str,
    requests: RequestMeter | None = None,
) -> web.Application:
    """An application with these routes, ``GET /openapi.json`` and problem documents.

    Args:
        requests: what measures every request, if anything does.
    """
    app = web.Application()
    table = list(routes)

    def watched(method: str, path: str, handler: Handler) -> Handler:
        safe = answering(handler)
        return safe if requests is None else requests.timed(method, path, safe)

    async def openapi(_: web.Request) -> web.StreamResponse:
        return json_reply(document, headers={"Cache-Control": "public, max-age=300"})

    table.append(
        Route("GET", "/openapi.json", openapi, "This document", replies={200: JSON_CONTENT_TYPE})
    )
    document = from_routes(table, title=title, description=description)
    for route in table:
        handler = watched(route.method, route.public_path, route.handler)
        if route.method == "GET":
            app.router.add_get(route.path, handler)  # and HEAD
        else:
            app.router.add_route(route.method, route.path, handler)
    app.router.add_route("*", "/{path:.*}", watched("any", "other", no_such_route))
    return app


def from_routes(routes: Iterable[Route], *, title: str, description: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a route table."""
    table = list(routes)
    wanted: set[tuple[type[BaseModel], JsonSchemaMode]] = set()
    for route in table:
        if route.body is not None:
            wanted.add((route.body, "validation"))
        wanted |= {(m, "serialization") for m in route.replies.values() if isinstance(m, type)}
    ordered = sorted(wanted, key=lambda pair: (pair[0].__name__, pair[1]))
    refs, definitions = models_json_schema(ordered, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.public_path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": computeswarm.__version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {**definitions.get("$defs", {}), "Problem": _PROBLEM}},
    }


def _operation(route: Route, refs: dict[tuple[Any, Any], Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]
    for place, items in (("query", route.query), ("header", route.headers)):
        parameters += [
            {
                "name": name,
                "in": place,
                "required": place == "header",
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in items.items()
        ]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "responses": {
            **{str(status): _reply(made, refs) for status, made in route.replies.items()},
            "default": {
                "description": "A problem document",
                "content": {
                    PROBLEM_CONTENT_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}
                },
            },
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = refs[(route.body, "validation")]
        operation["requestBody"] = {
            "required": True,
            "content": {JSON_CONTENT_TYPE: {"schema": schema}},
        }
    return operation


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.public_path)
    return "_".join([route.method.lower(), *words])


def _reply(made: type[BaseModel] | str | None, refs: dict[tuple[Any, Any], Any]) -> dict[str, Any]:
    if made is None:
        return {"description": "Done"}
    if isinstance(made, str):
        return {"description": "OK", "content": {made: {}}}
    schema = refs[(made, "serialization")]
    return {"description": "OK", "content": {JSON_CONTENT_TYPE: {"schema": schema}}}
