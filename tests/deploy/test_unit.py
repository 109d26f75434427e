"""The systemd unit: what systemd itself says of it, and a seller that a real systemd starts."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_program import free_port, run, serving
from systemd_machine import THIS_TREE, Machine, booted

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "computeswarm-seller.service"
PROGRAM = "/opt/computeswarm/bin/computeswarm"
WAIT = 60.0
KEEPS_PROC_VISIBLE = {
    *("protectkerneltunables", "protectkernellogs", "protectcontrolgroups", "protectproc"),
    *("procsubset", "restrictnamespaces"),
}
KEEPS_HOST_MOUNTS = {
    *("protectsystem", "protecthome", "privatetmp", "privatedevices", "privatemounts"),
    *("readonlypaths", "inaccessiblepaths", "readwritepaths", "rootdirectory", "dynamicuser"),
}


class Repeated(dict[str, Any]):
    """Systemd's keys may stand several times; their values add up."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self and isinstance(value, list) and isinstance(self[key], list):
            value = [*self[key], *value]
        super().__setitem__(key, value)


def service() -> dict[str, list[str]]:
    """The unit's [Service], keys in lower case."""
    parser = configparser.RawConfigParser(strict=False, dict_type=Repeated)
    # RawConfigParser joins lists only at the end, so the lists above are what it collects
    parser.read(UNIT)
    return {key: str(value).split("\n") for key, value in parser["Service"].items()}


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


def test_what_it_must_not_have_is_not_there() -> None:
    present = set(service())
    assert not present & KEEPS_PROC_VISIBLE, "a sandbox could mount no /proc of its own"
    assert not present & KEEPS_HOST_MOUNTS, "Docker's engine would not see the job directories"
    assert service()["delegate"] == ["yes"]
    assert service()["oompolicy"] == ["continue"]


@contextmanager
def installed(tmp_path: Path, config: str, password: str) -> Iterator[Machine]:
    """A machine on which the unit is installed as docs/selling.md says."""
    shared = tmp_path / "shared"
    shared.mkdir()
    with booted(tmp_path / "machine", shared) as machine:
        files = {
            PROGRAM: (THIS_TREE, 0o755),
            "/etc/computeswarm/config.toml": (config, 0o644),
            "/etc/computeswarm/password": (password, 0o600),
            f"/etc/systemd/system/{UNIT.name}": (UNIT.read_text(), 0o644),
        }
        machine.install(shared, files)
        yield machine


def test_a_seller_under_systemd_sells_reloads_comes_back_and_ends(tmp_path: Path) -> None:
    with ExitStack() as stack:
        buyer_home, seller_home = tmp_path / "buyer", tmp_path / "seller"
        wallets = [
            run("wallet", "new", "--json", home=home, COMPUTESWARM_PASSWORD="pw").json["address"]
            for home in (seller_home, buyer_home)
        ]
        funds = [flag for wallet in wallets for flag in ("--fund", wallet)]
        devnet, _ = stack.enter_context(
            serving("devnet", "--json", "--port", free_port(), *funds, home=tmp_path / "chain")
        )
        market, _ = stack.enter_context(
            serving("market", "--json", "--port", free_port(), home=tmp_path / "market")
        )
        facts = f'market = "{market["market"]}"\nrpc = "{devnet["rpc"]}"\nport = {free_port()}\n'
        machine = stack.enter_context(installed(tmp_path, facts + 'price = "0.50"\n', "pw\n"))
        wallet = tmp_path / "shared" / "wallet.json"
        wallet.write_bytes((seller_home / "wallet.json").read_bytes())
        machine.must(
            *("install", "-D", "-m", "600", str(wallet), "/var/lib/computeswarm/wallet.json")
        )

        started = machine.run("systemctl", "start", UNIT.name)
        assert started.returncode == 0, machine.journal(UNIT.name)
        assert machine.property(UNIT.name, "SubState") == "running"

        buyer: dict[str, Any] = {
            "home": buyer_home,
            "COMPUTESWARM_PASSWORD": "pw",
            "COMPUTESWARM_MARKET": market["market"],
            "COMPUTESWARM_RPC": devnet["rpc"],
        }
        script = tmp_path / "who.py"
        script.write_text("import os; print('uid', os.getuid())\n")

        def prices() -> list[int]:
            listed = run("nodes", "--json", **buyer).json["nodes"]
            return [node["record"]["price_per_hour"] for node in listed]

        bought = run("run", "--yes", str(script), limit=WAIT, **buyer)
        assert (bought.code, bought.out.split()[0]) == (0, "uid"), bought.out + bought.err
        assert bought.out.split()[1] != "0"
        assert prices() == [500_000]

        config = tmp_path / "shared" / "config"
        for line in ('price = "0.75"', 'prise = "0.80"'):  # the second is a mistake
            config.write_text(f"{facts}{line}\n")
            machine.must("install", str(config), "/etc/computeswarm/config.toml")
            machine.must("systemctl", "reload", UNIT.name)
            _eventually(lambda: prices() == [750_000])
        _eventually(lambda: "unknown setting 'prise'" in machine.journal(UNIT.name))
        assert prices() == [750_000]
        assert "Traceback" not in machine.journal(UNIT.name)

        config.write_text(f'{facts}price = "0.75"\n')
        machine.must("install", str(config), "/etc/computeswarm/config.toml")
        machine.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", UNIT.name)
        _eventually(
            lambda: (
                machine.property(UNIT.name, "NRestarts") == "1"
                and machine.property(UNIT.name, "SubState") == "running"
            )
        )
        assert run("run", "--yes", str(script), limit=WAIT, **buyer).code == 0

        machine.must("systemctl", "stop", UNIT.name)
        assert machine.property(UNIT.name, "Result") == "success"
        assert machine.property(UNIT.name, "ExecMainStatus") == "0"


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
