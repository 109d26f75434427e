"""The published x402 client for JavaScript buys from our seller, in both versions of the wire."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from demo_fixtures import Demo

from computeswarm.chain.devnet import dev_keys

_FOLDER = Path(__file__).parent / "x402_npm"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (_FOLDER / "node_modules").is_dir(), reason="npm packages are missing; run make dev"
    ),
]
KEY = dev_keys()[2]


@pytest.mark.parametrize("version", ["1", "2"])
def test_any_x402_client_can_buy(demo: Demo, version: str) -> None:
    (node,) = demo.market("/api/v1/nodes")["nodes"]
    if node["record"]["document"]["isolation"] == "none":
        pytest.skip("without a sandbox a seller serves nobody but its owner")
    spec = {"command": ["python", "-c", f"print('hello {version}')"], "max_seconds": 60}
    done = subprocess.run(
        ["node", str(_FOLDER / "buy.mjs"), version, demo.ready["seller"]],
        input=json.dumps({"spec": spec}),
        env={**os.environ, "X402_KEY": "0x" + KEY.secret.hex()},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bought = json.loads(done.stdout)
    assert bought["status"] == 202, bought
    assert bought["settled"]["success"] is True
    assert bought["settled"]["transaction"].startswith("0x")
    assert bought["body"]["job"]["buyer"] == KEY.address
    assert bought["body"]["job"]["paid"] > 0
