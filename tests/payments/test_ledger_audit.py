"""The audit names what differs, and nothing else; whoever lies to it, it never says clean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cli_program import Done, run
from ledger_rig import audit, codes, home, lying_node, new_key, sell, send, tampered
from payments_shop import PRICE, Shop, pay

from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError
from computeswarm.core.ids import WEB_PURCHASE
from computeswarm.core.settings import Paths
from computeswarm.payments.journal import Fate, PaymentJournal, SignedPayment
from computeswarm.payments.ledger.books import Books, Selection
from computeswarm.payments.ledger.entries import Kind, Role, total
from computeswarm.payments.ledger.findings import Report
from computeswarm.payments.transfer_proof import TransferProof

ZERO = "0x" + "00" * 32


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return home(tmp_path)


@pytest_asyncio.fixture
async def seller(devnet: Devnet, rpc: RpcClient, paths: Paths) -> AsyncIterator[PrivateKey]:
    yield await sell(devnet, rpc, paths)


async def test_honest_books_are_clean_and_a_debt_is_no_difference(
    devnet: Devnet, rpc: RpcClient, paths: Paths, seller: PrivateKey
) -> None:
    found = await audit(paths, rpc)
    (report,) = found.reports
    assert found.clean, report.differences
    assert (report.received, report.sent) == (3 * PRICE, 2_000)
    assert report.opening == 1_000_000
    assert report.closing == 1_000_000 + 3 * PRICE - 2_000
    assert report.books.owed == 10
    assert report.books.net == report.closing - report.opening
    assert report.checked == 6


async def test_the_ledger_lists_each_atom_with_block_and_gas(
    rpc: RpcClient, paths: Paths, seller: PrivateKey
) -> None:
    with Books(paths, 84532) as books:
        entries = list(books.entries())
        assert list(books.entries(Selection(role=Role.BUYER))) == []
        refunds = list(books.entries(Selection(kind=Kind.REFUND)))
        (one,) = books.entries(Selection(job="job-2", kind=Kind.PAYMENT))
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    assert [(entry.job_id, entry.amount) for entry in refunds] == [("job-1", 900), ("job-2", 1100)]
    assert one.amount == PRICE
    assert one.wallet == seller.address
    for hash_ in {entry.transaction for entry in entries if entry.transaction}:
        receipt = await rpc.receipt(hash_)
        assert receipt is not None
        own = [entry for entry in entries if entry.transaction == hash_]
        assert {entry.block for entry in own} == {receipt.block_number}
        # the gas of a transaction that carries two refunds is paid once
        gas = sum(entry.gas_wei or 0 for entry in own)
        assert gas == receipt.gas_used * receipt.gas_price
    assert total(entries).sent == 2_000


_COPY = (
    "INSERT INTO claims (chain_id, token, payer, nonce, binding, subject, pay_to, amount,"
    " authorization, signature, state, tx, created_at, settled_at)"
    " SELECT chain_id, token, {payer}, '{nonce}', binding, 'job-9', pay_to, amount,"
    " authorization, signature, state, {tx}, created_at, settled_at FROM claims WHERE id = 2"
)
TAMPERINGS: dict[str, tuple[str, list[str], str]] = {
    "amount": ("UPDATE claims SET amount = amount + 1 WHERE id = 2", ["amount"], "claims 2"),
    "swapped": (
        "UPDATE claims SET tx = (SELECT tx FROM claims WHERE id = 3) WHERE id = 2",
        ["other_transaction"],
        "claims 2",
    ),
    "unknown hash": (
        f"UPDATE claims SET tx = '{ZERO}' WHERE id = 2",
        ["other_transaction"],
        "claims 2",
    ),
    "deleted": ("DELETE FROM claims WHERE id = 2", ["unknown_in"], ""),
    "first line deleted": ("DELETE FROM claims WHERE id = 1", ["unknown_in"], ""),
    "invented": (_COPY.format(payer="payer", nonce=ZERO, tx=f"'{ZERO}'"), ["no_receipt"], "claims"),
    "payment used twice": (
        _COPY.format(payer="payer", nonce=ZERO, tx="tx"),
        ["not_paid"],
        "claims",
    ),
    "transfer used twice": (
        _COPY.format(payer="'tx'", nonce=ZERO, tx="tx"),
        ["used_twice"],
        "claims 2",
    ),
    "called failed": ("UPDATE claims SET state = 'failed' WHERE id = 2", ["taken"], "claims 2"),
    "another wallet's": (
        "UPDATE claims SET authorization = json_set(authorization, '$.from_',"
        " '0x00000000000000000000000000000000000000aa') WHERE id = 2",
        ["not_paid", "unknown_in"],
        "claims 2",
    ),
    "refund made larger": (
        "UPDATE refunds SET amount = amount + 7 WHERE subject = 'job-1'",
        ["amount"],
        "refunds 1",
    ),
    "refund added to a batch": (
        "INSERT INTO refunds (subject, recipient, amount, batch, created_at)"
        " SELECT 'job-8', recipient, 5, batch, created_at FROM refunds WHERE id = 1",
        ["amount"],
        "refunds",
    ),
    "refund called owed": (
        "UPDATE refunds SET batch = NULL",
        ["unknown_out"],
        "",
    ),
    "refund never sent": (
        f"UPDATE batches SET tx = '{ZERO}'",
        ["no_receipt", "unknown_out"],
        "refunds 1",
    ),
    "another recipient": (
        "UPDATE refunds SET recipient = '0x00000000000000000000000000000000000000aa'",
        ["not_paid", "unknown_out"],
        "refunds 1",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sold(module_devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An honest seller's database, to be tampered with."""
    paths = home(tmp_path_factory.mktemp("sold"))
    async with RpcClient(module_devnet.url) as rpc:
        await sell(module_devnet, rpc, paths)
    await module_devnet.disconnect()
    return (paths.seller / "payments.db").read_bytes()


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_named(rpc: RpcClient, paths: Paths, sold: bytes, name: str) -> None:
    statement, expected, row = TAMPERINGS[name]
    paths.seller.mkdir(parents=True)
    (paths.seller / "payments.db").write_bytes(sold)
    with tampered(paths.seller / "payments.db") as db:
        db.execute(statement)
    found = await audit(paths, rpc)
    assert codes(found) == sorted(expected)
    assert found.different
    assert not found.clean
    (report,) = found.reports
    assert any(row in named for one in report.differences for named in (*one.rows, ""))
    for one in report.differences:
        assert one.text.endswith((".", "it."))
        assert one.transaction.startswith("0x")
        assert one.transaction in one.text


