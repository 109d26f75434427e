"""A field's value as people read it."""

from __future__ import annotations

from computeswarm.core.durations import format_duration
from computeswarm.core.query.facts import Facts
from computeswarm.core.query.kinds import Field, Kind
from computeswarm.core.query.versions import version_text
from computeswarm.core.text import clean_line

UNKNOWN = "-"


def shown(field: Field, node: Facts) -> str:
    """What a node has there, cleaned and on one line; ``-`` where that is not known."""
    if field.kind is Kind.TEXT:
        value = getattr(node, field.column)
        text = value if isinstance(value, str) else " ".join(value)
        return clean_line(text, limit=40) or UNKNOWN
    number = field.number(node)
    if not field.least <= number <= field.most:
        return UNKNOWN
    if field.choices:
        return field.choices[number]
    if field.kind is Kind.FLAG:
        return "yes" if number else "no"
    if field.kind is Kind.VERSION:
        return version_text(number)
    return _number(field, number)


def _number(field: Field, number: int) -> str:
    match field.unit:
        case "seconds":
            return format_duration(number)
        case "0 to 1":
            return f"{100 * number / field.scale:.1f} %"
        case "GiB":
            return f"{number} GiB"
        case unit if unit.startswith("USDC"):
            whole, _, rest = f"{number / field.scale:.6f}".partition(".")
            return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
        case _:
            return str(number)
