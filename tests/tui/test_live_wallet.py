"""Wallet mode's own backend at a real chain, with real journals and a newcomer's whole way."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest
from cli_program import run
from ledger_hands import buying, funded, node_of, planned
from seller_rig import open_rig
from textual.widgets import Input
from tui_steps import until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ChainUnavailable, ConfigError, WalletError
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.states import JobState
from computeswarm.payments.journal import Fate, PaymentJournal, SignedPayment
from computeswarm.payments.wallet import load_wallet
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backends.connect import live_connect
from computeswarm.tui.backends.live_wallet import LiveWallet
from computeswarm.tui.draft import ExampleJob
from computeswarm.tui.modals.new_wallet import NewWalletModal
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.qr import FundModal
from computeswarm.tui.modals.welcome import WelcomeModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.wallet import WalletScreen

pytestmark = pytest.mark.timeout(240)

CODE = "import time\nprint('up', flush=True)\ntime.sleep(1.5)"
PASSWORD = "correct horse"


def home_of(folder: Path) -> Paths:
    return Paths.find({"COMPUTESWARM_HOME": str(folder)})


def payment(number: int) -> SignedPayment:
    """An authorization of 10 atoms, signed so many seconds ago."""
    return SignedPayment(
        job_id=f"job-{number:020x}", slice=0, url="http://203.0.113.7/", method="POST",
        chain_id=84532, payer="0x" + "2" * 40, pay_to="0x" + "1" * 40, amount=10,
        nonce=f"0x{number:064x}", valid_before=0, version=1, payload={}, state=Fate.OPEN,
        created_at=time.time() - number,
    )  # fmt: skip


async def on_chain(devnet: Devnet, address: str) -> int:
    async with RpcClient(devnet.url) as rpc:
        return await Usdc(rpc, BASE_SEPOLIA).balance_of(address)


async def test_a_wallet_is_made_once_and_under_a_good_password(tmp_path: Path) -> None:
    paths = home_of(tmp_path)
    wallet = LiveWallet(Settings(network="base", rpc="http://127.0.0.1:9"), paths)
    before = await wallet.status()
    assert (before.address, before.file) == ("", str(paths.wallet))
    assert (before.real_money, before.shortest_password) == (True, 10)
    with pytest.raises(WalletError, match="at least 10"):
        await wallet.create("too short")
    assert not paths.wallet.exists()
    with pytest.raises(WalletError, match="no wallet"):
        await wallet.funds()
    address = await wallet.create("long enough, this")
    assert load_wallet(paths.wallet, "long enough, this").address == address
    assert (await wallet.status()).address == address
    with pytest.raises(WalletError, match="already"):
        await wallet.import_key(PrivateKey.generate().secret.hex(), "long enough, this")
    assert load_wallet(paths.wallet, "long enough, this").address == address
    with pytest.raises(ChainUnavailable):
        await wallet.funds()
    await wallet.close()
    assert not paths.buyer.exists()  # looking has made no journals


async def test_a_damaged_wallet_and_damaged_books_are_said(tmp_path: Path) -> None:
    paths = home_of(tmp_path)
    paths.buyer.mkdir(parents=True)
    paths.wallet.parent.mkdir(parents=True, exist_ok=True)
    paths.wallet.write_text("{}")
    wallet = LiveWallet(Settings(), paths)
    assert "damaged" in (await wallet.status()).trouble
    (paths.buyer / "payments.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="can't be read"):
        await wallet.status()
    with pytest.raises(ConfigError, match="can't be read"):
        await wallet.ledger("", limit=10)
    await wallet.close()


async def test_its_books_are_those_of_the_command_line(devnet: Devnet, tmp_path: Path) -> None:
    key, seller = await funded(devnet), await funded(devnet)
    async with open_rig(
        devnet, tmp_path, key=seller, trusted=[key.address], slice_seconds=2
    ) as rig:
        paths = home_of(tmp_path / "b")
        async with buying(devnet, tmp_path / "b", rig.market_url, key) as buyer:
            offer = await buyer.quote(await node_of(rig), planned(tmp_path, CODE))
            record = await buyer.start(offer, budget=60_000)
            async for _ in buyer.follow(record.job_id):
                pass
            settings = Settings(market=rig.market_url, rpc=devnet.url)
            wallet = LiveWallet(settings, paths)
            await wallet.import_key(key.secret.hex(), PASSWORD)

            # beside a buyer who holds the journal open
            status, funds = await wallet.status(), await wallet.funds()
            assert status.address == key.address
            assert funds.usdc == await on_chain(devnet, key.address)
            assert funds.wei > 0
            page = await wallet.ledger("", limit=100)
            paid = [item for item in page.items if item.kind == "payment"]
            assert status.caps.used_day == sum(item.amount for item in paid) > 0
            assert [item.at for item in page.items] == sorted(
                (item.at for item in page.items), reverse=True
            )
            assert {item.job_id for item in page.items} == {record.job_id}
            assert all(item.signed == -item.amount for item in paid if item.standing == "done")
            assert page.sums[0].sent == sum(-i.signed for i in page.items if i.signed < 0)

            # found by words; only the newest are kept, the sums are of all
            assert (await wallet.ledger("PAYMENT done", limit=100)).total == len(paid)
            assert (await wallet.ledger("nothing-of-it", limit=100)).items == ()
            newest = await wallet.ledger("", limit=1)
            assert newest.items == page.items[:1]
            assert newest.total == page.total

            told = run(
                "ledger", "--csv", home=tmp_path / "b", COMPUTESWARM_RPC=devnet.url, limit=60
            )
            assert told.code == 0, told.err
            ours = await wallet.ledger_csv("")
            assert list(csv.reader(io.StringIO(ours))) == list(csv.reader(io.StringIO(told.out)))
            policy = json.loads(run("wallet", "policy", "--json", home=tmp_path / "b").out)
            assert policy["spent_today"] == status.caps.used_day
            assert policy["left_today"] == status.caps.left_day
            await wallet.close()


async def test_thousands_of_lines_are_read_while_the_journal_is_written(
    devnet: Devnet, tmp_path: Path
) -> None:
    paths = home_of(tmp_path)
    journal = PaymentJournal(paths.buyer / "payments.db")
    with journal.exclusive():
        for number in range(5_000):
            journal.add(payment(number))
    wallet = LiveWallet(Settings(rpc=devnet.url), paths)
    page = await wallet.ledger("", limit=500)
    assert (len(page.items), page.total) == (500, 5_000)
    assert page.items[0].job_id == f"job-{0:020x}"
    assert await wallet.ledger("", limit=500) is page  # nothing was written: nothing is read

    with journal.exclusive():  # somebody signs now; the books are read all the same
        status = await wallet.status()
        assert status.caps.used_day == 50_000
        assert (await wallet.ledger("open", limit=10)).total == 5_000
    with journal.exclusive():
        journal.add(payment(9_000))
    assert (await wallet.ledger("", limit=501)).total == 5_001
    journal.close()
    await wallet.close()


async def test_a_newcomer_makes_a_wallet_gets_money_and_buys(
    devnet: Devnet, tmp_path: Path
) -> None:
    key = PrivateKey.generate()
    script = tmp_path / "first.py"
    script.write_text("print('hello from far away')\n")
    async with open_rig(devnet, tmp_path, trusted=[key.address]) as rig:
        paths = home_of(tmp_path / "new")
        settings = Settings(market=rig.market_url, rpc=devnet.url, slice_seconds=10)
        app = ComputeSwarmApp(connect=live_connect(settings, paths), example=ExampleJob(script))
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, WelcomeModal), "the welcome")
            await pilot.press("b")
            await until(pilot, lambda: isinstance(app.screen, NewWalletModal))
            await pilot.press("ctrl+t")
            for name, text in (
                ("key", key.secret.hex()),
                ("password", PASSWORD),
                ("again", PASSWORD),
            ):
                app.screen.query_one(f"#new-{name}", Input).value = text
            app.screen.query_one("#new-again").focus()
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, FundModal), "waiting for money")
            assert load_wallet(paths.wallet, PASSWORD).address == key.address

            await devnet.fund(key.address, usdc_atoms=1_000_000)
            await until(pilot, lambda: isinstance(app.screen, WizardModal), "the wizard")
            assert app.screen.query_one("#field-script", Input).value.endswith("first.py")
            while not isinstance(app.screen, PaymentModal):
                step = getattr(app.screen, "step", None)
                await pilot.press("enter")
                await until(pilot, lambda s=step: getattr(app.screen, "step", None) != s)
            await until(pilot, lambda: not app.screen.query_one("#pay").disabled, "the quote")
            await pilot.press("p")
            await until(pilot, lambda: isinstance(app.screen, BuyerScreen), "Buyer mode")
            buyer = app.screen
            assert isinstance(buyer, BuyerScreen)
            await until(
                pilot,
                lambda: buyer.jobs and buyer.jobs[0].state is JobState.SUCCEEDED,
                "the job's end",
            )
            await until(pilot, lambda: buyer.jobs[0].refund is not None, "what came back")

            await pilot.press("3")
            await until(pilot, lambda: isinstance(app.screen, WalletScreen))
            screen = app.screen
            assert isinstance(screen, WalletScreen)
            await until(pilot, lambda: screen.selected is not None, "the books")
            await until(pilot, lambda: screen.funds is not None, "the balance")
            assert screen.wallet is not None
            assert screen.wallet.address == key.address
            assert {item.job_id for item in screen.query_one("#ledger").rows} == {
                buyer.jobs[0].job_id
            }
            cost = buyer.jobs[0].cost
            assert cost > 0
            screen.kick("funds")
            await until(
                pilot,
                lambda: screen.funds is not None and screen.funds.usdc == 1_000_000 - cost,
                "the balance less what the job cost",
            )
