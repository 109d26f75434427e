"""Settings that change while the seller runs: those that can be are taken over at once."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Settings
from computeswarm.seller.configure import read_config

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_LIVE: dict[str, str] = {
    "price": "price_per_hour",
    "windows": "windows",
    "window_end": "evict_at_close",
    "queue_limit": "queue_limit",
    "max_job_seconds": "max_job_seconds",
    "keep_outputs": "keep_outputs",
    "keep_inputs": "keep_inputs",
    "pause_when_used": "pause_when_used",
    "pause_minutes": "pause_seconds",
    "power_limit_watts": "power_limit_watts",
    "minimum_charge": "minimum_charge",
    "accept": "asks_owner",
    "ask_seconds": "ask_seconds",
    "slots": "slots",
}
"""Settings that may change, and the member of ``SellerConfig`` that each becomes."""
_ELSEWHERE = frozenset({"electricity_price"})
"""Settings that may change, and that others read from ``SellerAgent.settings``."""
_OTHERS = frozenset(
    {"max_payment", "max_job", "max_day", "allow_payees", "allow_hosts", "pay"}
    | {"theme", "mouse", "bell", "desktop_notifications", "keys"}
)
"""The buyer's and the app's: nothing here depends on them."""


def reload(agent: SellerAgent, settings: Settings) -> list[str]:
    """Take over what may change; a sentence for each change.

    Quotes that are out keep their terms, and jobs that run keep their limits. A price that the
    owner chose meanwhile holds until the setting itself changes.

    Raises:
        ConfigError: a setting that can't be used; nothing was changed.
    """
    old = agent.settings
    if old is None:
        raise ConfigError("This seller was not started from settings; start it anew.")
    fresh = read_config(settings, agent.config.folder, agent.config.hardware)
    told: list[str] = []
    kept: dict[str, object] = {}
    for field in fields(Settings):
        name = field.name
        before, after = getattr(old, name), getattr(settings, name)
        if before == after or name in _OTHERS:
            continue
        if name in _LIVE:
            setattr(agent.config, _LIVE[name], getattr(fresh, _LIVE[name]))
            told.append(f"{name} is {_shown(after)} now (was {_shown(before)}).")
        elif name in _ELSEWHERE:
            told.append(f"{name} is {_shown(after)} now (was {_shown(before)}).")
        else:
            kept[name] = before
            told.append(f"{name} changes at the next start only.")
    if old.price != settings.price:
        agent.offers.price_per_hour = agent.config.price_per_hour
        agent.acceptance.choose(price=0, price_set=0)
    agent.slots.count = agent.config.slots
    agent.settings = _with(settings, kept)
    for text in told:
        agent.notices.tell(text)
    if old.accept != settings.accept:
        agent.asking.follow_setting()
    agent.market.refresh(record=True)
    agent.dispatcher.schedule()
    return told


def _with(settings: Settings, kept: dict[str, object]) -> Settings:
    """The settings as they hold now: another reload tells again of what waits for a restart."""
    values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    return Settings(**(values | kept))


def _shown(value: object) -> str:
    text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else value
    return str(text) or "empty"
