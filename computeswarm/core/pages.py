"""Pages of nodes and the counts beside them, as ``GET /api/v1/nodes`` and its facets give them."""

from __future__ import annotations

from pydantic import Field

from computeswarm.core.nodes import ComputeNode
from computeswarm.core.signing import Document


class NodeList(Document):
    """A page of nodes."""

    nodes: tuple[ComputeNode, ...]
    next: str | None = Field(description="cursor of the next page")
    total: int = Field(ge=0, description="nodes that match, on all pages")
    total_exact: bool = Field(
        default=True,
        description="false on a large market whose other nodes were not looked at: then at least "
        "`total` match, and facets count them",
    )


class FacetCount(Document):
    """How many of the nodes that match have one value."""

    value: str = Field(description="a value of this field, for a query or a screen")
    nodes: int = Field(ge=0)


class Facets(Document):
    """Nodes that match, counted by what they are; most nodes first."""

    total: int = Field(ge=0)
    model: tuple[FacetCount, ...] = Field(default=(), description="GPU model; cpu for none")
    vendor: tuple[FacetCount, ...] = ()
    vram: tuple[FacetCount, ...] = Field(default=(), description="GiB of the largest GPU")
    gpus: tuple[FacetCount, ...] = Field(default=(), description="how many GPUs")
    region: tuple[FacetCount, ...] = ()
    isolation: tuple[FacetCount, ...] = ()
    status: tuple[FacetCount, ...] = ()
    network: tuple[FacetCount, ...] = Field(default=(), description="yes or no")
