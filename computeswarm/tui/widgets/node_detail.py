"""All that is known of one node: what its seller signed, and what the market has seen."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from computeswarm.core.money import cost_atoms
from computeswarm.tui.format import (
    NODE_STATES,
    age,
    duration,
    file_size,
    money,
    price,
)
from computeswarm.tui.marks import HEART, NOTHING, STAR, Marks, verdict
from computeswarm.tui.trends import LOADING, Told, bars, standing
from computeswarm.tui.views import NodeItem
from computeswarm.tui.widgets.pane import Notice, Pane, line, lines

WALLS = {
    "none": "no walls round the job: only the seller's own jobs run",
    "macos": "macOS sandbox round each job",
    "namespace": "Linux namespaces round each job",
    "container": "a container round each job",
    "gvisor": "a gVisor kernel round each job",
}


@dataclass(frozen=True, slots=True)
class Insight:
    """What is known of a node beyond what it says of itself."""

    marks: Marks = NOTHING
    favourite: bool = False
    prices: Told = LOADING


def describe(node: NodeItem, now: float, insight: Insight, *, width: int = 20) -> Content:
    """The node in nine lines; ``width`` cells for its prices over time."""
    glyph, tone = NODE_STATES.get(node.status, ("?", "warning"))
    heart = (f" · {HEART} favourite", "$warning") if insight.favourite else ""
    queue = f" · {node.running} running, {node.queued} waiting"
    unit = "GPU and hour" if node.gpu_count else "hour"
    ahead = cost_atoms(node.price * max(1, node.gpu_count), node.slice_seconds)
    disk = f" · {file_size(node.disk_bytes)} disk" if node.disk_bytes else ""
    return lines(
        line((node.title, "bold $bright"), "  ", (f"{glyph} {node.status}", f"${tone}"), heart,
             queue),
        line(_hardware(node)),
        line((f"{node.cpu_model} · {node.cpu_cores} cores · "
              f"{file_size(node.memory_bytes)} memory{disk}", "$muted")),
        line((price(node.price), "bold $primary"), f" USDC per {unit}",
             (f" · {money(node.cost, 4)} of finished work", "$muted")),
        prices_line(node, insight.prices, width),
        mark_line(node, insight.marks),
        line(_reliability(node, now)),
        line((WALLS.get(node.isolation, node.isolation), "$muted"),
             (" · network on" if node.network else " · no network", "$muted"),
             (f" · {node.region}" if node.region else "", "$muted")),
        line((f"A slice of {duration(node.slice_seconds)} ahead costs ", "$muted"),
             (f"{money(ahead)} USDC", "bold"),
             (f" · at most {duration(node.max_job_seconds)}", "$muted"),
             (f" · last seen {age(now - node.last_seen)} ago", "$muted")),
    )  # fmt: skip


def _hardware(node: NodeItem) -> str:
    if not node.gpu_count:
        return "no GPU"
    parts = (
        f"{file_size(node.gpu_vram)} VRAM each"
        if node.gpu_count > 1
        else f"{file_size(node.gpu_vram)} VRAM",
        # nobody has measured it: it is what its maker says
        f"{node.tflops:,} TFLOPS by data sheet" if node.tflops else "TFLOPS not known",
        node.runtime,
        f"driver {node.driver}" if node.driver else "",
    )
    return " · ".join(part for part in parts if part)


def _reliability(node: NodeItem, now: float) -> str:
    total = node.jobs_succeeded + node.jobs_failed
    done = f"{node.jobs_succeeded} of {total} jobs ended well" if total else "no job ended yet"
    return (
        f"{node.rel // 1000 / 10:.1f} % reliable: {done}, seen {node.uptime_permille / 10:.1f} % "
        f"of {age(now - node.registered_at)} · reputation {node.reputation / 1000:.2f}"
    )


def mark_line(node: NodeItem, marks: Marks) -> Content:
    """Whether anything here beats it, and what."""
    if node.node_id in marks.best:
        return line((f"{STAR} ", "$warning"), verdict(node, marks))
    return line(("· ", "$muted"), (verdict(node, marks), "$muted"))


def prices_line(node: NodeItem, told: Told, width: int) -> Content:
    """Thirty days of its model's prices, and where its own stands among them."""
    if told.loading:
        return line(("30 d  … prices are on their way", "$muted"))
    trend = told.trend
    if trend is None:
        return line(("30 d  ✗ ", "$muted"), (told.trouble, "$muted"))
    if not trend.points:
        return line(("30 d  no prices of this model yet", "$muted"))
    last = trend.points[-1]
    return line(
        ("30 d ", "$muted"),
        (bars(trend, width), "$primary"),
        (f" median {price(last.p50)} now · ", "$muted"),
        standing(node.price, last),
    )


class NodeDetail(Pane):
    def compose(self) -> ComposeResult:
        yield Static(id="detail-text", markup=False, classes="body")
        yield Notice()

    def on_mount(self) -> None:
        self.show(None, 0.0, None)

    def show(self, node: NodeItem | None, now: float, insight: Insight | None) -> None:
        """That node, or that there is none."""
        if node is None or insight is None:
            self.head(("Node", "bold"))
            self.foot()
            self.notice("·", "No node under the cursor")
            return
        self.head((node.node_id, "bold"), (f" {node.name}", "$muted"))
        self.foot(("⏎ rent · f favourite · i all · y copy id", "$muted"))
        width = max(8, min(30, self.size.width - 38))
        text = describe(node, now, insight, width=width)
        self.query_one("#detail-text", Static).update(text)
        self.show_body()
