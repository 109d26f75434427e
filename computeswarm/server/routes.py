"""One operation of a server: how it is reached, what it takes, what it answers, who may ask.

A server is built from these, and so is its OpenAPI document, so the two can't differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp.typedefs import Handler
from pydantic import BaseModel

from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from computeswarm.server.web import SlowClient, UnsupportedMedia

PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a path, a query or a header."""

    about: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    """JSON Schema of its value."""
    example: Any = None
    required: bool = False
    """Of a query or a header; a path's always are."""


Parameters = Mapping[str, "str | Parameter"]
"""By name; a text is a free one's meaning."""


def whole(about: str, least: int, most: int, *, default: int | None = None) -> Parameter:
    """A whole number."""
    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    if default is not None:
        schema["default"] = default
    return Parameter(about, schema)


def read_whole(given: Mapping[str, str], name: str, parameter: Parameter) -> int:
    """A ``whole`` parameter as it came; one without a default has to be there.

    Raises:
        BadRequest: it is none, or too small or large.
    """
    least, most = parameter.schema["minimum"], parameter.schema["maximum"]
    text = given.get(name)
    if text is None:
        return int(parameter.schema["default"])
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most}.")
    return int(text)


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: how it is reached, who handles it, and what goes in and out."""

    method: str
    path: str
    """aiohttp's spelling; a pattern as in ``{tail:.+}`` is left out of the document."""
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    replies: Mapping[int, type[BaseModel] | str | None] = field(default_factory=dict)
    """By status: a model, the content type of something else, or None for an empty body."""
    query: Parameters = field(default_factory=dict)
    headers: Parameters = field(default_factory=dict)
    """Request headers; given as texts they are required."""
    path_parameters: Parameters = field(default_factory=dict)
    """What is known of them; the names come from the path."""
    errors: tuple[type[ComputeSwarmError], ...] = ()
    """What this route may refuse with, beside what every route may."""
    security: tuple[str, ...] = ()
    """Names in ``openapi.SECURITY``, all of them needed; empty for everybody."""
    limit: str = ""
    """The rate limit it counts under, one of ``market.limits.Kind``; empty for none."""
    public: bool = False
    """Other sites' pages may read it too (CORS): what everybody may know."""
    example: Any = None
    """A body, for readers of the document."""
    hot: bool = False
    """It is looked for before all others, see ``server.hot``; at most one of an application."""

    @property
    def public_path(self) -> str:
        """The path as OpenAPI spells it."""
        return PARAMETER.sub(r"{\1}", self.path)

    def refusals(self) -> Iterator[type[ComputeSwarmError]]:
        """Every error this route declares, or has from what it is."""
        yield from self.errors
        if self.body is not None or self.query or PARAMETER.search(self.path):
            yield BadRequest
        if self.body is not None:
            yield from (TooLarge, SlowClient, UnsupportedMedia)
        if self.security:
            yield Unauthorized
        if self.limit:
            yield TooManyRequests
