"""The extension ``bazaar``: how a paid address is called, for those who list such addresses.

Source: the x402 specification's bazaar, and section 8 of its version 2; times as the published
packages write them. In the 402 it has to be short, for clients send it back in a header.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

BAZAAR = "bazaar"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def described(
    body: Mapping[str, Any], example: Mapping[str, Any], *, schema: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What stands under ``extensions["bazaar"]`` for a POST of JSON that answers JSON.

    Args:
        body: an example of the request's body.
        example: an example of the answer.
        schema: the body's JSON schema; left out where it has to be short.
    """
    return {
        "info": {
            "input": {"type": "http", "method": "POST", "bodyType": "json", "body": dict(body)},
            "output": {"type": "json", "example": dict(example)},
        },
        "schema": {
            "$schema": _DIALECT,
            "type": "object",
            "properties": {
                "input": {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "const": "http"},
                        "method": {"type": "string", "enum": ["POST"]},
                        "bodyType": {"type": "string", "enum": ["json"]},
                        "body": dict(schema) if schema else {"type": "object"},
                    },
                    "required": ["type", "method", "bodyType", "body"],
                    "additionalProperties": False,
                },
                "output": {
                    "type": "object",
                    "properties": {"type": {"type": "string"}, "example": {"type": "object"}},
                    "required": ["type"],
                },
            },
            "required": ["input"],
        },
    }


def discovered(
    resource: str, *, accepts: list[dict[str, Any]], last_updated: int,
    metadata: Mapping[str, Any], extensions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One entry of a list of resources; ``last_updated`` in unix seconds."""
    entry = {
        "resource": resource,
        "type": "http",
        "x402Version": 2,
        "accepts": accepts,
        "lastUpdated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(last_updated)),
        "metadata": dict(metadata),
    }
    return entry | {"extensions": dict(extensions)} if extensions else entry


def page_of(items: list[dict[str, Any]], *, limit: int, offset: int, total: int) -> dict[str, Any]:
    """A part of such a list, as ``GET /discovery/resources`` answers it."""
    return {
        "x402Version": 2,
        "items": items,
        "pagination": {"limit": limit, "offset": offset, "total": total},
    }
