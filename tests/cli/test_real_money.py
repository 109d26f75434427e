"""Real money: off unless it is allowed, and then said in red. No test here comes near any."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest
from cli_program import command, environment, run

from computeswarm.core.errors import RealMoneyRefused, WalletError
from computeswarm.core.settings import Settings
from computeswarm.payments.guard import SpendingPolicy
from computeswarm.payments.journal import Fate, PaymentJournal, SignedPayment
from computeswarm.payments.wallet import create_wallet, import_wallet, open_wallet

PASSWORD = "correct horse"
DEV_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
BASE = Settings(network="base")
ALLOWED = Settings(network="base", allow_real_money=True)


def on_terminal(*argv: str, home: Path, **env: str) -> str:
    """What a person sees of a command."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(command(*argv)[0], command(*argv), environment(home, **env))
    shown = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.waitpid(pid, 0)
    os.close(master)
    return shown.decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create_wallet(tmp_path / "wallet.json", PASSWORD)
    (tmp_path / "job.py").write_text("print(1)")
    return tmp_path


def test_nothing_is_unlocked_for_real_money_unless_it_is_allowed(home: Path) -> None:
    for argv in (
        ("run", str(home / "job.py"), "--yes"),
        ("seller", "--headless"),
        ("channels", "refund", "0x12"),
    ):
        done = run(*argv, "--network", "base", "--json", home=home, COMPUTESWARM_PASSWORD=PASSWORD)
        assert (done.code, done.error["rule"]) == (126, "real_money"), argv
        assert "--real-money" in done.error["detail"]
    with pytest.raises(RealMoneyRefused):
        open_wallet(BASE, home / "wallet.json", PASSWORD)
    assert open_wallet(ALLOWED, home / "wallet.json", PASSWORD).address


def test_a_key_that_everybody_knows_is_never_opened_for_real_money(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    import_wallet(path, DEV_KEY, PASSWORD)
    assert open_wallet(Settings(), path, PASSWORD).address
    with pytest.raises(WalletError, match="Everybody knows"):
        open_wallet(ALLOWED, path, PASSWORD)


def test_a_new_wallet_for_real_money_wants_a_password_that_holds(tmp_path: Path) -> None:
    short = run("wallet", "new", "--network", "base", home=tmp_path, COMPUTESWARM_PASSWORD="short")
    assert short.code == 125
    assert "at least 10 characters" in short.one_sentence()
    assert not (tmp_path / "wallet.json").exists()
    argv = ("wallet", "new", "--json", "--network", "base")
    made = run(*argv, home=tmp_path, COMPUTESWARM_PASSWORD=PASSWORD)
    assert (made.json["network"], made.json["real_money"]) == ("base", True)
    # whoever has a wallet with a short one is not kept from his money
    create_wallet(tmp_path / "old.json", "short")
    assert open_wallet(ALLOWED, tmp_path / "old.json", "short").address


@pytest.mark.parametrize(
    "argv", [("wallet", "show"), ("wallet", "policy"), ("jobs",), ("doctor",), ("ledger",)]
)
def test_it_is_said_in_red_on_a_terminal(home: Path, argv: tuple[str, ...]) -> None:
    shown = on_terminal(*argv, "--network", "base", home=home)
    assert "\x1b[1;31mREAL MONEY: the network is Base. Here USDC is only looked at.\x1b[0m" in shown
    if argv == ("wallet", "show"):
        allowed = on_terminal(*argv, "--network", "base", "--real-money", home=home)
        assert "Here USDC is spent and earned." in allowed
        plain = on_terminal(*argv, "--network", "base", home=home, NO_COLOR="1")
        assert "REAL MONEY" in plain
        assert "\x1b" not in plain
        assert "REAL MONEY" not in on_terminal(*argv, home=home)
        piped = run(*argv, "--network", "base", home=home)
        assert piped.err == ""
        assert "\x1b" not in piped.out


def test_the_policy_shows_caps_lists_and_what_is_used(home: Path) -> None:
    (home / "config.toml").write_text(
        'max_day = "2.00"\nallow_hosts = ["*.example.org"]\nallow_payees = "0x' + "ab" * 20 + '"\n'
    )
    fresh = run("wallet", "policy", "--json", home=home).json
    assert (fresh["spent_today"], fresh["left_today"]) == (0, 2_000_000)
    assert not (home / "buyer").exists()

    import time

    now = time.time()
    journal = PaymentJournal(home / "buyer" / "payments.db")
    with journal.exclusive():
        for index, channel in enumerate(("", "0xc")):
            journal.add(
                SignedPayment(
                    "job", index, "http://s", "POST", 84532, "0x1", "0x2", 300_000, f"0x{index}",
                    int(now) + 60, 2, {}, Fate.OPEN, now, channel=channel,
                )
            )  # fmt: skip
    journal.close()
    used = run("wallet", "policy", "--json", home=home).json
    assert used == {
        "network": "base-sepolia", "real_money": False, "allow_real_money": False,
        "max_payment": 1_000_000, "max_job": 5_000_000, "max_day": 2_000_000,
        "allow_payees": ["0x" + "ab" * 20], "allow_hosts": ["*.example.org"],
        "spent_today": 600_000, "left_today": 1_400_000, "at_risk": 300_000, "locked": 300_000,
    }  # fmt: skip
    shown = run("wallet", "policy", home=home).out
    assert "2.00 USDC at most (max_day): 0.60 used, 1.40 left" in shown
    assert "*.example.org (allow_hosts)" in shown
    other = run("wallet", "policy", "--json", "--network", "base", home=home).json
    assert other["spent_today"] == 0  # test money uses up nothing of the real caps
    assert SpendingPolicy.from_settings(Settings()).real_money is False
