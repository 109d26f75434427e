"""Prometheus' own parser reads what we write, and the rules of its linter hold."""

from __future__ import annotations

import pytest
from metric_rules import broken_rules, families

from computeswarm.core.metrics import BUCKETS, Exposition, Histogram

EVIL = 'RTX"} 1\nfake_metric 1 \\ \x1b[31m'


def test_a_histogram_reads_back() -> None:
    took = Histogram(BUCKETS)
    for seconds in (0.001, 0.005, 0.3, 99.0):
        took.observe(seconds)
    out = Exposition("x_")
    out.histogram("wait_seconds", "How long.", [({"route": EVIL}, took)])
    out.summary("job_seconds", "Jobs.", total=12.5, count=3)
    found = families(out.text())
    buckets = {s.labels["le"]: s.value for s in found["x_wait_seconds"].samples if "le" in s.labels}
    assert (buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (2, 2, 3, 4)
    assert {s.labels["route"] for s in found["x_wait_seconds"].samples} == {EVIL}
    assert [(s.name, s.value) for s in found["x_job_seconds"].samples] == [
        ("x_job_seconds_sum", 12.5),
        ("x_job_seconds_count", 3),
    ]
    assert (took.count, took.quantile(0.5), took.quantile(0.99)) == (4, 0.005, 10.0)
    assert broken_rules(out.text()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("jobs", "counter"),
        ("jobs_total", "gauge"),
        ("wait_ms", "gauge"),
        ("waitSeconds", "gauge"),
        ("jobs_gauge", "gauge"),
        ("jobs_count", "gauge"),
    ],
)
def test_the_rules_find_a_bad_name(name: str, kind: str) -> None:
    out = Exposition("x_")
    out.add(name, kind, "What.", ({}, 1))  # type: ignore[arg-type]
    assert broken_rules(out.text())
