"""Backends with fixed values, and a clock that stands still."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from computeswarm.buyer.folder import WouldOverwrite
from computeswarm.core.errors import ComputeSwarmError, NotFound, WrongPassword
from computeswarm.core.query import parse, squeeze
from computeswarm.core.query.facts import (
    expected_cost,
    price_of_throughput,
    reliability,
    reputation,
)
from computeswarm.core.query.terms import Term
from computeswarm.core.states import JobState
from computeswarm.tui.draft import JobDraft
from computeswarm.tui.views import (
    Balance,
    Download,
    FacetItem,
    Identity,
    JobItem,
    LogLine,
    Meter,
    NodeItem,
    NodePage,
    OfferItem,
    PricePoint,
    PriceTrend,
    Transfer,
)

NOW = 1_764_072_000.0
GIB = 2**30
WALLET = "0x9F31c0D3b2A7E5f4c6B8d9E0A1f2B3C4D5e6a0C2"
BUYER = "0x51C4aA90be5D21F03e6C7b8A9D0e1F2a3B4caF02"
USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
TX = "0x" + "1c" * 31 + "e8"


class FixedClock:
    """Stands still until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def node(number: int, **changes: Any) -> NodeItem:
    """A node of a fleet that looks like a real one; the same number gives the same node."""
    models = (
        ("RTX 4090", 1, 24, 380_000, "fra-01", "eu-fra"),
        ("RTX 4090", 2, 48, 355_000, "ams-02", "eu-ams"),
        ("A100", 1, 80, 1_050_000, "a100-fra", "eu-fra"),
        ("RTX 3090", 1, 24, 220_000, "attic", "eu-waw"),
        ("H100", 1, 80, 1_990_000, "h100-nyc", "us-east"),
        ("", 0, 0, 40_000, "shed-nuc", "eu-lis"),
        ("L40S", 4, 192, 790_000, "render-4", "us-west"),
    )
    model, count, vram, price, name, region = models[number % len(models)]
    again = number // len(models)
    values: dict[str, Any] = {
        "node_id": f"nd-{(number + 1) * 0x9E3779B97F4A % 2**48:012x}",
        "name": f"{name}-{again}" if again else name,
        "title": f"{count}× {model}" if count else "CPU 8× Intel i7-1260P",
        "gpu_count": count,
        "vram_bytes": vram * GIB,
        "price": price + again * 17_500,
        "status": ("idle", "busy", "idle", "draining", "idle", "idle", "offline")[number % 7],
        "isolation": ("namespace", "container", "gvisor")[number % 3],
        "region": region,
        "wallet": WALLET,
        "endpoint": "http://203.0.113.7:8403",
        "cpu_model": "AMD EPYC 7313",
        "cpu_cores": 16,
        "memory_bytes": 64 * GIB,
        "disk_bytes": 1200 * GIB,
        "driver": "550.90" if count else "",
        "runtime": "CUDA 12.4" if count else "",
        "images": ("python", "numpy", "torch"),
        "network": number % 4 == 1,
        "slice_seconds": 60,
        "max_job_seconds": 86400,
        "queued": 2 if number % 7 == 1 else 0,
        "running": 1 if number % 7 == 1 else 0,
        "jobs_succeeded": (312, 41, 0, 7, 88, 3, 19)[number % 7],
        "jobs_failed": (1, 0, 0, 2, 0, 0, 4)[number % 7],
        "uptime_permille": (999, 987, 1000, 940, 998, 1000, 912)[number % 7],
        "registered_at": int(NOW) - 41 * 86400,
        "last_seen": int(NOW) - 4,
        "version": "0.1.0",
    }
    values |= changes
    rel = reliability(values["uptime_permille"], values["jobs_succeeded"], values["jobs_failed"])
    values.setdefault("tflops", _TFLOPS.get(model, 0))
    worked_out = {
        "model": model or "cpu",
        "gpu_vram": vram * GIB // max(1, count),
        "rel": rel,
        "cost": expected_cost(values["price"], rel),
        "value": price_of_throughput(values["price"], values["tflops"]),
        "reputation": reputation(values["jobs_succeeded"], values["jobs_failed"]),
    }
    return NodeItem(**(worked_out | values))


_TFLOPS = {"RTX 4090": 165, "A100": 312, "RTX 3090": 71, "H100": 989, "L40S": 362}
FLEET = tuple(node(number) for number in range(18))


