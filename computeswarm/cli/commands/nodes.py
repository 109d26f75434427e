"""``computeswarm nodes``: what is for rent."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.cli.context import Context
    from computeswarm.core.query import Query

TAKES_REST = "a word that begins with - comes after --, or write: not region:cn"
_MOST = 1_000


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    from computeswarm.core.query import help_text

    parser.epilog = help_text()
    parser.add_argument("query", nargs="*", metavar="QUERY", help="what to look for, see below")
    parser.add_argument(
        "--sort", default="", metavar="KEY", help="order (price); --sort=-KEY turns it round"
    )
    parser.add_argument(
        "--limit", type=int, default=_MOST, metavar="N", help=f"most nodes to list ({_MOST:,})"
    )
    parser.add_argument(
        "--facets", action="store_true", help="count what matches instead, by model, region, …"
    )
    parser.add_argument(
        "--watch", action="store_true", help="go on showing what changes, until Ctrl+C"
    )
    parser.add_argument(
        "--verify",
        metavar="FILE",
        help="check the signed records in a market's JSON (- is stdin) instead, asking nobody",
    )


async def run(context: Context) -> int:
    """List nodes, or count them."""
    from computeswarm.cli.buying import buyer_of
    from computeswarm.cli.querying import read_query

    args = context.args
    if args.verify is not None:
        from computeswarm.cli.verifying import verify

        return verify(context, args.verify)
    if args.limit < 1:
        raise UsageError("--limit is a number from 1 on.")
    if args.watch and args.facets:
        raise UsageError("--facets counts once and --watch lists; leave one of them out.")
    query = read_query(context, " ".join([*args.query, *context.rest]), sort=args.sort)
    async with buyer_of(context) as buyer:
        if args.watch:
            from computeswarm.cli.watching import watch

            return await watch(context, buyer, query, most=args.limit)
        return await (_count if args.facets else _list)(context, buyer, query)


async def _count(context: Context, buyer: Buyer, query: Query) -> int:
    from computeswarm.cli.querying import facet_tables

    facets = await buyer.facets(query.text)
    if context.json:
        context.document(facets.model_dump(mode="json"))
        return ExitCode.OK
    one = facets.total == 1
    verb = f"match{'es' * one}" if query.terms else f"{'is' if one else 'are'} for rent"
    context.text(f"{facets.total:,} node{'' if one else 's'} {verb}.")
    for head, rows in facet_tables(facets):
        context.text()
        context.table(head, rows)
    return ExitCode.OK


async def _list(context: Context, buyer: Buyer, query: Query) -> int:
    from computeswarm.cli.output import NODE_HEAD, node_document, node_row
    from computeswarm.cli.querying import asked_columns, cells_of, heads

    nodes, rejected = [], 0
    async for page in buyer.find_all(query.text, sort=query.sort, most=context.args.limit):
        nodes += page.nodes
        rejected += page.rejected
    if context.json:
        context.document(
            {
                "nodes": [node_document(node) for node in nodes],
                "total": page.total,
                "total_exact": page.exact,
                "rejected": rejected,
            }
        )
        return ExitCode.OK
    if nodes:
        asked = asked_columns(query)
        rows = [(*node_row(node), *cells_of(asked, node)) for node in nodes]
        context.table((*NODE_HEAD, *heads(asked)), rows)
    else:
        context.text("No node matches." if query.text else "No node is for rent here right now.")
    if page.next is not None:
        more = "" if page.exact else "+"
        context.note(f"{page.total:,}{more} in all; a narrower query or --limit shows the rest.")
    if rejected:
        context.note(f"{rejected} left out: their records are not signed by their wallets.")
    return ExitCode.OK
