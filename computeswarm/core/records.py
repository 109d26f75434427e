"""Checking signed node records without asking anybody: they hold all that it takes.

A market can leave a node out, or show an older record than the newest. It can't change one, make
one up, or list one under another's id: that is what is checked here, by whoever has the JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from computeswarm.core.errors import BadRequest, ComputeSwarmError
from computeswarm.core.nodes import NodeRecord, open_record
from computeswarm.core.signing import Signed, parse
from computeswarm.core.text import clean_line

_MOST_DEEP = 4


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """One record, and whether its wallet signed it."""

    listed_as: str
    """The id that it was listed under; empty where it came by itself."""
    chain_id: int = 0
    record: NodeRecord | None = None
    """Once it is known to be right."""
    problem: str = ""
    """Why it counts for nothing, in one sentence."""


def check_records(value: Any) -> list[CheckedRecord]:
    """Check every record in a JSON value: a record, a listed node, a registration, a page, a list.

    Raises:
        BadRequest: there is none.
    """
    found = _find(value, _MOST_DEEP)
    if not found:
        raise BadRequest(
            "There is no signed record in it; give a market's JSON, such as /api/v1/nodes answers."
        )
    return [_check(listed_as, signed) for listed_as, signed in found]


def _find(value: Any, deep: int) -> list[tuple[str, Any]]:
    if isinstance(value, list) and deep:
        return [found for item in value for found in _find(item, deep - 1)]
    if not isinstance(value, dict) or not deep:
        return []
    if "document" in value and "signature" in value:
        return [("", value)]
    if "record" in value:
        return [(str(value.get("node_id", "")), value["record"])]
    return [found for name in ("nodes", "node") for found in _find(value.get(name), deep - 1)]


def _check(listed_as: str, value: Any) -> CheckedRecord:
    listed_as = clean_line(listed_as, limit=40)
    try:
        signed = parse(Signed, value)
        record = open_record(signed, expected_id=listed_as or None)
    except ComputeSwarmError as error:
        return CheckedRecord(listed_as, problem=error.detail)
    return CheckedRecord(listed_as, signed.chain_id, record)
