"""``computeswarm nodes``: what is for rent."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.cli.context import Context

_EPILOG = """\
A query is words that must all hold, such as
  computeswarm nodes 'gpu:4090|a100 vram>=24 price<2 region:eu online'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("query", nargs="*", metavar="QUERY", help="what to look for")
    parser.add_argument("--sort", default="price", metavar="KEY", help="order (price by default)")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many nodes")


async def run(context: Context) -> int:
    """List nodes."""
    from computeswarm.cli.buying import buyer_of
    from computeswarm.cli.output import NODE_HEAD, node_document, node_row

    args = context.args
    limit = min(max(args.limit, 1), 1000)
    async with buyer_of(context) as buyer:
        page = await buyer.nodes(" ".join(args.query), sort=args.sort, limit=limit)
    if context.json:
        context.document(
            {
                "nodes": [node_document(node) for node in page.nodes],
                "next": page.next,
                "total": page.total,
                "rejected": page.rejected,
            }
        )
        return ExitCode.OK
    if page.nodes:
        context.table(NODE_HEAD, [node_row(node) for node in page.nodes])
    else:
        context.text("No node matches." if args.query else "No node is for rent here right now.")
    if page.total > len(page.nodes) + page.rejected:
        context.note(f"{page.total} in all; --limit shows more, a query fewer.")
    if page.rejected:
        context.note(f"{page.rejected} left out: their records are not signed by their wallets.")
    return ExitCode.OK
