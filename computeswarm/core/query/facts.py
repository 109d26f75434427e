"""What a query can ask about one node, and how the figures among it are reckoned.

All figures are integers, so that a market that keeps millions of nodes in columns finds the very
nodes that this finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from computeswarm.core.nodes import ComputeNode, GPUInfo, Hardware, NodeRecord, NodeStatus
from computeswarm.core.query.versions import version_number
from computeswarm.core.text import squeeze
from computeswarm.core.throughput import sheet_tflops

PPM = 1_000_000
UNKNOWN_VALUE = 2**62
"""``value`` of a node whose throughput is not known: behind all others."""
VENDORS = ("none", "nvidia", "amd", "apple", "other")
"""A vendor's place here is its code; ``none`` is a node without a GPU. Never reorder."""
DEAREST = 10**12
"""Atoms an hour from which on nothing is told apart: products stay within 64 bits."""
BOUND_DEVIATIONS = 1.64
"""Of a one-sided 95 % bound."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Facts:
    """What a query can ask about a node, worked out once for each node."""

    node_id: str
    status: NodeStatus
    text: str
    """Everything a bare word looks in, squeezed: model, name, region, processor."""
    gpu: str
    """All GPU models, squeezed; empty on a cpu node."""
    name: str
    region: str
    wallet: str
    images: tuple[str, ...]
    isolation: int
    network: bool
    price: int
    """Atoms per GPU and hour."""
    gpus: int
    vram: int
    """GiB of the largest GPU, rounded: a card sold as 24 GB reports a little less."""
    cores: int
    ram: int
    disk: int
    max_time: int
    slice: int
    queue: int
    rel: int
    """Reliability in millionths: share of time online times share of jobs not failed."""
    uptime: int
    """Share of time online, in thousandths."""
    reputation: int
    """In thousandths, see ``reputation``."""
    tflops: int
    """Of the fastest GPU, dense FP16; 0: not known."""
    vendor: int
    """Of the first GPU: its place in ``VENDORS``."""
    driver: int
    """Of the first GPU, as ``version_number``; 0: not known."""
    cuda: int
    capability: int

    @property
    def cost(self) -> int:
        """See ``expected_cost``."""
        return expected_cost(self.price, self.rel)

    @property
    def value(self) -> int:
        """See ``price_of_throughput``."""
        return price_of_throughput(self.price, self.tflops)


def reliability(uptime_permille: int, succeeded: int, failed: int) -> int:
    """In millionths: share of time online times share of ended jobs that did not fail."""
    ended = succeeded + failed
    share = succeeded * PPM // ended if ended else PPM
    return uptime_permille * share // 1000


def expected_cost(price: int, rel: int) -> int:
    """Atoms per hour of finished work: the price over the reliability (millionths)."""
    return min(price, DEAREST) * PPM // max(rel, 1)


def price_of_throughput(price: int, tflops: int) -> int:
    """Thousandths of an atom for an hour of one TFLOPS; ``UNKNOWN_VALUE`` where that is unknown."""
    return min(price, DEAREST) * 1000 // tflops if tflops > 0 else UNKNOWN_VALUE


def reputation(succeeded: int, failed: int) -> int:
    """In thousandths: how often its jobs succeed, as far as there were enough to tell.

    The mean of Beta(1 + succeeded, 1 + failed) less 1.64 of its standard deviations (a one-sided
    95 % bound), so a node without a past has next to none. Jobs are those whose end the market was
    told, which a seller with many wallets could inflate. In doubles, in the order written here.
    """
    good, bad = 1.0 + succeeded, 1.0 + failed
    both = good + bad
    deviation = math.sqrt(good * bad / (both * both * (both + 1.0)))
    return max(0, int(1000.0 * (good / both - BOUND_DEVIATIONS * deviation)))


def facts(
    node_id: str,
    record: NodeRecord,
    *,
    status: NodeStatus,
    queued: int,
    succeeded: int,
    failed: int,
    uptime_permille: int,
) -> Facts:
    """The facts of a node, from its record and what the market has seen of it."""
    hardware = record.hardware
    first = hardware.gpus[0] if hardware.gpus else None
    gpu = "|".join(dict.fromkeys(squeeze(gpu.model) for gpu in hardware.gpus))
    words = (record.name, record.region, hardware.cpu_model)
    return Facts(
        node_id=node_id,
        status=status,
        text="|".join([gpu, *(squeeze(word) for word in words)]),
        gpu=gpu,
        name=record.name,
        region=record.region.lower(),
        wallet=record.wallet.lower(),
        images=record.images,
        isolation=record.isolation.rank,
        network=record.network,
        price=record.price_per_hour,
        gpus=len(hardware.gpus),
        vram=max((_gib(gpu.memory_bytes) for gpu in hardware.gpus), default=0),
        cores=hardware.cpu_cores,
        ram=_gib(hardware.memory_bytes),
        disk=_gib(hardware.disk_bytes),
        max_time=record.max_job_seconds,
        slice=record.slice_seconds,
        queue=queued,
        rel=reliability(uptime_permille, succeeded, failed),
        uptime=uptime_permille,
        reputation=reputation(succeeded, failed),
        tflops=_tflops(hardware),
        vendor=VENDORS.index(first.vendor) if first else 0,
        driver=version_number(first.driver) if first else 0,
        cuda=_cuda(first) if first else 0,
        capability=version_number(first.capability) if first else 0,
    )


def facts_of(node: ComputeNode) -> Facts:
    """The facts of a listed node.

    Raises:
        BadRequest, Unauthorized: the record is not what its wallet signed.
    """
    return facts(
        node.node_id,
        node.info,
        status=node.status,
        queued=node.queued,
        succeeded=node.jobs_succeeded,
        failed=node.jobs_failed,
        uptime_permille=node.uptime_permille,
    )


def _tflops(hardware: Hardware) -> int:
    return max(map(_tflops_of, hardware.gpus), default=0)


def _tflops_of(gpu: GPUInfo) -> int:
    """What its seller says, which may be nothing, but no more than its model's data sheet does."""
    sheet = sheet_tflops(gpu.model)
    return min(gpu.tflops or sheet, sheet or gpu.tflops)


def _cuda(gpu: GPUInfo) -> int:
    return version_number(gpu.runtime) if gpu.runtime.upper().startswith("CUDA") else 0


def _gib(size: int) -> int:
    return round(size / _GIB)