async def test_what_the_books_do_not_know_is_named_both_ways(
    devnet: Devnet, rpc: RpcClient, paths: Paths, seller: PrivateKey
) -> None:
    stranger = await new_key(devnet)
    came = await send(devnet, rpc, stranger, seller.address, 123)
    went = await send(devnet, rpc, seller, stranger.address, 45)
    (report,) = (await audit(paths, rpc)).reports
    assert [(one.code, one.amount, one.transaction) for one in report.differences] == [
        ("unknown_in", 123, came),
        ("unknown_out", 45, went),
    ]
    assert "0.000123 USDC came from " + stranger.address.lower() in report.differences[0].text
    later = await audit(paths, rpc, since=9e8 * 3, wallet=seller.address)
    assert later.clean
    assert later.reports[0].checked == 0


async def test_a_receipt_that_a_reorganisation_took_is_named(tmp_path: Path) -> None:
    paths = home(tmp_path)
    async with await start_devnet(engine="py-evm") as devnet, RpcClient(devnet.url) as rpc:
        seller, buyer = await new_key(devnet), await new_key(devnet)
        shop = await Shop.open(devnet, rpc, paths.seller / "payments.db", key=seller)
        await shop.settle(pay(buyer, seller.address))
        snapshot = await rpc.call("evm_snapshot")
        lost = await shop.settle(pay(buyer, seller.address), binding="b", subject="job-2")
        await shop.settlements.close()
        assert await rpc.call("evm_revert", [snapshot])
        found = await audit(paths, rpc)
        assert codes(found) == ["no_receipt"]
        (one,) = found.reports[0].differences
        assert one.transaction == lost.transaction
        assert "job-2" in one.text


