"""``computeswarm run``: buy a job, show its output as it comes, and end as it ends."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from computeswarm.cli.fetching import add_overwrite
from computeswarm.core.errors import (
    ComputeSwarmError,
    Conflict,
    ExitCode,
    NodeNotFound,
    PolicyRefused,
    Unavailable,
    Unprocessable,
    UsageError,
)

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.offer import Offer
    from computeswarm.buyer.spec import JobPlan
    from computeswarm.cli.context import Context
    from computeswarm.core.nodes import ComputeNode

TAKES_REST = "the script's own arguments come after --"
_TRIES = 3
_EPILOG = """\
Examples:
  computeswarm run train.py --gpu 'gpu:4090 price<0.5' --input data.csv --output results
  computeswarm run train.py --gpu 'vram>=24 cuda>=12.4 sort:value'
  computeswarm run simulate.py --budget 0.20 --max-time 5m --yes -- --samples 1000000
  computeswarm run --pay channel train.py
  computeswarm run --internet --secret HF_TOKEN --secret KEY=@key.pem train.py
  computeswarm run --node nd-0123456789ab --offer 0.80 train.py
  computeswarm run --input data -- python -c 'print(open("data/a.txt").read())'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("script", nargs="?", metavar="SCRIPT", help="a .py or shell script")
    parser.add_argument(
        "--gpu",
        default="",
        metavar="QUERY",
        help="which nodes, and in which order (see `nodes --help`)",
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs (1 where the node has any)")
    parser.add_argument(
        "--node", metavar="ID", help="this node; otherwise the first idle one, the cheapest"
    )
    parser.add_argument("--budget", metavar="USD", help="most USDC for the job (max_job)")
    parser.add_argument("--max-time", default="10m", metavar="TIME", help="time limit (10m)")
    parser.add_argument(
        "--input", action="append", default=[], metavar="PATH", help="file or folder (repeatable)"
    )
    parser.add_argument("--output", metavar="DIR", help="fetch what the job leaves in outputs/")
    add_overwrite(parser)
    parser.add_argument(
        "--stream-outputs",
        action="store_true",
        help="fetch files into --output while the job runs, as it finishes writing them",
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="variable (repeatable)"
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME[=@FILE]",
        help="variable that only the seller gets to see, from your environment or a file",
    )
    parser.add_argument(
        "--internet", action="store_true", help="the job reaches it, where the node lets jobs"
    )
    parser.add_argument("--image", default="python", metavar="NAME", help="image (python)")
    parser.add_argument(
        "--pay",
        choices=("slices", "channel"),
        help="a transfer for each slice (slices), or one deposit and a voucher every few seconds",
    )
    parser.add_argument(
        "--offer",
        metavar="USDC",
        help="pay so much for a GPU and hour, more than is asked, for a better place in the queue",
    )
    parser.add_argument("--yes", action="store_true", help="pay without asking")


async def run(context: Context) -> int:
    """From the script to the job's own exit code."""
    from computeswarm.cli.buying import buyer_of, unlock
    from computeswarm.cli.querying import read_query
    from computeswarm.cli.running import Run
    from computeswarm.core.money import parse_usdc

    read_query(context, context.args.gpu)
    plan = await asyncio.to_thread(_plan, context)
    budget = parse_usdc(context.args.budget or context.settings.max_job)
    if not context.args.yes and not context.interactive:
        raise PolicyRefused("Nobody is here to agree to the price; add --yes.", rule="confirm")
    key = unlock(context)
    async with buyer_of(context, key) as buyer:
        offer = await _offer(context, buyer, plan)
        if not _agreed(context, buyer, offer, budget):
            context.note("computeswarm: nothing was paid.")
            return ExitCode.REFUSED
        return await Run(context, buyer, offer, budget).to_end()


def _plan(context: Context) -> JobPlan:
    from computeswarm.buyer.spec import plan_job
    from computeswarm.cli.secrets import read_secrets
    from computeswarm.core.durations import parse_duration

    args = context.args
    if args.stream_outputs and not args.output:
        raise UsageError("--stream-outputs goes with --output DIR, where the files are put.")
    pairs = [pair.partition("=") for pair in args.env]
    if wrong := next((name for name, equals, _ in pairs if not equals or not name), None):
        raise UsageError(f"--env takes NAME=value, not {wrong[:40]!r}.")
    return plan_job(
        args.script,
        context.rest,
        inputs=args.input,
        env={name: value for name, _, value in pairs},
        image=args.image,
        max_seconds=parse_duration(args.max_time),
        gpu_count=args.gpus or 0,
        secrets=read_secrets(context, args.secret),
        network=args.internet,
        stream_outputs=args.stream_outputs,
    )


async def _offer(context: Context, buyer: Buyer, plan: JobPlan) -> Offer:
    """A quote of the chosen node, or of the cheapest that answers."""
    from computeswarm.core.quotes import scheme_of

    args, scheme = context.args, scheme_of(context.settings.pay)
    offer = _offered(args.offer)
    if args.node:
        node = await buyer.node(args.node)
        plan = _for_node(plan, node, args.gpus)
        return await buyer.quote(node, plan, scheme=scheme, offer_per_hour=offer)
    nodes = await buyer.candidates(
        args.gpu,
        image=plan.spec.image,
        gpu_count=plan.spec.gpu_count,
        max_seconds=plan.spec.max_seconds,
        network=plan.spec.network,
        secrets=bool(plan.secrets),
    )
    if not nodes:
        network = ", with the internet" if plan.spec.network else ""
        raise NodeNotFound(
            f"No idle node{' matches' if args.gpu else ''} for this job (image {plan.spec.image}, "
            f"{args.max_time}{network}); see `computeswarm nodes`, and ask for less, try later, or "
            "name one with --node to wait in its queue."
        )
    failure: ComputeSwarmError | None = None
    for node in nodes[:_TRIES]:
        try:
            fitted = _for_node(plan, node, args.gpus)
            return await buyer.quote(node, fitted, scheme=scheme, offer_per_hour=offer)
        except (Unavailable, Unprocessable, Conflict, PolicyRefused) as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _offered(text: str | None) -> int | None:
    from computeswarm.core.money import parse_usdc

    return parse_usdc(text) if text else None


def _for_node(plan: JobPlan, node: ComputeNode, gpus: int | None) -> JobPlan:
    if gpus is not None or not node.info.hardware.gpus:
        return plan
    return replace(plan, spec=plan.spec.model_copy(update={"gpu_count": 1}))


def _agreed(context: Context, buyer: Buyer, offer: Offer, budget: int) -> bool:
    from computeswarm.buyer.secrets import READABLE
    from computeswarm.cli.output import offer_document, offer_lines

    real = buyer.chain.real_money
    chain = context.red(buyer.chain.label) if real else buyer.chain.label
    if context.json:
        context.document({**offer_document(offer, budget=budget), **buyer.chain.document()})
    for line in offer_lines(offer, budget=budget, chain=chain):
        context.note(line)
    if offer.secrets:
        context.note(f"Secrets  {', '.join(offer.secrets)}. {READABLE}")
    if context.args.yes:
        return True
    return context.agrees(context.red("Pay REAL MONEY and start?") if real else "Pay and start?")
