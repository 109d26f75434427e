"""What Prometheus' linter asks of a document of metrics, over its own client's parser.

Source: prometheus/client_golang's promlint, and https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_OTHER_UNITS = re.compile(
    r"_(ms|us|ns|milliseconds|microseconds|minutes|hours|days|kb|kib|mb|mib|gb|gib|percent|bits)(_|$)"
)
_RESERVED = ("_count", "_sum", "_bucket")
MOST_SAMPLES = 5_000


def families(text: str, prefix: str = "") -> dict[str, Any]:
    """By name without the prefix; each metric stands there once, and each of its samples too."""
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found)
    for family in found:
        seen = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(set(seen)) == len(seen), family.name
    return {family.name.removeprefix(prefix): family for family in found}


def value(found: dict[str, Any], name: str, **labels: str) -> float:
    """One sample's value."""
    return next(s.value for s in found[name].samples if labels.items() <= s.labels.items())


def broken_rules(text: str) -> list[str]:
    """One line for each thing the linter would find."""
    wrong: list[str] = []
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    for name, kind in types.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            wrong.append(f"{name}: not in snake case")
        if name not in helps:
            wrong.append(f"{name}: no help")
        if (kind == "counter") != name.endswith("_total"):
            wrong.append(f"{name}: counters, and they alone, end in _total")
        if name.endswith(_RESERVED) or re.search(r"_(gauge|counter|histogram|summary)(_|$)", name):
            wrong.append(f"{name}: its type is part of its name")
        if _OTHER_UNITS.search(name):
            wrong.append(f"{name}: not in base units")
    return wrong + _broken_samples(text)


def _broken_samples(text: str) -> list[str]:
    wrong: list[str] = []
    count = 0
    for name, family in families(text).items():
        count += len(family.samples)
        if not family.samples:
            wrong.append(f"{name}: no samples")
        for sample in family.samples:
            if "le" in sample.labels and not sample.name.endswith("_bucket"):
                wrong.append(f"{name}: le belongs to histograms")
            if any(len(text) > 120 for text in sample.labels.values()):
                wrong.append(f"{name}: a label of more than 120 letters")
            if family.type in ("counter", "histogram") and sample.value < 0:
                wrong.append(f"{name}: below zero")
    if count > MOST_SAMPLES:
        wrong.append(f"{count} samples are more than a scrape should hold")
    return wrong
