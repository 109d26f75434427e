"""Everything a query can speak of, in one table that search, help, docs and completion read."""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.core.money import ATOMS_PER_USDC
from computeswarm.core.nodes import Isolation, NodeStatus
from computeswarm.core.query.facts import PPM, UNKNOWN_VALUE, VENDORS
from computeswarm.core.query.kinds import MOST, Field, Kind, Look

_STATUSES = tuple(str(status) for status in NodeStatus)
_LEVELS = tuple(str(level) for level in Isolation)


_TABLE = (
    Field(
        "gpu",
        Kind.TEXT,
        "model of its GPUs",
        "gpu:4090|a100",
        "gpu",
        aliases=("model", "gpu_type", "gpu_model", "gpu_name", "card"),
        best=1,
    ),
    Field(
        "gpus",
        Kind.NUMBER,
        "how many GPUs it has",
        "gpus>=2",
        "gpus",
        aliases=("count", "gpu_count", "num_gpus", "ngpus"),
        best=-1,
    ),
    Field(
        "vram",
        Kind.NUMBER,
        "memory of its largest GPU",
        "vram:24..48",
        "vram",
        unit="GiB",
        aliases=("mem", "memory", "gpu_mem", "gpu_ram", "gpu_memory", "vram_gb"),
        best=-1,
    ),
    Field(
        "price",
        Kind.NUMBER,
        "price of a GPU, on a cpu node of the machine",
        "price<2",
        "price",
        unit="USDC an hour",
        aliases=("usd", "usdc", "rate", "dph"),
        scale=ATOMS_PER_USDC,
        best=1,
    ),
    Field(
        "cost",
        Kind.NUMBER,
        "expected cost of finished work: price over reliability",
        "cost<2.5",
        "cost",
        unit="USDC an hour",
        aliases=("expected_cost",),
        scale=ATOMS_PER_USDC,
        best=1,
    ),
    Field(
        "value",
        Kind.NUMBER,
        "value for money: price over throughput",
        "value<0.005",
        "value",
        unit="USDC for an hour of one TFLOPS",
        aliases=("price_per_tflops", "usd_per_tflops"),
        scale=ATOMS_PER_USDC * 1000,
        most=UNKNOWN_VALUE - 1,
        best=1,
    ),
    Field(
        "tflops",
        Kind.NUMBER,
        "throughput of its fastest GPU, dense FP16, by its maker's data sheet",
        "tflops>=150",
        "tflops",
        unit="TFLOPS",
        aliases=("flops", "fp16", "throughput"),
        least=1,
        best=-1,
    ),
    Field(
        "region",
        Kind.TEXT,
        "where it stands, as its seller says; the beginning is enough",
        "region:eu|us",
        "region",
        aliases=("location", "geo", "country", "geolocation"),
        look=Look.PREFIX,
        best=1,
    ),
    Field(
        "isolation",
        Kind.RANK,
        "what stands between a job and its host",
        "isolation>=container",
        "isolation",
        aliases=("walls", "sandbox"),
        best=-1,
        choices=_LEVELS,
        most=len(_LEVELS) - 1,
    ),
    Field(
        "rel",
        Kind.NUMBER,
        "reliability: share of time online times share of jobs not failed",
        "rel>=0.98",
        "rel",
        unit="0 to 1",
        aliases=("reliability",),
        scale=PPM,
        best=-1,
    ),
    Field(
        "reputation",
        Kind.NUMBER,
        "how often its jobs succeed, held low while there were few",
        "reputation>=0.9",
        "reputation",
        unit="0 to 1",
        aliases=("rep", "score", "rating"),
        scale=1000,
        best=-1,
    ),
    Field(
        "uptime",
        Kind.NUMBER,
        "share of time online since it registered",
        "uptime>=99%",
        "uptime",
        unit="0 to 1",
        aliases=("up",),
        scale=1000,
        best=-1,
    ),
    Field(
        "status",
        Kind.CHOICE,
        "what it does now; offline ones are hidden unless asked for",
        "status:idle|busy",
        "status",
        aliases=("state", "availability"),
        best=1,
        choices=_STATUSES,
        most=len(_STATUSES) - 1,
    ),
    Field(
        "network",
        Kind.FLAG,
        "jobs may reach the internet",
        "network",
        "network",
        aliases=("internet",),
        most=1,
        best=-1,
    ),
    Field(
        "vendor",
        Kind.CHOICE,
        "maker of its GPUs",
        "vendor:nvidia",
        "vendor",
        aliases=("maker", "gpu_vendor"),
        choices=VENDORS,
        most=len(VENDORS) - 1,
        best=1,
    ),
    Field(
        "driver",
        Kind.VERSION,
        "version of the GPU's driver",
        "driver>=550.54",
        "driver",
        aliases=("driver_version",),
        least=1,
        best=-1,
    ),
    Field(
        "cuda",
        Kind.VERSION,
        "newest CUDA its driver runs",
        "cuda>=12.4",
        "cuda",
        aliases=("cuda_version",),
        least=1,
        best=-1,
    ),
    Field(
        "capability",
        Kind.VERSION,
        "CUDA compute capability",
        "capability>=8.0",
        "capability",
        aliases=("compute_cap", "compute_capability", "sm"),
        least=1,
        best=-1,
    ),
    Field(
        "cores",
        Kind.NUMBER,
        "cores of its processor",
        "cores>=8",
        "cores",
        aliases=("cpus", "vcpus", "cpu_cores"),
        best=-1,
    ),
    Field(
        "ram",
        Kind.NUMBER,
        "memory of the machine",
        "ram>=64gb",
        "ram",
        unit="GiB",
        aliases=("cpu_ram", "system_memory"),
        best=-1,
    ),
    Field(
        "disk",
        Kind.NUMBER,
        "free disk space",
        "disk>=100gb",
        "disk",
        unit="GiB",
        aliases=("storage", "disk_space"),
        best=-1,
    ),
    Field(
        "queue",
        Kind.NUMBER,
        "jobs that wait there",
        "queue<=1",
        "queue",
        aliases=("queued", "waiting"),
        best=1,
    ),
    Field(
        "max_time",
        Kind.NUMBER,
        "longest job it takes",
        "max_time>=2h",
        "max_time",
        unit="seconds",
        aliases=("duration", "max_duration", "longest", "max_seconds"),
        best=-1,
    ),
    Field(
        "slice",
        Kind.NUMBER,
        "how much time is paid at once",
        "slice<=60s",
        "slice",
        unit="seconds",
        aliases=("slice_seconds",),
        best=1,
    ),
    Field(
        "image",
        Kind.TEXT,
        "an image it offers, by its whole name",
        "image:python",
        "images",
        aliases=("images", "docker"),
        look=Look.EXACT,
    ),
    Field("name", Kind.TEXT, "its name", 'name:"my rig"', "name", aliases=("host",), best=1),
    Field(
        "id",
        Kind.TEXT,
        "its id, or the beginning",
        "id:nd-0123",
        "node_id",
        aliases=("node", "node_id"),
        look=Look.PREFIX,
    ),
    Field(
        "wallet",
        Kind.TEXT,
        "its seller's wallet, or the beginning",
        "wallet:0xabcd",
        "wallet",
        aliases=("seller", "owner", "address"),
        look=Look.PREFIX,
    ),
    Field(
        "text",
        Kind.TEXT,
        "model, name, region, processor, or the beginning of the id; so is a bare word",
        "ryzen",
        "text",
        aliases=("any",),
    ),
)
FIELDS = {field.name: field for field in _TABLE}
NAMES = {name: field for field in _TABLE for name in (field.name, *field.aliases)}
"""Fields by all their names."""
SORTABLE = tuple(field.name for field in _TABLE if field.best)
DEFAULT_SORT = "price"


@dataclass(frozen=True, slots=True)
class Flag:
    """A word that stands alone for a comparison."""

    name: str
    field: str
    ranges: tuple[tuple[int, int], ...]
    about: str
    aliases: tuple[str, ...] = ()


_IDLE, _BUSY, _DRAINING, OFFLINE = range(len(_STATUSES))
_ALONE = (
    Flag("online", "status", ((_IDLE, _DRAINING),), "idle, busy or draining"),
    Flag(
        "idle",
        "status",
        ((_IDLE, _IDLE),),
        "takes a job now",
        ("available", "free"),
    ),
    Flag("busy", "status", ((_BUSY, _BUSY),), "runs a job"),
    Flag("draining", "status", ((_DRAINING, _DRAINING),), "takes no new job"),
    Flag("offline", "status", ((OFFLINE, OFFLINE),), "not heard from"),
    Flag("gpu", "gpus", ((1, MOST),), "has a GPU"),
    Flag("cpu", "gpus", ((0, 0),), "has none"),
    Flag("network", "network", ((1, 1),), "jobs may reach the internet", ("internet",)),
)
FLAGS = {name: flag for flag in _ALONE for name in (flag.name, *flag.aliases)}
"""Flags by all their names."""
