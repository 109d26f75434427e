"""Hours of the week: midnight, whole days, and the nights when clocks change."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from computeswarm.core.errors import ConfigError
from computeswarm.core.windows import Windows

BERLIN = ZoneInfo("Europe/Berlin")


def unix(text: str, fold: int = 0) -> float:
    """A moment by the clock on a wall in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def test_a_window_goes_past_midnight_and_into_the_week_end() -> None:
    nights = Windows.parse("mon-fri 22:00-07:00; sat,sun 00:00-24:00", BERLIN)
    assert not nights.open_at(unix("2026-11-25T21:59:59"))  # a Wednesday
    assert nights.opens_at(unix("2026-11-25T12:00")) == unix("2026-11-25T22:00")
    for moment in ("2026-11-25T22:00", "2026-11-26T00:00", "2026-11-26T06:59:59"):
        assert nights.open_at(unix(moment))
        assert nights.closes_at(unix(moment)) == unix("2026-11-26T07:00")
        assert nights.opens_at(unix(moment)) is None
    assert not nights.open_at(unix("2026-11-26T07:00"))
    # Friday night runs into Saturday and Sunday, and closes with Sunday
    assert nights.closes_at(unix("2026-11-27T23:00")) == unix("2026-11-30T00:00")
    assert not nights.open_at(unix("2026-11-30T00:00"))
    assert nights.opens_at(unix("2026-11-30T00:00")) == unix("2026-11-30T22:00")


def test_always_is_always() -> None:
    for text in ("", " ; ", "00:00-24:00", "mon-sun 00:00-12:00; 12:00-00:00", "fri-thu 6:00-6:00"):
        always = Windows.parse(text, BERLIN)
        for moment in ("2026-11-25T00:00", "2026-11-25T11:59:59", "2026-11-29T23:59"):
            assert always.open_at(unix(moment)), text
            assert always.closes_at(unix(moment)) is None, text
            assert always.opens_at(unix(moment)) is None, text


def test_the_clock_on_the_wall_counts_when_clocks_change() -> None:
    nights = Windows.parse("22:00-07:00", BERLIN)
    spring, autumn = unix("2026-03-28T22:00"), unix("2026-10-24T22:00")
    ends = nights.closes_at(spring)
    assert ends == unix("2026-03-29T07:00") == spring + 8 * 3600
    assert nights.closes_at(autumn) == unix("2026-10-25T07:00") == autumn + 10 * 3600
    # the hour that comes twice ends it the first time, the one that is left out never opens it
    twice = Windows.parse("22:00-02:30", BERLIN)
    assert twice.closes_at(autumn) == unix("2026-10-25T02:30", fold=0)
    assert not twice.open_at(unix("2026-10-25T02:15", fold=1))
    never = Windows.parse("sun 02:00-03:00", BERLIN)
    for minute in range(0, 24 * 60, 5):
        assert not never.open_at(unix("2026-03-29T00:00") + minute * 60)
    assert never.opens_at(unix("2026-03-29T12:00")) == unix("2026-04-05T02:00")


@pytest.mark.parametrize(
    "text",
    [
        *("noon", "25:00-26:00", "10:60-11:00", "mon 22:00", "mon tue 1:00-2:00", "24:00-25:00"),
        *("moon 1:00-2:00", "mon- 1:00-2:00", "mon, 1:00-2:00", "10:00-24:01", "1:00-2:00," * 9),
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="mon-fri 22:00-07:00"):
        Windows.parse(text)
