from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeswarm.core.text import LINE_LIMIT, StreamDecoder, clean, clean_line

HOSTILE = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b]0;title\x07name", "name"),
    ("\x1b]52;c;ZXZpbA==\x1b\\copy", "copy"),
    ("\x9b2Jwiped", "wiped"),
    ("\x9d0;t\x9cc1", "c1"),
    ("a\u202eb\u2066c\u200bd\ufeff", "abcd"),
    ("bell\x07back\x08del\x7f", "bellbackdel"),
    ("tab\there", "tab     here"),
    ("one\r\ntwo\rthree", "one\ntwo\nthree"),
    ("\x1bPdcs\x1b\\after", "after"),
    ("\x1b(0charset", "charset"),
    ("\U000e0041tag", "tag"),
    ("lone\ud800surrogate", "lonesurrogate"),
]


@pytest.mark.parametrize(("text", "wanted"), HOSTILE)
def test_strips_what_a_terminal_would_obey(text: str, wanted: str) -> None:
    assert clean(text) == wanted


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=400))
@settings(max_examples=400)
def test_whatever_comes_nothing_dangerous_is_left(text: str) -> None:
    for char in clean(text):
        assert char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def test_no_character_of_a_dangerous_kind_passes_at_all() -> None:
    kept = set(clean("".join(map(chr, range(0x110000)))))
    bad = {c for c in kept - {"\n"} if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert bad == set()


@given(st.text(max_size=300))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


def test_long_lines_are_cut() -> None:
    assert all(len(line) <= LINE_LIMIT for line in clean("x" * 10_000 + "\n" + "y" * 5).split("\n"))
    assert clean_line("n" * 500, limit=20) == "n" * 19 + "…"
    assert clean_line("  a \n\t b  ") == "a b"


def test_marks_can_not_pile_up() -> None:
    assert len(clean("a" + "\u0301" * 1000)) <= 4


@pytest.mark.parametrize("char", ["\x9d", "\x1b", "\x1b[", "\x1b]", "\x9b", "\u0301", "\x1b[0;"])
def test_no_text_takes_more_than_linear_time(char: str) -> None:
    started = time.perf_counter()
    clean(char * 20_000)
    small = time.perf_counter() - started
    started = time.perf_counter()
    clean(char * 160_000)
    # 8 times the text: quadratic code would take 64 times as long
    assert time.perf_counter() - started < 30 * small + 0.05


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_chunks_make_no_difference(chunks: list[bytes]) -> None:
    whole = StreamDecoder()
    expected = whole.feed(b"".join(chunks)) + whole.flush()
    pieces = StreamDecoder()
    got = [line for chunk in chunks for line in pieces.feed(chunk)] + pieces.flush()
    assert got == expected


def test_a_sequence_cut_between_chunks_is_seen_whole() -> None:
    decoder = StreamDecoder()
    lines = [
        x for b in (b"a\x1b", b"]0;ev", b"il\x07b \xe2", b"\x82\xac\n") for x in decoder.feed(b)
    ]
    assert lines == ["ab €"]


def test_a_progress_bar_leaves_its_last_state() -> None:
    decoder = StreamDecoder()
    assert decoder.feed(b" 10%\r 50%\r100%\r\n") == ["100%"]


def test_an_endless_line_does_not_fill_the_memory() -> None:
    decoder = StreamDecoder()
    lines = [line for _ in range(100) for line in decoder.feed(b"z" * 1000)]
    assert sum(map(len, lines)) >= 100_000 - LINE_LIMIT
    assert len(decoder._pending) <= LINE_LIMIT
