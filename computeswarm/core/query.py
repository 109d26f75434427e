"""The one search language for nodes, used by the API, the command line and the terminal app.

``gpu:4090|a100 vram>=24 price<2 rel>=0.98 isolation>=container region:eu online sort:cost``

Words are separated by spaces and must all hold. Times in seconds, memory in GiB, prices in USDC per
GPU and hour, shares from 0 to 1. A bare word looks in name, model, region and id.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from computeswarm.core.errors import InvalidQuery
from computeswarm.core.money import ATOMS_PER_USDC
from computeswarm.core.nodes import ComputeNode, Isolation, NodeRecord, NodeStatus
from computeswarm.core.text import clean_line

MAX_LENGTH = 500
DEFAULT_SORT = "price"
_GIB = 2**30
_PPM = 1_000_000
_NUMBER = re.compile(
    r"\$?([0-9]{1,12}(?:\.[0-9]{1,6})?)(?:gib|gb|g|s)?\Z", re.IGNORECASE | re.ASCII
)
_TERM = re.compile(r"([A-Za-z_]+)(>=|<=|>|<|=|:)(.*)\Z", re.DOTALL)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    ":": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a query can ask about a node, worked out once for each node."""

    node_id: str
    status: NodeStatus
    text: str
    """Everything a bare word looks in, squeezed."""
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

    @property
    def cost(self) -> int:
        """Expected atoms per hour of finished work: the price over the reliability."""
        return self.price * _PPM // max(self.rel, 1)


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
    gpu = "|".join(dict.fromkeys(squeeze(gpu.model) for gpu in hardware.gpus))
    ended = succeeded + failed
    share = succeeded * _PPM // ended if ended else _PPM
    words = (record.name, record.region, node_id, hardware.cpu_model)
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
        rel=uptime_permille * share // 1000,
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


def _gib(size: int) -> int:
    return round(size / _GIB)


def squeeze(text: str) -> str:
    """Lower case letters and digits only, so that ``rtx-4090`` finds ``RTX 4090``."""
    return "".join(c for c in text.lower() if c.isalnum())


Check = Callable[[Facts], bool]
_NUMBERS: dict[str, tuple[Callable[[Facts], float], float]] = {
    # the value, and how many of its units one unit of the query is
    "vram": (lambda f: f.vram, 1),
    "price": (lambda f: f.price, ATOMS_PER_USDC),
    "cost": (lambda f: f.cost, ATOMS_PER_USDC),
    "rel": (lambda f: f.rel, _PPM),
    "gpus": (lambda f: f.gpus, 1),
    "cores": (lambda f: f.cores, 1),
    "ram": (lambda f: f.ram, 1),
    "disk": (lambda f: f.disk, 1),
    "queue": (lambda f: f.queue, 1),
    "max_time": (lambda f: f.max_time, 1),
    "slice": (lambda f: f.slice, 1),
}
_TEXTS: dict[str, Callable[[Facts, str], bool]] = {
    "gpu": lambda f, value: value in f.gpu,
    "name": lambda f, value: value in squeeze(f.name),
    "region": lambda f, value: squeeze(f.region).startswith(value),
    "image": lambda f, value: any(value == squeeze(image) for image in f.images),
    "id": lambda f, value: squeeze(f.node_id).startswith(value),
    "wallet": lambda f, value: f.wallet.startswith(value),
    "status": lambda f, value: f.status == value,
}
_FLAGS: dict[str, Check] = {
    "online": lambda f: f.status is not NodeStatus.OFFLINE,
    "offline": lambda f: f.status is NodeStatus.OFFLINE,
    "idle": lambda f: f.status is NodeStatus.IDLE,
    "available": lambda f: f.status is NodeStatus.IDLE,
    "busy": lambda f: f.status is NodeStatus.BUSY,
    "gpu": lambda f: f.gpus > 0,
    "cpu": lambda f: f.gpus == 0,
    "network": lambda f: f.network,
}
SORT_KEYS: dict[str, Callable[[Facts], int | str]] = {
    "price": lambda f: f.price,
    "cost": lambda f: f.cost,
    "vram": lambda f: -f.vram,
    "gpus": lambda f: -f.gpus,
    "cores": lambda f: -f.cores,
    "ram": lambda f: -f.ram,
    "rel": lambda f: -f.rel,
    "queue": lambda f: f.queue,
    "name": lambda f: f.name.lower(),
    "region": lambda f: f.region,
}
"""Best first: cheap before dear, much memory before little. ``sort:-price`` turns it round."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query."""

    text: str
    checks: tuple[Check, ...]
    sort: str
    shows_offline: bool
    """Nodes that are offline stay hidden unless the query speaks of them."""

    def accepts(self, node: Facts) -> bool:
        """Whether a node with these facts is found."""
        if node.status is NodeStatus.OFFLINE and not self.shows_offline:
            return False
        return all(check(node) for check in self.checks)

    def matches(self, node: ComputeNode) -> bool:
        """Whether ``node`` is found; raises as ``facts_of`` does."""
        return self.accepts(facts_of(node))

    def sort_key(self, node: Facts) -> tuple[int, ...]:
        """Integers whose order is the order of the list (JSON keeps them exact, for cursors)."""
        value = SORT_KEYS[self.sort.removeprefix("-")](node)
        sign = -1 if self.sort.startswith("-") else 1
        if isinstance(value, int):
            return (sign * value,)
        # a word's end sorts before any letter
        return (*(sign * (ord(c) + 1) for c in value), 0)


