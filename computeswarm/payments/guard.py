"""The buyer's guard: what may be signed at all. Below every screen and every language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import PolicyRefused
from computeswarm.core.money import format_usdc, parse_usdc
from computeswarm.core.settings import Settings
from computeswarm.core.text import clean_line
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.journal import PaymentJournal

MIN_WINDOW_SECONDS = 10
MAX_WINDOW_SECONDS = 600
"""We never sign for longer, whatever a server asks: an unused authorization stays a risk."""
_FLOWS = (None, "authorization", "upfront")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a payment is for: slice ``slice`` of a job, by ``method`` at ``url``.

    ``expected_amount`` is the most atoms it may cost (the quote's), ``pay_to`` the wallet that
    signed the node's record, ``job_budget`` the atoms allowed for the whole job (None: the policy's
    own cap).
    """

    job_id: str
    slice: int
    url: str
    method: str
    expected_amount: int
    pay_to: str
    job_budget: int | None = None


@dataclass(frozen=True, slots=True)
class SpendingPolicy:
    """Caps in atoms: for one payment, for one job without a budget, for 24 hours."""

    max_payment: int
    max_job: int
    max_day: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The caps that the user set.

        Raises:
            BadRequest: one of them is not an amount.
        """
        return cls(
            parse_usdc(settings.max_payment),
            parse_usdc(settings.max_job),
            parse_usdc(settings.max_day),
        )


class Guard:
    """Checks a challenge against the purpose, the policy and our own table of chains."""

    def __init__(self, policy: SpendingPolicy, journal: PaymentJournal, chain: ChainInfo) -> None:
        self._policy = policy
        self._journal = journal
        self._chain = chain

    def check(self, purpose: Purpose, challenge: Challenge, *, now: float) -> Option:
        """The way to pay that breaks no rule.

        Raises:
            PolicyRefused: there is none; ``extra['rule']`` names the first rule that was broken.
        """
        refusal: PolicyRefused | None = None
        for option in challenge.options:
            if option.scheme != "exact":
                continue
            try:
                self._check_option(purpose, challenge, option)
                self._check_caps(purpose, option.amount, now)
            except PolicyRefused as error:
                refusal = refusal or error
            else:
                return option
        raise refusal or _refuse("scheme", "the server takes no 'exact' payment")

    def _check_option(self, purpose: Purpose, challenge: Challenge, option: Option) -> None:
        chain, usdc = self._chain, self._chain.usdc
        network = chain.caip2 if challenge.version == 2 else chain.slug
        if option.network != network:
            raise _refuse("network", f"it asks for {clean_line(option.network)}, not {network}")
        if not same_address(option.asset, usdc.address):
            raise _refuse("asset", f"it asks for the token {option.asset}, which is not USDC")
        domain = (option.extra.get("name", usdc.name), option.extra.get("version", usdc.version))
        if domain != (usdc.name, usdc.version):
            raise _refuse("domain", "it names another signing domain than USDC's own")
        if option.extra.get("assetTransferMethod", "eip3009") != "eip3009":
            raise _refuse("transfer_method", "it asks for another kind of signature than EIP-3009")
        if option.extra.get("paymentFlow") not in _FLOWS:
            raise _refuse("payment_flow", "it asks for a payment flow that we don't know")
        if not same_address(option.pay_to, purpose.pay_to):
            raise _refuse("payee", f"it pays {option.pay_to}, not the seller {purpose.pay_to}")
        if option.amount > purpose.expected_amount:
            raise _refuse(
                "amount",
                f"it asks for {_usdc(option.amount)}, quoted were {_usdc(purpose.expected_amount)}",
            )
        if option.max_timeout_seconds < MIN_WINDOW_SECONDS:
            raise _refuse("window", f"it allows only {option.max_timeout_seconds} s to pay")

    def _check_caps(self, purpose: Purpose, amount: int, now: float) -> None:
        policy = self._policy
        if amount > policy.max_payment:
            raise _over("max_payment", amount, "one payment", policy.max_payment)
        budget = policy.max_job if purpose.job_budget is None else purpose.job_budget
        job = self._journal.spent_job(purpose.job_id) + amount
        if job > budget:
            raise _over("max_job", job, "this job", budget)
        day = self._journal.spent_day(now) + amount
        if day > policy.max_day:
            raise _over("max_day", day, "one day", policy.max_day)


def _usdc(atoms: int) -> str:
    return f"{format_usdc(atoms)} USDC"


def _refuse(rule: str, why: str) -> PolicyRefused:
    return PolicyRefused(f"Nothing was signed: {why}.", rule=rule)


def _over(rule: str, atoms: int, what: str, cap: int) -> PolicyRefused:
    return _refuse(rule, f"{_usdc(atoms)} for {what} is over your cap of {_usdc(cap)}")
