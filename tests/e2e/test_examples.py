"""Each example, bought for real: its result, the money on the chain, the market's record."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_fixtures import REPOSITORY, Demo, running_demo

from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import BASE_SEPOLIA

pytestmark = pytest.mark.timeout(900)
DATA = "examples/data/digits.csv"


@pytest.fixture(scope="module")
def ml_demo(tmp_path_factory: pytest.TempPathFactory, python_ml: Path) -> Iterator[Demo]:
    """A demo whose seller offers the image with NumPy and PyTorch."""
    home = tmp_path_factory.mktemp("ml-demo")
    (home / "seller").mkdir()
    (home / "seller/images").symlink_to(python_ml)
    with running_demo(home) as demo:
        yield demo


def _balances(demo: Demo) -> tuple[int, int]:
    """Atoms of buyer and seller."""

    async def ask() -> tuple[int, int]:
        async with RpcClient(demo.ready["rpc"]) as rpc:
            usdc = Usdc(rpc, BASE_SEPOLIA)
            return (
                await usdc.balance_of(demo.ready["buyer"]),
                await usdc.balance_of(demo.ready["seller_wallet"]),
            )

    return asyncio.run(ask())


def _check_money(demo: Demo, before: tuple[int, int], receipt: dict[str, Any]) -> None:
    """What left the buyer reached the seller, and is what the receipt says once refunds are in."""
    refund = (receipt["job"]["refund"] or {"amount": 0})["amount"]
    spent = receipt["paid"] - refund
    assert receipt["paid"] > 0
    assert 0 < receipt["cost"] <= spent
    deadline = time.monotonic() + 60
    while (after := _balances(demo)) != (before[0] - spent, before[1] + spent):
        assert time.monotonic() < deadline, (before, after, receipt)
        time.sleep(0.1)


def _check_market(demo: Demo, receipt: dict[str, Any]) -> None:
    """The market knows how it ended; the seller tells it after the buyer, so wait for it."""
    deadline = time.monotonic() + 60
    while (job := demo.market(f"/api/v1/jobs/{receipt['job_id']}"))["state"] != "succeeded":
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    assert job["buyer"] == demo.ready["buyer"]
    assert job["seller"] == demo.ready["seller_wallet"]
    assert job["exit_code"] == 0
    assert job["paid"] == receipt["paid"]


def _buy(demo: Demo, *args: str) -> dict[str, Any]:
    """Buy, and check everything that holds for each job alike."""
    before = _balances(demo)
    _, receipt = demo.buy(*args, limit=600)
    assert receipt["state"] == "succeeded"
    _check_money(demo, before, receipt)
    _check_market(demo, receipt)
    return receipt


def _run_here(script: str, folder: Path, site: Path | None = None) -> None:
    """The same script without ComputeSwarm, to compare its files with."""
    environ = {**os.environ, "COMPUTESWARM_OUTPUTS": str(folder)}
    if site is not None:
        environ["PYTHONPATH"] = str(site)
    folder.mkdir()
    argv = [sys.executable, script]
    subprocess.run(argv, check=True, cwd=REPOSITORY, env=environ, capture_output=True)


def test_monte_carlo_gives_the_same_file_as_at_home(demo: Demo, tmp_path: Path) -> None:
    _buy(demo, "examples/monte_carlo.py", "--output", str(tmp_path / "bought"))
    _run_here("examples/monte_carlo.py", tmp_path / "here")
    assert (tmp_path / "bought/pi.json").read_bytes() == (tmp_path / "here/pi.json").read_bytes()
    assert json.loads((tmp_path / "bought/pi.json").read_text())["darts"] == 4_000_000


def test_a_job_runs_behind_a_wall_where_one_can_be_built(demo: Demo) -> None:
    (node,) = demo.market("/api/v1/nodes")["nodes"]
    sandbox = {
        check["name"]: check["status"] for check in demo.cli("doctor", "--json").json["checks"]
    }["sandbox"]
    expected = "namespace" if sandbox == "ok" else "none"
    assert node["record"]["document"]["isolation"] == expected


def test_numpy_reads_its_input_and_leaves_its_files(
    ml_demo: Demo, python_ml: Path, tmp_path: Path
) -> None:
    flags = ("--image", "python-ml", "--input", DATA, "--output", str(tmp_path / "bought"))
    _buy(ml_demo, "examples/digits_pca.py", *flags)
    (site,) = (python_ml / "python-ml").glob("site-*")
    _run_here("examples/digits_pca.py", tmp_path / "here", site)
    names = {"components.npy", "mean_images.npy", "explained.csv"}
    assert {path.name for path in (tmp_path / "bought").iterdir()} == names
    for name in ("mean_images.npy", "explained.csv"):
        assert (tmp_path / "bought" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_torch_learns_digits(ml_demo: Demo, tmp_path: Path) -> None:
    flags = ("--image", "python-ml", "--input", DATA, "--output", str(tmp_path))
    _buy(ml_demo, "examples/digits_train.py", *flags, "--env", "EPOCHS=12")
    with (tmp_path / "learning_curve.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert len(curve) == 12
    assert float(curve[-1]["test_accuracy"]) > 0.95
    assert float(curve[-1]["train_loss"]) < float(curve[0]["train_loss"]) / 5
    assert (tmp_path / "model.pt").stat().st_size > 50_000
