from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeswarm.core.errors import BadRequest, ConfigError
from computeswarm.core.events import OutputEvent, encode_output
from computeswarm.core.jobs import (
    MAX_INLINE_FILE_BYTES,
    InputFile,
    JobSpec,
    safe_relative_path,
)
from computeswarm.core.quotes import Quote, scheme_of
from computeswarm.core.signing import parse


def test_the_digest_ignores_how_the_bytes_travel() -> None:
    inline = JobSpec(
        command=("python", "a.py"), inputs=(InputFile.from_bytes("a.py", b"1", inline=True),)
    )
    upload = JobSpec(
        command=("python", "a.py"), inputs=(InputFile.from_bytes("a.py", b"1", inline=False),)
    )
    other = JobSpec(
        command=("python", "a.py"), inputs=(InputFile.from_bytes("a.py", b"2", inline=True),)
    )
    assert inline.digest() == upload.digest() != other.digest()
    assert inline.without_content().inputs[0].content is None


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../b", "a//b", "./a", "a/.", "a\\b", "a\0b", "a\nb",
     "x" * 401, "/".join("d" * 33), "\ud800"],
)  # fmt: skip
def test_a_path_stays_below_its_folder(path: str) -> None:
    with pytest.raises(ValueError):
        safe_relative_path(path)


@given(st.text(max_size=60))
def test_an_accepted_path_has_only_plain_parts(path: str) -> None:
    try:
        kept = safe_relative_path(path)
    except ValueError:
        return
    assert kept == path
    assert not kept.startswith("/")
    assert all(part not in ("", ".", "..") for part in kept.split("/"))


def spec(**changes: object) -> JobSpec:
    return parse(JobSpec, {"command": ["true"], **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"command": []},
        {"command": [""]},
        {"command": ["a\0b"]},
        {"command": ["x" * 70_000]},
        {"image": "../x"},
        {"env": {"1A": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0"}},
        {"max_seconds": 0},
        {"gpu_count": -1},
        {"memory_bytes": 2**61},
        {"inputs": [{"path": "a", "size": 1, "sha256": "0" * 64, "content": "!!"}]},
        {"inputs": [{"path": "a", "size": 1, "sha256": "0" * 64, "content": "eA=="}]},
        {"inputs": [{"path": p, "size": 0, "sha256": "0" * 64} for p in ("a", "a")]},
        {"inputs": [{"path": p, "size": 0, "sha256": "0" * 64} for p in ("a", "a/b")]},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        spec(**changes)


def test_inline_bytes_are_bounded() -> None:
    big = InputFile.from_bytes("a", b"x" * MAX_INLINE_FILE_BYTES, inline=True)
    files = [big.model_copy(update={"path": f"f{i}"}).model_dump() for i in range(5)]
    with pytest.raises(BadRequest, match="inline"):
        spec(inputs=files)
    assert len(spec(inputs=files[:4]).inputs) == 4


@given(st.integers(0, 10**9), st.integers(1, 600), st.integers(1, 10_000))
def test_slices_cover_the_time_limit_exactly(price: int, length: int, limit: int) -> None:
    quote = Quote.model_construct(price_per_hour=price, slice_seconds=length, max_seconds=limit)
    lengths = [quote.slice_length(i) for i in range(quote.slice_count)]
    assert sum(lengths) == limit
    assert all(0 < n <= length for n in lengths)
    assert quote.total_amount == sum(quote.slice_amount(i) for i in range(quote.slice_count))
    assert quote.slice_length(quote.slice_count) == 0


@given(st.integers(1, 3600))
def test_what_either_side_may_lose_stays_near_a_slice(length: int) -> None:
    quote = Quote.model_construct(price_per_hour=1, slice_seconds=length, max_seconds=10**6)
    assert 0 < quote.lead_seconds <= length
    assert quote.lead_seconds >= min(length, 1)
    assert quote.grace_seconds <= max(2 * length, 1)
    assert quote.grace_seconds >= min(2 * length, 4)
    if length >= 16:
        assert quote.lead_seconds == quote.grace_seconds == length / 4


@pytest.mark.parametrize("word", ["slices", "channel", " Channel "])
def test_ways_to_pay_have_words(word: str) -> None:
    assert scheme_of(word) == ("exact" if word == "slices" else "batch-settlement")
    with pytest.raises(ConfigError, match="slices or by channel"):
        scheme_of(word + "s")


@given(st.binary(max_size=200))
def test_output_comes_back_as_the_bytes_it_was(data: bytes) -> None:
    text, encoding = encode_output(data)
    event = OutputEvent(seq=1, at=0, stream="stdout", data=text, encoding=encoding)
    assert OutputEvent.model_validate_json(event.model_dump_json()).raw() == data
