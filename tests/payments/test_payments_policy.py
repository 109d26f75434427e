"""From settings to how a seller settles."""

from __future__ import annotations

import pytest

from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Settings
from computeswarm.payments.confirmation import ConfirmationPolicy
from computeswarm.payments.policy import GasPolicy, SettlementPolicy


def test_gas_is_only_bounded_where_it_costs_real_money() -> None:
    assert SettlementPolicy.of(Settings()) == SettlementPolicy(
        ConfirmationPolicy(5_000_000, 100_000_000), "", None
    )
    real = SettlementPolicy.of(Settings(network="base", eth_price="3000", max_gas_share="0.1"))
    assert real.gas == GasPolicy(3_000_000_000, 0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"confirm_safe_above": "some"},
        {"confirm_safe_above": "9", "confirm_finalized_above": "8"},
        {"max_gas_share": "0"},
        {"max_gas_share": "nan"},
        {"max_gas_share": "half"},
        {"eth_price": "-1"},
        {"facilitator": "ftp://facilitator.test"},
    ],
)
def test_what_can_not_work_is_named(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes)).partition("_")[0]):
        SettlementPolicy.of(Settings(**changes))
