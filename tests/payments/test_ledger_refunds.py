"""The buyer knows what sellers owe him, and what came, whatever they say or don't."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledger_rig import audit, codes, home, new_key, send, tampered

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.settings import Paths
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.ledger.books import Books
from computeswarm.payments.ledger.entries import Entry, Kind, Standing
from computeswarm.payments.ledger.refunds import Promise, RefundBook

CHAIN = BASE_SEPOLIA.chain_id
LATER = time.time() + 1_000_000  # later than a slow run of all tests comes here
"""After the wallets got their first money, which no books know."""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return home(tmp_path)


@pytest.fixture
def book(paths: Paths) -> Iterator[RefundBook]:
    PaymentJournal(paths.buyer / "payments.db").close()
    made = RefundBook(paths.buyer / "payments.db")
    yield made
    made.close()


def promise(peer: str, wallet: str, amount: int, job: str = "job-1", tx: str = "") -> Promise:
    return Promise(job, peer, wallet, CHAIN, amount, tx)


def refunds(paths: Paths) -> list[Entry]:
    with Books(paths, CHAIN) as books:
        return list(books.entries())


def states(paths: Paths) -> list[tuple[int, Standing]]:
    return [(one.amount, one.state) for one in refunds(paths)]


async def test_a_told_refund_counts_once_the_chain_shows_it(
    devnet: Devnet, rpc: RpcClient, paths: Paths, book: RefundBook
) -> None:
    seller, buyer = await new_key(devnet), await new_key(devnet)
    usdc = Usdc(rpc, BASE_SEPOLIA)
    owed = promise(seller.address, buyer.address, 500)
    book.told(owed, LATER)
    book.told(owed, LATER)
    assert states(paths) == [(500, Standing.OWED)]
    assert book.owed_jobs() == ["job-1"]
    assert (await audit(paths, rpc)).reports[0].books.owed == 500

    liar = promise(seller.address, buyer.address, 500, tx="0x" + "12" * 32)
    book.told(liar, LATER)
    assert await book.prove(rpc, usdc, LATER) == 0
    assert states(paths) == [(500, Standing.TOLD)]
    assert codes(await audit(paths, rpc)) == ["no_receipt"]

    paid = await send(devnet, rpc, seller, buyer.address, 500)
    with tampered(paths.buyer / "payments.db") as db:
        db.execute("UPDATE refunds SET tx = ?", (paid,))
    assert await book.prove(rpc, usdc, LATER) == 1
    (entry,) = refunds(paths)
    assert (entry.kind, entry.state, entry.signed) == (Kind.REFUND, Standing.DONE, 500)
    assert entry.block == (await rpc.receipt(paid)).block_number
    assert not book.unproven(CHAIN)
    assert (await audit(paths, rpc)).clean


async def test_a_promise_can_grow_but_not_shrink(paths: Paths, book: RefundBook) -> None:
    peer, wallet, tx = "0x" + "5e" * 20, "0x" + "b0" * 20, "0x" + "AB" * 32
    book.told(promise(peer, wallet, 100, tx=tx), LATER)
    book.told(promise(peer, wallet, 130, tx=tx), LATER)  # a slice that came too late
    book.told(promise(peer, wallet, 1, tx="0x" + "cd" * 32), LATER)
    book.told(promise(peer, wallet, 130, tx="no hash"), LATER)
    assert states(paths) == [(100, Standing.TOLD), (30, Standing.OWED)]
    assert refunds(paths)[0].transaction == tx.lower()


def test_a_promise_that_two_processes_hear_at_once_is_one_debt(
    paths: Paths, book: RefundBook
) -> None:
    """The terminal app and a command may watch the same job end."""
    path = paths.buyer / "payments.db"
    heard = promise("0x" + "5e" * 20, "0x" + "b0" * 20, 100)
    writing = threading.Barrier(3)

    def hear() -> None:
        mine = RefundBook(path)
        mine._db.set_trace_callback(lambda sql: writing.wait(30) if "BEGIN" in sql else None)
        mine.told(heard, LATER)
        mine.close()

    with ThreadPoolExecutor(2) as pool, tampered(path) as db:
        db.execute("BEGIN IMMEDIATE")  # both have looked before either can write
        both = [pool.submit(hear) for _ in range(2)]
        writing.wait(30)
        db.execute("COMMIT")
        for one in both:
            one.result()
    assert states(paths) == [(100, Standing.OWED)]


async def test_one_transfer_pays_several_debts(
    devnet: Devnet, rpc: RpcClient, paths: Paths, book: RefundBook
) -> None:
    seller, buyer = await new_key(devnet), await new_key(devnet)
    tx = await send(devnet, rpc, seller, buyer.address, 60)
    for number, amount in enumerate((10, 20, 30)):
        job = f"job-{number}"
        known = tx if number == 0 else ""
        book.told(promise(seller.address, buyer.address, amount, job, known), LATER)
    assert await book.prove(rpc, Usdc(rpc, BASE_SEPOLIA), LATER) == 3
    assert {state for _, state in states(paths)} == {Standing.DONE}
    assert (await audit(paths, rpc)).clean


@pytest.mark.parametrize("amounts", [[40], [10, 30]])
async def test_what_a_seller_who_is_gone_has_paid_is_found(
    devnet: Devnet, rpc: RpcClient, paths: Paths, book: RefundBook, amounts: list[int]
) -> None:
    seller, buyer = await new_key(devnet), await new_key(devnet)
    for number, amount in enumerate(amounts):
        book.told(promise(seller.address, buyer.address, amount, f"job-{number}"), 1.7e9)
    tx = await send(devnet, rpc, seller, buyer.address, sum(amounts))
    found = await audit(paths, rpc, since=1.7e9)
    assert codes(found) == ["unknown_in"]  # the wallet's first money, and not the refund
    (arrival,) = found.reports[0].arrivals
    assert arrival.transaction == tx
    assert [one.amount for one in arrival.entries] == amounts


async def test_a_stranger_pays_no_debt_of_a_seller(
    devnet: Devnet, rpc: RpcClient, paths: Paths, book: RefundBook
) -> None:
    seller, buyer, stranger = [await new_key(devnet) for _ in range(3)]
    tx = await send(devnet, rpc, stranger, buyer.address, 500)
    book.told(promise(seller.address, buyer.address, 500, tx=tx), LATER)
    assert await book.prove(rpc, Usdc(rpc, BASE_SEPOLIA), LATER) == 0
    assert sorted(codes(await audit(paths, rpc))) == ["not_paid", "unknown_in"]
