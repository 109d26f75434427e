"""What ``GET /api/v1/changes`` streams: server-sent events, each named by its document's ``type``.

A change tells how something stands *now*, not what happened to it, so one that comes twice does no
harm, and of many changes of one node within a moment only the last is sent. An ``id`` is a cursor:
who opens the stream with it as ``Last-Event-ID`` is told everything that changed since.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from computeswarm.core.ids import NodeIdText
from computeswarm.core.jobs import MarketJob
from computeswarm.core.nodes import UNIX_SECONDS, Atoms, ComputeNode, Label, NodeStatus
from computeswarm.core.signing import Document
from computeswarm.core.stats import MarketStats

EVENT_STREAM = "text/event-stream"
MAX_CURSOR = 128
"""Characters of a cursor at most."""
KEEP_ALIVE_SECONDS = 15.0
"""A stream that was silent for so long sends a comment, so that its reader knows it is alive."""


class Topic(StrEnum):
    """What a stream may be about."""

    NODES = "nodes"
    PRICES = "prices"
    JOBS = "jobs"
    """The jobs of one wallet, bought and sold; needs its permit (``core.sessions.WalletRead``)."""
    STATS = "stats"


class NodeListed(Document):
    """A node that came into view, or whose record is another now: all that a search would give."""

    type: Literal["listed"] = "listed"
    node: ComputeNode


class NodeChanged(Document):
    """How a node goes; its record is what it was. ``offline`` where its lease has run out."""

    type: Literal["changed", "offline"]
    node_id: NodeIdText
    status: NodeStatus
    last_seen: UNIX_SECONDS
    queued: int = Field(default=0, ge=0, le=10**6)
    running: int = Field(default=0, ge=0, le=10**6)
    jobs_succeeded: int = Field(default=0, ge=0)
    jobs_failed: int = Field(default=0, ge=0)
    uptime_permille: int = Field(default=1000, ge=0, le=1000)


class NodeGone(Document):
    """A node that is out of view: it ``left`` the market, or doesn't match the query any more
    (``hidden``). May name one that was never in view."""

    type: Literal["left", "hidden"]
    node_id: NodeIdText


class PriceChanged(Document):
    """A node asks for another price; atoms per GPU and hour (for the machine on a cpu node)."""

    type: Literal["price"] = "price"
    node_id: NodeIdText
    model: Label
    """Of its first GPU; ``cpu`` where there is none."""
    before: Atoms
    price_per_hour: Atoms
    at: UNIX_SECONDS


class JobChanged(Document):
    """A job that was submitted, or that goes on."""

    type: Literal["job"] = "job"
    job: MarketJob


class StatsChanged(Document):
    """The market's statistics, every two seconds. Has no cursor: the next one replaces it."""

    type: Literal["stats"] = "stats"
    stats: MarketStats


class Reset(Document):
    """Changes are missing before this point: what was loaded is to be loaded anew."""

    type: Literal["reset"] = "reset"
    reason: str = Field(default="", max_length=200)


Change = Annotated[
    NodeListed | NodeChanged | NodeGone | PriceChanged | JobChanged | StatsChanged | Reset,
    Field(discriminator="type"),
]
CHANGE: TypeAdapter[Change] = TypeAdapter(Change)
