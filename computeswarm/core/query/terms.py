"""A parsed query as data: terms that anything can look up nodes by."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as member

from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.query.facts import Facts, facts_of
from computeswarm.core.query.fields import DEFAULT_SORT, FIELDS, FLAGS
from computeswarm.core.query.kinds import Kind
from computeswarm.core.query.match import SORT_KEYS, found_in, number_in

KEYWORDS = ("not", "and", "or")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: a field has one of some values.

    Where the field is a text, it holds for a node with one of ``words`` in it; for every other
    field, for a node whose integer lies in one of ``ranges``.
    """

    field: str
    """Its name in ``FIELDS``; ``text`` for a bare word."""
    op: str
    """As written; empty for words that stand alone."""
    values: tuple[str, ...]
    """As written, in the field's unit and without quotes; flags by their names."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Alternatives: first and last integer of the column, both included. One may be empty."""
    words: tuple[str, ...] = ()
    """Alternatives, squeezed."""
    negated: bool = False
    position: int = member(default=0, compare=False)
    length: int = member(default=0, compare=False)
    """Where it stands in the query, in characters."""

    def accepts(self, node: Facts) -> bool:
        """Whether it holds for a node."""
        known = FIELDS[self.field]
        if known.kind is Kind.TEXT:
            return found_in(known, node, self.words) != self.negated
        return number_in(known.number(node), self.ranges) != self.negated

    def __str__(self) -> str:
        """What parses to the same term."""
        alone = bool(self.words) and not self.op
        values = "|".join(_quoted(value) if alone else value for value in self.values)
        return f"{'-' if self.negated else ''}{self.field if self.op else ''}{self.op}{values}"


def _quoted(word: str) -> str:
    """A bare word that is looked for, though it would mean something else."""
    return f'"{word}"' if word in FLAGS or word in KEYWORDS else word


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. Two are equal that ask for the same in the same words."""

    text: str = member(compare=False)
    terms: tuple[Term, ...] = ()
    sort: str = DEFAULT_SORT
    """A field's name; ``-`` before it turns the order round."""
    shows_offline: bool = False
    """Nodes that are offline stay hidden unless the query speaks of them."""

    def accepts(self, node: Facts) -> bool:
        """Whether a node with these facts is found."""
        if node.status is NodeStatus.OFFLINE and not self.shows_offline:
            return False
        return all(term.accepts(node) for term in self.terms)

    def matches(self, node: ComputeNode) -> bool:
        """Whether ``node`` is found; raises as ``facts_of`` does."""
        return self.accepts(facts_of(node))

    def sort_key(self, node: Facts) -> tuple[int, ...]:
        """Integers whose order is the order of the list (JSON keeps them exact, for cursors)."""
        value = SORT_KEYS[self.sort.removeprefix("-")](node)
        sign = -1 if self.sort.startswith("-") else 1
        if isinstance(value, int):
            return (sign * value,)
        # a word's end sorts before any letter
        return (*(sign * (ord(c) + 1) for c in value), 0)

    def __str__(self) -> str:
        """A query that parses to an equal one; it may be longer than what was typed."""
        words = [str(term) for term in self.terms]
        return " ".join(words if self.sort == DEFAULT_SORT else [*words, f"sort:{self.sort}"])