def job(number: int, **changes: Any) -> JobItem:
    """One of five jobs: running, queued, done, failed, and one that a channel paid."""
    began = int(NOW * 1000) - 172_000
    done = (
        ("created", began),
        ("queued", began + 640),
        ("starting", began + 700),
        ("running", began + 1_010),
        ("metered", began + 1_240),
        ("ended", began + 42_900),
    )
    common: dict[str, Any] = {
        "node_id": FLEET[0].node_id,
        "node_name": "fra-01",
        "created_at": NOW - 172,
        "budget": 500_000,
        "price": 380_000,
    }
    kinds: tuple[dict[str, Any], ...] = (
        {"job_id": "job-204a" + "0" * 16, "name": "train_digits.py", "state": JobState.RUNNING,
         "metered_ms": 72_400, "paid": 12_668, "cost": 7_643, "phases": done[:5],
         "payments": (Transfer(6_334, TX), Transfer(6_334, TX))},
        {"job_id": "job-203b" + "1" * 16, "name": "sweep.py", "state": JobState.QUEUED,
         "paid": 6_334, "phases": done[:2], "payments": (Transfer(6_334, TX),)},
        {"job_id": "job-202c" + "2" * 16, "name": "monte_carlo.py", "state": JobState.SUCCEEDED,
         "metered_ms": 41_660, "paid": 6_334, "cost": 4_398, "exit_code": 0, "phases": done,
         "payments": (Transfer(6_334, TX),), "refund": Transfer(1_936, TX), "outputs_ready": True},
        {"job_id": "job-198d" + "3" * 16, "name": "stats.py", "state": JobState.FAILED,
         "metered_ms": 2_190, "paid": 6_334, "cost": 232, "exit_code": 1, "phases": done,
         "reason": "The command ended with exit code 1.",
         "payments": (Transfer(6_334, TX),), "refund": Transfer(6_102, "")},
        {"job_id": "job-197e" + "4" * 16, "name": "render.py", "state": JobState.SUCCEEDED,
         "metered_ms": 3_605_000, "paid": 380_652, "cost": 380_528, "exit_code": 0, "phases": done,
         "slices": 1_803, "deposit": Transfer(500_000, TX), "refund": Transfer(119_472, TX)},
    )  # fmt: skip
    return JobItem(**(common | kinds[number] | changes))


JOBS = [job(number) for number in range(4)]
LOG = [
    LogLine("queued, then starting", "note", int(NOW * 1000) - 82_000),
    LogLine("paid 0.006334 USDC for the first 60 s", "good", int(NOW * 1000) - 81_000),
    *(
        LogLine(
            f"epoch {n:>2}/40  loss {1.92 / (n + 1):.4f}  accuracy {1 - 0.6 / (n + 1):.4f}",
            at_ms=int(NOW * 1000) - 80_000 + n * 2_000,
        )
        for n in range(1, 37)
    ),
    LogLine("UserWarning: lr_scheduler.step() before optimizer.step()", "stderr",
            int(NOW * 1000) - 4_000),
    LogLine("epoch 37/40  loss 0.0505  accuracy 0.9842", at_ms=int(NOW * 1000) - 2_000),
]  # fmt: skip


def _holds(item: NodeItem, term: Term) -> bool:
    """As the market finds it, for the fields that tests ask for."""
    if term.field == "id":
        held = any(item.node_id.removeprefix("nd-").startswith(w) for w in term.words)
    elif term.field == "region":
        held = any(squeeze(item.region).startswith(word) for word in term.words)
    elif term.words:
        held = any(word in squeeze(f"{item.title} {item.region}") for word in term.words)
    else:
        held = True
    return held != term.negated


