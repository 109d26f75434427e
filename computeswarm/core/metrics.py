"""Prometheus' text format 0.0.4, and the histograms that fill it.

Names are in base units and labels bounded by whoever adds them. Counting costs well under a
microsecond, so that the busiest route can afford it; reading makes a copy.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and its naming rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the classic ones of Prometheus' own clients."""
FAST_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *BUCKETS)
"""Seconds, for what mostly takes less than a millisecond."""

Kind = Literal["gauge", "counter"]
Labels = Mapping[str, str]


class Histogram:
    """How long things took, in seconds. Safe to observe from any one thread at a time."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = FAST_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one; a value on a bound counts below it."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The bound below which ``share`` of them lie, in seconds; the highest where beyond."""
        wanted, seen = share * self.count, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return self.bounds[-1]


class Exposition:
    """A document of the format; the samples of one metric stand together under its help and type.

    Args:
        prefix: how all names begin, such as ``computeswarm_seller_``.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lines: list[str] = []

    def add(
        self, name: str, kind: Kind, about: str, *samples: tuple[Labels, float | int | None]
    ) -> None:
        """One metric; a value of None is left out, and a metric without values too."""
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            full = self._head(name, kind, about)
            self._lines += [f"{full}{_braces(labels)} {value}" for labels, value in known]

    def gauge(self, name: str, about: str, value: float | int | None) -> None:
        """A gauge without labels."""
        self.add(name, "gauge", about, ({}, value))

    def counter(self, name: str, about: str, value: float | int | None) -> None:
        """A counter without labels; its name ends in ``_total``."""
        self.add(name, "counter", about, ({}, value))

    def summary(self, name: str, about: str, *, total: float, count: int) -> None:
        """A summary without quantiles: what was summed up over how many."""
        full = self._head(name, "summary", about)
        self._lines += [f"{full}_sum {total}", f"{full}_count {count}"]

    def histogram(self, name: str, about: str, samples: Iterable[tuple[Labels, Histogram]]) -> None:
        """A histogram for each set of labels; without any nothing is shown."""
        known = list(samples)
        if not known:
            return
        full = self._head(name, "histogram", about)
        for labels, histogram in known:
            seen, counts = 0, list(histogram.counts)
            for bound, count in zip(histogram.bounds, counts, strict=False):
                seen += count
                self._lines.append(f"{full}_bucket{_braces({**labels, 'le': str(bound)})} {seen}")
            whole = sum(counts)
            self._lines += [
                f"{full}_bucket{_braces({**labels, 'le': '+Inf'})} {whole}",
                f"{full}_sum{_braces(labels)} {histogram.sum}",
                f"{full}_count{_braces(labels)} {whole}",
            ]

    def text(self) -> str:
        """The whole document."""
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, kind: str, about: str) -> str:
        full = self._prefix + name
        self._lines += [f"# HELP {full} {_escape_help(about)}", f"# TYPE {full} {kind}"]
        return full


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
