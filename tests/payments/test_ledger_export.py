"""How the books look: 80 columns, spreadsheets that run nothing, and totals that add up."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_program import run
from ledger_rig import home

from computeswarm.payments.claims import ClaimStore
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.ledger.books import Books, Selection
from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing, Totals, total
from computeswarm.payments.ledger.export import CSV_COLUMNS, csv_row, table_line, table_row

SELLER = "0x" + "5e" * 20
BUYER = "0x" + "b0" * 20
EVIL = '=HYPERLINK("http://evil","x")\x1b[2J\r\n'


def entry(**changes: Any) -> Entry:
    made = Entry(
        at=1.7e9,
        role=Role.BUYER,
        kind=Kind.PAYMENT,
        job_id="job-" + "a" * 20,
        slice=0,
        peer=SELLER,
        wallet=BUYER,
        chain_id=84532,
        amount=1_234_567,
        direction="out",
        transaction="0x" + "ab" * 32,
        state=Standing.DONE,
        row="payments 1",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"slice": 12_345},
        {"amount": 999_999_999_999, "direction": "in"},
        {"kind": Kind.WITHDRAWAL, "role": Role.SELLER},
        {"state": Standing.WRITTEN_OFF},
        {"job_id": EVIL * 20, "peer": EVIL, "transaction": EVIL},
        {"job_id": "", "peer": "", "transaction": ""},
    ],
)
def test_a_line_fits_80_columns_and_holds_no_escape(changes: dict[str, Any]) -> None:
    line = table_line(table_row(entry(**changes)))
    assert len(line) <= (83 if "amount" in changes else 80)  # a million USDC is worth three more
    assert line.isprintable()


def test_csv_is_rfc_4180_and_no_cell_of_a_stranger_is_a_formula() -> None:
    text = csv_row(entry(note=EVIL, job_id="+cmd|' /C calc'!A0", peer="@SUM(1)"), -5)
    assert text.endswith("\r\n")
    (row,) = csv.reader(io.StringIO(text))
    cells = dict(zip(CSV_COLUMNS, row, strict=True))
    assert cells["note"].startswith("'=HYPERLINK")
    assert cells["job"].startswith("'+cmd")
    assert cells["peer"].startswith("'@")
    assert "\x1b" not in text
    assert (cells["atoms"], cells["usdc"], cells["total_atoms"]) == ("-1234567", "1.234567", "-5")
    assert cells["time"] == "2023-11-14T22:13:20Z"


def test_only_what_moved_counts_in_the_totals() -> None:
    states = [entry(state=state) for state in Standing]
    owed = entry(state=Standing.OWED, direction="", amount=7)
    sums = total([*states, owed, entry(direction="in", amount=3, gas_wei=11)])
    assert sums.sent == 2 * 1_234_567  # done, and spent although refused
    assert sums.received == 3
    assert sums.owed == 1_234_567 + 7
    assert sums.at_risk == 5 * 1_234_567
    assert sums.gas_wei == 11
    assert total([]) == Totals()


def fill(path: Path, count: int) -> None:
    """A seller's books as long as they get, by hand."""
    ClaimStore(path).close()
    db = sqlite3.connect(path)
    given = json.dumps({"from_": BUYER, "to": SELLER})
    with db:
        db.executemany(
            "INSERT INTO claims (chain_id, token, payer, nonce, binding, subject, pay_to, amount,"
            " authorization, signature, state, tx, created_at, settled_at)"
            " VALUES (84532,'t',?,?,'b',?,?,10,?,x'','consumed',?,?,?)",
            (
                (
                    *(BUYER, f"0x{number:064x}", f"job-{number:020x}", SELLER, given),
                    *(f"0x{number:064x}", 1e9 + number, 1e9 + number),
                )
                for number in range(count)
            ),
        )
    db.close()


def test_a_listing_streams_and_ends_with_the_totals(tmp_path: Path) -> None:
    paths = home(tmp_path)
    fill(paths.seller / "payments.db", 5_000)
    listed = run("ledger", home=paths.state)
    assert listed.code == 0, listed.err
    lines = listed.out.splitlines()
    assert len(lines) == 5_002
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["TIME", "ROLE", "KIND", "JOB", "PEER", "USDC", "TX"]
    assert lines[-1] == "Seller 5000 entries: in 0.05, out 0.00, net +0.05 USDC"
    newest = run("ledger", "--json", "--limit", "2", "--role", "seller", home=paths.state)
    documents = [json.loads(line) for line in newest.out.splitlines()]
    assert [one.get("job_id") for one in documents[:2]] == [f"job-{n:020x}" for n in (4998, 4999)]
    assert documents[2]["entries"] == 2
    table = run("ledger", "--csv", "--since", "2001-09-09", "--kind", "payment", home=paths.state)
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert len(rows) == 5_000
    assert rows[-1]["total_atoms"] == "50000"
    assert "net +0.05" in table.err
    none = run("ledger", "--job", "zz", home=paths.state)
    assert none.out.startswith("The books have nothing")


