"""What the word being typed may become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from computeswarm.core.query.fields import FIELDS, FLAGS, NAMES, SORTABLE
from computeswarm.core.query.kinds import Field, Kind
from computeswarm.core.text import squeeze

_PLAIN = re.compile(r"[\w.-]+\Z")
_LAST = re.compile(r'(?P<minus>[-!]?)(?P<word>(?:"[^"]*"|[^\s"])*)\Z')
_VALUE = re.compile(r"(?P<head>(?P<key>[A-Za-z_]+)(?:>=|<=|==|!=|>|<|=|:)(?:[^|]*\|)*)[^|]*\Z")


def completions(text: str, known: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Words that the last word of ``text`` may become, likeliest first.

    Args:
        known: values by field that are worth proposing, such as the regions there are.
    """
    last = _LAST.search(text)
    if last is None or text.count('"') % 2:
        return []
    prefix, minus = last["word"], last["minus"]
    value = _VALUE.match(prefix)
    words = _words() if value is None else _values(value, known or {})
    wanted = prefix.lower()
    return [minus + word for word in words if word.lower().startswith(wanted) and word != wanted]


def _words() -> list[str]:
    flags = dict.fromkeys(flag.name for flag in FLAGS.values())
    fields = (field for field in FIELDS.values() if field.kind is not Kind.FLAG)
    return [*(f"{field.name}{_operator(field)}" for field in fields), "sort:", *flags]


def _operator(field: Field) -> str:
    if field.kind in (Kind.TEXT, Kind.CHOICE):
        return ":"
    return "<=" if field.best > 0 else ">="


def _values(typed: re.Match[str], known: Mapping[str, Sequence[str]]) -> list[str]:
    head, key = typed["head"], typed["key"].lower()
    if key == "sort":
        return [*(f"{head}{name}" for name in SORTABLE), *(f"{head}-{name}" for name in SORTABLE)]
    field = NAMES.get(key)
    if field is None:
        return []
    found = field.choices or known.get(field.name, ())
    return [f"{head}{value if _PLAIN.match(value) else squeeze(value)}" for value in found]
