"""docs/market.md says what the table of fields says; ``python tests/core/test_query_docs.py``
writes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from computeswarm.core.query import FIELDS, FLAGS, RULES, describe, parse

PAGE = Path(__file__).parents[2] / "docs" / "market.md"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _rules() -> str:
    rows = [f"| {_code(word)} | {meaning} |" for word, meaning in RULES]
    return "\n".join(["| | |", "|---|---|", *rows])


def _fields() -> str:
    rows = [
        f"| `{field.name}` | {describe(field)} | {_code(field.example)} "
        f"| {', '.join(map(_code, field.aliases))} | {'yes' if field.best else ''} |"
        for field in FIELDS.values()
    ]
    head = ["| field | what | example | also | sorts |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _flags() -> str:
    flags = {flag.name: flag for flag in FLAGS.values()}
    rows = [
        f"| `{name}` | {flag.about} | {', '.join(map(_code, flag.aliases))} |"
        for name, flag in flags.items()
    ]
    return "\n".join(["| word | what | also |", "|---|---|---|", *rows])


MADE = {"rules": _rules, "fields": _fields, "flags": _flags}


def _filled(text: str) -> str:
    for name, make in MADE.items():
        block = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        made = make()
        text, found = re.subn(
            block, lambda m, made=made: f"{m[1]}{made}\n{m[2]}", text, flags=re.DOTALL
        )
        assert found == 1, name
    return text


def test_the_page_is_what_the_table_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == _filled(text), "run python tests/core/test_query_docs.py"


EXAMPLES = re.findall(
    r"^ +computeswarm (?:nodes|run \S+ --gpu) '([^'\n]*)'", PAGE.read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize("query", EXAMPLES)
def test_examples_can_be_read(query: str) -> None:
    assert parse(query).terms


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 3


if __name__ == "__main__":
    PAGE.write_text(_filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
