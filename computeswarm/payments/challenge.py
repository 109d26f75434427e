"""Reading a 402: what a server asks for, in x402 version 2 (header) or 1 (body)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json

from computeswarm.core.errors import BadRequest
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import (
    HEADER_REQUIRED_V2,
    RequirementsV1,
    RequirementsV2,
    decode_header,
)

_MAX_BODY_BYTES = 256 * 1024
_MAX_OPTIONS = 32


@dataclass(frozen=True, slots=True)
class Option:
    """One way to pay. ``amount`` in atoms; ``wire`` is the entry exactly as the server wrote it,
    because a version 2 payment echoes it and servers compare it member by member.
    """

    scheme: str
    network: str
    amount: int
    asset: str
    pay_to: str
    max_timeout_seconds: int
    extra: dict[str, Any]
    wire: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A 402 that could be read; ``error`` is clean text. Nothing in it is trusted yet."""

    version: Literal[1, 2]
    options: tuple[Option, ...]
    error: str = ""
    resource: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


def parse_402(headers: Mapping[str, str], body: bytes) -> Challenge:
    """What a 402 response asks for; version 2 where it is there, else version 1.

    Entries that we can't read (other chains' address formats, say) are left out.

    Raises:
        BadRequest: neither version, or larger than any honest challenge.
    """
    header = _header(headers, HEADER_REQUIRED_V2)
    if header:
        document = decode_header(header)
        if document.get("x402Version") == 2:
            return Challenge(
                2,
                _options(document, 2),
                _error(document),
                _object(document, "resource"),
                _object(document, "extensions"),
            )
    if len(body) > _MAX_BODY_BYTES:
        raise BadRequest("The payment challenge is larger than 256 KiB.")
    document = _json(body)
    if not isinstance(document, dict) or document.get("x402Version") != 1:
        raise BadRequest("The server asks for a payment, but not in the way of x402.")
    extensions = _object(document, "extensions")
    return Challenge(1, _options(document, 1), _error(document), extensions=extensions)


def _object(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = document.get(name)
    return value if isinstance(value, dict) else None


def _json(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return None


def _header(headers: Mapping[str, str], name: str) -> str | None:
    lower = name.lower()
    return next((value for key, value in headers.items() if key.lower() == lower), None)


def _error(document: dict[str, Any]) -> str:
    return clean_line(str(document.get("error") or ""))


def _options(document: dict[str, Any], version: Literal[1, 2]) -> tuple[Option, ...]:
    accepts = document.get("accepts")
    if not isinstance(accepts, list):
        raise BadRequest("The payment challenge names no way to pay.")
    read = (_option(entry, version) for entry in accepts[:_MAX_OPTIONS] if isinstance(entry, dict))
    return tuple(option for option in read if option is not None)


def _option(entry: dict[str, Any], version: Literal[1, 2]) -> Option | None:
    found: RequirementsV1 | RequirementsV2
    try:
        if version == 1:
            found = RequirementsV1.model_validate(entry)
            amount = found.max_amount_required
        else:
            found = RequirementsV2.model_validate(entry)
            amount = found.amount
    except (ValidationError, RecursionError):
        return None
    return Option(
        found.scheme,
        found.network,
        int(amount),
        found.asset,
        found.pay_to,
        found.max_timeout_seconds,
        found.extra or {},
        entry,
    )
