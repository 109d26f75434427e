"""``computeswarm nodes --verify FILE``: check signed records offline."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeswarm.core.errors import BadRequest, ExitCode

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.core.records import CheckedRecord

_MAX_BYTES = 256 * 2**20
_HEAD = ("NODE", "NAME", "WALLET", ">CHAIN", ">NUMBER", "SIGNED")


def verify(context: Context, name: str) -> int:
    """Check the records in a file, or on stdin for ``-``.

    Raises:
        BadRequest: it can't be read, or holds no record.
    """
    from computeswarm.core.records import check_records

    checked = check_records(_read(name))
    right = [found for found in checked if found.record is not None]
    wrong = [found for found in checked if found.record is None]
    if context.json:
        context.document({"verified": [_document(found) for found in checked]})
    else:
        if right:
            context.table(_HEAD, [_row(found) for found in right])
        for found in wrong:
            context.text(f"NOT SIGNED  {found.listed_as or 'a record'}: {found.problem}")
        context.note(f"{len(right)} of {len(checked)} are signed by the wallets they name.")
    return ExitCode.DIFFERENT if wrong else ExitCode.OK


def _read(name: str) -> Any:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"{name[:200]} can't be read ({error.strerror}).") from None
    if len(data) > _MAX_BYTES:
        raise BadRequest(f"{name[:200]} has more than 256 MiB; check it in parts.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest(f"{name[:200]} is not JSON; give what a market answered.") from None


def _document(found: CheckedRecord) -> dict[str, Any]:
    record = found.record
    if record is None:
        return {"node_id": found.listed_as, "signed": False, "problem": found.problem}
    shown = record.model_dump(mode="json")
    return {
        "node_id": record.node_id,
        "signed": True,
        "chain_id": found.chain_id,
        "record": shown,
    }


def _row(found: CheckedRecord) -> tuple[str, ...]:
    from computeswarm.core.text import clean_line

    record = found.record
    assert record is not None
    when = datetime.fromtimestamp(min(record.issued_at, 2**37), UTC)
    return (
        record.node_id,
        clean_line(record.name, limit=24),
        record.wallet,
        str(found.chain_id),
        str(record.seq),
        f"{when:%Y-%m-%d %H:%M} UTC",
    )