def trend(model: str, price: int, days: int = 30) -> PriceTrend:
    """A month in which the price fell by a third, and swung."""
    points = tuple(
        PricePoint(int(NOW) - (days - 1 - day) * 86_400, *(
            (price * (150 - day * 50 // days + (day % 3) * 4) // 100) * share // 100
            for share in (70, 85, 100, 118, 140)
        ), 12)
        for day in range(days)
    )  # fmt: skip
    return PriceTrend(model, int(NOW) - days * 86_400, int(NOW), points)


TRENDS = {
    "RTX 4090": trend("RTX 4090", 380_000),
    "A100": trend("A100", 1_100_000),
    "H100": trend("H100", 1_900_000),
}


_FALLING = ("vram", "reputation", "tflops", "rel", "uptime", "cores", "gpus")


class FakeBuyer:
    """Answers at once, or raises ``fault`` where one is set."""

    def __init__(
        self,
        nodes: tuple[NodeItem, ...] = FLEET,
        jobs: list[JobItem] | None = None,
        log: list[LogLine] | None = None,
        *,
        fault: ComputeSwarmError | None = None,
        address: str = BUYER,
        real_money: bool = False,
    ) -> None:
        network = "Base" if real_money else "Base Sepolia"
        market = "http://market.example:8402"
        self.identity = Identity(address, network, USDC, market, real_money)
        self.password = ""
        self.others: list[str] = []
        """What lies where outputs would go."""
        self.listed = nodes
        self.journal = list(JOBS if jobs is None else jobs)
        self.lines = LOG if log is None else log
        self.fault = fault
        self.buy_fault: ComputeSwarmError | None = None
        self.offer_fault: ComputeSwarmError | None = None
        self.usdc = 42_180_000
        self.asked: list[tuple[str, str]] = []
        self.limits: list[int] = []
        self.trends = dict(TRENDS)
        self.trends_asked: list[str] = []
        self.prices_fault: ComputeSwarmError | None = None
        self.slow_prices: asyncio.Event | None = None
        self.bought: list[str] = []
        self.cancelled: list[str] = []
        self.closed = False
        self.refund_sent = False
        self.hold = asyncio.Event()
        self.news: asyncio.Queue[bool | None] | None = None
        self.watched: list[str] = []
        self.slow_buy: asyncio.Event | None = None
        self.expires_in = 282.0

    async def unlock(self, password: str) -> None:
        if password != self.password:
            raise WrongPassword("The password does not open the wallet; try again.")
        self.identity = replace(self.identity, locked=False)

    async def nodes(self, query: str, *, sort: str, limit: int, cursor: str = "") -> NodePage:
        self.asked.append((query, sort))
        if self.fault is not None:
            raise self.fault
        name = sort.removeprefix("-")
        field = {"vram": "gpu_vram", "uptime": "uptime_permille"}.get(name, name)
        found = self._found(query)
        found.sort(
            key=lambda n: (getattr(n, field), n.node_id),
            reverse=sort.startswith("-") != (name in _FALLING),
        )
        self.limits.append(limit)
        start = int(cursor or 0)
        end = start + min(limit, 100)
        following = str(end) if end < len(found) else ""
        return NodePage(tuple(found[start:end]), len(found), next=following)

    async def prices(self, model: str) -> PriceTrend:
        self.trends_asked.append(model)
        if self.slow_prices is not None:
            await self.slow_prices.wait()
        if self.prices_fault is not None:
            raise self.prices_fault
        return self.trends.get(model, PriceTrend(model, int(NOW) - 30 * 86_400, int(NOW)))

    async def facets(self, query: str) -> list[FacetItem]:
        if self.fault is not None:
            raise self.fault
        found = self._found(query)
        counts = [
            Counter(("gpu", n.title.split("× ")[-1]) for n in found),
            Counter(("region", n.region) for n in found),
        ]
        return [
            FacetItem(field, label, nodes, f'{field}:"{label}"')
            for counted in counts
            for (field, label), nodes in counted.most_common()
        ]

    async def watch(self, query: str) -> AsyncIterator[bool]:
        self.watched.append(query)
        if self.news is None:
            raise NotFound("This market can't be followed.")
        while (news := await self.news.get()) is not None:
            yield news

    def _found(self, query: str) -> list[NodeItem]:
        terms = parse(query).terms
        return [n for n in self.listed if all(_holds(n, term) for term in terms)]

    async def balance(self) -> Balance:
        return Balance(self.usdc)

    async def jobs(self) -> list[JobItem]:
        return list(self.journal)

    async def offer(self, draft: JobDraft) -> OfferItem:
        if self.offer_fault is not None:
            raise self.offer_fault
        chosen = next((n for n in self.listed if n.node_id == draft.node_id), self.listed[0])
        slices = {"first_amount": 6_334, "slice_seconds": 60, "at_risk": 7_918}
        ticks = {"first_amount": 212, "slice_seconds": 2, "at_risk": 318, "deposit": 63_334}
        return OfferItem(
            key="offer-1",
            node=chosen,
            job_name=draft.name,
            price_per_hour=chosen.price,
            max_seconds=draft.max_seconds,
            budget=draft.budget_atoms,
            most=63_334,
            pay_to=chosen.wallet,
            expires_at=NOW + self.expires_in,
            network=self.identity.network,
            usdc=USDC,
            real_money=self.identity.real_money,
            **(ticks if draft.by_channel else slices),
        )

    async def buy(self, offer: OfferItem, report: Any) -> str:
        self.bought.append(offer.key)
        report("settling on chain", 0, 0)
        if self.slow_buy is not None:
            await self.slow_buy.wait()
        if self.buy_fault is not None:
            raise self.buy_fault
        new = job(0, job_id="job-777e" + "7" * 16, name=offer.job_name, budget=offer.budget)
        self.journal.insert(0, new)
        return new.job_id

    async def follow(self, job_id: str) -> AsyncIterator[LogLine | Meter | JobItem]:
        for line in self.lines:
            yield line
        held = next(j for j in self.journal if j.job_id == job_id)
        if not held.ended:
            yield Meter(held.metered_ms, held.cost, held.paid, 97, 8 * GIB)
            await self.hold.wait()
            back = Transfer(1_936, TX)
            ended = replace(held, state=JobState.SUCCEEDED, outputs_ready=True, refund=back)
            held = self._replace(replace(ended, exit_code=0))
        yield held

    async def refresh(self, job_id: str) -> JobItem:
        held = next(j for j in self.journal if j.job_id == job_id)
        if held.refund is not None and self.refund_sent:
            held = self._replace(replace(held, refund=Transfer(held.refund.amount, TX)))
        return held

    async def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)
        held = next(j for j in self.journal if j.job_id == job_id)
        self._replace(replace(held, state=JobState.CANCELLED))

    async def download(
        self, job_id: str, folder: Path, report: Any, *, overwrite: bool = False
    ) -> Download:
        if self.others and not overwrite:
            raise WouldOverwrite.of(folder, self.others)
        report("downloading", 512, 2048)
        return Download((folder / "model.npz", folder / "curve.csv"), folder)

    async def close(self) -> None:
        self.closed = True

    def _replace(self, new: JobItem) -> JobItem:
        self.journal = [new if j.job_id == new.job_id else j for j in self.journal]
        return new