def _hide_events(method: str, params: list[Any], result: Any) -> Any:
    return [] if method == "eth_getLogs" else result


def _fail_receipts(method: str, params: list[Any], result: Any) -> Any:
    if method == "eth_getTransactionReceipt":
        raise ConnectionError
    return result


def _richer(method: str, params: list[Any], result: Any) -> Any:
    balance = method == "eth_call" and params[0]["data"].startswith("0x70a08231")
    return hex(int(result, 16) + 5)[2:].rjust(64, "0").join(["0x", ""]) if balance else result


def _invent_receipts(method: str, params: list[Any], result: Any) -> Any:
    if method == "eth_getTransactionReceipt" and result:
        return {**result, "status": "0x0", "logs": []}
    return [] if method == "eth_getLogs" else result


@pytest.mark.parametrize("twist", [_hide_events, _fail_receipts])
async def test_a_node_that_contradicts_itself_or_fails_gives_no_verdict(
    devnet: Devnet, paths: Paths, seller: PrivateKey, twist: Callable[..., Any]
) -> None:
    async with lying_node(devnet, twist) as url, RpcClient(url) as rpc:
        with pytest.raises(RpcUnavailable):
            await audit(paths, rpc)


@pytest.mark.parametrize("twist", [_richer, _invent_receipts])
async def test_a_consistent_liar_is_not_clean_and_a_second_node_contradicts_him(
    devnet: Devnet, rpc: RpcClient, paths: Paths, seller: PrivateKey, twist: Callable[..., Any]
) -> None:
    async with lying_node(devnet, twist) as url, RpcClient(url) as liar:
        if twist is _invent_receipts:
            assert "reverted" in codes(await audit(paths, liar))
        with pytest.raises(RpcUnavailable, match="contradict each other"):
            await audit(paths, liar, witness=rpc)
        with pytest.raises(RpcUnavailable, match="contradict each other"):
            await audit(paths, rpc, witness=liar)
    honest = await audit(paths, rpc, witness=rpc)
    assert honest.clean
    assert honest.reports[0].witnesses == 2


async def test_transfers_that_a_node_keeps_back_show_in_the_sum(
    devnet: Devnet, rpc: RpcClient, paths: Paths, seller: PrivateKey
) -> None:
    stranger = await new_key(devnet)
    hidden = await send(devnet, rpc, stranger, seller.address, 77)

    def hide(method: str, params: list[Any], result: Any) -> Any:
        if method == "eth_getLogs":
            return [log for log in result if log["transactionHash"] != hidden]
        return result

    async with lying_node(devnet, hide) as url, RpcClient(url) as liar:
        (report,) = (await audit(paths, liar)).reports
    assert [(one.code, one.amount) for one in report.differences] == [("sum", 77)]


async def test_a_node_without_old_state_leaves_the_audit_incomplete(
    devnet: Devnet, paths: Paths, seller: PrivateKey
) -> None:
    def forget(method: str, params: list[Any], result: Any) -> Any:
        if method == "eth_call" and int(params[1], 16) < forget_before:
            raise ConnectionError
        return result

    async with RpcClient(devnet.url) as rpc:
        forget_before = await rpc.block_number() - 1
    async with lying_node(devnet, forget) as url, RpcClient(url) as rpc:
        found = await audit(paths, rpc)
    assert not found.different
    assert not found.clean
    assert not found.reports[0].complete