def test_wrong_options_are_said_in_a_sentence(tmp_path: Path) -> None:
    for flags in (
        ("--since", "yesterday"),
        ("--kind", "gift"),
        ("--limit", "0"),
        ("--audit", "--role", "buyer"),
        ("--csv", "--json"),
    ):
        done = run("ledger", *flags, home=tmp_path)
        assert done.code == 125, flags
        assert "Traceback" not in done.out + done.err
        assert "_count" not in done.err
    offline = run("ledger", "--audit", home=tmp_path)
    assert offline.code == 125
    assert "--rpc" in offline.one_sentence()


def test_the_buyers_books_show_what_he_signed_and_what_became_of_it(tmp_path: Path) -> None:
    paths = home(tmp_path)
    path = paths.buyer / "payments.db"
    PaymentJournal(path).close()
    db = sqlite3.connect(path)
    now = time.time()
    with db:
        for number, state in enumerate(("open", "settled", "refused", "expired", "spent")):
            db.execute(
                "INSERT INTO payments (job_id, slice, url, method, chain_id, payer, pay_to, amount,"
                " nonce, valid_before, version, payload, state, created_at, tx)"
                " VALUES ('job-1',?,'http://x','POST',84532,?,?,10,?,0,2,'{}',?,?,?)",
                (number, BUYER, SELLER, f"0x{number:064x}", state, now - 10 + number, EVIL),
            )
    db.close()
    with Books(paths, 84532) as books:
        found = list(books.entries())
        late = list(books.entries(Selection(since=now - 7.5, until=now - 6.5)))
    assert [str(one.state) for one in found] == ["open", "done", "refused", "expired", "spent"]
    assert [one.signed for one in found] == [0, -10, 0, 0, -10]
    assert {one.transaction for one in found} == {""}  # what is no hash is no transaction
    assert [one.slice for one in late] == [3]


def test_real_and_test_money_are_not_summed(tmp_path: Path) -> None:
    paths = home(tmp_path)
    fill(paths.seller / "payments.db", 3)
    db = sqlite3.connect(paths.seller / "payments.db")
    with db:
        db.execute("UPDATE claims SET chain_id = 8453 WHERE id = 2")
    db.close()
    listed = run("ledger", "--json", home=paths.state)
    sums = json.loads(listed.out.splitlines()[-1])
    assert (sums["entries"], sums["received"], sums["real_money"]) == (2, 20, False)
    assert "1 entries are not on Base Sepolia" in listed.err
    real = run("ledger", "--json", "--network", "base", home=paths.state)
    sums = json.loads(real.out.splitlines()[-1])
    assert (sums["entries"], sums["received"], sums["real_money"]) == (1, 10, True)


def test_a_line_without_numbers_hides_from_nobody(tmp_path: Path) -> None:
    paths = home(tmp_path)
    fill(paths.seller / "payments.db", 3)
    db = sqlite3.connect(paths.seller / "payments.db")
    with db:
        db.execute("UPDATE claims SET settled_at = 'soon', amount = 'much' WHERE id = 2")
    db.close()
    assert run("ledger", home=paths.state).code == 0
    with Books(paths, 84532) as books:
        assert [one.row for one in books.entries()] == ["claims 2", "claims 1", "claims 3"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE claims SET authorization = '{' WHERE id = 2",
        "DROP TABLE receipts",
        "ALTER TABLE refunds RENAME COLUMN batch TO other",
        "",
    ],
)
def test_damaged_books_are_said_in_a_sentence(tmp_path: Path, damage: str) -> None:
    paths = home(tmp_path)
    path = paths.seller / "payments.db"
    fill(path, 3)
    if damage:
        db = sqlite3.connect(path)
        with db:
            db.execute(damage)
        db.close()
    else:
        path.write_bytes(b"nothing of ours" * 1_000)
    done = run("ledger", home=paths.state)
    assert done.code == 125
    assert "can't be read" in done.last_sentence()


def test_the_sellers_books_say_how_sure_they_are(tmp_path: Path) -> None:
    paths = home(tmp_path)
    fill(paths.seller / "payments.db", 6)
    db = sqlite3.connect(paths.seller / "payments.db")
    with db:
        db.execute("UPDATE claims SET state = 'broadcast', settled_at = NULL WHERE id = 1")
        db.execute("UPDATE claims SET state = 'failed' WHERE id = 2")
        db.execute("UPDATE claims SET state = 'failed', tx = '' WHERE id = 3")
        db.execute("UPDATE claims SET state = 'reverted' WHERE id = 4")
        db.execute("UPDATE claims SET reorged_at = 1 WHERE id = 5")
        db.execute(
            "INSERT INTO refunds (subject, recipient, amount, created_at) VALUES ('j',?,3,2e9)",
            (BUYER,),
        )
    db.close()
    with Books(paths, 84532) as books:
        found = list(books.entries())
    assert [(one.kind, one.state, one.signed) for one in found] == [
        (Kind.PAYMENT, Standing.OPEN, 0),
        (Kind.REVERTED, Standing.REVERTED, 0),
        (Kind.PAYMENT, Standing.REVERTED, 0),
        (Kind.PAYMENT, Standing.REORGED, 0),
        (Kind.PAYMENT, Standing.DONE, 10),
        (Kind.OWED, Standing.OWED, 0),
    ]
    sums = total(found)
    assert (sums.received, sums.at_risk, sums.owed) == (10, 20, 3)
