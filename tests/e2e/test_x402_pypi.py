"""The published x402 client for Python, as a program of its own, buys from our seller."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from demo_fixtures import Demo

from computeswarm.chain.devnet import dev_keys

KEY = dev_keys()[5]


@pytest.mark.parametrize(("version", "network"), [("1", "base-sepolia"), ("2", "eip155:84532")])
def test_any_python_client_can_buy(demo: Demo, version: str, network: str) -> None:
    (node,) = demo.market("/api/v1/nodes")["nodes"]
    if node["record"]["document"]["isolation"] == "none":
        pytest.skip("without a sandbox a seller serves nobody but its owner")
    request = {"spec": {"command": ["python", "-c", "print('hello')"], "max_seconds": 60}}
    program = [sys.executable, str(Path(__file__).with_name("x402_buy.py"))]
    done = subprocess.run(
        [*program, version, demo.ready["seller"]],
        input=json.dumps(request),
        env={**os.environ, "X402_KEY": "0x" + KEY.secret.hex()},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bought = json.loads(done.stdout)
    assert bought["status"] == 202, bought
    settled = bought["settled"]
    assert (settled["success"], settled["network"]) == (True, network)
    assert settled["payer"] == bought["body"]["job"]["buyer"] == KEY.address
    receipt = settled["extensions"]["offer-receipt"]["info"]["receipt"]["payload"]
    assert receipt["network"] == "eip155:84532"  # in both versions
    assert receipt["transaction"] == settled["transaction"]


def test_our_own_purchases_keep_the_sellers_signed_offers_and_receipts(demo: Demo) -> None:
    _, receipt = demo.buy("--", "python", "-c", "print('kept')")
    (file,) = demo.home.rglob("buyer/payments.db")
    with contextlib.closing(sqlite3.connect(file)) as db:
        rows = db.execute(
            "SELECT payments.tx, statements.offer, statements.receipt FROM payments"
            " JOIN statements USING (nonce) WHERE job_id = ?",
            (receipt["job_id"],),
        ).fetchall()
    assert rows
    for tx, offer, signed in rows:
        assert json.loads(signed)["payload"]["transaction"] == tx
        assert json.loads(offer)["payload"]["scheme"] == "exact"
