"""From the market's models to what the browser shows. Strangers' text is cleaned here, once."""

from __future__ import annotations

from computeswarm.core.nodes import ComputeNode
from computeswarm.core.pages import Facets
from computeswarm.core.prices import PriceHistory, PriceSeries
from computeswarm.core.query import facts_of, squeeze
from computeswarm.core.text import clean_line
from computeswarm.tui.views import FacetItem, NodeItem, PricePoint, PriceTrend


def node_item(node: ComputeNode) -> NodeItem:
    """A listed node whose record has been opened, so its signature holds.

    Raises:
        BadRequest, Unauthorized: as ``ComputeNode.info``.
    """
    record, hardware, known = node.info, node.info.hardware, facts_of(node)
    first = hardware.gpus[0] if hardware.gpus else None
    return NodeItem(
        node_id=node.node_id,
        name=clean_line(record.name, limit=60),
        title=clean_line(hardware.title, limit=80),
        gpu_count=len(hardware.gpus),
        vram_bytes=hardware.vram_bytes,
        price=record.price_per_hour,
        status=str(node.status),
        isolation=str(record.isolation),
        region=clean_line(record.region, limit=40),
        wallet=record.wallet,
        endpoint=clean_line(record.endpoint),
        cpu_model=clean_line(hardware.cpu_model, limit=80),
        cpu_cores=hardware.cpu_cores,
        memory_bytes=hardware.memory_bytes,
        disk_bytes=hardware.disk_bytes,
        driver=clean_line(first.driver, limit=40) if first else "",
        runtime=clean_line(first.runtime, limit=40) if first else "",
        images=tuple(clean_line(image, limit=64) for image in record.images),
        network=record.network,
        slice_seconds=record.slice_seconds,
        max_job_seconds=record.max_job_seconds,
        queued=node.queued,
        running=node.running,
        jobs_succeeded=node.jobs_succeeded,
        jobs_failed=node.jobs_failed,
        uptime_permille=node.uptime_permille,
        registered_at=node.registered_at,
        last_seen=node.last_seen,
        version=clean_line(record.version, limit=40),
        tflops=known.tflops,
        model=_model(node),
        gpu_vram=max((gpu.memory_bytes for gpu in hardware.gpus), default=0),
        rel=known.rel,
        cost=known.cost,
        value=known.value,
        reputation=known.reputation,
    )


def _model(node: ComputeNode) -> str:
    """Its models as the market counts them: several are one text."""
    models = dict.fromkeys(gpu.model for gpu in node.info.hardware.gpus)
    return clean_line(" + ".join(models), limit=100) or "cpu"


def price_trend(model: str, history: PriceHistory) -> PriceTrend:
    """The one series of that very model; a model's name may be part of another's."""
    wanted = squeeze(model)
    series = next((one for one in history.series if squeeze(one.model) == wanted), None)
    return PriceTrend(model, history.since, history.until, _points(series) if series else ())


def _points(series: PriceSeries) -> tuple[PricePoint, ...]:
    return tuple(
        PricePoint(p.at, p.p10, p.p25, p.p50, p.p75, p.p90, p.sellers)
        for p in sorted(series.points, key=lambda p: p.at)
    )


_FACET_FIELDS = {"model": "gpu"}
_MOST_VALUES = 12


def facet_items(facets: Facets) -> list[FacetItem]:
    """The most frequent values of each kind, each with the word that finds them."""
    found: list[FacetItem] = []
    for name, counts in facets:
        if name == "total":
            continue
        field = _FACET_FIELDS.get(name, name)
        for one in counts[:_MOST_VALUES]:
            label = short_model(clean_line(one.value, limit=60).replace('"', ""))
            if squeeze(label):
                found.append(FacetItem(field, label, one.nodes, _facet_word(field, label)))
    return found


def short_model(text: str) -> str:
    """A model without its maker's name, which nobody types."""
    for maker in ("NVIDIA ", "GeForce ", "AMD ", "Radeon "):
        text = text.removeprefix(maker)
    return text


def _facet_word(field: str, label: str) -> str:
    if field == "gpu":
        label = label.partition(" + ")[0]  # of several models, which is one text of the market's
        if label == "cpu":
            return "cpu"
    return f'{field}:"{label}"' if " " in label else f"{field}:{label}"
