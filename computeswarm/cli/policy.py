"""``computeswarm wallet policy``: the guard's rules as they are set, and what of them is used."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.cli.context import Context


@dataclass(frozen=True, slots=True)
class _Use:
    """Atoms: gone or at risk in 24 hours; signed with unknown fate; locked in channels."""

    spent: int = 0
    at_risk: int = 0
    locked: int = 0


def show_policy(context: Context) -> int:
    """Print it; asks neither the chain nor for a password.

    Raises:
        BadRequest: a cap is not an amount.
    """
    from computeswarm.core.money import format_usdc
    from computeswarm.payments.guard import SpendingPolicy

    settings = context.settings
    chain, policy, use = settings.chain, SpendingPolicy.from_settings(settings), _use(context)
    left = max(0, policy.max_day - use.spent)
    if context.json:
        document: dict[str, Any] = {
            **chain.document(),
            "allow_real_money": policy.real_money,
            "max_payment": policy.max_payment,
            "max_job": policy.max_job,
            "max_day": policy.max_day,
            "allow_payees": list(policy.payees),
            "allow_hosts": list(policy.hosts),
            "spent_today": use.spent,
            "left_today": left,
            "at_risk": use.at_risk,
            "locked": use.locked,
        }
        context.document(document)
    may = "" if not chain.real_money or policy.real_money else "; nothing is paid: not allowed"
    label = context.red(chain.label, sys.stdout) if chain.real_money else chain.label
    context.text(f"Network      {label}{may}")
    context.text(f"One payment  {format_usdc(policy.max_payment)} USDC at most (max_payment)")
    context.text(
        f"One job      {format_usdc(policy.max_job)} USDC at most, or its --budget (max_job)"
    )
    context.text(
        f"24 hours     {format_usdc(policy.max_day)} USDC at most (max_day): "
        f"{format_usdc(use.spent)} used, {format_usdc(left)} left"
    )
    context.text(f"At risk      {format_usdc(use.at_risk)} USDC signed, not yet known to be gone")
    context.text(f"Locked       {format_usdc(use.locked)} USDC in payment channels")
    context.text(f"Payees       {', '.join(policy.payees) or 'any'} (allow_payees)")
    context.text(f"Hosts        {', '.join(policy.hosts) or 'any'} (allow_hosts)")
    return ExitCode.OK


def _use(context: Context) -> _Use:
    from computeswarm.payments.journal import PaymentJournal

    path, chain_id = context.paths.buyer / "payments.db", context.settings.chain_id
    if not path.exists():  # looking makes no files
        return _Use()
    journal = PaymentJournal(path)
    try:
        return _Use(
            journal.spent_day(time.time(), chain_id),
            journal.at_risk(chain_id),
            journal.locked(chain_id),
        )
    finally:
        journal.close()
