"""``computeswarm nodes``: what is for rent."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.cli.context import Context

_MOST = 1_000
_PAGE = 100
_EPILOG = """\
A query is words that must all hold, such as
  computeswarm nodes 'gpu:4090|a100 vram>=24 price<2 region:eu online'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("query", nargs="*", metavar="QUERY", help="what to look for")
    parser.add_argument("--sort", default="price", metavar="KEY", help="order (price by default)")


async def run(context: Context) -> int:
    """List nodes."""
    from computeswarm.cli.buying import buyer_of
    from computeswarm.cli.output import NODE_HEAD, node_document, node_row

    query, sort = " ".join(context.args.query), context.args.sort
    async with buyer_of(context) as buyer:
        page = await buyer.nodes(query, sort=sort, limit=_PAGE)
        nodes, rejected = page.nodes, page.rejected
        while page.next is not None and len(nodes) < _MOST:
            page = await buyer.nodes(query, sort=sort, cursor=page.next, limit=_PAGE)
            nodes, rejected = nodes + page.nodes, rejected + page.rejected
    if context.json:
        context.document(
            {
                "nodes": [node_document(node) for node in nodes],
                "total": page.total,
                "rejected": rejected,
            }
        )
        return ExitCode.OK
    if nodes:
        context.table(NODE_HEAD, [node_row(node) for node in nodes])
    else:
        context.text("No node matches." if query else "No node is for rent here right now.")
    if page.next is not None:
        context.note(f"{page.total} in all; a narrower query shows the rest.")
    if rejected:
        context.note(f"{rejected} left out: their records are not signed by their wallets.")
    return ExitCode.OK
