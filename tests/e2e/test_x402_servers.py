"""Published x402 servers, of both versions and both languages, sell to our buyer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from demo_fixtures import Demo

from computeswarm.chain.devnet import dev_keys

_FOLDER = Path(__file__).parent
_NPM = _FOLDER / "x402_npm"
FACILITATOR, PAYEE = dev_keys()[3], dev_keys()[4]
PRICE = 10_000
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (_NPM / "node_modules").is_dir(),
    reason="node or the npm packages are missing; run make dev",
)
NPM_1 = pytest.param(["node", str(_NPM / "sell.mjs"), "1"], 1, id="npm-v1", marks=needs_node)
NPM_2 = pytest.param(["node", str(_NPM / "sell.mjs"), "2"], 2, id="npm-v2", marks=needs_node)
PYPI_2 = pytest.param([sys.executable, str(_FOLDER / "x402_sell.py")], 2, id="pypi-v2")


@contextmanager
def selling(program: list[str], rpc: str) -> Iterator[str]:
    """A server that runs until the end of its input, and its address."""
    process = subprocess.Popen(
        [*program, PAYEE.address, rpc],
        env={
            **os.environ,
            "X402_KEY": "0x" + FACILITATOR.secret.hex(),
            "X402_PAYEE_KEY": "0x" + PAYEE.secret.hex(),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def paid(demo: Demo, *args: str) -> dict[str, Any]:
    """What ``computeswarm pay --json`` prints."""
    done = demo.cli("pay", "--json", *args)
    assert done.code == 0, done.out + done.err
    return dict(json.loads(done.out))


@pytest.mark.parametrize(("program", "version"), [NPM_1, NPM_2, PYPI_2])
def test_our_buyer_buys_from_any_x402_server(
    demo: Demo, program: list[str], version: int, tmp_path: Path
) -> None:
    with selling(program, demo.ready["rpc"]) as url:
        free = demo.cli("pay", f"{url}/fact", "--yes", "--max", "0.009")
        assert free.code == 126, free.err
        assert "0.01 USDC" in free.err
        asked = demo.cli("pay", f"{url}/fact")
        assert asked.code == 126, asked.err  # nobody is there to agree
        assert PAYEE.address in asked.err
        nowhere = str(tmp_path / "missing" / "answer")
        lost = demo.cli("pay", f"{url}/fact", "--yes", "--output", nowhere)
        assert lost.code == 125, lost.err
        assert "USDC" not in lost.err  # found out before anything is paid
        fact = paid(demo, f"{url}/fact", "--yes")
        assert (fact["status"], json.loads(fact["body"])) == (200, {"fact": "paid"})
        payment = fact["payment"]
        assert (payment["amount"], payment["pay_to"]) == (PRICE, PAYEE.address)
        assert payment["x402_version"] == version
        assert payment["settled"] is True
        assert payment["transaction"].startswith("0x")
        again = paid(demo, f"{url}/fact", "--yes")
        assert again["payment"]["nonce"] != payment["nonce"]  # bought once more, not replayed
        if "sell.mjs" in program[1] and version == 2:
            signed = payment["signed_receipt"]["payload"]
            assert (signed["payer"], signed["resourceUrl"]) == (payment["payer"], f"{url}/fact")
            assert "its own signed offer" in asked.err
        target = tmp_path / "answer"
        done = demo.cli(
            *("pay", f"{url}/echo", "--yes", "--data", "hello", "--header", "X-Any: thing"),
            *("--output", str(target)),
        )
        assert done.code == 0, done.err
        assert target.read_text() == "hello"
        assert "0.01 USDC" in done.err
