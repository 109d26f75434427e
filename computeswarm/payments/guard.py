"""The buyer's guard: what may be signed at all. Below every screen and every language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import SCHEME as CHANNEL
from computeswarm.core.channels import ChannelConfig
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import PolicyRefused
from computeswarm.core.money import format_usdc, parse_usdc
from computeswarm.core.settings import Settings, real_money_refused
from computeswarm.core.text import clean_line
from computeswarm.core.urls import host_matches, host_of, is_local_host
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.journal import PaymentJournal

MIN_WINDOW_SECONDS = 10
MAX_WINDOW_SECONDS = 600
"""We never sign for longer, whatever a server asks: an unused authorization stays a risk."""
MIN_WITHDRAW_SECONDS = 900
MAX_WITHDRAW_SECONDS = 86_400
"""The standard allows a month; so long we don't wait for a deposit that nobody gives back."""
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
    """Caps in atoms: for one payment, for one job without a budget, for 24 hours.

    ``payees`` (addresses) and ``hosts`` (see ``urls.host_matches``) allow any where they are empty.
    """

    max_payment: int
    max_job: int
    max_day: int
    payees: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    real_money: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """What the user set.

        Raises:
            BadRequest: a cap is not an amount.
        """
        return cls(
            parse_usdc(settings.max_payment),
            parse_usdc(settings.max_job),
            parse_usdc(settings.max_day),
            settings.payees,
            settings.hosts,
            settings.allow_real_money,
        )

    def check_place(self, chain: ChainInfo, url: str, pay_to: str) -> None:
        """Whether this wallet may be paid at this address at all.

        Raises:
            PolicyRefused: rule ``real_money``, ``host``, ``allow_hosts``, ``https`` or
                ``allow_payees``.
        """
        if chain.real_money and not self.real_money:
            raise real_money_refused(chain)
        host = host_of(url)
        if host is None:
            raise _refuse("host", "the address to be paid is no plain http(s) address")
        named = any(host_matches(host, pattern) for pattern in self.hosts)
        if self.hosts and not named:
            raise _refuse(
                "allow_hosts", f"{clean_line(host)} is not in allow_hosts", "add it to be paid"
            )
        if chain.real_money and not (
            named or is_local_host(host) or url.lower().startswith("https:")
        ):
            raise _refuse(
                "https",
                f"{clean_line(host)} is reached without encryption, where others could use what is"
                " paid with real money",
                "name it in allow_hosts to pay it all the same, or choose an https seller",
            )
        if self.payees and not any(same_address(pay_to, payee) for payee in self.payees):
            raise _refuse(
                "allow_payees",
                f"{clean_line(pay_to, limit=60)} is not in allow_payees",
                "add it to be paid",
            )


