"""What a field of the language is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from computeswarm.core.query.facts import Facts
from computeswarm.core.text import squeeze

MOST = 2**62
_JOINED = ("text", "gpu")
"""Columns whose texts are squeezed already, with bars between them."""


class Kind(StrEnum):
    """How a field's values are written. All but texts are integers in a column."""

    NUMBER = "number"
    VERSION = "version"
    RANK = "rank"
    """Names with an order: ``isolation>=container``."""
    CHOICE = "choice"
    """Names without one."""
    FLAG = "flag"
    """Yes or no; stands alone."""
    TEXT = "text"


class Look(StrEnum):
    """Where in a text a word is looked for; both are squeezed first."""

    CONTAINS = "contains"
    PREFIX = "prefix"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the language."""

    name: str
    kind: Kind
    about: str
    example: str
    column: str
    """The attribute of ``Facts``."""
    unit: str = ""
    aliases: tuple[str, ...] = ()
    scale: int = 1
    """Integers of the column for one unit of the query."""
    least: int = 0
    most: int = MOST
    """Known values; one outside of them is unknown, and no comparison holds for it."""
    best: int = 0
    """Order of a sort: 1 small first, -1 large first, 0 not sortable."""
    look: Look = Look.CONTAINS
    choices: tuple[str, ...] = ()
    """Names by their integer, for ranks and choices."""

    def number(self, node: Facts) -> int:
        """The integer of a field that is not a text."""
        value = getattr(node, self.column)
        return self.choices.index(value) if isinstance(value, str) else int(value)

    def texts(self, node: Facts) -> tuple[str, ...]:
        """The squeezed texts of a text field; a word is found where it is in one of them."""
        value = getattr(node, self.column)
        if self.column in _JOINED:
            return tuple(value.split("|"))
        if self.column == "node_id":  # people leave out what all ids begin with
            return squeeze(value), squeeze(value.removeprefix("nd-"))
        return tuple(map(squeeze, (value,) if isinstance(value, str) else value))
