"""Earnings for people and spreadsheets."""

from __future__ import annotations

from computeswarm.core.money import format_usdc
from computeswarm.payments.ledger.export import cell, csv_line
from computeswarm.seller.earnings_rows import EarningsReport, EarningsRow

NOT_MEASURED = "not measured"
CSV_COLUMNS = (
    "by",
    "key",
    "label",
    "received_atoms",
    "refunded_atoms",
    "owed_atoms",
    "kept_atoms",
    "kept_usdc",
    "gas_wei",
    "gas_atoms",
    "kwh",
    "electricity_atoms",
    "idle_electricity_atoms",
    "net_atoms",
    "net_usdc",
    "measured_permille",
    "jobs",
    "sold_seconds",
    "offered_seconds",
)
"""New ones come at the end; the total is the last line, under ``by`` = total."""
HEAD = {
    "day": ("DAY", ">KEPT", ">GAS", ">POWER", ">NET", ">SOLD", ">JOBS"),
    "gpu": ("GPU", ">KEPT", ">GAS", ">POWER", ">NET", ">SOLD", ">JOBS"),
    "job": ("JOB", ">KEPT", ">GAS", ">POWER", ">NET", ">TIME", "NAME"),
}
_LABEL, _NAME = 30, 20


def to_csv(report: EarningsReport) -> str:
    """RFC 4180, with a heading; nothing in it is run as a formula."""
    lines = [csv_line(CSV_COLUMNS)]
    lines += [_csv_row(report.by, row) for row in report.rows]
    lines.append(_csv_row("total", report.total))
    return "".join(lines)


def table_row(by: str, row: EarningsRow) -> tuple[str, ...]:
    """The cells under ``HEAD``: four decimals, and a word where nothing was measured."""
    gas = format_usdc(-row.gas, places=4) if row.gas else "-"
    money = (format_usdc(row.kept, places=4), gas, _negative(row.electricity), _or_not(row.net))
    if by == "job":
        name = "" if row.label == row.key else row.label
        return (row.key[:10] or "other", *money, _hours(row.sold_seconds), name[:_NAME] or "-")
    return (row.label[:_LABEL], *money, _sold(row), str(row.jobs))


def summary(report: EarningsReport) -> list[str]:
    """The total in words, below a table."""
    total = report.total
    parts = [f"kept {format_usdc(total.kept)} USDC"]
    if total.gas:
        parts.append(f"gas {format_usdc(total.gas)}")
    if total.net is not None:
        parts.append(f"net {format_usdc(total.net, sign=True)}")
    lines = [f"{report.first_day} to {report.last_day}: {', '.join(parts)}.", _current(report)]
    if not (total.offered_seconds or total.received):
        lines.append("Nothing was sold or on offer in these days; `computeswarm seller` begins.")
    used = total.sold_seconds / 3600, total.offered_seconds / 3600
    if total.offered_seconds:
        share = f"{100 * total.sold_seconds / total.offered_seconds:.0f} %"
        lines.append(f"Sold {used[0]:.1f} of {used[1]:.1f} hours offered ({share}).")
    if total.owed:
        lines.append(
            f"Still to go back to buyers, and not counted: {format_usdc(total.owed)} USDC."
        )
    if report.left_out:
        lines.append(f"{report.left_out} older rows are left out; the total counts them.")
    return lines


def _current(report: EarningsReport) -> str:
    total = report.total
    if total.electricity is None or total.joules is None:
        return "Electricity: not measured."
    part = total.measured_permille or 0
    only = "" if part >= 995 else f", measured {part / 10:.0f} % of the time"
    idle = total.idle_electricity or 0
    return (
        f"Electricity: {format_usdc(total.electricity)} ({total.joules / 3.6e6:.3f} kWh at "
        f"{format_usdc(report.electricity_price)}; idle {format_usdc(idle)}{only})."
    )


def _csv_row(by: str, row: EarningsRow) -> str:
    measured = row.joules is not None
    return csv_line(
        (
            *(by, cell(row.key), cell(row.label)),
            *(row.received, row.refunded, row.owed, row.kept, format_usdc(row.kept)),
            *(row.gas_wei, row.gas),
            f"{(row.joules or 0) / 3.6e6:.6f}" if measured else NOT_MEASURED,
            *(_known(row.electricity), _known(row.idle_electricity), _known(row.net)),
            NOT_MEASURED if row.net is None else format_usdc(row.net),
            row.measured_permille or 0,
            *(row.jobs, row.sold_seconds, row.offered_seconds),
        )
    )


def _known(value: int | None) -> int | str:
    return NOT_MEASURED if value is None else value


def _or_not(atoms: int | None) -> str:
    return NOT_MEASURED if atoms is None else format_usdc(atoms, places=4, sign=True)


def _negative(atoms: int | None) -> str:
    return NOT_MEASURED if atoms is None else format_usdc(-atoms, places=4)


def _sold(row: EarningsRow) -> str:
    return "-" if row.utilisation is None else f"{100 * row.utilisation:.0f} %"


def _hours(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