async def test_another_chains_node_is_refused(
    devnet: Devnet, paths: Paths, seller: PrivateKey
) -> None:
    def base(method: str, params: list[Any], result: Any) -> Any:
        return "0x2105" if method == "eth_chainId" else result

    async with lying_node(devnet, base) as url, RpcClient(url) as rpc:
        with pytest.raises(ConfigError):
            await audit(paths, rpc)


async def test_it_reads_beside_a_seller_who_goes_on_selling(
    devnet: Devnet, rpc: RpcClient, paths: Paths
) -> None:
    seller, buyer = await new_key(devnet), await new_key(devnet)
    shop = await Shop.open(devnet, rpc, paths.seller / "payments.db", key=seller)
    try:
        await shop.settle(pay(buyer, seller.address))
        with Books(paths, 84532) as books:
            entries = books.entries()
            first = next(entries)
            await shop.settle(pay(buyer, seller.address), binding="b", subject="job-2")
            assert first.amount == PRICE
            assert list(entries) == []  # as it stood when the reading began
        assert (await audit(paths, rpc)).clean
    finally:
        await shop.settlements.close()
    with Books(paths, 84532) as books:
        assert len(list(books.entries())) == 2


async def test_the_command_tells_by_its_exit_code_and_in_sentences(
    devnet: Devnet, rpc: RpcClient, paths: Paths, seller: PrivateKey
) -> None:
    async def ledger(*flags: str) -> Done:
        return await asyncio.to_thread(run, "ledger", "--audit", *flags, home=paths.state)

    clean = await ledger("--rpc", devnet.url)
    assert clean.code == 0, clean.out + clean.err
    assert "Clean: books and chain agree to the atom." in clean.out
    assert "Owed     0.00001 USDC" in clean.out
    twice = await ledger("--rpc", f"{devnet.url},{devnet.url}", "--json")
    assert (twice.code, twice.json["witnesses"]) == (0, 2)
    with tampered(paths.seller / "payments.db") as db:
        db.execute("UPDATE claims SET amount = amount - 1 WHERE id = 3")
    wrong = await ledger("--rpc", devnet.url, "--json")
    assert wrong.code == 1
    (difference,) = wrong.json["differences"]
    assert (difference["code"], difference["amount"]) == ("amount", 1)
    assert difference["rows"] == ["seller claims 3"]
    text = await ledger("--rpc", devnet.url)
    assert text.code == 1
    assert f"Differs  {difference['text']}" in text.out
    assert "Clean" not in text.out
    silent = await ledger("--rpc", "http://127.0.0.1:9")
    assert silent.code == 125
    assert "can't be reached" in silent.one_sentence()


async def test_a_buyers_own_transfer_and_a_batch_of_settlements_are_clean(
    devnet: Devnet, rpc: RpcClient, paths: Paths
) -> None:
    seller, payer = await new_key(devnet), await new_key(devnet)
    buyers = [await new_key(devnet) for _ in range(6)]
    shop = await Shop.open(devnet, rpc, paths.seller / "payments.db", key=seller)
    try:
        now = int(time.time())
        hash_ = await send(devnet, rpc, payer, seller.address, PRICE)
        proof = TransferProof(
            payer.address, hash_, "chg_1", PRICE, now - 60, now + 60, str(now), b""
        )
        claim = await shop.settlements.settle_transfer(
            proof, shop.terms, binding="t", subject="job-t", before_broadcast=lambda: None
        )
        assert claim.by_transfer
        await asyncio.gather(
            *(
                shop.settle(pay(key, seller.address), binding=str(n), subject=f"job-{n}")
                for n, key in enumerate(buyers)
            )
        )
    finally:
        await shop.settlements.close()
    with Books(paths, 84532) as books:
        entries = list(books.entries())
    assert [one.kind for one in entries].count(Kind.PAYMENT) == 6
    (own,) = [one for one in entries if one.kind is Kind.TRANSFER]
    assert (own.peer, own.signed, own.gas_wei) == (payer.address, PRICE, None)  # he paid the gas
    hashes = {one.transaction for one in entries if one.kind is Kind.PAYMENT}
    assert len(hashes) < 6  # those that waited for each other went together
    receipts = [await rpc.receipt(tx) for tx in hashes]
    gas = sum(one.gas_used * one.gas_price for one in receipts if one is not None)
    assert total(entries).gas_wei == gas
    found = await audit(paths, rpc)
    assert found.clean, found.reports[0].differences
    with tampered(paths.seller / "payments.db") as db:
        db.execute("DELETE FROM claims WHERE payer = 'tx'")
        db.execute("UPDATE claims SET amount = amount + 3 WHERE subject = 'job-4'")
    assert codes(await audit(paths, rpc)) == ["amount", "unknown_in"]


