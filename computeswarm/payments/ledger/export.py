"""Entries for people, spreadsheets and programs. What others named is cleaned here."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Sequence
from typing import Any

from computeswarm.core.money import format_usdc
from computeswarm.core.text import clean_line
from computeswarm.payments.ledger.entries import Entry, Role, Standing, Totals

CSV_COLUMNS = (
    "time",
    "role",
    "kind",
    "job",
    "slice",
    "peer",
    "wallet",
    "chain_id",
    "atoms",
    "usdc",
    "direction",
    "total_atoms",
    "state",
    "transaction",
    "block",
    "gas_wei",
    "channel",
    "note",
)
"""``atoms`` is signed, and 0 while nothing has moved; ``usdc`` is the entry's whole amount."""
HEAD = ("TIME", "ROLE", "KIND", "JOB", "PEER", ">USDC", "TX")
WIDTHS = (11, 6, 10, 12, 9, 11, 9)
"""Cells of the columns: with two between them, 80 in all."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_NOTE_LIMIT = 200
_HARMLESS = re.compile(r"(?:[0-9A-Za-z][0-9A-Za-z#-]{0,79})?")
"""Ids, addresses and hashes: of a long listing most cells, and nothing to clean."""


def document(entry: Entry, running: int) -> dict[str, Any]:
    """For a program: atoms, wei and unix seconds as integers where they are sums.

    Args:
        running: what this side has gained from the first listed entry to this one, in atoms.
    """
    return {
        "type": "entry",
        "at": entry.at,
        "role": str(entry.role),
        "kind": str(entry.kind),
        "job_id": _clean(entry.job_id),
        "slice": entry.slice,
        "peer": _clean(entry.peer),
        "wallet": entry.wallet,
        "chain_id": entry.chain_id,
        "amount": entry.amount,
        "direction": entry.direction,
        "change": entry.signed,
        "total": running,
        "state": str(entry.state),
        "transaction": entry.transaction,
        "block": entry.block,
        "gas_wei": None if entry.gas_wei is None else str(entry.gas_wei),
        "nonce": entry.nonce,
        "channel": entry.channel,
        "note": _clean(entry.note),
    }


def totals_document(role: Role, sums: Totals) -> dict[str, Any]:
    """The sums of one side, for a program."""
    return {
        "type": "totals",
        "role": str(role),
        "entries": sums.entries,
        "received": sums.received,
        "sent": sums.sent,
        "net": sums.net,
        "owed": sums.owed,
        "at_risk": sums.at_risk,
        "gas_wei": str(sums.gas_wei),
    }


def csv_line(cells: Sequence[object]) -> str:
    """One line of RFC 4180, with its CRLF."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()


def csv_row(entry: Entry, running: int) -> str:
    """One entry under ``CSV_COLUMNS``."""
    return csv_line(
        (
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.at)),
            entry.role,
            entry.kind,
            cell(entry.job_id),
            "" if entry.slice is None else entry.slice,
            cell(entry.peer),
            cell(entry.wallet),
            entry.chain_id,
            entry.signed,
            format_usdc(entry.amount),
            entry.direction,
            running,
            entry.state,
            cell(entry.transaction),
            "" if entry.block is None else entry.block,
            "" if entry.gas_wei is None else entry.gas_wei,
            cell(entry.channel),
            cell(entry.note),
        )
    )


def table_row(entry: Entry) -> tuple[str, ...]:
    """The cells under ``HEAD``: what has no transaction, or no certain one, shows its state."""
    return (
        time.strftime("%m-%d %H:%M", time.localtime(entry.at)),
        str(entry.role),
        _kind(entry),
        _job(entry),
        _short(entry.peer),
        _amount(entry),
        _short(entry.transaction) if entry.state is Standing.DONE else str(entry.state)[:9],
    )


def table_line(cells: Sequence[str]) -> str:
    """A line of the table: fixed columns, so that it needs no look at the whole."""
    padded = [
        cell.rjust(width) if head.startswith(">") else cell.ljust(width)
        for cell, width, head in zip(cells, WIDTHS, HEAD, strict=True)
    ]
    return "  ".join(padded).rstrip()


def wide_line(entry: Entry) -> str:
    """The same with everything in full, however long that is."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
    cells = (
        *(when, str(entry.role), _kind(entry), _clean(entry.subject, 60) or "-"),
        *(_clean(entry.peer, 66) or "-", _amount(entry), str(entry.state)),
        *(entry.transaction or "-", "" if entry.block is None else f"block {entry.block}"),
        *("" if entry.gas_wei is None else f"gas {entry.gas_wei} wei", _clean(entry.note, 80)),
    )
    return "  ".join(cell for cell in cells if cell)


def totals_lines(role: Role, sums: Totals) -> list[str]:
    """The sums of one side below a table."""
    parts = [
        f"in {format_usdc(sums.received)}",
        f"out {format_usdc(sums.sent)}",
        f"net {format_usdc(sums.net, sign=True)} USDC",
    ]
    count = f"{sums.entries} {'entry' if sums.entries == 1 else 'entries'}"
    lines = [f"{str(role).title():<7}{count}: {', '.join(parts)}"]
    if sums.owed:
        whom = "to buyers" if role is Role.SELLER else "by sellers"
        lines.append(f"       owed {whom}: {format_usdc(sums.owed)} USDC")
    if sums.at_risk:
        lines.append(f"       under way, or not certain: {format_usdc(sums.at_risk)} USDC")
    if sums.gas_wei:
        lines.append(f"       gas paid: {sums.gas_wei / 10**18:.9f} ETH")
    return lines


def _clean(text: str, limit: int = _NOTE_LIMIT) -> str:
    return text if _HARMLESS.fullmatch(text) else clean_line(text, limit=limit)


def cell(text: str) -> str:
    """Strangers' text for a spreadsheet, which would run what looks like a formula."""
    bare = _clean(text)
    return f"'{bare}" if bare.startswith(_FORMULA) else bare


def _kind(entry: Entry) -> str:
    return str(entry.kind).removeprefix("channel_")


def _job(entry: Entry) -> str:
    bare = _clean(entry.job_id.removeprefix("job-"), 60)
    mark = f"#{entry.slice}" if entry.slice else ""
    return (bare[: 12 - len(mark)] + mark)[:12] or "-"


def _short(text: str) -> str:
    bare = _clean(text, 80)
    if not bare:
        return "-"
    return bare if len(bare) <= 9 else f"{bare[:6]}…{bare[-2:]}"


def _amount(entry: Entry) -> str:
    if entry.signed:
        return format_usdc(entry.signed, sign=True)
    return f"({format_usdc(entry.amount)})"
