"""A list of nodes that follows the market: drawn anew on a terminal, line by line elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from computeswarm.core.errors import ExitCode
from computeswarm.core.text import clean_line

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.http.changes import Broken
    from computeswarm.cli.context import Context
    from computeswarm.core.changes import Change
    from computeswarm.core.nodes import ComputeNode
    from computeswarm.core.query import Query

_DRAW_SECONDS = 0.5
_CLEAR = "\x1b[H\x1b[2J"
_AROUND = 3
"""Lines of a screen that are no nodes: the head, the state, the shell's own."""


async def watch(context: Context, buyer: Buyer, query: Query, *, most: int) -> int:
    """Show what matches, and keep it right until interrupted.

    With ``--json`` one object a line: a ``snapshot`` (again where changes were missed), then each
    change, and ``link`` where the connection went or came.
    """
    watching = _Watching(context, buyer, query, most)
    drawing = asyncio.create_task(watching.draw()) if watching.draws else None
    try:
        await watching.follow()
    finally:
        if drawing is not None:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
    return ExitCode.OK


class _Watching:
    def __init__(self, context: Context, buyer: Buyer, query: Query, most: int) -> None:
        from computeswarm.buyer.watching import NodeView

        self.draws = not context.json and sys.stdout.isatty()
        self._context, self._buyer, self._query, self._most = context, buyer, query, most
        self._view = NodeView()
        self._state = "connecting"
        self._loaded = False
        self._dirty = asyncio.Event()

    async def follow(self) -> None:
        """Until interrupted, or the market refuses for good."""
        from computeswarm.buyer.http.changes import Broken, Opened
        from computeswarm.core.changes import Reset, Topic

        words = self._query.text or "online"  # as a search; a stream without a query shows all
        async with aclosing(self._buyer.changes([Topic.NODES], words)) as changes:
            async for item in changes:
                if isinstance(item, Broken):
                    self._broken(item)
                elif isinstance(item, Opened):
                    self._link("live")
                    if not item.resumed:
                        await self._load()
                elif isinstance(item, Reset):
                    await self._load()
                elif self._view.apply(item):
                    self._changed(item)

    async def draw(self) -> None:
        """The list as it stands, whenever something in it is another."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._draw()
            await asyncio.sleep(_DRAW_SECONDS)

    async def _load(self) -> None:
        from computeswarm.cli.output import node_document

        found: list[ComputeNode] = []
        async for page in self._buyer.find_all(
            self._query.text, sort=self._query.sort, most=self._most
        ):
            found += page.nodes
        self._view.load(found)
        self._loaded = True
        self._dirty.set()
        if self._context.json:
            nodes = [node_document(node) for node in found]
            self._context.document({"type": "snapshot", "nodes": nodes, "total": page.total})
        elif not self.draws:
            self._table(found)

    def _changed(self, change: Change) -> None:
        self._dirty.set()
        if self._context.json:
            self._context.document(_document(change))
        elif not self.draws:
            self._context.text(self._line(change))
            sys.stdout.flush()

    def _broken(self, broken: Broken) -> None:
        self._link(f"no connection: {clean_line(broken.error.detail, limit=200)}")

    def _link(self, state: str) -> None:
        if state == self._state:
            return
        self._state = state
        if self._loaded:
            self._dirty.set()
        if self._context.json:
            self._context.document({"type": "link", "live": state == "live", "state": state})
        elif not self.draws:
            self._context.note(state)

    def _line(self, change: Change) -> str:
        """A change for a person: when, what, and the node's row where it still has one."""
        from computeswarm.cli.output import node_row

        document = change.model_dump(include={"node_id", "node"})
        node_id = document.get("node_id") or document["node"]["node_id"]
        node = self._view.nodes.get(node_id)
        cells = node_row(node) if node else (node_id,)
        return "  ".join((time.strftime("%H:%M:%S"), f"{change.type:<7}", *cells))

    def _draw(self) -> None:
        lines = max(1, shutil.get_terminal_size().lines - _AROUND)
        nodes = self._sorted()
        self._context.text(_CLEAR + f"{len(nodes):,} nodes · {self._state} · Ctrl+C ends")
        self._table(nodes[: min(lines, self._most)])
        sys.stdout.flush()

    def _table(self, nodes: list[ComputeNode]) -> None:
        from computeswarm.cli.output import NODE_HEAD, node_row

        if nodes:
            self._context.table(NODE_HEAD, [node_row(node) for node in nodes])

    def _sorted(self) -> list[ComputeNode]:
        from computeswarm.core.query import facts_of

        key = self._query.sort_key
        return sorted(
            self._view.nodes.values(), key=lambda node: (key(facts_of(node)), node.node_id)
        )


def _document(change: Change) -> dict[str, Any]:
    """The change for a program; a record as it was checked, without its signature."""
    from computeswarm.cli.output import node_document
    from computeswarm.core.changes import NodeListed

    if isinstance(change, NodeListed):
        return {"type": change.type, "node": node_document(change.node)}
    return change.model_dump(mode="json")
