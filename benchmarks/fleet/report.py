"""What a fleet saw: how often it asked for what, how long that took, and what went wrong."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

_KEPT = 20_000


@dataclass
class Tally:
    """One kind of request; the times kept are a fair sample, in seconds."""

    count: int = 0
    times: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """In seconds; 0 where nothing was timed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Report:
    """Everything of one run."""

    def __init__(self) -> None:
        self.kinds: dict[str, Tally] = {}
        self.events: Counter[str] = Counter()
        """What befell nodes: sessions, crashes, restarts, jobs."""
        self.started = perf_counter()
        self._dice = random.Random(0)

    def took(self, kind: str, seconds: float, error: str = "") -> None:
        """Count a request; ``error`` says how it failed, such as ``503``."""
        tally = self.kinds.setdefault(kind, Tally())
        tally.count += 1
        if error:
            tally.errors[error] += 1
        elif len(tally.times) < _KEPT:
            tally.times.append(seconds)
        elif (place := self._dice.randrange(tally.count)) < _KEPT:
            tally.times[place] = seconds

    def document(self) -> dict[str, Any]:
        """For programs; times in milliseconds."""
        span = perf_counter() - self.started
        kinds = {
            kind: {
                "count": tally.count,
                "per_second": round(tally.count / span, 1),
                "p50_ms": round(tally.quantile(0.5) * 1000, 3),
                "p99_ms": round(tally.quantile(0.99) * 1000, 3),
                "errors": dict(tally.errors),
            }
            for kind, tally in sorted(self.kinds.items())
        }
        return {"seconds": round(span, 1), "requests": kinds, "events": dict(self.events)}

    def lines(self) -> list[str]:
        """For people."""
        made = self.document()
        lines = [f"{'':<12}{'count':>9}{'/s':>9}{'p50 ms':>9}{'p99 ms':>9}  errors"]
        for kind, row in made["requests"].items():
            wrong = ", ".join(f"{name} ×{count}" for name, count in row["errors"].items()) or "-"
            lines.append(
                f"{kind:<12}{row['count']:>9}{row['per_second']:>9}{row['p50_ms']:>9}"
                f"{row['p99_ms']:>9}  {wrong}"
            )
        events = ", ".join(f"{name} {count}" for name, count in sorted(self.events.items()))
        return [*lines, f"in {made['seconds']} s: {events}"]
