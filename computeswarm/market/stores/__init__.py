"""Where the market's durable truth lies: one protocol, SQLite and PostgreSQL behind it."""

from __future__ import annotations

from computeswarm.market.stores.opening import open_store

__all__ = ["open_store"]
