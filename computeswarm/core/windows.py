"""Hours of the week in local time: ``mon-fri 22:00-07:00; sat,sun 00:00-24:00``.

A window that ends before it begins goes past midnight. Hours are what a clock on the wall shows: in
the night when clocks go forward a window is an hour shorter, and when they go back, one that ends
in the hour that comes twice ends the first time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from computeswarm.core.errors import ConfigError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)")
_DAY_MINUTES = 24 * 60
_LOOK_DAYS = 9
"""Rules repeat each week: what does not end within it never does."""
_MAX_RULES = 50


@dataclass(frozen=True, slots=True)
class _Rule:
    days: frozenset[int]
    start: int
    end: int
    """Minutes of the day it starts on; more than a day where it ends on the next."""


@dataclass(frozen=True, slots=True)
class Windows:
    """When a seller sells; without rules, always.

    Args:
        zone: where the clock hangs; the machine's own time zone when None.
    """

    rules: tuple[_Rule, ...] = ()
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, text: str, zone: tzinfo | None = None) -> Windows:
        """Read the setting ``windows``; empty is always.

        Raises:
            ConfigError: it can't be understood.
        """
        parts = [part.strip().lower() for part in text.split(";")]
        rules = tuple(_rule(part) for part in parts if part)
        if len(rules) > _MAX_RULES:
            raise ConfigError(f"The setting windows has at most {_MAX_RULES} parts.")
        return cls(rules, zone)

    def open_at(self, now: float) -> bool:
        """Whether ``now`` (unix seconds) is within a window."""
        return not self.rules or self._around(now) is not None

    def closes_at(self, now: float) -> float | None:
        """When the window that is open now ends; None where it never does, or none is open."""
        found = self._around(now) if self.rules else None
        if found is None or found[1] - now > (_LOOK_DAYS - 2) * 86400:
            return None
        return found[1]

    def opens_at(self, now: float) -> float | None:
        """When the next window begins; None where one is open."""
        if self.open_at(now):
            return None
        return min((start for start, _ in self._spans(now) if start > now), default=None)

    def _around(self, now: float) -> tuple[float, float] | None:
        return next((span for span in self._spans(now) if span[0] <= now < span[1]), None)

    def _spans(self, now: float) -> list[tuple[float, float]]:
        """Windows from yesterday on in unix seconds, those that touch as one."""
        today = datetime.fromtimestamp(now, self.zone).date()
        days = [today + timedelta(days=offset) for offset in range(-1, _LOOK_DAYS)]
        spans = [
            (self._unix(day, rule.start), self._unix(day, rule.end))
            for day in days
            for rule in self.rules
            if day.weekday() in rule.days
        ]
        merged: list[tuple[float, float]] = []
        for start, end in sorted(spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            elif end > start:  # the hour that is left out when clocks go forward
                merged.append((start, end))
        return merged

    def _unix(self, day: date, minutes: int) -> float:
        days, rest = divmod(minutes, _DAY_MINUTES)
        wall = time(rest // 60, rest % 60)
        return datetime.combine(day + timedelta(days=days), wall, self.zone).timestamp()


def _rule(text: str) -> _Rule:
    *named, times = text.split()
    found = _TIMES.fullmatch(times)
    if found is None or len(named) > 1:
        raise _misread(text)
    hours, minutes, to_hours, to_minutes = (int(number) for number in found.groups())
    start, end = hours * 60 + minutes, to_hours * 60 + to_minutes
    if minutes > 59 or to_minutes > 59 or start >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise _misread(text)
    if end <= start:
        end += _DAY_MINUTES
    return _Rule(_days(named[0], text) if named else frozenset(range(7)), start, end)


def _days(names: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in names.split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise _misread(text)
        begin, end = _DAYS.index(first), _DAYS.index(last if dash else first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def _misread(text: str) -> ConfigError:
    return ConfigError(
        f"The setting windows: {text[:60]!r} is no window; write 'mon-fri 22:00-07:00' or"
        " '20:00-24:00', several separated by semicolons."
    )


ALWAYS = Windows()
