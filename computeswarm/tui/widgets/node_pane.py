"""The market's nodes: filter, table, and how the list stands."""

from __future__ import annotations

from textual.app import ComposeResult

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.format import DASH, NODE_STATES, duration, price, size
from computeswarm.tui.views import NodeItem, NodePage
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.pane import Notice, Pane
from computeswarm.tui.widgets.table import Column, Table


def _state(node: NodeItem) -> tuple[str, str]:
    glyph, tone = NODE_STATES.get(node.status, ("?", "warning"))
    waiting = f" +{node.queued}" if node.queued else ""
    return f"{glyph} {node.status}{waiting}", tone


def _record(node: NodeItem) -> tuple[str, str]:
    total = node.jobs_succeeded + node.jobs_failed
    if not total:
        return "new", "muted"
    return f"{node.jobs_succeeded}/{total}", "" if not node.jobs_failed else "warning"


def _price(node: NodeItem) -> tuple[str, str]:
    text = price(node.price)
    return text.ljust(text.index(".") + 5), "accent"  # the points stand below one another


COLUMNS: tuple[Column[NodeItem], ...] = (
    Column("NODE", 9, lambda n: (n.node_id[:9], "muted"), rank=2),
    Column("NAME", 10, lambda n: (n.name, "bright"), "name", rank=4, grow=True),
    Column("HARDWARE", 16, lambda n: (n.title, ""), grow=True),
    Column(
        "VRAM",
        6,
        lambda n: (size(n.vram_bytes) if n.vram_bytes else DASH, ""),
        "vram",
        True,
        falls=True,
    ),
    Column("$/H", 8, _price, "price", True),
    Column("WALLS", 9, lambda n: (n.isolation, "muted"), rank=6),
    Column("REGION", 8, lambda n: (n.region or DASH, "muted"), "region", rank=7),
    Column(
        "UP",
        6,
        lambda n: (f"{n.uptime_permille / 10:.1f}%", ""),
        "uptime",
        True,
        rank=5,
        falls=True,
    ),
    Column("DONE", 7, _record, "reputation", right=True, rank=3, falls=True),
    Column("LONGEST", 8, lambda n: (duration(n.max_job_seconds), "muted"), right=True, rank=8),
    Column("STATE", 11, _state),
)
"""``DONE`` is jobs that ended well of all that ended; ``WALLS`` is the job's isolation. A column's
``sort`` is a key of ``core.query.SORT_KEYS``."""


class NodePane(Pane):
    _total = ""
    """How many match in all, where not all are here yet."""

    def compose(self) -> ComposeResult:
        yield FilterBar()
        yield Table[NodeItem](COLUMNS, lambda node: node.node_id, id="nodes")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Nodes", "bold"))
        self.notice("◌", "Looking for nodes…", tone="$muted")

    @property
    def table(self) -> Table[NodeItem]:
        return self.query_one("#nodes", Table)

    def load(self, page: NodePage, query: str) -> None:
        """An answer of the market."""
        self.table.set_rows(page.nodes)
        shown, word = len(page.nodes), "match" if query else "listed"
        # where all are here, they are the count: pages that came after one another, perhaps from
        # several instances, may have counted otherwise
        count = f"{page.total:,}{'' if page.exact else '+'}" if page.more else f"{shown:,}"
        text = f"first {shown:,} of {count} {word}" if page.more else f"{count} {word}"
        self._total = count if page.more else ""
        if page.rejected:
            text += f" · {page.rejected} with a bad signature left out"
        self.query_one(FilterBar).count(text)
        if page.nodes:
            self.show_body()
        elif query:
            self.notice("○", "No node matches", "esc clears the filter, / changes it")
        else:
            self.notice(
                "◇",
                "No node is listed here yet",
                "Start one on this or any machine:  computeswarm seller",
                "It appears here by itself.",
            )

    def fail(self, error: ComputeSwarmError) -> None:
        """The market can't be reached; what was there stays on screen."""
        if not self.table.rows:
            self.notice(
                "✗",
                error.title,
                error.detail,
                "Trying again by itself. Another market:  computeswarm --market URL",
                tone="$error",
            )

    def place(self) -> None:
        """Say in the lower edge where the cursor is."""
        rows = self.table.rows
        of = f" of {self._total}" if self._total else ""
        self.foot((f"{self.table.cursor + 1}/{len(rows)}{of}" if rows else "", "$muted"))
