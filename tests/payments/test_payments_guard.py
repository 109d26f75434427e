"""Whom, where and how much: each rule of the guard by its name, with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from payments_forger import AUTHORIZER, OTHER
from payments_purse import KEY, NOW, POLICY, SELLER, Clock, challenge, purpose

from computeswarm.core.chains import BASE, BASE_SEPOLIA, ChainInfo
from computeswarm.core.channels import SCHEME, ChannelConfig
from computeswarm.core.errors import PolicyRefused
from computeswarm.core.settings import Settings
from computeswarm.payments.guard import Guard, SpendingPolicy
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.payer import Payer

DOMAIN = {"name": "USDC", "version": "2"}
CHANNEL = {**DOMAIN, "receiverAuthorizer": AUTHORIZER, "withdrawDelay": 900}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[PaymentJournal]:
    journal = PaymentJournal(tmp_path / "payments.db")
    yield journal
    journal.close()


def rule_of(
    journal: PaymentJournal,
    policy: SpendingPolicy,
    url: str = "http://s.test/execute",
    chain: ChainInfo = BASE_SEPOLIA,
) -> str:
    """The rule that refuses to pay there, or an empty text."""
    payer = Payer(KEY, chain, journal, policy, Clock())
    try:
        payer.authorize(purpose(url=url), challenge(chain=chain))
    except PolicyRefused as error:
        assert journal.of_job("job-a") == []
        assert error.detail.endswith(".")
        return str(error.extra["rule"])
    return ""


@pytest.mark.parametrize(
    ("url", "hosts", "rule"),
    [
        ("http://s.test/execute", ("s.test",), ""),
        ("http://S.TEST.:8403/execute", ("s.test",), ""),
        ("http://gpu.s.test/execute", ("*.s.test",), ""),
        ("http://gpu.s.test/execute", ("s.test",), "allow_hosts"),
        ("http://s.test/execute", ("*.s.test", "t.test"), "allow_hosts"),
        ("http://s.test.evil.test/", ("s.test",), "allow_hosts"),
        ("http://s.test@evil.test/", ("s.test",), "host"),
        ("http://evil.test\\@s.test/", ("s.test",), "host"),
        ("ftp://s.test/", (), "host"),
        ("http://anyone.test/", (), ""),
    ],
)
def test_only_the_hosts_that_are_allowed_are_paid(
    journal: PaymentJournal, url: str, hosts: tuple[str, ...], rule: str
) -> None:
    assert rule_of(journal, replace(POLICY, hosts=hosts), url) == rule


def test_only_the_wallets_that_are_allowed_are_paid(journal: PaymentJournal) -> None:
    assert rule_of(journal, replace(POLICY, payees=(OTHER,))) == "allow_payees"
    assert rule_of(journal, replace(POLICY, payees=(OTHER, SELLER.lower()))) == ""


@pytest.mark.parametrize(
    ("url", "hosts", "rule"),
    [
        ("https://s.test/execute", (), ""),
        ("http://127.0.0.1:8403/execute", (), ""),
        ("http://10.0.0.7:8403/execute", (), ""),
        ("http://s.test/execute", (), "https"),
        ("http://8.8.8.8/execute", (), "https"),
        ("http://s.test/execute", ("s.test",), ""),
    ],
)
def test_real_money_goes_encrypted_or_to_hosts_that_were_named(
    journal: PaymentJournal, url: str, hosts: tuple[str, ...], rule: str
) -> None:
    policy = replace(POLICY, hosts=hosts)
    assert rule_of(journal, policy, url, BASE) == "real_money"
    assert rule_of(journal, replace(policy, real_money=True), url, BASE) == rule


def test_the_policy_is_what_the_user_set() -> None:
    settings = Settings(
        max_payment="0.10", allow_hosts="a.test,*.b.test", allow_payees=SELLER, network="base"
    )
    policy = SpendingPolicy.from_settings(settings)
    assert policy == SpendingPolicy(
        100_000, 5_000_000, 20_000_000, (SELLER,), ("a.test", "*.b.test"), real_money=False
    )


@pytest.fixture
def guard(journal: PaymentJournal) -> Guard:
    return Guard(POLICY, journal, BASE_SEPOLIA, KEY.address)


def config(**changes: Any) -> ChannelConfig:
    usdc = BASE_SEPOLIA.usdc.address
    base = ChannelConfig(
        KEY.address, KEY.address, SELLER, AUTHORIZER, usdc, 900, "0x" + "1" * 64
    )  # fmt: skip
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("rule", "changes", "asked", "amount"),
    [
        ("", {}, {}, 2_500),
        ("max_job", {}, {}, 2_501),
        ("channel", {}, {}, 699),
        ("payee", {"receiver": OTHER}, {}, 700),
        ("channel", {"payer": OTHER}, {}, 700),
        ("channel", {"payer_authorizer": OTHER}, {}, 700),
        ("channel", {"token": OTHER}, {}, 700),
        ("channel", {"receiver_authorizer": OTHER}, {}, 700),
        ("channel", {"withdraw_delay": 901}, {}, 700),
        ("withdraw_delay", {"withdraw_delay": 86_401}, {"withdrawDelay": 86_401}, 700),
        ("channel", {"receiver_authorizer": "0x" + "0" * 40},
         {"receiverAuthorizer": "0x" + "0" * 40}, 700),
        ("domain", {}, {"name": "USD Coin"}, 700),
        ("transfer_method", {}, {"assetTransferMethod": "permit2"}, 700),
    ],
)  # fmt: skip
def test_a_deposit_is_only_for_a_channel_to_the_seller_and_within_the_job(
    guard: Guard, rule: str, changes: dict[str, Any], asked: dict[str, Any], amount: int
) -> None:
    found = challenge(700, scheme=SCHEME, extra={**CHANNEL, **asked})

    def check() -> None:
        guard.check_deposit(purpose(), found, config(**changes), amount, now=NOW)

    if not rule:
        return check()
    with pytest.raises(PolicyRefused) as caught:
        check()
    assert caught.value.extra["rule"] == rule
    return None


def test_a_plain_payment_never_comes_from_an_offer_of_a_channel(guard: Guard) -> None:
    with pytest.raises(PolicyRefused) as caught:
        guard.check(purpose(), challenge(scheme=SCHEME, extra=CHANNEL), now=NOW)
    assert caught.value.extra["rule"] == "scheme"


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [(0, 1_000, ""), (1_000, 1_700, ""), (0, 1_001, "amount"), (1_500, 2_001, "voucher"),
     (500, 500, "voucher"), (500, 400, "voucher"), (0, 0, "voucher")],
)  # fmt: skip
def test_a_voucher_rises_by_no_more_than_a_payment(
    guard: Guard, before: int, after: int, rule: str
) -> None:
    def check(wanted: Any) -> str:
        try:
            guard.check_voucher(wanted, before=before, after=after, deposited=2_000)
        except PolicyRefused as error:
            return str(error.extra["rule"])
        return ""

    assert check(purpose()) == rule
    if not rule:
        assert check(purpose(url="http://s.test@evil.test/")) == "host"
        assert check(purpose(expected_amount=after - before - 1)) == "amount"
