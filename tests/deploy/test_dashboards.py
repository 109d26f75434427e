"""The dashboard, the alerts and the scrape config name what a live market really shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from market_fixtures import FakeClock, Seller, running_market, submission
from prometheus_client.parser import text_string_to_metric_families

from computeswarm.core.crypto import PrivateKey

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\bcomputeswarm_[a-z0-9_]+")
SELECTOR = re.compile(r"(computeswarm_[a-z0-9_]+)\{([^}]*)\}")
LABEL = re.compile(r'([a-z_]+)(=~|!=|!~|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
SHARED_ONLY = re.compile(r"_replication_")
"""Shown where several instances share a database; the cluster's own tests look at the values."""
TARGET_LABELS = {"job", "instance", "le"}


async def shown(tmp_path: Path) -> dict[str, set[str]]:
    """Names of samples on a live /metrics, with their labels' names."""
    async with running_market(tmp_path / "market.db", FakeClock()) as client:
        seller = Seller(client)
        assert (await seller.register()).status == 201
        await seller.beat()
        signed = submission(seller.node_id, PrivateKey.generate())
        await client.call("POST", "/api/v1/jobs/submit", data=signed.model_dump_json())
        job_id = str(signed.document["job_id"])
        assert (await seller.patch(job_id, "running", paid=1)).status == 200
        assert (await seller.patch(job_id, "succeeded", paid=1, exit_code=0)).status == 200
        await client.get("/api/v1/nodes")
        text = (await client.get("/metrics")).body.decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((DEPLOY / "grafana" / "market.json").read_text())
    return made


def rules() -> list[dict[str, Any]]:
    made = yaml.safe_load((DEPLOY / "prometheus" / "market-alerts.yml").read_text())
    return [rule for group in made["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


async def test_every_expression_asks_for_what_is_shown(tmp_path: Path) -> None:
    found = await shown(tmp_path)
    asked = list(expressions())
    assert len(asked) > 50
    for title, expression in asked:
        for name in NAME.findall(expression):
            assert name in found or SHARED_ONLY.search(name), f"{title}: {name} is not shown"
        for name, labels in SELECTOR.findall(expression):
            wanted = {label for label, _, _ in LABEL.findall(labels)} - TARGET_LABELS
            assert wanted <= found.get(name, wanted), f"{title}: {name} has no {wanted}"
        for group in GROUPING.findall(expression):
            wanted = {label.strip() for label in group.split(",")} - TARGET_LABELS
            names = [name for name in NAME.findall(expression) if name in found]
            assert any(wanted <= found[name] for name in names), f"{title}: by {wanted}"
        assert expression.count("(") == expression.count(")"), title


async def test_what_is_shown_is_on_the_dashboard(tmp_path: Path) -> None:
    found = {re.sub(r"_(bucket|sum|count)$", "", name) for name in await shown(tmp_path)}
    asked = {name for _, expression in expressions() for name in NAME.findall(expression)}
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert found - asked == set()


def test_counters_are_asked_for_their_rate() -> None:
    for title, expression in expressions():
        for match in NAME.finditer(expression):
            if match[0].endswith(("_total", "_bucket")):
                before = expression[: match.start()]
                assert before.endswith(("rate(", "increase(")), f"{title}: {match[0]}"


def test_the_dashboard_can_be_laid_out() -> None:
    board = dashboard()
    assert board["uid"] == "computeswarm-market" and board["schemaVersion"] >= 30
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_scrape_config_fits(tmp_path: Path) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert config["rule_files"] == ["market-alerts.yml"]
    assert (job["job_name"], job["metrics_path"]) == ("computeswarm-market", "/metrics")
    for title, expression in expressions():
        for name, labels in SELECTOR.findall(expression):
            assert f'job="{job["job_name"]}"' in labels, f"{title}: {name}"
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"] and re.fullmatch(r"\d+[mh]", rule["for"])
