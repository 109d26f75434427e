"""One route table makes both the routes and their OpenAPI 3.1 document, so they can't differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import computeswarm
from computeswarm.core.errors import PROBLEM_CONTENT_TYPE, TooManyRequests, Unavailable
from computeswarm.core.market_auth import COUNTER_HEADER, MAC_HEADER, NODE_HEADER
from computeswarm.core.sessions import PERMIT_HEADER
from computeswarm.server.routes import PARAMETER, Parameter, Route
from computeswarm.server.web import JSON_CONTENT_TYPE

_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457: what went wrong, and one sentence that says what to do.",
    "properties": {
        "type": {"type": "string", "examples": ["urn:computeswarm:error:node_not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "description": "for programs; stays as it is"},
        "detail": {"type": "string", "description": "for people; may change"},
    },
    "required": ["type", "title", "status", "code", "detail"],
    "additionalProperties": True,
}


def _api_key(header: str, text: str) -> dict[str, Any]:
    return {"type": "apiKey", "in": "header", "name": header, "description": text}


SECURITY: dict[str, dict[str, Any]] = {
    "node": _api_key(NODE_HEADER, "The node's id. Goes with counter and mac."),
    "counter": _api_key(
        COUNTER_HEADER, "Higher than in every call before under this session. Goes with mac."
    ),
    "mac": _api_key(
        MAC_HEADER,
        "HMAC-SHA256 in hex over method, path, counter and body, under the key that both sides of a"
        " registration agreed on.",
    ),
    "permit": _api_key(
        PERMIT_HEADER,
        "Base64 of a `Signed` WalletRead: its wallet's word that whoever holds it may read what the"
        " market keeps of that wallet's jobs.",
    ),
    "owner": {
        "type": "http",
        "scheme": "bearer",
        "description": "The owner's token, which lies in the seller's folder.",
    },
}
CALL = ("node", "counter", "mac")
"""The security of a call under a node's session."""
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}


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
    used = {name for route in table for name in route.security}
    components: dict[str, Any] = {
        "schemas": {**definitions.get("$defs", {}), "Problem": _PROBLEM},
    }
    if used:
        components["securitySchemes"] = {n: s for n, s in SECURITY.items() if n in used}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": computeswarm.__version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    }


def _operation(route: Route, refs: dict[tuple[Any, Any], Any]) -> dict[str, Any]:
    parameters = [
        _parameter(name, "path", route.path_parameters.get(name, ""), required=True)
        for name in PARAMETER.findall(route.path)
    ]
    parameters += [
        _parameter(name, "query", it, required=False) for name, it in route.query.items()
    ]
    parameters += [
        _parameter(name, "header", it, required=True) for name, it in route.headers.items()
    ]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "responses": {
            **{str(status): _reply(status, made, refs) for status, made in route.replies.items()},
            **_refusals(route),
            "default": _problem("Anything else that went wrong"),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content: dict[str, Any] = {"schema": refs[(route.body, "validation")]}
        if route.example is not None:
            content["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {JSON_CONTENT_TYPE: content}}
    if route.security:
        operation["security"] = [{name: [] for name in route.security}]
    return operation


def _parameter(name: str, place: str, given: str | Parameter, *, required: bool) -> dict[str, Any]:
    parameter = given if isinstance(given, Parameter) else Parameter(given, required=required)
    made: dict[str, Any] = {
        "name": name,
        "in": place,
        "required": parameter.required or place == "path",
        "schema": dict(parameter.schema),
    }
    if parameter.about:
        made["description"] = parameter.about
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.public_path)
    return "_".join([route.method.lower(), *words])


def _reply(
    status: int, made: type[BaseModel] | str | None, refs: dict[tuple[Any, Any], Any]
) -> dict[str, Any]:
    described = {"description": HTTPStatus(status).phrase}
    if made is None:
        return described
    if isinstance(made, str):
        return {**described, "content": {made: {}}}
    schema = refs[(made, "serialization")]
    return {**described, "content": {JSON_CONTENT_TYPE: {"schema": schema}}}


def _refusals(route: Route) -> dict[str, Any]:
    """The problem documents of a route by status, each with its codes."""
    by_status: dict[int, dict[str, str]] = {}
    for error in route.refusals():
        by_status.setdefault(error.status, {})[error.code] = error.title
    made: dict[str, Any] = {}
    for status, codes in sorted(by_status.items()):
        if status in route.replies:
            continue  # the route answers it in a form of its own
        text = "; ".join(f"`{code}`: {title}" for code, title in sorted(codes.items()))
        made[str(status)] = _problem(text)
        if status in (TooManyRequests.status, Unavailable.status):
            made[str(status)]["headers"] = {"Retry-After": _RETRY_AFTER}
    return made


def _problem(text: str) -> Mapping[str, Any]:
    reference = {"$ref": _REF.format(model="Problem")}
    return {"description": text, "content": {PROBLEM_CONTENT_TYPE: {"schema": reference}}}