@lru_cache(maxsize=512)
def parse(text: str, *, sort: str = "") -> Query:
    """Read a query; ``sort`` is the order where the text itself names none.

    Raises:
        InvalidQuery: ``extra`` holds ``position`` and ``length`` (characters) of the part that
            can't be read, and ``word``, that part cleaned for display.
    """
    if len(text) > MAX_LENGTH:
        raise _invalid(text, MAX_LENGTH, len(text), f"A query has at most {MAX_LENGTH} characters.")
    order = _sort_name(sort, sort, 0) if sort else DEFAULT_SORT
    checks: list[Check] = []
    shows_offline = False
    for found in re.finditer(r"\S+", text):
        word, start = found[0], found.start()
        if word.lower().startswith("sort:"):
            order = _sort_name(word[5:], text, start + 5)
            continue
        checks.append(_check(word, text, start))
        shows_offline |= word.lower() in ("offline", "status:offline") or "|offline" in word.lower()
    return Query(text, tuple(checks), order, shows_offline)


def _check(word: str, text: str, start: int) -> Check:
    term = _TERM.match(word)
    if term is None:
        return _bare(word, text, start)
    key, op, value = term[1].lower(), term[2], term[3]
    at = start + term.start(3)
    if not value:
        raise _invalid(
            text, start, len(word), f"{clean_line(word)!r} has no value; write {key}{op}…."
        )
    if key == "isolation":
        return _isolation(op, value, text, at)
    if key in _NUMBERS:
        return _number(key, op, value, text, at)
    if key in _TEXTS:
        if op not in (":", "="):
            sentence = f"{key} is a text; write {key}:{clean_line(value)}."
            raise _invalid(text, start, len(word), sentence)
        return _text(key, value, text, at)
    known = ", ".join(sorted({*_NUMBERS, *_TEXTS, "isolation", "sort"}))
    raise _invalid(
        text, start, len(term[1]), f"{clean_line(key)!r} is not known; use one of {known}."
    )


def _bare(word: str, text: str, start: int) -> Check:
    flag = _FLAGS.get(word.lower())
    if flag is not None:
        return flag
    value = squeeze(word)
    if not value:
        raise _invalid(
            text, start, len(word), f"{clean_line(word)!r} can't be read; write KEY:VALUE."
        )
    return lambda f: value in f.text


def _number(key: str, op: str, value: str, text: str, at: int) -> Check:
    read = _NUMBER.match(value)
    if read is None:
        sentence = f"{clean_line(value)!r} is not a number; write it like {key}{op}24."
        raise _invalid(text, at, len(value), sentence)
    of, unit = _NUMBERS[key]
    wanted = round(float(read[1]) * unit, 6)
    compare = _COMPARE[op]
    return lambda f: compare(of(f), wanted)


def _isolation(op: str, value: str, text: str, at: int) -> Check:
    levels = {str(level): level.rank for level in Isolation}
    rank = levels.get(value.lower())
    if rank is None:
        sentence = f"{clean_line(value)!r} is no isolation; use one of {', '.join(levels)}."
        raise _invalid(text, at, len(value), sentence)
    compare = _COMPARE[op]
    return lambda f: compare(f.isolation, rank)


def _text(key: str, value: str, text: str, at: int) -> Check:
    wanted = []
    for part in value.split("|"):
        squeezed = squeeze(part)
        if not squeezed or (key == "status" and squeezed not in list(NodeStatus)):
            sentence = f"{clean_line(part)!r} is no {key}; write {key}:ONE|OTHER."
            raise _invalid(text, at, len(value), sentence)
        wanted.append(squeezed)
    matches = _TEXTS[key]
    return lambda f: any(matches(f, one) for one in wanted)


def _sort_name(name: str, text: str, at: int) -> str:
    lower = name.lower()
    if lower.removeprefix("-") not in SORT_KEYS:
        known = ", ".join(SORT_KEYS)
        raise _invalid(
            text, at, len(name), f"Can't sort by {clean_line(name)!r}; use one of {known}."
        )
    return lower


def _invalid(text: str, position: int, length: int, sentence: str) -> InvalidQuery:
    word = clean_line(text[position : position + min(length, 60)])
    return InvalidQuery(sentence, position=position, length=length, word=word)


def completions(text: str) -> list[str]:
    """Words that the last word of ``text`` may become, for completing what is being typed."""
    last = (text[len(text.rstrip()) :] == "" and text.split()[-1:]) or [""]
    prefix = last[0].lower()
    if prefix.startswith("sort:"):
        words = [f"sort:{key}" for key in SORT_KEYS]
    elif prefix.startswith("isolation"):
        words = [f"isolation>={level}" for level in Isolation]
    elif prefix.startswith("status:"):
        words = [f"status:{status}" for status in NodeStatus]
    else:
        words = [f"{key}:" for key in _TEXTS] + [f"{key}>=" for key in _NUMBERS if key != "price"]
        words += ["price<=", "isolation>=", "sort:", *_FLAGS]
    return sorted({word for word in words if word.startswith(prefix) and word != prefix})
