"""What people do wrong and what breaks: one sentence, the documented exit code, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from cli_program import run
from demo_fixtures import Demo

SCRIPT = "examples/monte_carlo.py"
NOBODY = "http://127.0.0.1:1"
"""An address at which nothing listens."""


def _post(url: str, body: bytes) -> tuple[int, dict[str, object]]:
    request = Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        assert error.headers["Content-Type"].startswith("application/problem+json")
        return error.code, json.load(error)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("run", SCRIPT, "--yes", "--node", "nd-000000000000"), "node"),
        (("run", "no-such-script.py", "--yes"), "no-such-script.py"),
        (("run", SCRIPT, "--yes", "--input", "no-such-file"), "no-such-file"),
        (("run", SCRIPT, "--yes", "--budget", "a lot"), "amount"),
        (("run", SCRIPT, "--yes", "--max-time", "soon"), "time"),
        (("run", SCRIPT, "--yes", "--image", "no-such-image"), "no-such-image"),
        (("run", SCRIPT, "--yes", "--market", NOBODY), "market"),
        (("run", SCRIPT, "--yes", "--gpu", "vram>>"), "vram"),
        (("nodes", "--market", NOBODY), "market"),
        (("nodes", "--market", "no address"), "market"),
        (("jobs", "job-ffff"), "job"),
        (("logs", "job-ffff"), "job"),
        (("cancel", "job-ffff"), "job"),
        (("outputs", "job-ffff"), "job"),
        (("wallet", "balance", "--rpc", NOBODY), "--rpc"),
        (("wallet", "balance", "--network", "1"), "base-sepolia"),
    ],
)
def test_mistakes_are_one_sentence(demo: Demo, args: tuple[str, ...], says: str) -> None:
    done = demo.cli(*args)
    assert done.code == 125, done.err
    assert says in done.last_sentence()
    assert done.out == ""
    told = demo.cli(*args, "--json")
    assert told.code == 125
    assert says in json.loads(told.out.splitlines()[-1])["error"]["detail"]


def test_nobody_to_agree_pays_nothing(demo: Demo) -> None:
    before = demo.cli("wallet", "balance", "--json").json["usdc_atoms"]
    done = demo.cli("run", SCRIPT)
    assert done.code == 126
    assert "--yes" in done.last_sentence()
    assert demo.cli("wallet", "balance", "--json").json["usdc_atoms"] == before


def test_a_budget_below_the_first_slice_is_refused_by_policy(demo: Demo) -> None:
    done = demo.cli("run", SCRIPT, "--yes", "--budget", "0.000001")
    assert done.code == 126, done.err
    done.last_sentence()


def test_a_wrong_password_is_said(demo: Demo, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong")
    done = demo.cli("run", SCRIPT, "--yes", COMPUTESWARM_PASSWORD_FILE=str(wrong))
    assert done.code == 125
    assert "password" in done.last_sentence()


def test_an_empty_wallet_is_said_before_anything_is_signed(demo: Demo, tmp_path: Path) -> None:
    made = run("wallet", "new", "--json", home=tmp_path, COMPUTESWARM_PASSWORD="pw").json
    where = {"COMPUTESWARM_MARKET": demo.ready["market"], "COMPUTESWARM_RPC": demo.ready["rpc"]}
    done = run(
        "run",
        str(Path(__file__).parents[2] / SCRIPT),
        "--yes",
        "--json",
        home=tmp_path,
        COMPUTESWARM_PASSWORD="pw",
        **where,
    )
    assert done.code == 125, done.err
    error = json.loads(done.out.splitlines()[-1])["error"]
    assert error["code"] == "insufficient_funds"
    assert made["address"] in error["detail"] or "USDC" in error["detail"]


@pytest.mark.parametrize("server", ["market", "seller"])
def test_wrong_json_and_too_much_of_it_are_problems(demo: Demo, server: str) -> None:
    route = {"market": "/api/v1/nodes/register", "seller": "/quotes"}[server]
    url = demo.ready[server] + route
    for body, status in (
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b"[" * 50_000, 400),
        (b'{"a":"' + b"x" * (16 << 20) + b'"}', 413),
    ):
        answered, problem = _post(url, body)
        assert answered == status, (body[:20], problem)
        assert problem["detail"]
    assert demo.market("/health")["status"] == "ok"


def test_a_taken_port_is_said(demo: Demo, tmp_path: Path) -> None:
    port = demo.ready["market"].rsplit(":", 1)[1]
    for command in ("market", "devnet"):
        done = run(command, "--port", port, home=tmp_path)
        assert done.code == 125, done.err
        assert port in done.last_sentence()


@pytest.fixture
def full_disk(tmp_path: Path):
    """A folder on a file system with a few KiB left."""
    folder = tmp_path / "full"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(argv, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_loses_no_wallet_and_pays_nothing(demo: Demo, full_disk: Path) -> None:
    env = {
        "COMPUTESWARM_PASSWORD": "pw",
        "COMPUTESWARM_MARKET": demo.ready["market"],
        "COMPUTESWARM_RPC": demo.ready["rpc"],
    }
    key = "0x" + "11" * 32
    assert run("wallet", "import", home=full_disk, stdin=key, **env).code == 0
    _fill(full_disk)
    script = str(Path(__file__).parents[2] / SCRIPT)
    done = run("run", script, "--yes", "--json", home=full_disk, **env)
    assert done.code == 125, done.out
    assert json.loads(done.out.splitlines()[-1])["error"]["code"] == "storage_full"
    (full_disk / "wallet.json").unlink()
    _fill(full_disk)
    done = run("wallet", "new", home=full_disk, **env)
    assert done.code == 125
    assert "No space" in done.one_sentence() or "full" in done.one_sentence()
    assert not (full_disk / "wallet.json").exists()
