"""``computeswarm market``: run a market until Ctrl+C."""

from __future__ import annotations

import argparse
import gc

from computeswarm.cli.context import Context
from computeswarm.cli.options import add_settings
from computeswarm.cli.secret_args import hide_argument
from computeswarm.core.errors import ExitCode

DEFAULT_PORT = 8402
MARKET_CONNECTIONS = 16_000
_HERE = ("127.0.0.1", "::1", "localhost")


def configure(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, "host", "port", "database", "public_urls", "trusted_proxies", "log_format")


def run(context: Context) -> int:
    from computeswarm.market import open_market
    from computeswarm.market.limits import read_limits
    from computeswarm.server.connections import ConnectionLimits, Connections
    from computeswarm.server.logs import setup_logging
    from computeswarm.server.market_app import build_market_app
    from computeswarm.server.proxies import Clients, read_networks
    from computeswarm.server.serving import Server, run, run_until_signal

    settings = context.settings
    _hide_password(settings.database)
    setup_logging(settings.log_level, log_format=settings.log_format)
    chain = settings.chain
    database = settings.database or context.paths.market / "market.db"
    market = open_market(
        database, chain=chain, names=settings.server_names, limits=read_limits(settings.limits)
    )
    clients = Clients(read_networks(settings.trusted_proxies))
    room = ConnectionLimits(total=MARKET_CONNECTIONS).sized(
        settings.max_connections, settings.max_connections_per_address
    )
    server = Server(
        build_market_app(market, clients=clients),
        connections=Connections(room, trusts=clients.trusts),
    )

    async def serve() -> None:
        url = await server.start(settings.host, settings.port or DEFAULT_PORT)
        gc.freeze()  # what was loaded stays, and need not be looked through for garbage
        if context.json:
            context.document({"market": url, **chain.document(), "chain_id": chain.chain_id})
        context.note(f"The market is open at {url} ({chain.label}). Ctrl+C closes it.")
        if not settings.public_urls and settings.host not in _HERE:
            context.note(
                "Set public_urls to the address that sellers use: until then this market also takes"
                " registrations that were signed for another."
            )
        await run_until_signal(server)

    run(serve())
    return ExitCode.OK


def _hide_password(database: str) -> None:
    """Where it was given as an argument."""
    login, at, _ = database.partition("://")[2].rpartition("@")
    hide_argument(login.partition(":")[2] if at else "")
