"""What is right with a market and what isn't, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import computeswarm
from computeswarm.core.durations import format_duration
from computeswarm.core.health import MarketHealth, Trouble
from computeswarm.core.logs import get_logger

if TYPE_CHECKING:
    from computeswarm.market.market import Market

CLOCK_SECONDS = 5.0
"""Leases last a minute and a half, and instances tell each other when they end."""
LATE_SECONDS = 3.0
"""What other instances wrote is here within one second as a rule."""
_log = get_logger("market")


def market_health(market: Market) -> MarketHealth:
    """How things stand."""
    troubles = tuple(_troubles(market))
    status = "closing" if market.closing else "loading" if not market.loaded else None
    shared = market.store.shared
    return MarketHealth(
        status=status or ("degraded" if troubles else "ok"),
        version=computeswarm.__version__,
        troubles=troubles,
        loaded=market.loaded,
        nodes_online=market.leases.online,
        database=market.store.kind,
        database_ok=market.store.unavailable_since is None,
        stale_seconds=int(market.stale_seconds),
        replication_lag_seconds=round(market.replica.lag_seconds, 3) if shared else None,
        brake=market.leases.braked,
        nodes_held=market.leases.held,
    )


class Journal:
    """Writes to the log when a trouble begins and when it is over."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def note(self, health: MarketHealth, now: float) -> None:
        """Compare with the time before; ``now`` in unix seconds."""
        found = {trouble.code: trouble.detail for trouble in health.troubles}
        for code in found.keys() - self._began.keys():
            self._began[code] = now
            _log.warning("trouble_began", code=code, detail=found[code])
        for code in self._began.keys() - found.keys():
            seconds = round(now - self._began.pop(code), 1)
            _log.info("trouble_over", code=code, seconds=seconds)


def _troubles(market: Market) -> Iterator[Trouble]:
    if market.closing:
        yield Trouble(code="closing", detail="The market is closing; ask another instance.")
    elif not market.loaded:
        yield Trouble(code="loading", detail="The nodes are being read; come back in a moment.")
    since = market.store.unavailable_since
    if since is not None:
        away = format_duration(max(0, int(market.clock.now() - since)))
        yield Trouble(
            code="database_away",
            detail=f"The database has not answered for {away}: searches and heartbeats go on from"
            " memory, registrations and jobs have to wait.",
        )
    elif market.store.shared and market.loaded and market.replica.lag_seconds > LATE_SECONDS:
        late = format_duration(int(market.replica.lag_seconds))
        yield Trouble(
            code="replication_late",
            detail=f"What other instances wrote in the last {late} is not here yet.",
        )
    ahead = market.store.clock_ahead
    if abs(ahead) > CLOCK_SECONDS:
        way = "ahead of" if ahead > 0 else "behind"
        yield Trouble(
            code="clock_off",
            detail=f"This machine's clock is {format_duration(int(abs(ahead)))} {way} the"
            " database's: what is alive elsewhere may be shown as offline here. Set the clock.",
        )
    if market.leases.braked:
        yield Trouble(
            code="brake",
            detail=f"{market.leases.held} nodes fell silent at once, so the fault is taken to be"
            " ours: none of them is listed as offline for up to 15 minutes.",
        )
