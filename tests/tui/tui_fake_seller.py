"""A seller's owner's door with fixed values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tui_fake import BUYER, FLEET, GIB, NOW, WALLET

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.states import JobState
from computeswarm.tui.views import (
    AdviceItem,
    EarningsItem,
    EventItem,
    GpuEarned,
    GpuItem,
    HostItem,
    SellerItem,
    SellerJob,
)

PAST = tuple(min(99, 40 + n * 7 % 23 + n // 2) for n in range(120))
GPUS = (
    GpuItem(0, "RTX 4090", 98, 20 * GIB, 24 * GIB, PAST, 71, 402.0, 450.0, "job-204a" + "0" * 16),
    GpuItem(
        1,
        "RTX 4090",
        0,
        GIB // 3,
        24 * GIB,
        PAST[60:] + (0,) * 40,
        84,
        22.0,
        450.0,
        trouble="Used by you: eldenring.exe.",
    ),
)


DAYS = tuple((f"2025-11-{day:02}", (day * 37 % 11 + 2) * 310_000) for day in range(11, 26))
EARNED = EarningsItem(
    3_410_000, 21_770_000, 88_020_000, 1_120_000, 612, DAYS,
    nets=(2_790_000, 17_670_000, 70_820_000),
    sold=0.64,
    electricity_price=150_000,
    gpus=(
        GpuEarned("GPU 0", 61_400_000, 52_100_000, 0.81),
        GpuEarned("GPU 1", 26_620_000, 18_720_000, 0.47),
    ),
)  # fmt: skip
ADVICE = AdviceItem(
    410_000,
    "12 sellers of RTX 4090 ask 0.34 to 0.45 USDC an hour, half of them at most 0.41; you ask 0.38."
    " The current of an hour costs 0.06. Suggested: 0.41 (what half of them ask at most).",
)


def seller_status(**changes: Any) -> SellerItem:
    """A seller with two GPUs and a week of earnings."""
    jobs = (
        SellerJob("job-204a" + "0" * 16, BUYER, "train_digits.py", JobState.RUNNING, "torch", 1,
                  380_000, 12_668, 7_643, 72_400, 3600),
        SellerJob("job-20be" + "1" * 16, WALLET, "sweep.py", JobState.QUEUED, "python", 0,
                  380_000, 6_334, 0, 0, 600, queue_position=1, starts_in=310),
        SellerJob("job-202c" + "2" * 16, BUYER, "monte_carlo.py", JobState.SUCCEEDED, "python", 0,
                  380_000, 6_334, 4_398, 41_660, 600),
    )  # fmt: skip
    events = (
        EventItem(NOW - 900, "info", "listed at http://market.example:8402 as fra-01"),
        EventItem(NOW - 172, "good", "job-202c22 paid 0.006334 USDC"),
        EventItem(NOW - 130, "info", "job-202c22 succeeded, 0.001936 USDC back"),
        EventItem(NOW - 82, "warning", "GPU 1 has 84 °C"),
        EventItem(NOW - 80, "info", "job-204a00 started on GPU 0"),
    )
    values: dict[str, Any] = {
        "node_id": FLEET[0].node_id, "name": "fra-01", "wallet": WALLET,
        "endpoint": "http://203.0.113.7:8403", "price": 380_000, "paused": False, "listed": True,
        "market": "http://market.example:8402", "executor": "bubblewrap", "isolation": "namespace",
        "slots": 2, "host": HostItem("AMD EPYC 7313", 16, 37.0, 21 * GIB, 64 * GIB), "gpus": GPUS,
        "earnings": EARNED,
        "advice": ADVICE,
        "jobs": jobs, "events": events,
    }  # fmt: skip
    return SellerItem(**(values | changes))


class FakeSeller:
    """Holds one status; owner's orders change it."""

    def __init__(self, state: SellerItem | None = None) -> None:
        self.state = state or seller_status()
        self.fault: ComputeSwarmError | None = None
        self.evicted: list[str] = []
        self.accepted: list[str] = []
        self.rejected: list[tuple[str, str]] = []

    async def status(self) -> SellerItem:
        if self.fault is not None:
            raise self.fault
        return self.state

    async def pause(self) -> None:
        self.state = replace(self.state, paused=True, mood="paused")

    async def resume(self) -> None:
        self.state = replace(self.state, paused=False, mood="taking")

    async def drain(self) -> None:
        self.state = replace(self.state, paused=True, mood="draining")

    async def earnings_csv(self) -> str:
        return "by,key\r\nday,2025-11-25\r\n"

    async def set_price(self, atoms_per_hour: int) -> None:
        self.state = replace(self.state, price=atoms_per_hour)

    async def evict(self, job_id: str) -> None:
        self.evicted.append(job_id)

    async def accept(self, job_id: str) -> None:
        self.accepted.append(job_id)
        self._answered(job_id, decide_by=None)

    async def reject(self, job_id: str, reason: str) -> None:
        self.rejected.append((job_id, reason))
        self._answered(
            job_id, decide_by=None, state=JobState.SELLER_LOST, queue_position=None, starts_in=None
        )

    async def hold(self, index: int, held: bool) -> None:
        gpus = tuple(
            replace(gpu, held=held, trouble="Held by you." if held else "")
            if gpu.index == index
            else gpu
            for gpu in self.state.gpus
        )
        host = self.state.host if gpus else replace(self.state.host, held=held)
        self.state = replace(self.state, gpus=gpus, host=host)

    def _answered(self, job_id: str, **changes: Any) -> None:
        jobs = tuple(
            replace(job, **changes) if job.job_id == job_id else job for job in self.state.jobs
        )
        self.state = replace(self.state, jobs=jobs)

    async def close(self) -> None: ...