class Guard:
    """Checks a challenge against the purpose, the policy and our own table of chains.

    Args:
        owner: the wallet that pays.
    """

    def __init__(
        self, policy: SpendingPolicy, journal: PaymentJournal, chain: ChainInfo, owner: str
    ) -> None:
        self.policy = policy
        self._journal = journal
        self._chain = chain
        self._owner = owner

    def check(self, purpose: Purpose, challenge: Challenge, *, now: float) -> Option:
        """The way to pay once (``exact``) that breaks no rule.

        Raises:
            PolicyRefused: there is none; ``extra['rule']`` names the first rule that was broken.
        """
        return self._choose("exact", purpose, challenge, purpose.pay_to, None, now)

    def check_deposit(
        self, purpose: Purpose, challenge: Challenge, config: ChannelConfig, amount: int, *,
        now: float,
    ) -> Option:  # fmt: skip
        """The way to pay by a channel that breaks no rule, for a deposit of ``amount`` atoms.

        While it is locked, a deposit counts whole against the job's and the day's cap. Contract and
        collector need no check: those of ``core.channels`` are all that a signature is made for.

        Raises:
            PolicyRefused: as ``check``; rules ``channel`` and ``withdraw_delay`` besides.
        """
        option = self._choose(CHANNEL, purpose, challenge, config.receiver, amount, now)
        delay, authorizer = option.extra.get("withdrawDelay"), config.receiver_authorizer
        ours = (
            same_address(config.payer, self._owner)
            and same_address(config.voucher_signer, self._owner)
            and same_address(config.token, self._chain.usdc.address)
            and same_address(str(option.extra.get("receiverAuthorizer")), authorizer)
            and config.withdraw_delay == delay
            and int(authorizer, 16) != 0
        )
        if not ours:
            raise _refuse("channel", "the channel is not the one between this wallet and the payee")
        if not MIN_WITHDRAW_SECONDS <= config.withdraw_delay <= MAX_WITHDRAW_SECONDS:
            raise _refuse(
                "withdraw_delay",
                f"it wants {config.withdraw_delay} s to give a deposit back, and"
                f" {MAX_WITHDRAW_SECONDS} s is the most",
            )
        if amount < option.amount:
            raise _refuse("channel", "the deposit is smaller than the first payment from it")
        return option

    def check_voucher(self, purpose: Purpose, *, before: int, after: int, deposited: int) -> None:
        """A voucher that raises what the payee may claim from ``before`` to ``after`` atoms.

        The job's and the day's cap hold by themselves: they have let the deposit pass.

        Raises:
            PolicyRefused: rule ``voucher``, ``amount`` or ``max_payment``, and those on the payee.
        """
        self.policy.check_place(self._chain, purpose.url, purpose.pay_to)
        if not before < after <= deposited:
            raise _refuse("voucher", "the voucher would go down, or beyond the deposit")
        self._check_amount(purpose, after - before)

    def _choose(
        self, scheme: str, purpose: Purpose, challenge: Challenge, pay_to: str,
        deposit: int | None, now: float,
    ) -> Option:  # fmt: skip
        self.policy.check_place(self._chain, purpose.url, purpose.pay_to)
        if not same_address(pay_to, purpose.pay_to):
            raise _refuse("payee", "the channel pays another wallet than the seller's")
        refusal: PolicyRefused | None = None
        for option in challenge.options:
            if option.scheme != scheme:
                continue
            try:
                self._check_option(purpose, challenge, option)
                self._check_amount(purpose, option.amount)
                self._check_sums(purpose, option.amount if deposit is None else deposit, now)
            except PolicyRefused as error:
                refusal = refusal or error
            else:
                return option
        raise refusal or _refuse("scheme", f"the server takes no {scheme!r} payment")

    def _check_option(self, purpose: Purpose, challenge: Challenge, option: Option) -> None:
        chain, usdc = self._chain, self._chain.usdc
        network = chain.caip2 if challenge.version == 2 else chain.slug
        if option.network != network:
            raise _refuse(
                "network", f"it asks for {clean_line(option.network, limit=60)}, not {network}"
            )
        if not same_address(option.asset, usdc.address):
            asset = clean_line(option.asset, limit=60)
            raise _refuse("asset", f"it asks for the token {asset}, which is not USDC")
        domain = (option.extra.get("name", usdc.name), option.extra.get("version", usdc.version))
        if domain != (usdc.name, usdc.version):
            raise _refuse("domain", "it names another signing domain than USDC's own")
        if option.extra.get("assetTransferMethod", "eip3009") != "eip3009":
            raise _refuse("transfer_method", "it asks for another kind of signature than EIP-3009")
        if option.scheme == "exact" and option.extra.get("paymentFlow") not in _FLOWS:
            raise _refuse("payment_flow", "it asks for a payment flow that we don't know")
        if not same_address(option.pay_to, purpose.pay_to):
            to = clean_line(option.pay_to, limit=60)
            raise _refuse("payee", f"it pays {to}, not the seller {purpose.pay_to}")
        if option.max_timeout_seconds < MIN_WINDOW_SECONDS:
            raise _refuse("window", f"it allows only {option.max_timeout_seconds} s to pay")

    def _check_amount(self, purpose: Purpose, amount: int) -> None:
        if amount > purpose.expected_amount:
            raise _refuse(
                "amount",
                f"it asks for {_usdc(amount)}, quoted were {_usdc(purpose.expected_amount)}",
            )
        if amount > self.policy.max_payment:
            raise _over("max_payment", amount, "one payment", self.policy.max_payment)

    def _check_sums(self, purpose: Purpose, amount: int, now: float) -> None:
        named = purpose.job_budget is not None
        budget = self.policy.max_job if purpose.job_budget is None else purpose.job_budget
        job = self._journal.spent_job(purpose.job_id) + amount
        if job > budget:
            raise _over("max_job", job, "this job", budget, "--budget" if named else "max_job")
        day = self._journal.spent_day(now, self._chain.chain_id) + amount
        if day > self.policy.max_day:
            raise _over("max_day", day, "24 hours", self.policy.max_day)


def _usdc(atoms: int) -> str:
    return f"{format_usdc(atoms)} USDC" if 0 <= atoms < 10**18 else "an absurd amount"


def _refuse(rule: str, why: str, do: str = "choose another seller") -> PolicyRefused:
    return PolicyRefused(f"Nothing was signed: {why}; {do}.", rule=rule)


def _over(rule: str, atoms: int, what: str, cap: int, setting: str = "") -> PolicyRefused:
    why = f"{_usdc(atoms)} for {what} is over your cap of {_usdc(cap)}"
    return _refuse(rule, why, f"raise {setting or rule} if you mean to spend it")
