"""Reading a query: from text to terms, with errors that point at the word.

A query is words that must all hold. A word is ``field:value`` with ``:``, ``=``, ``!=``, ``<``,
``<=``, ``>`` or ``>=``; or a flag such as ``online``; or anything else, which is looked for in
model, name, region and processor and at the beginning of the id. ``a|b`` means either, ``24..48``
a range, ``-`` or ``!`` or ``not`` before a word that it must not hold, and quotes keep spaces
together.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, NoReturn

from computeswarm.core.query.fields import DEFAULT_SORT, FLAGS, NAMES, OFFLINE, SORTABLE, Flag
from computeswarm.core.query.hints import example_of, invalid, nearest, unknown, unreadable
from computeswarm.core.query.kinds import Field, Kind
from computeswarm.core.query.match import number_in
from computeswarm.core.query.numbers import Amount, clamp, compare, read_amount
from computeswarm.core.query.terms import KEYWORDS, Query, Term
from computeswarm.core.text import clean_line, squeeze

MAX_LENGTH = 500
MAX_VALUES = 64
"""Values in one query: each may be looked for in every node."""
_WORD = re.compile(
    r"(?P<minus>[-!])?"
    r"(?:(?P<key>[A-Za-z_]+)\s*(?P<op>>=|<=|==|!=|>|<|=|:)\s*)?"
    r'(?P<value>(?:"[^"]*"|[^\s"])*)'
)
_PART = re.compile(r'(?:"[^"]*"|[^|"])*')
_SPACE = re.compile(r"\s*")
_OPERATOR = re.compile(r"[<>=:]|!=")
_NEGATION = "-"
_YES, _NO = ("yes", "true", "1", "on"), ("no", "false", "0", "off")


class _Part(NamedTuple):
    """One of the alternatives of a value."""

    text: str
    at: int
    length: int
    quoted: bool


@lru_cache(maxsize=512)
def parse(text: str, *, sort: str = "") -> Query:
    """Read a query; ``sort`` is the order where the text itself names none.

    Raises:
        InvalidQuery: ``extra`` holds ``position`` and ``length`` (characters) of the part that
            can't be read, and ``word``, that part cleaned for display.
    """
    order = _sort_name(sort, 0, sort) if sort else ""
    return _Reader(text).read(order)


class _Reader:
    """Goes through one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._terms: list[Term] = []
        self._values = 0
        self._negation: tuple[int, int] | None = None
        """Where a ``not`` stands whose word has yet to come."""

    def read(self, order: str) -> Query:
        if len(self._text) > MAX_LENGTH:
            self._fail(
                MAX_LENGTH,
                len(self._text) - MAX_LENGTH,
                f"A query has at most {MAX_LENGTH} characters.",
            )
        at = self._skip(0)
        while at < len(self._text):
            word = _WORD.match(self._text, at)
            assert word is not None  # every part of it may be empty
            if word.end() < len(self._text) and self._text[word.end()] == '"':
                self._fail(
                    word.end(), len(self._text) - word.end(), "A quotation mark is not closed."
                )
            if (word["key"] or "").lower() == "sort":
                order = self._sort(word)
            else:
                self._word(word)
            at = self._skip(word.end())
        if self._negation is not None:
            self._fail(*self._negation, "'not' has nothing after it; write not region:cn.")
        shows_offline = any(map(_speaks_of_offline, self._terms))
        return Query(self._text, tuple(self._terms), order or DEFAULT_SORT, shows_offline)

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self._text, at)
        return space.end() if space else at

    # -- words

    def _word(self, word: re.Match[str]) -> None:
        start, value = word.start(), word["value"]
        if word["key"] is None and value.lower() in KEYWORDS and not word["minus"]:
            self._keyword(start, value)
            return
        negated = bool(word["minus"]) or self._negation is not None
        if word["minus"] and self._negation is not None:
            self._fail(start, word.end() - start, "It is negated twice; leave one out.")
        begin = start if self._negation is None else self._negation[0]
        self._negation = None
        term = self._bare(word) if word["key"] is None else self._pair(word)
        self._terms.append(
            Term(
                term.field,
                term.op,
                term.values,
                term.ranges,
                term.words,
                negated != term.negated,
                begin,
                _end(word) - begin,
            )
        )

    def _keyword(self, start: int, word: str) -> None:
        match word.lower():
            case "not" if self._negation is not None:
                self._fail(start, len(word), "It is negated twice; leave one out.")
            case "not":
                self._negation = (start, len(word))
            case "or":
                sentence = "'or' joins values of one field; write gpu:4090|a100."
                self._fail(start, len(word), sentence)
            case _:  # all words must hold anyway
                return

    def _bare(self, word: re.Match[str]) -> Term:
        parts = self._parts(word)
        span = word.start(), word.end() - word.start()
        if not word["value"] or _OPERATOR.match(word["value"]):
            self._fail(*span, f"{clean_line(word[0])!r} can't be read; write KEY:VALUE.")
        flags = [FLAGS.get(part.text.lower()) for part in parts if not part.quoted]
        alone = [flag for flag in flags if flag is not None]
        if alone:
            if len(alone) != len(parts) or len({flag.field for flag in alone}) > 1:
                part = next(part for part in parts if FLAGS.get(part.text.lower()) is not None)
                self._fail(
                    part.at,
                    part.length,
                    f"{clean_line(part.text)!r} can't stand beside other words; quote it to look "
                    "for that text.",
                )
            return _flag_term(*alone)
        words = []
        for part in parts:
            squeezed = squeeze(part.text)
            if not squeezed:
                self._fail(*span, f"{clean_line(word[0])!r} can't be read; write KEY:VALUE.")
            words.append(squeezed)
        return Term("text", "", tuple(words), words=tuple(words))

    def _pair(self, word: re.Match[str]) -> Term:
        key, op = word["key"].lower(), word["op"].replace("==", "=")
        start, length = word.start("key"), len(word["key"])
        field, flag = NAMES.get(key), FLAGS.get(key)
        if field is None and flag is None:
            self._fail(start, length, unknown(word["key"]))
        if not word["value"]:
            name = field.name if field else key
            self._fail(
                word.start(),
                _end(word) - word.start(),
                f"{clean_line(self._text[word.start() : _end(word)])!r} has no value; "
                f"write {example_of(field) if field else name}.",
            )
        parts = self._parts(word)
        if field is None or field.kind is Kind.FLAG:
            assert flag is not None
            return self._yes_or_no(flag, op, parts, word)
        if op == "!=":
            return self._compared(field, "=", parts, word, negated=True)
        return self._compared(field, op, parts, word, negated=False)

    def _compared(
        self, field: Field, op: str, parts: list[_Part], word: re.Match[str], *, negated: bool
    ) -> Term:
        orders = op not in (":", "=")
        if field.kind in (Kind.TEXT, Kind.CHOICE) and orders:
            what = "a text" if field.kind is Kind.TEXT else "one of several names"
            sentence = f"{field.name} is {what}; write {field.name}:{clean_line(word['value'])}."
            self._fail(word.start("key"), word.end() - word.start("key"), sentence)
        if field.kind is Kind.TEXT:
            words = tuple(self._squeezed(field, part, word) for part in parts)
            return Term(field.name, op, words, words=words, negated=negated)
        if orders and len(parts) > 1:
            part = parts[1]
            self._fail(
                part.at - 1,
                part.length + 1,
                f"{op} takes one value; write several as {field.name}:"
                f"{'|'.join(clean_line(part.text) for part in parts)}.",
            )
        values, ranges = [], []
        for part in parts:
            value, span = self._range(field, op, part)
            values.append(value)
            ranges.append(span)
        return Term(field.name, op, tuple(values), ranges=tuple(ranges), negated=negated)

    def _range(self, field: Field, op: str, part: _Part) -> tuple[str, tuple[int, int]]:
        if ".." not in part.text or field.kind is Kind.CHOICE:
            amount = self._amount(field, part.text, part.at, part.length)
            return amount.text, compare(field, op, amount)
        if op not in (":", "="):
            sentence = f"A range is its own comparison; write {field.name}:{clean_line(part.text)}."
            self._fail(part.at, part.length, sentence)
        low, _, high = part.text.partition("..")
        if not low and not high:
            self._fail(part.at, part.length, f"The range is empty; write {field.name}:LEAST..MOST.")
        inner = part.at + part.quoted
        first = self._amount(field, low, inner, len(low)) if low else None
        last = self._amount(field, high, inner + len(low) + 2, len(high)) if high else None
        if first and last and first.first > last.last:
            self._fail(part.at, part.length, "The range ends before it begins; turn it round.")
        span = (
            compare(field, ">=", first)[0] if first else field.least,
            compare(field, "<=", last)[1] if last else field.most,
        )
        text = f"{first.text if first else ''}..{last.text if last else ''}"
        return text, clamp(field, *span)

    def _amount(self, field: Field, text: str, at: int, length: int) -> Amount:
        amount = read_amount(field, text)
        if amount is None:
            self._fail(at, length, unreadable(field, text))
        return amount

    def _squeezed(self, field: Field, part: _Part, word: re.Match[str]) -> str:
        squeezed = squeeze(part.text)
        if not squeezed:
            # of an alternative that is empty there is nothing to point at
            at = part.at if part.length else word.start("value")
            length = part.length or len(word["value"])
            sentence = f"{clean_line(part.text)!r} is no {field.name}; write {example_of(field)}."
            self._fail(at, length, sentence)
        return squeezed

    def _yes_or_no(self, flag: Flag, op: str, parts: list[_Part], word: re.Match[str]) -> Term:
        said = parts[0].text.lower()
        if op not in (":", "=", "!=") or len(parts) != 1 or said not in (*_YES, *_NO):
            sentence = f"{flag.name} stands alone, or with yes or no."
            self._fail(word.start("key"), word.end() - word.start("key"), sentence)
        term = _flag_term(flag)
        negated = (said in _NO) != (op == "!=")
        return Term(term.field, term.op, term.values, ranges=term.ranges, negated=negated)

    # -- pieces

    def _sort(self, word: re.Match[str]) -> str:
        if word["minus"] or self._negation is not None or word["op"] not in (":", "="):
            sentence = "An order is not a condition; write sort:price, or sort:-price backwards."
            self._fail(word.start(), word.end() - word.start(), sentence)
        if not word["value"]:
            sentence = f"'sort' has no value; use one of {', '.join(SORTABLE)}."
            self._fail(word.start(), _end(word) - word.start(), sentence)
        return _sort_name(word["value"], word.start("value"), self._text)

    def _parts(self, word: re.Match[str]) -> list[_Part]:
        """The alternatives of a value; a ``|`` between quotes parts nothing."""
        value, at = word["value"], word.start("value")
        self._values += value.count("|") + 1
        if self._values > MAX_VALUES:
            sentence = f"A query has at most {MAX_VALUES} values; leave some out."
            self._fail(word.start(), word.end() - word.start(), sentence)
        parts, inner = [], 0
        while True:
            found = _PART.match(value, inner)
            assert found is not None  # it may be empty
            raw = found[0]
            parts.append(_Part(raw.replace('"', ""), at + inner, len(raw), '"' in raw))
            inner = found.end() + 1
            if inner > len(value):
                return parts

    def _fail(self, position: int, length: int, sentence: str) -> NoReturn:
        raise invalid(self._text, position, length, sentence)


def _flag_term(*flags: Flag) -> Term:
    ranges = tuple(span for flag in flags for span in flag.ranges)
    return Term(flags[0].field, "", tuple(flag.name for flag in flags), ranges=ranges)


def _speaks_of_offline(term: Term) -> bool:
    """Whether it is about nodes that are offline: ``!busy`` is not, ``!online`` is."""
    if term.field != "status":
        return False
    if not term.negated:
        return number_in(OFFLINE, term.ranges)
    left = [code for code in range(OFFLINE + 1) if not number_in(code, term.ranges)]
    return left == [OFFLINE]


def _end(word: re.Match[str]) -> int:
    """Where it ends, without the space that an operator may be followed by."""
    return word.end() if word["value"] or word["op"] is None else word.end("op")


def _sort_name(name: str, at: int, text: str) -> str:
    lower = name.lower()
    field = NAMES.get(lower.removeprefix("-"))
    if field is None or not field.best:
        close = nearest(lower.removeprefix("-"), SORTABLE)
        hint = f"did you mean {close}?" if close else f"use one of {', '.join(SORTABLE)}."
        raise invalid(text, at, len(name), f"Can't sort by {clean_line(name)!r}; {hint}")
    return f"-{field.name}" if lower.startswith("-") else field.name
