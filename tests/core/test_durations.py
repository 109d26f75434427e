"""Times as people type them."""

import pytest

from computeswarm.core.durations import format_duration, parse_duration
from computeswarm.core.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2D", 172800), ("1h 5s", 3605)],
)
def test_reads_the_usual_spellings(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5", "1.5h", "31d", "5m3h", "٣m", "9" * 30])
def test_refuses_the_rest(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (1.25, "1.2s"), (42, "42s"), (65, "1m 05s"), (7800, "2h 10m"), (273600, "3d 4h")],
)
def test_writes_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
