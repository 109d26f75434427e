"""The columns of the node table, and how each writes a node."""

from __future__ import annotations

from collections.abc import Callable

from computeswarm.tui.format import DASH, NODE_STATES, duration, money, price, short_address, size
from computeswarm.tui.marks import HEART, STAR
from computeswarm.tui.views import Gap, NodeItem
from computeswarm.tui.widgets.table import Column

Row = NodeItem | Gap
Cell = Callable[[NodeItem], tuple[str, str]]
_UNKNOWN = 10**12
"""``value`` from which on it is not known."""


def gap_text(row: Row) -> str:
    """What stands in the place of nodes that are not here."""
    if isinstance(row, NodeItem):
        return ""
    count = f"{row.missing:,} more" if row.missing > 1 else "more"
    return f"⋮  {count} between; go on from either side to fetch them"


def row_key(row: Row) -> str:
    return row.node_id if isinstance(row, NodeItem) else ""


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


def _cost(node: NodeItem) -> tuple[str, str]:
    return (money(node.cost, 3) if node.cost < _UNKNOWN else "∞"), ""


def _value(node: NodeItem) -> tuple[str, str]:
    known = node.tflops > 0 and node.value < 1000 * _UNKNOWN
    return (money(node.value // 1000, 5) if known else DASH), ""


def _reliable(node: NodeItem) -> tuple[str, str]:
    text = f"{node.rel // 1000 / 10:.1f}" if node.rel < 1_000_000 else "100"
    return text, "" if node.rel >= 950_000 else "warning"


def _muted(text: Callable[[NodeItem], str]) -> Cell:
    return lambda node: (text(node) or DASH, "muted")


def node_columns(marks: Cell) -> tuple[Column[Row], ...]:
    """``marks`` writes whether a node is a favourite, and unbeaten.

    ``DONE`` is jobs that ended well of all that ended; ``COST`` is that of an hour of finished
    work; ``$/TF`` of an hour of one TFLOPS; ``WALLS`` is the job's isolation. A column's ``sort``
    is a key of ``core.query.SORTABLE``.
    """

    def column(
        title: str,
        width: int,
        cell: Cell,
        sort: str = "",
        *,
        rank: int = 0,
        right: bool = False,
        falls: bool = False,
        grow: bool = False,
    ) -> Column[Row]:
        def text(row: Row) -> tuple[str, str]:
            return cell(row) if isinstance(row, NodeItem) else ("", "")

        return Column(title, width, text, sort, right, rank, grow, falls)

    return (
        column("", 2, marks),
        column("NODE", 9, _muted(lambda n: n.node_id[:9]), rank=9),
        column("NAME", 10, lambda n: (n.name, "bright"), "name", rank=3, grow=True),
        column("HARDWARE", 13, lambda n: (n.title, ""), grow=True),
        column(
            "VRAM",
            6,
            lambda n: (size(n.gpu_vram) if n.gpu_vram else DASH, ""),
            "vram",
            right=True,
            falls=True,
        ),
        column("$/H", 8, _price, "price", right=True),
        column("COST", 7, _cost, "cost", right=True, rank=4),
        column(
            "TFLOPS",
            8,
            lambda n: (f"{n.tflops:,}" if n.tflops else DASH, ""),
            "tflops",
            right=True,
            falls=True,
            rank=6,
        ),
        column("$/TF", 8, _value, "value", right=True, rank=12),
        column("REL%", 6, _reliable, "rel", right=True, falls=True, rank=5),
        column("DONE", 9, _record, "reputation", right=True, falls=True, rank=8),
        column("UP%", 6, lambda n: (f"{n.uptime_permille / 10:.1f}", ""), "uptime", right=True,
               falls=True, rank=13),
        column("REGION", 8, _muted(lambda n: n.region), "region", rank=7),
        column("WALLS", 9, _muted(lambda n: n.isolation), rank=10),
        column("NET", 3, _muted(lambda n: "yes" if n.network else "no"), rank=14),
        column("LONGEST", 8, _muted(lambda n: duration(n.max_job_seconds)), right=True, rank=11),
        column("CORES", 6, _muted(lambda n: str(n.cpu_cores)), "cores", right=True, falls=True,
               rank=15),
        column("RAM", 6, _muted(lambda n: size(n.memory_bytes)), "ram", right=True, falls=True,
               rank=16),
        column("DISK", 6, _muted(lambda n: size(n.disk_bytes) if n.disk_bytes else ""), "disk",
               right=True, falls=True, rank=17),
        column("RUNTIME", 10, _muted(lambda n: n.runtime), rank=18),
        column("DRIVER", 8, _muted(lambda n: n.driver), rank=19),
        column("SELLER", 13, _muted(lambda n: short_address(n.wallet)), rank=20),
        column("STATE", 10, _state),
    )  # fmt: skip


def marks_cell(
    favourites: Callable[[], frozenset[str]], best: Callable[[], frozenset[str]]
) -> Cell:
    """``♥`` for a favourite, ``★`` for a node that nothing here beats."""

    def cell(node: NodeItem) -> tuple[str, str]:
        heart = HEART if node.node_id in favourites() else " "
        star = STAR if node.node_id in best() else " "
        return heart + star, "warning"

    return cell
