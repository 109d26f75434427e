"""The published x402 client for JavaScript buys from our seller: in both versions, by a channel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from demo_fixtures import Demo

from computeswarm.chain.devnet import dev_keys
from computeswarm.core.crypto import PrivateKey

_FOLDER = Path(__file__).parent / "x402_npm"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (_FOLDER / "node_modules").is_dir(), reason="npm packages are missing; run make dev"
    ),
]
KEY = dev_keys()[2]


def run_client(demo: Demo, program: str, *args: str, request: Any, key: PrivateKey) -> Any:
    """What one of the JavaScript programs prints."""
    (node,) = demo.market("/api/v1/nodes")["nodes"]
    if node["record"]["document"]["isolation"] == "none":
        pytest.skip("without a sandbox a seller serves nobody but its owner")
    done = subprocess.run(
        ["node", str(_FOLDER / program), *args],
        input=json.dumps(request),
        env={**os.environ, "X402_KEY": "0x" + key.secret.hex()},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def a_job(line: str) -> dict[str, Any]:
    """A request for a job that prints a line."""
    return {"spec": {"command": ["python", "-c", f"print('{line}')"], "max_seconds": 60}}


@pytest.mark.parametrize("version", ["1", "2", "x402-fetch"])
def test_any_x402_client_can_buy(demo: Demo, version: str) -> None:
    request = a_job(f"hello {version}")
    bought = run_client(demo, "buy.mjs", version, demo.ready["seller"], request=request, key=KEY)
    assert bought["status"] == 202, bought
    assert bought["settled"]["success"] is True
    assert bought["settled"]["transaction"].startswith("0x")
    assert bought["body"]["job"]["buyer"] == KEY.address
    assert bought["body"]["job"]["paid"] > 0
    seller = bought["receipt"]["signer"]
    (node,) = demo.market("/api/v1/nodes")["nodes"]
    assert seller == node["record"]["document"]["wallet"]
    if version == "2":
        assert [offer["signer"] for offer in bought["offers"]] == [seller] * len(bought["offers"])
        assert bought["offers"][0]["scheme"] == "exact"
        assert all(bought["receipt"]["matches"])
        assert bought["bazaar"] == {"valid": True}


def test_any_x402_client_can_buy_by_channel(demo: Demo) -> None:
    """A deposit, a voucher without a transaction, and the rest of the deposit back."""
    key = dev_keys()[3]
    requests = [a_job("one"), a_job("two")]
    urls = (demo.ready["seller"], demo.ready["rpc"])
    told = run_client(demo, "channel.mjs", *urls, request=requests, key=key)
    first, second = told["bought"]
    assert (first["status"], second["status"]) == (202, 202)
    assert told["kinds"][:2] == ["deposit", "voucher"]
    assert first["settled"]["transaction"].startswith("0x")
    assert second["settled"]["transaction"] == ""
    channels = [bought["body"]["job"]["channel"]["channel_id"] for bought in (first, second)]
    assert channels[0] == channels[1]
    deposit = int(first["settled"]["amount"])
    assert told["refund"]["success"] is True
    state = told["refund"]["extra"]["channelState"]
    assert int(told["refund"]["amount"]) == deposit - int(state["totalClaimed"])
    assert state["balance"] == state["totalClaimed"]
    assert 0 < int(state["totalClaimed"]) < deposit


def test_the_published_discovery_client_finds_the_seller(demo: Demo) -> None:
    found = run_client(demo, "find.mjs", demo.ready["market"], request=None, key=KEY)
    (item,) = found["items"]
    assert item["resource"] == f"{demo.ready['seller']}/execute"
    assert found["pagination"]["total"] == 1
