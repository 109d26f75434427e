"""The values of a comparison as ranges of integers, whatever unit they were typed in."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from computeswarm.core.query.kinds import Field, Kind
from computeswarm.core.query.versions import version_span

_PART = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?P<unit>[a-z%$]*)", re.ASCII)
_DIGITS, _DECIMALS = 18, 8
_TYPED_DIGITS, _TYPED_DECIMALS = 12, 6
_MONEY = dict.fromkeys(("$", "usd", "usdc"), Fraction(1))
_UNITS: dict[str, dict[str, Fraction]] = {
    "GiB": {
        **dict.fromkeys(("g", "gb", "gib"), Fraction(1)),
        **dict.fromkeys(("t", "tb", "tib"), Fraction(1024)),
    },
    "seconds": {
        **dict.fromkeys(("s", "sec"), Fraction(1)),
        **dict.fromkeys(("m", "min"), Fraction(60)),
        **dict.fromkeys(("h", "hr"), Fraction(3600)),
        "d": Fraction(86400),
    },
    "0 to 1": {"%": Fraction(1, 100)},
    "TFLOPS": {
        **dict.fromkeys(("t", "tf", "tflops"), Fraction(1)),
        **dict.fromkeys(("p", "pf", "pflops"), Fraction(1000)),
    },
    "USDC an hour": _MONEY,
    "USDC for an hour of one TFLOPS": _MONEY,
}


@dataclass(frozen=True, slots=True)
class Amount:
    """A value as typed: where it begins and ends in the column's integers, and its plain text."""

    first: Fraction
    last: Fraction
    text: str


def read_amount(field: Field, text: str) -> Amount | None:
    """A single value of a field that is compared; ``None`` where it can't be read."""
    lower = text.lower()
    if field.kind is Kind.VERSION:
        span = version_span(lower)
        if span is None:
            return None
        return Amount(Fraction(span[0]), Fraction(span[1]), lower.removeprefix("v"))
    if field.kind in (Kind.RANK, Kind.CHOICE):
        if lower not in field.choices:
            return None
        place = Fraction(field.choices.index(lower))
        return Amount(place, place, lower)
    number = _number(lower, _UNITS.get(field.unit, {}), several=field.unit == "seconds")
    if number is None:
        return None
    return Amount(number * field.scale, number * field.scale, _plain(number))


def compare(field: Field, op: str, amount: Amount) -> tuple[int, int]:
    """The integers for which ``field op amount`` holds, as a range with both ends included."""
    first, last = math.ceil(amount.first), math.floor(amount.last)
    ranges = {
        ">=": (first, field.most),
        ">": (last + 1, field.most),
        "<=": (field.least, last),
        "<": (field.least, first - 1),
    }
    return clamp(field, *ranges.get(op, (first, last)))


def clamp(field: Field, first: int, last: int) -> tuple[int, int]:
    """The known values of a range: what is unknown is neither more nor less than anything."""
    return max(first, field.least), min(last, field.most)


def _number(text: str, units: dict[str, Fraction], *, several: bool) -> Fraction | None:
    if "$" in units:
        text = text.removeprefix("$")
    total, at = Fraction(0), 0
    while at < len(text) and (at == 0 or several):
        part = _PART.match(text, at)
        if part is None or not _sized(part["number"], part["unit"]):
            return None
        unit = units.get(part["unit"], Fraction(1) if not part["unit"] else None)
        if unit is None:
            return None
        total += Fraction(part["number"]) * unit
        at = part.end()
    return total if at == len(text) and at else None


def _sized(number: str, unit: str) -> bool:
    """What a person types is short; what we write of it without a unit may be a little longer."""
    digits, _, decimals = number.partition(".")
    if unit:
        return len(digits) <= _TYPED_DIGITS and len(decimals) <= _TYPED_DECIMALS
    return len(digits) <= _DIGITS and len(decimals) <= _DECIMALS


def _plain(number: Fraction) -> str:
    text = f"{Decimal(number.numerator) / Decimal(number.denominator):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
