"""From settings to a seller's configuration; every value is checked here."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from computeswarm.core.errors import ConfigError
from computeswarm.core.money import ATOMS_PER_USDC, parse_usdc
from computeswarm.core.nodes import Hardware
from computeswarm.core.quotes import MAX_ASK_SECONDS
from computeswarm.core.settings import Settings
from computeswarm.core.text import clean_line
from computeswarm.core.windows import Windows
from computeswarm.seller.config import SellerConfig

_ENDPOINT = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_MAX_SLOTS = 256
_MAX_QUEUE = 10_000
_MAX_MINIMUM = ATOMS_PER_USDC
_LEAST_TOKEN = 16
_LEAST_ASK = 5


def read_config(settings: Settings, folder: Path, hardware: Hardware) -> SellerConfig:
    """The seller's part of the settings.

    Raises:
        ConfigError: a value that can't be used, and what would do.
    """
    price = parse_usdc(settings.price)
    if price == 0:
        raise ConfigError("The price is 0; set a price above 0 USDC an hour.")
    if not 1 <= settings.slice_seconds <= 3600:
        raise ConfigError("slice_seconds is from 1 to 3600.")
    if not 1 <= settings.tick_seconds <= 60:
        raise ConfigError("tick_seconds is from 1 to 60.")
    if not 1 <= settings.max_job_seconds <= 30 * 86400:
        raise ConfigError("max_job_seconds is from 1 to 2592000 (30 days).")
    if settings.endpoint and not _ENDPOINT.fullmatch(settings.endpoint):
        raise ConfigError(f"{settings.endpoint[:80]!r} is no address; write http://host:port.")
    if settings.slots > _MAX_SLOTS:
        raise ConfigError(f"slots is at most {_MAX_SLOTS}.")
    _check_owner(settings)
    return SellerConfig(
        folder=folder,
        chain=settings.chain,
        name=node_name(settings),
        market=settings.market,
        hardware=hardware,
        price_per_hour=price,
        endpoint=settings.endpoint,
        region=settings.region,
        slots=settings.slots or max(1, len(hardware.gpus)),
        slice_seconds=settings.slice_seconds,
        tick_seconds=min(settings.tick_seconds, settings.slice_seconds),
        max_job_seconds=settings.max_job_seconds,
        keep_outputs=settings.keep_outputs,
        keep_inputs=settings.keep_inputs,
        network=settings.allow_network,
        queue_limit=settings.queue_limit,
        windows=Windows.parse(settings.windows),
        evict_at_close=settings.window_end == "evict",
        pause_when_used=settings.pause_when_used,
        pause_seconds=settings.pause_minutes * 60,
        power_limit_watts=settings.power_limit_watts,
        minimum_charge=parse_usdc(settings.minimum_charge),
        asks_owner=settings.accept == "ask",
        ask_seconds=settings.ask_seconds,
    )


def node_name(settings: Settings) -> str:
    """What this machine's node is called: the setting, or the machine's own name."""
    return clean_line(settings.node_name or platform.node(), limit=60) or "node"


def _check_owner(settings: Settings) -> None:
    if settings.window_end not in ("finish", "evict"):
        raise ConfigError(f"window_end is finish or evict, not {settings.window_end[:40]!r}.")
    if settings.accept not in ("auto", "ask"):
        raise ConfigError(f"accept is auto or ask, not {settings.accept[:40]!r}.")
    if not _LEAST_ASK <= settings.ask_seconds <= MAX_ASK_SECONDS:
        raise ConfigError(f"ask_seconds is from {_LEAST_ASK} to {MAX_ASK_SECONDS}.")
    if not 1 <= settings.queue_limit <= _MAX_QUEUE:
        raise ConfigError(f"queue_limit is from 1 to {_MAX_QUEUE}.")
    if not 1 <= settings.pause_minutes <= 24 * 60:
        raise ConfigError("pause_minutes is from 1 to 1440 (a day).")
    parse_usdc(settings.electricity_price)
    if 0 < len(settings.metrics_token) < _LEAST_TOKEN:
        raise ConfigError(f"metrics_token has at least {_LEAST_TOKEN} letters; make a longer one.")
    if parse_usdc(settings.minimum_charge) > _MAX_MINIMUM:
        raise ConfigError("minimum_charge is at most 1 USDC: it is for what a start costs you.")
