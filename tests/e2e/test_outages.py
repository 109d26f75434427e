"""Chain, market and seller as separate commands, and one of them goes away while a job runs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_program import command, environment, free_port, run, serving

from computeswarm.chain.devnet import dev_keys

PASSWORD = "pw"
SELLER, BUYER = dev_keys()[:2]
JOB = """
import os, time
print("begun", flush=True)
for _ in range(600):
    if os.path.exists("go-on"):
        break
    time.sleep(0.05)
print("ended", flush=True)
"""


@dataclass
class Swarm:
    """Four parties with homes of their own."""

    root: Path
    rpc: str
    market_url: str
    parts: dict[str, subprocess.Popen[str]]

    @property
    def env(self) -> dict[str, str]:
        return {
            "COMPUTESWARM_RPC": self.rpc,
            "COMPUTESWARM_MARKET": self.market_url,
            "COMPUTESWARM_PASSWORD": PASSWORD,
        }

    def cli(self, *args: str) -> Any:
        """A command of the buyer's."""
        return run(*args, home=self.root / "buyer", **self.env)

    def balance(self, who: str) -> int:
        done = run("wallet", "balance", "--json", home=self.root / who, **self.env)
        assert done.code == 0, done.err
        atoms: int = done.json["usdc_atoms"]
        return atoms


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    with ExitStack() as stack:
        devnet, chain = stack.enter_context(serving("devnet", "--json", "--port", free_port()))
        market, market_process = stack.enter_context(
            serving("market", "--json", "--port", free_port(), home=tmp_path / "market")
        )
        made = Swarm(tmp_path, devnet["rpc"], market["market"], {"market": market_process})
        made.parts["devnet"] = chain
        for who, key in (("seller", SELLER), ("buyer", BUYER)):
            given = {"home": tmp_path / who, "stdin": key.secret.hex(), **made.env}
            assert run("wallet", "import", **given).code == 0
        flags = ("--headless", "--json", "--port", free_port(), "--slice-seconds", "20")
        flags += ("--trust", BUYER.address, "--executor", "process")
        _, made.parts["seller"] = stack.enter_context(
            serving("seller", *flags, home=tmp_path / "seller", **made.env)
        )
        yield made


class _Job:
    """A ``run`` in the background that has printed its first line."""

    def __init__(self, swarm: Swarm) -> None:
        script = swarm.root / "job.py"
        script.write_text(JOB)
        self.process = subprocess.Popen(
            command("run", str(script), "--json", "--yes", "--max-time", "40s"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(swarm.root / "buyer", **swarm.env),
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "begun" in line:
                return
        assert self.process.stderr is not None
        raise AssertionError("".join(self.lines) + self.process.stderr.read())

    def finish(self, swarm: Swarm) -> dict[str, Any]:
        """Let the job end; the receipt."""
        jobs = swarm.root / "seller/seller/process"
        (folder,) = [path for path in jobs.iterdir() if path.name.startswith("job-")]
        (folder / "go-on").touch()
        out, err = self.process.communicate(timeout=90)
        assert "Traceback" not in err
        assert self.process.returncode == 0, out + err
        receipt: dict[str, Any] = json.loads(out.splitlines()[-1])
        return receipt


def _settle(swarm: Swarm, before: int, receipt: dict[str, Any]) -> None:
    """In the end the buyer is out what the job cost and nothing else."""
    job = receipt["job_id"]
    deadline = time.monotonic() + 60
    while True:
        now = swarm.cli("jobs", job, "--json").json
        refund = (now["job"]["refund"] or {"amount": 0})["amount"]
        spent = before - swarm.balance("buyer")
        if spent == now["paid"] - refund:
            break
        assert time.monotonic() < deadline, (spent, now)
        time.sleep(0.2)
    assert now["state"] == "succeeded"
    assert now["cost"] <= spent < now["paid"]


def test_a_market_that_goes_away_ends_no_job(swarm: Swarm) -> None:
    before = swarm.balance("buyer")
    job = _Job(swarm)
    swarm.parts["market"].kill()
    receipt = job.finish(swarm)
    _settle(swarm, before, receipt)
    gone = swarm.cli("nodes")
    assert gone.code == 125
    assert "market" in gone.one_sentence()


def test_a_chain_that_goes_away_ends_no_job_and_refunds_follow(swarm: Swarm) -> None:
    before = swarm.balance("buyer")
    job = _Job(swarm)
    engine = _child_of(swarm.parts["devnet"].pid)
    subprocess.run(["kill", f"-{signal.SIGSTOP.name}", str(engine)], check=True)
    try:
        receipt = job.finish(swarm)
    finally:
        subprocess.run(["kill", f"-{signal.SIGCONT.name}", str(engine)], check=True)
    _settle(swarm, before, receipt)


def _child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_seller_that_is_killed_gives_everything_back_when_it_returns(swarm: Swarm) -> None:
    before = swarm.balance("buyer")
    job = _Job(swarm)
    job.process.send_signal(signal.SIGKILL)
    job.process.communicate()
    swarm.parts["seller"].kill()
    swarm.parts["seller"].wait()
    flags = ("--headless", "--json", "--port", free_port(), "--trust", BUYER.address)
    flags += ("--executor", "process")
    with serving("seller", *flags, home=swarm.root / "seller", **swarm.env):
        deadline = time.monotonic() + 60
        while swarm.balance("buyer") != before:
            assert time.monotonic() < deadline, before - swarm.balance("buyer")
            time.sleep(0.2)
