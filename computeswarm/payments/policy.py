"""How a seller settles, out of his settings: by whom, how surely, and at what price."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from computeswarm.core.errors import BadRequest, ConfigError
from computeswarm.core.money import parse_usdc
from computeswarm.core.settings import Settings
from computeswarm.core.urls import host_of
from computeswarm.payments.confirmation import ConfirmationPolicy

_WEI = 10**18


@dataclass(frozen=True, slots=True)
class GasPolicy:
    """What settling may cost: ``max_share`` of the payment, at ``eth_price`` atoms of USDC for an
    ether. For chains whose gas costs real money."""

    eth_price: int
    max_share: float

    def too_dear(self, wei: int, amount: int) -> bool:
        """Whether ``wei`` is too much for settling ``amount`` atoms."""
        return wei * self.eth_price > self.max_share * amount * _WEI


@dataclass(frozen=True, slots=True)
class SettlementPolicy:
    """How payments are settled.

    ``facilitator`` is the URL of somebody else's; '' settles with our own key. ``gas`` bounds what
    that may cost, None where gas costs nothing.
    """

    confirm: ConfirmationPolicy = field(default_factory=ConfirmationPolicy)
    facilitator: str = ""
    gas: GasPolicy | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say.

        Raises:
            ConfigError: a setting that can't be used.
        """
        safe = _atoms("confirm_safe_above", settings.confirm_safe_above)
        finalized = _atoms("confirm_finalized_above", settings.confirm_finalized_above)
        if finalized < safe:
            raise ConfigError("confirm_finalized_above is at least confirm_safe_above.")
        if settings.facilitator and host_of(settings.facilitator) is None:
            raise ConfigError("The setting facilitator is no address; write http:// or https://.")
        gas = GasPolicy(_atoms("eth_price", settings.eth_price), _share(settings.max_gas_share))
        return cls(
            ConfirmationPolicy(safe, finalized),
            settings.facilitator,
            gas if settings.chain.real_money else None,
        )


def _atoms(name: str, text: str) -> int:
    try:
        return parse_usdc(text)
    except BadRequest as error:
        raise ConfigError(f"The setting {name}: {error.detail}") from None


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ConfigError("The setting max_gas_share is more than 0 and at most 1, such as 0.5.")
    return share