async def test_audits_in_the_middle_of_selling_find_nothing(
    devnet: Devnet, rpc: RpcClient, paths: Paths
) -> None:
    """Whatever is under way at the moment of an audit is known to the books already."""
    seller = await new_key(devnet)
    buyers = [await new_key(devnet) for _ in range(3)]
    shop = await Shop.open(devnet, rpc, paths.seller / "payments.db", key=seller)

    async def sell_on(key: PrivateKey, name: str) -> None:
        for number in range(12):
            subject = f"job-{name}{number}"
            await shop.settle(pay(key, seller.address), binding=subject, subject=subject)
            await shop.settlements.refund(subject, key.address, 1_000 + number)

    try:
        selling = asyncio.gather(*(sell_on(key, str(n)) for n, key in enumerate(buyers)))
        audits = 0
        while not selling.done():
            found = await audit(paths, rpc, wallet=seller.address)
            assert found.clean, [one.text for r in found.reports for one in r.differences]
            audits += 1
        await selling
    finally:
        await shop.settlements.close()
    assert audits > 1
    found = await audit(paths, rpc, wallet=seller.address)
    assert found.clean, found.reports[0].differences


async def test_what_a_server_of_the_web_sends_back_is_change_up_to_what_it_was_paid(
    devnet: Devnet, rpc: RpcClient, tmp_path: Path
) -> None:
    seller, buyer = await new_key(devnet), await new_key(devnet)
    shop = await Shop.open(devnet, rpc, tmp_path / "elsewhere.db", key=seller)
    try:
        payment = pay(buyer, seller.address, PRICE)
        claim = await shop.settle(payment, binding="w", subject="job-w")
    finally:
        await shop.settlements.close()
    paths, given = home(tmp_path), payment.authorization
    journal = PaymentJournal(paths.buyer / "payments.db")
    bought = SignedPayment(
        job_id=f"{WEB_PURCHASE}{'a' * 20}-1",
        slice=0,
        url="http://127.0.0.1:1/report",
        method="GET",
        chain_id=84532,
        payer=buyer.address,
        pay_to=seller.address,
        amount=PRICE,
        nonce=given.nonce,
        valid_before=given.valid_before,
        version=2,
        payload={},
        state=Fate.OPEN,
        created_at=time.time() + 1,  # after the wallet was given its first money
    )
    with journal.exclusive():
        journal.add(bought)
    journal.set_fate(given.nonce, Fate.SETTLED, tx=claim.transaction)
    journal.close()

    await send(devnet, rpc, seller, buyer.address, PRICE - 1)
    report = (await audit(paths, rpc)).reports[0]
    assert (report.returned, codes_of(report)) == (PRICE - 1, [])

    await send(devnet, rpc, seller, buyer.address, 2)  # more than was paid: not change
    report = (await audit(paths, rpc)).reports[0]
    assert (report.returned, codes_of(report)) == (PRICE - 1, ["unknown_in"])


def codes_of(report: Report) -> list[str]:
    return [one.code for one in report.differences]
