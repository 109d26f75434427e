"""The schema, brought up to date by whichever instance starts first."""

from __future__ import annotations

from computeswarm.core.errors import ConfigError
from computeswarm.market.stores.migrations import scripts
from computeswarm.market.stores.postgres.line import Connection

_LOCK = 7_226_931_040


async def migrate(connection: Connection) -> None:
    """Run what is missing, in a transaction of the caller's; others wait meanwhile.

    Raises:
        ConfigError: a later version of ComputeSwarm made it.
    """
    await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    if not await connection.fetchval("SELECT to_regclass('market_schema') IS NOT NULL"):
        await connection.execute(
            "CREATE TABLE market_schema (version integer NOT NULL);"
            "INSERT INTO market_schema VALUES (0)"
        )
    version = await connection.fetchval("SELECT version FROM market_schema")
    steps = scripts("postgres")
    if version > len(steps):
        sentence = "The market's database was written by a later version; update ComputeSwarm."
        raise ConfigError(sentence)
    for script in steps[version:]:
        await connection.execute(script)
    if version < len(steps):
        await connection.execute("UPDATE market_schema SET version = $1", len(steps))
