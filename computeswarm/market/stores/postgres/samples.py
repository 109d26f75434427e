"""Figures over time, and counters that instances share."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from computeswarm.market.stores.postgres.line import Connection
from computeswarm.market.stores.protocol import Count

_ADD = (
    "INSERT INTO samples (series, at, figures) SELECT g.series, $1, g.figures"
    " FROM unnest($2::text[], $3::text[]) AS g (series, figures) ON CONFLICT DO NOTHING"
)
_READ = "SELECT at, figures FROM samples WHERE series=$1 AND at BETWEEN $2 AND $3 ORDER BY at"
_PRUNE = "DELETE FROM samples WHERE at < $1 AND starts_with(series, $2)"
_SHARE = (
    "INSERT INTO counts AS c (key, amount, until) SELECT * FROM unnest($1::text[], $2::bigint[],"
    " $3::float8[]) AS g (key, amount, until) ORDER BY key ON CONFLICT (key) DO UPDATE SET"
    " amount = excluded.amount + CASE WHEN c.until > $4 THEN c.amount ELSE 0 END,"
    " until = excluded.until RETURNING key, amount"
)
_FORGET = "DELETE FROM counts WHERE until < $1"


async def add(connection: Connection, at: int, samples: Mapping[str, Mapping[str, Any]]) -> None:
    """See ``Store.add_samples``."""
    ordered = sorted(samples)
    figures = [json.dumps(samples[series]) for series in ordered]
    await connection.execute(_ADD, at, ordered, figures)


async def read(
    connection: Connection, series: str, since: int, until: int
) -> list[tuple[int, Mapping[str, Any]]]:
    """See ``Store.samples``."""
    rows = await connection.fetch(_READ, series, since, until)
    return [(at, json.loads(figures)) for at, figures in rows]


async def prune(connection: Connection, before: int, prefix: str) -> None:
    """See ``Store.prune_samples``."""
    await connection.execute(_PRUNE, before, prefix)


async def share(connection: Connection, counts: Mapping[str, Count]) -> Mapping[str, int]:
    """See ``Store.share``."""
    columns = zip(*((key, c.amount, c.until) for key, c in counts.items()), strict=True)
    return dict(await connection.fetch(_SHARE, *columns, time.time()))


async def forget(connection: Connection) -> None:
    """Drop counters whose time is over."""
    await connection.execute(_FORGET, time.time())
