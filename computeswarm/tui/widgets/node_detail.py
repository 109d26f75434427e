"""All that is known of one node: what its seller signed, and what the market has seen."""

from __future__ import annotations

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
    short_address,
)
from computeswarm.tui.views import NodeItem
from computeswarm.tui.widgets.pane import Notice, Pane, line, lines

WALLS = {
    "none": "no walls round the job: only the seller's own jobs run",
    "macos": "macOS sandbox round each job",
    "namespace": "Linux namespaces round each job",
    "container": "a container round each job",
    "gvisor": "a gVisor kernel round each job",
}


def describe(node: NodeItem, now: float) -> Content:
    """The node in seven lines."""
    glyph, tone = NODE_STATES.get(node.status, ("?", "warning"))
    hardware = " · ".join(
        part
        for part in (
            f"{file_size(node.vram_bytes)} VRAM" if node.vram_bytes else "no GPU",
            f"{node.tflops} TFLOPS" if node.tflops else "",
            node.runtime,
            f"driver {node.driver}" if node.driver else "",
        )
        if part
    )
    disk = f" · {file_size(node.disk_bytes)} disk" if node.disk_bytes else ""
    total = node.jobs_succeeded + node.jobs_failed
    done = f"{node.jobs_succeeded} of {total} jobs ended well" if total else "no job ended yet"
    unit = "GPU and hour" if node.gpu_count else "hour"
    ahead = cost_atoms(node.price * max(1, node.gpu_count), node.slice_seconds)
    queue = f" · {node.running} running, {node.queued} waiting"
    return lines(
        line((node.title, "bold $bright"), f"  {hardware}"),
        line((f"{node.cpu_model} · {node.cpu_cores} cores · ", "$muted"),
             (f"{file_size(node.memory_bytes)} memory{disk}", "$muted")),
        line((price(node.price), "bold $primary"), f" USDC per {unit}, paid ",
             f"{duration(node.slice_seconds)} ahead · at most {duration(node.max_job_seconds)}"),
        line("A slice paid ahead costs ", (f"{money(ahead)} USDC", "bold"),
             ("  (whole machine)", "$muted")),
        line((f"{glyph} {node.status}", f"${tone}"), queue, f" · {done}"),
        line((f"seen {node.uptime_permille / 10:.1f} % of {age(now - node.registered_at)} · last ",
              "$muted"), (f"{age(now - node.last_seen)} ago", "$muted")),
        line((WALLS.get(node.isolation, node.isolation), "$muted"),
             (" · network on" if node.network else " · no network", "$muted"),
             (f" · {node.region}" if node.region else "", "$muted")),
        line(("✓ ", "$success"), ("signed by ", "$muted"), short_address(node.wallet),
             (f" · images {', '.join(node.images[:6])}" if node.images else "", "$muted")),
    )  # fmt: skip


class NodeDetail(Pane):
    def compose(self) -> ComposeResult:
        yield Static(id="detail-text", markup=False)
        yield Notice()

    def on_mount(self) -> None:
        self.show(None, 0.0)

    def show(self, node: NodeItem | None, now: float) -> None:
        """That node, or that there is none."""
        if node is None:
            self.head(("Node", "bold"))
            self.foot()
            self.notice("·", "No node under the cursor")
            return
        self.head((node.node_id, "bold"), (f" {node.name}", "$muted"))
        self.foot(("⏎ rent · y copy id", "$muted"))
        self.query_one("#detail-text", Static).update(describe(node, now))
        self.show_body()
