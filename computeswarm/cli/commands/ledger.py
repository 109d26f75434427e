"""``computeswarm ledger``: what was paid, came back and is owed, and whether the chain agrees."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from computeswarm.cli.context import Context
    from computeswarm.payments.ledger.books import Selection
    from computeswarm.payments.ledger.entries import Entry, Kind, Role, Totals

_ABOUT = """\
Amounts in brackets have not moved. Times are this machine's (CSV: UTC).

--audit compares the books with the chain: every receipt, every transfer from and to the wallet,
the balances and the payment channels. With several addresses in --rpc, or one in rpc_confirm, a
second node has to say the same as the first.
Exit codes: 0 clean, 1 differences, 125 it could not be compared.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _ABOUT
    parser.add_argument("--role", choices=("buyer", "seller"), help="only one side's books")
    parser.add_argument("--since", metavar="WHEN", help="7d, 12h, or a date such as 2026-11-25")
    parser.add_argument("--until", metavar="WHEN", help="up to then; a date counts whole")
    parser.add_argument("--job", metavar="ID", default="", help="one job, by the start of its id")
    parser.add_argument("--kind", metavar="KIND", help="payment, refund, owed, deposit, …")
    parser.add_argument("--limit", metavar="N", type=_count, help="only the newest N")
    parser.add_argument("--csv", action="store_true", help="comma-separated, for a spreadsheet")
    parser.add_argument("--wide", action="store_true", help="hashes and addresses in full")
    parser.add_argument("--audit", action="store_true", help="compare with the chain")


def run(context: Context) -> object:
    """List the books, or audit them."""
    context.warn_of_real_money()
    args = context.args
    if args.audit:
        from computeswarm.cli.auditing import audit

        if any((args.role, args.until, args.job, args.kind, args.limit, args.csv)):
            raise UsageError("An audit takes the books whole; of the filters only --since is left.")
        return audit(context, None if args.since is None else _moment(args.since, time.time()))
    if args.csv and context.json:
        raise UsageError("Choose one of --csv and --json.")
    return _list(context)


def _list(context: Context) -> int:
    from computeswarm.payments.ledger.books import Books
    from computeswarm.payments.ledger.entries import Totals

    sums: dict[Role, Totals] = {}
    elsewhere = Totals()
    chain = context.settings.chain
    with Books(context.paths, chain.chain_id) as books:
        everything = books.entries(_selection(context))
        entries = _newest(_on_chain(everything, chain.chain_id, elsewhere), context.args.limit)
        _show(context, _counted(entries, sums))
    if elsewhere.entries:
        context.note(f"{elsewhere.entries} entries are not on {chain.title}; see --network.")
    _conclude(context, sums)
    return ExitCode.OK


def _conclude(context: Context, sums: dict[Role, Totals]) -> None:
    """The totals, of each side for itself: one's income is the other's expense."""
    from computeswarm.payments.ledger.export import totals_document, totals_lines

    if context.json:
        for role, side in sums.items():
            chain = context.settings.chain.document()
            context.document({**totals_document(role, side), **chain})
        return
    nothing = "The books have nothing of that kind; `computeswarm run SCRIPT` buys something."
    lines = [line for role, side in sums.items() for line in totals_lines(role, side)]
    for line in lines or [nothing]:
        (context.note if context.args.csv else context.text)(line)


def _show(context: Context, entries: Iterator[tuple[Entry, int]]) -> None:
    """Each line as its entry is read: books may be long."""
    from computeswarm.payments.ledger import export

    write: Callable[[str], object] = sys.stdout.write
    if context.args.csv:
        write(export.csv_line(export.CSV_COLUMNS))
        for entry, running in entries:
            write(export.csv_row(entry, running))
    elif context.json:
        import json

        for entry, running in entries:
            write(json.dumps(export.document(entry, running), ensure_ascii=False) + "\n")
    elif context.args.wide:
        for entry, _ in entries:
            write(export.wide_line(entry) + "\n")
    else:
        for number, (entry, _) in enumerate(entries):
            if number == 0:
                write(export.table_line([head.removeprefix(">") for head in export.HEAD]) + "\n")
            write(export.table_line(export.table_row(entry)) + "\n")


def _on_chain(entries: Iterable[Entry], chain_id: int, elsewhere: Totals) -> Iterator[Entry]:
    """Those of one chain: sums of real money and test money would tell nothing."""
    for entry in entries:
        if entry.chain_id == chain_id:
            yield entry
        else:
            elsewhere.add(entry)


def _counted(entries: Iterable[Entry], sums: dict[Role, Totals]) -> Iterator[tuple[Entry, int]]:
    """Each entry, with what its side has gained so far."""
    from computeswarm.payments.ledger.entries import Totals

    for entry in entries:
        side = sums.setdefault(entry.role, Totals())
        side.add(entry)
        yield entry, side.net


def _newest(entries: Iterable[Entry], limit: int | None) -> Iterable[Entry]:
    return entries if limit is None else deque(entries, maxlen=limit)


def _selection(context: Context) -> Selection:
    from computeswarm.payments.ledger.books import Selection
    from computeswarm.payments.ledger.entries import Role

    args, now = context.args, time.time()
    return Selection(
        role=Role(args.role) if args.role else None,
        since=0.0 if args.since is None else _moment(args.since, now),
        until=9e9 if args.until is None else _moment(args.until, now, whole_day=True),
        job=args.job.strip(),
        kind=_kind(args.kind) if args.kind else None,
    )


def _kind(text: str) -> Kind:
    from computeswarm.payments.ledger.entries import Kind

    known = [str(kind) for kind in Kind]
    for name in (text, f"channel_{text}"):
        if name in known:
            return Kind(name)
    # what is short for two kinds is the one without a channel
    names = ", ".join(
        name if (short := name.removeprefix("channel_")) != name and short in known else short
        for name in known
    )
    raise UsageError(f"There is no kind {text[:40]!r}; use one of {names}.")


def _moment(text: str, now: float, *, whole_day: bool = False) -> float:
    """Unix seconds of ``7d`` (so long ago) or of a date, in this machine's time zone."""
    from computeswarm.core.durations import parse_duration
    from computeswarm.core.errors import BadRequest

    try:
        day = datetime.fromisoformat(text.strip())
    except ValueError:
        day = None
    if day is not None:
        end_of_day = 86_400 if whole_day and len(text.strip()) <= len("2026-11-25") else 0
        return day.timestamp() + end_of_day
    try:
        return now - parse_duration(text)
    except BadRequest:
        raise UsageError(
            f"{text[:40]!r} is no moment; write 7d, 12h or a date such as 2026-11-25."
        ) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no count; write 1 or more")
    return int(text)
