from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from query_nodes import node

from computeswarm.core.errors import InvalidQuery
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.query import MAX_LENGTH, SORT_KEYS, completions, parse


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu:4090|a100 vram>=24 price<2 rel>=0.98 isolation>=container region:eu online sort:cost",
        "gpu:rtx-4090",
        "GPU:4090 PRICE<=$0.40",
        "vram=24GB cores>=8 ram>=64 gpus:1",
        "price<=0.4",
        "4090",
        "ryzen rig",
        "image:torch",
        "status:idle|busy",
        "isolation=container isolation<gvisor",
        "gpu max_time>=3600s",
    ],
)
def test_words_that_find_it(text: str) -> None:
    assert parse(text).accepts(node())


@pytest.mark.parametrize(
    "text",
    [
        "gpu:a100",
        "vram>24",
        "price<0.4",
        "price>0.4",
        "isolation>container",
        "region:us",
        "busy",
        "offline",
        "cpu",
        "network",
        "image:tor",
        "nothing",
    ],
)
def test_words_that_do_not(text: str) -> None:
    assert not parse(text).accepts(node())


def test_reliability_counts_failed_jobs() -> None:
    assert parse("rel>=0.98").accepts(node(failed=2))
    assert not parse("rel>=0.98").accepts(node(failed=3))


def test_offline_nodes_hide_unless_asked_for() -> None:
    gone = node(status=NodeStatus.OFFLINE)
    assert not parse("gpu:4090").accepts(gone)
    assert not parse("online").accepts(gone)
    assert parse("offline").accepts(gone)
    assert parse("gpu:4090 status:idle|offline").accepts(gone)


@pytest.mark.parametrize(
    ("text", "position", "length", "hint"),
    [
        ("gpu:4090 vram>=lots", 15, 4, "number"),
        ("gpu:4090 colour:red", 9, 6, "known"),
        ("online sort:beauty", 12, 6, "sort"),
        ("isolation>=steel", 11, 5, "namespace"),
        ("gpu>=4090", 0, 9, "gpu:4090"),
        ("x vram>=", 2, 6, "no value"),
        ("status:asleep", 7, 6, "status"),
        ("price<-1", 6, 2, "number"),
        ("a !!", 2, 2, "KEY"),
    ],
)
def test_an_error_points_at_the_word(text: str, position: int, length: int, hint: str) -> None:
    with pytest.raises(InvalidQuery, match=hint) as caught:
        parse(text)
    assert caught.value.extra["position"] == position
    assert caught.value.extra["length"] == length
    assert caught.value.extra["word"] == text[position : position + length]


WORDS = ["gpu", "vram", "price", "sort:", "isolation", "status", ">=", "<", ":", "|", "4090", "1e9"]
ODDITIES = ["-", "0.5", "idle", "none", "offline", "²", "٣", " ", "\ud800", "\x1b"]
PIECES = st.sampled_from([*WORDS, *ODDITIES])


@given(st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join))
def test_any_text_parses_or_points_at_a_part_of_itself(text: str) -> None:
    try:
        parse(text).accepts(node())
    except InvalidQuery as error:
        position, length = error.extra["position"], error.extra["length"]
        assert 0 <= position <= position + length <= len(text) + (len(text) == 0)
        assert "\x1b" not in error.detail + error.extra["word"]


@pytest.mark.parametrize("text", ["a " * MAX_LENGTH, "a " * 65, "gpu:4090 vram:1" + "|1" * 63])
def test_an_endless_query_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match="at most"):
        parse(text)


@given(st.lists(st.text(max_size=4), max_size=6), st.sampled_from(["name", "region"]))
def test_texts_sort_as_python_sorts_them(names: list[str], key: str) -> None:
    found = [node(name="x" + name, region="x" + name) for name in names]
    values = [SORT_KEYS[key](f) for f in found]
    up = sorted(zip(map(parse(f"sort:{key}").sort_key, found), values, strict=True))
    down = sorted(zip(map(parse(f"sort:-{key}").sort_key, found), values, strict=True))
    assert [value for _, value in up] == sorted(values)  # type: ignore[type-var]
    assert [value for _, value in down] == sorted(values, reverse=True)  # type: ignore[type-var]


def test_the_best_comes_first() -> None:
    cheap, large = node(price=1, name="cheap"), node(vram_mib=80 * 1024, price=9, name="large")
    flaky = node(price=1, failed=98, name="flaky")
    order = lambda q, *nodes: [f.name for f in sorted(nodes, key=parse(q).sort_key)]  # noqa: E731
    assert order("", large, cheap) == ["cheap", "large"]
    assert order("sort:-price", cheap, large) == ["large", "cheap"]
    assert order("sort:vram", cheap, large) == ["large", "cheap"]
    assert order("sort:cost", flaky, cheap) == ["cheap", "flaky"]
    assert parse("gpu:4090", sort="vram").sort == "vram"
    assert parse("gpu:4090 sort:price", sort="vram").sort == "price"


def test_completions_follow_the_last_word() -> None:
    assert completions("gpu:4090 vr") == ["vram>="]
    assert "sort:cost" in completions("sort:c")
    assert completions("isolation>=co") == ["isolation>=container"]
    assert "online" in completions("")
    assert "online" in completions("gpu:4090 ")
    for word in completions("x sort:"):
        parse(word)
