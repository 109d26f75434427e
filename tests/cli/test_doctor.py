"""``doctor``: each finding comes from the real thing, and only what is wrong makes it fail."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cli_program import Done, run

from computeswarm.cli.doctor import _clock, _job_network
from computeswarm.core.settings import Settings
from computeswarm.seller.executors import network
from computeswarm.seller.executors.base import Problem

if TYPE_CHECKING:
    from computeswarm.chain.devnet import Devnet

NOBODY = "http://127.0.0.1:1"


def _checks(done: Done) -> dict[str, Any]:
    return {check["name"]: check for check in done.json["checks"]}


def test_a_bare_machine_has_notes_but_nothing_wrong(tmp_path: Path) -> None:
    done = run("doctor", "--json", "--market", NOBODY, home=tmp_path)
    assert done.code == 0, done.out + done.err
    checks = _checks(done)
    assert checks["python"]["status"] == "ok"
    assert checks["wallet"]["status"] == "note"
    assert "wallet new" in checks["wallet"]["fix"]
    assert checks["market"]["status"] == "note"
    assert NOBODY in checks["market"]["detail"]
    assert checks["chain"]["status"] == "note"


def test_what_is_wrong_is_named_with_its_cure(tmp_path: Path) -> None:
    assert run("wallet", "new", home=tmp_path, COMPUTESWARM_PASSWORD="pw").code == 0
    (tmp_path / "wallet.json").chmod(0o644)
    done = run("doctor", "--json", "--rpc", NOBODY, home=tmp_path)
    assert done.code == 125
    checks = _checks(done)
    assert checks["wallet"]["status"] == "fix"
    assert "chmod 600" in checks["wallet"]["fix"]
    assert checks["chain"]["status"] == "fix"
    shown = run("doctor", home=tmp_path)
    assert "FIX   wallet" in shown.out
    assert f"chmod 600 {tmp_path / 'wallet.json'}" in shown.out


def test_a_chain_that_answers_is_ok_and_another_one_is_not(
    tmp_path: Path, module_devnet: Devnet
) -> None:
    done = run("doctor", "--json", "--rpc", module_devnet.url, home=tmp_path)
    assert _checks(done)["chain"]["status"] == "ok"
    flags = ("--rpc", module_devnet.url, "--network", "base")
    other = run("doctor", "--json", *flags, home=tmp_path)
    assert other.code == 125
    assert "Base" in _checks(other)["chain"]["detail"]


@pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (120, "fix"), (-3600, "note")])
def test_the_clock_is_held_against_the_chain(ahead: float, status: str) -> None:
    assert _clock("Base", ahead).status == status


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "tmp"
    scratch.mkdir()
    assert run("doctor", home=home, TMPDIR=str(scratch)).code == 0
    assert not home.exists()
    assert not list(scratch.iterdir())


def test_json_is_one_document(tmp_path: Path) -> None:
    done = run("doctor", "--json", home=tmp_path)
    assert done.err == ""
    assert json.loads(done.out)["ok"] is True


@pytest.mark.parametrize(("allowed", "status"), [(True, "fix"), (False, "note")])
async def test_a_network_for_jobs_that_can_not_be_had_is_wrong_only_where_it_is_wanted(
    allowed: bool, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Problem("slirp4netns isn't installed.", "Run `apt-get install slirp4netns`.")
    monkeypatch.setattr(network, "network_problems", lambda: [missing])
    context: Any = SimpleNamespace(settings=Settings(allow_network=allowed))
    found = await _job_network(context)
    assert (found.status, found.fix) == (status, missing.fix)
    monkeypatch.setattr(network, "network_problems", list)
    assert (await _job_network(context)).status == "ok"
