"""Who is in a fleet: machines, wallets, prices and habits, all from one seed.

Models and their shares, prices per hour and the lengths of sessions are of the kind that public
markets for consumer GPUs show; nothing here depends on their exact values.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Literal

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import GPUInfo, Hardware, NodeRecord

GIB = 2**30
DAY = 86_400
NODES_PER_WALLET = 3.0


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU model; price in atoms per GPU and hour."""

    model: str
    vendor: Literal["nvidia", "amd", "apple", "other"]
    vram: int
    share: int
    price: int
    tflops: int
    capability: str


CARDS = (
    Card("RTX 4090", "nvidia", 24, 200, 340_000, 165, "8.9"),
    Card("RTX 3090", "nvidia", 24, 200, 180_000, 71, "8.6"),
    Card("RTX 5090", "nvidia", 32, 110, 520_000, 210, "12.0"),
    Card("RTX 3060", "nvidia", 12, 100, 60_000, 25, "8.6"),
    Card("RTX 4070 Ti", "nvidia", 12, 80, 120_000, 80, "8.9"),
    Card("A100 80GB PCIe", "nvidia", 80, 70, 900_000, 312, "8.0"),
    Card("H100 80GB HBM3", "nvidia", 80, 60, 2_200_000, 989, "9.0"),
    Card("RTX A6000", "nvidia", 48, 50, 450_000, 155, "8.6"),
    Card("Tesla T4", "nvidia", 16, 40, 90_000, 65, "7.5"),
    Card("Radeon RX 7900 XTX", "amd", 24, 25, 200_000, 123, ""),
    Card("Instinct MI300X", "amd", 192, 10, 2_000_000, 1307, ""),
    Card("M2 Ultra", "apple", 64, 15, 250_000, 54, ""),
)
"""``share`` in thousandths; the rest are machines without a GPU, which ask ``CPU_PRICE``."""
CPU_PRICE = 40_000
_REGIONS = ("eu-west", "eu-north", "us-east", "us-west", "ap-south", "ap-east", "sa-east", "")
_ISOLATION = ("namespace", "container", "gvisor", "none")


@dataclass(frozen=True, slots=True)
class Kind:
    """What many nodes have in common."""

    card: Card | None
    count: int
    region: str
    isolation: str

    @property
    def model(self) -> str:
        return self.card.model if self.card else "cpu"

    @property
    def price(self) -> int:
        """Atoms per GPU and hour, before what a seller and a day make of it."""
        return self.card.price if self.card else CPU_PRICE

    @property
    def hardware(self) -> Hardware:
        return _hardware(self.card, self.count)


@cache
def _hardware(card: Card | None, count: int) -> Hardware:
    gpus = ()
    if card is not None:
        runtime = {"nvidia": "CUDA 12.4", "amd": "ROCm 6.2"}.get(card.vendor, "MPS")
        driver = "550.54" if card.vendor == "nvidia" else ""
        gpu = GPUInfo(
            vendor=card.vendor,
            model=card.model,
            memory_bytes=card.vram * GIB,
            driver=driver,
            runtime=runtime,
            tflops=card.tflops,
            capability=card.capability,
        )
        gpus = (gpu,) * count
    cores = 8 * max(1, count)
    return Hardware(
        cpu_model="AMD EPYC 7543",
        cpu_cores=cores,
        memory_bytes=4 * cores * GIB,
        disk_bytes=500 * GIB,
        gpus=gpus,
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """One node of the fleet."""

    number: int
    kind: Kind
    owner: int
    """Which wallet it belongs to."""
    thrift: float
    """What its seller asks compared with others, around 1."""

    @property
    def name(self) -> str:
        return f"rig-{self.number}"


class Fleet:
    """``nodes`` machines; the same seed makes the same ones, however many there are."""

    def __init__(self, nodes: int, *, seed: int = 1) -> None:
        self.nodes = nodes
        self.seed = seed
        self.wallets = max(1, round(nodes / NODES_PER_WALLET))
        self.kinds = _kinds()
        self._phase = cache(self._make_phase)
        self._shares = list(accumulate(map(_share, self.kinds)))

    def machine(self, number: int) -> Machine:
        """The machine of a number from 0 on."""
        rng = self.random("machine", number)
        kind = rng.choices(self.kinds, cum_weights=self._shares)[0]
        # a few own many: the square crowds owners towards the low numbers
        owner = int(self.wallets * rng.random() ** 2)
        return Machine(number, kind, owner, rng.lognormvariate(0, 0.25))

    def machines(self) -> Iterator[Machine]:
        """All of them."""
        return map(self.machine, range(self.nodes))

    def key(self, owner: int) -> PrivateKey:
        """A wallet's key: anybody can work it out, so never send money there."""
        return PrivateKey(self._digest("wallet", owner))

    def address(self, owner: int) -> str:
        """The wallet's address."""
        return self.key(owner).address

    def price(self, machine: Machine, at: float) -> int:
        """What it asks at a time (unix seconds), in atoms: models drift by the day and the week,
        sellers follow at their own level, and change their minds once a day."""
        day = at / DAY
        phase = self._phase(machine.kind.model)
        drift = 1 + 0.12 * math.sin(2 * math.pi * (day / 7 + phase)) + 0.03 * math.sin(day + phase)
        own = 1 + 0.04 * math.sin(machine.number * 12.9898 + int(day))
        return max(1, round(machine.kind.price * drift * own * machine.thrift))

    def record(self, machine: Machine, at: float, *, seq: int, endpoint: str = "") -> NodeRecord:
        """What its seller would sign at a time."""
        return NodeRecord(
            wallet=self.address(machine.owner),
            name=machine.name,
            endpoint=endpoint or "https://rig.example:8403",
            hardware=machine.kind.hardware,
            isolation=machine.kind.isolation,  # type: ignore[arg-type]  # pydantic makes the enum
            price_per_hour=self.price(machine, at),
            slice_seconds=60,
            max_job_seconds=DAY,
            images=("python", "torch"),
            region=machine.kind.region,
            network=machine.number % 4 == 0,
            version="0.1.0",
            seq=seq,
            issued_at=int(at),
        )

    def random(self, what: str, number: int) -> random.Random:
        """Dice of its own for each purpose, so that one more throw here changes nothing there."""
        return random.Random(self._digest(what, number))

    def _digest(self, what: str, number: int) -> bytes:
        return hashlib.sha256(f"{self.seed}/{what}/{number}".encode()).digest()

    def _make_phase(self, model: str) -> float:
        return hashlib.sha256(f"{self.seed}/{model}".encode()).digest()[0] / 256


def _kinds() -> list[Kind]:
    cards = [(card, count) for card in CARDS for count in (1, 2, 4, 8)]
    return [
        Kind(card, count, region, isolation)
        for card, count in [*cards, (None, 0)]
        for region in _REGIONS
        for isolation in _ISOLATION
    ]


def _share(kind: Kind) -> float:
    rest = 1_000 - sum(card.share for card in CARDS)
    card = kind.card.share * {1: 0.7, 2: 0.15, 4: 0.1, 8: 0.05}[kind.count] if kind.card else rest
    isolation = {"namespace": 0.5, "container": 0.3, "gvisor": 0.15, "none": 0.05}
    return card * isolation[kind.isolation]
