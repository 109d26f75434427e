"""A fleet on a market: over real sockets, or straight into a table where sockets would not do.

    python -m benchmarks.fleet --market http://127.0.0.1:8402 --nodes 200 --seconds 60
    python -m benchmarks.fleet --direct --nodes 1000000 --seconds 30 [--database postgresql://…]

Nodes come for hours, leave, restart and crash; prices drift; jobs are bought, run and end; buyers
search. ``--speed 60`` lets an hour of such habits pass in a minute; heartbeats come as the market
tells. The same seed makes the same machines, wallets and decisions.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.fleet.agent import Settings
from benchmarks.fleet.model import Fleet
from benchmarks.fleet.report import Report
from computeswarm.server.serving import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--market", metavar="URL", help="a market that runs")
    where.add_argument("--direct", action="store_true", help="a table in this process")
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=60)
    parser.add_argument("--buyers", type=int, default=4)
    parser.add_argument("--chain-id", type=int, default=84532)
    parser.add_argument(
        "--database", default="", help="with --direct: leases are written there too"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    fleet = Fleet(options.nodes, seed=options.seed)
    report = run(_direct(fleet, options) if options.direct else _on_sockets(fleet, options))
    print(json.dumps(report.document()) if options.json else "\n".join(report.lines()))


async def _on_sockets(fleet: Fleet, options: argparse.Namespace) -> Report:
    from benchmarks.fleet.running import run_fleet

    settings = Settings(chain_id=options.chain_id, speed=options.speed)
    return await run_fleet(
        options.market, fleet, seconds=options.seconds, buyers=options.buyers, settings=settings
    )


async def _direct(fleet: Fleet, options: argparse.Namespace) -> Report:
    from benchmarks.fleet.direct import run_direct

    return await run_direct(
        fleet,
        seconds=options.seconds,
        speed=options.speed,
        buyers=options.buyers,
        database=options.database,
    )


if __name__ == "__main__":
    main()
