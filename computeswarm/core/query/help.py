"""The language explained, from its own table."""

from __future__ import annotations

import textwrap

from computeswarm.core.query.fields import FIELDS, FLAGS
from computeswarm.core.query.kinds import Field

EXAMPLE = "gpu:4090|a100 vram>=24 price<2 rel>=0.98 isolation>=container region:eu online sort:cost"
RULES = (
    ("a b", "both must hold"),
    ("gpu:a|b", "either; texts are found by parts of them, whatever their spelling"),
    ("vram:24..48", "from 24 to 48, both included; 24.. and ..48 are open at one end"),
    ("-region:cn", "must not hold; so do !region:cn, not region:cn and region!=cn"),
    ('name:"my rig"', "quotes keep spaces together, and take a flag's name for a text"),
    ("sort:-price", "an order, best first; - turns it round"),
)


def describe(field: Field) -> str:
    """What a field is, with its unit or its names."""
    unit = f" ({field.unit})" if field.unit else ""
    names = f" ({', '.join(field.choices)})" if field.choices else ""
    return f"{field.about}{unit}{names}"


def help_text() -> str:
    """Everything a query may hold, in lines of at most 80 cells."""
    flags = {flag.name: flag for flag in FLAGS.values()}
    lines = ["A query is words that must all hold, such as", *_wrapped("  ", EXAMPLE), ""]
    for word, meaning in RULES:
        lines += _wrapped(f"  {word:<15} ", meaning)
    lines += ["", "fields (: = != < <= > >=):"]
    for field in FIELDS.values():
        lines += _wrapped(f"  {field.name:<11} {field.example:<21} ", describe(field))
    lines += ["", "words that stand alone:"]
    lines += [f"  {name:<11} {flag.about}{_also(flag.aliases)}" for name, flag in flags.items()]
    lines += ["", "other names:"]
    for field in FIELDS.values():
        lines += _wrapped(f"  {field.name:<11} ", ", ".join(field.aliases))
    return "\n".join(lines)


def _also(aliases: tuple[str, ...]) -> str:
    return f"; also {' or '.join(aliases)}" if aliases else ""


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 80, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
