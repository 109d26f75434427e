"""``wallet``, in the real program: passwords never shown, keys never an argument."""

from __future__ import annotations

import json
import os
import pty
import time
from pathlib import Path

from cli_program import command, environment, run

KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def _type_into(argv: list[str], answers: list[str], home: Path) -> tuple[int, str]:
    """Run on a terminal, answering each prompt when it stands there."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, environment(home))
    shown = b""
    deadline = time.monotonic() + 60
    remaining = list(answers)
    while time.monotonic() < deadline:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
        if remaining and shown.rstrip().endswith(b":"):
            time.sleep(0.05)  # the prompt is printed just before echoing is switched off
            os.write(master, remaining.pop(0).encode() + b"\n")
            shown += b"\n"
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_new_asks_twice_and_shows_nothing_of_the_password(tmp_path: Path) -> None:
    code, shown = _type_into(command("wallet", "new"), ["s3cret!", "s3cret!"], tmp_path)
    assert code == 0, shown
    assert "s3cret!" not in shown
    keystore = tmp_path / "wallet.json"
    assert keystore.stat().st_mode & 0o777 == 0o600
    document = json.loads(keystore.read_text())
    assert document["version"] == 3
    assert "0x" + document["address"] in shown.lower()


def test_two_different_passwords_make_no_wallet(tmp_path: Path) -> None:
    code, shown = _type_into(command("wallet", "new"), ["one", "two"], tmp_path)
    assert code == 125
    assert "differ" in shown
    assert not (tmp_path / "wallet.json").exists()


def test_import_reads_the_key_from_stdin_and_the_password_from_a_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("pw\n")
    flags = ("--json", "--password-file", str(password))
    done = run("wallet", "import", *flags, home=tmp_path, stdin=KEY + "\n")
    assert done.code == 0, done.err
    assert done.json["address"] == ADDRESS
    assert KEY not in (tmp_path / "wallet.json").read_text()
    again = run("wallet", "import", *flags, home=tmp_path, stdin=KEY)
    assert again.code == 125
    assert again.error["code"] == "wallet"
    assert run("wallet", "show", "--json", home=tmp_path).json["address"] == ADDRESS


def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path) -> None:
    done = run("wallet", "import", home=tmp_path, stdin="not-a-key", COMPUTESWARM_PASSWORD="pw")
    assert done.code == 125
    assert "not-a-key" not in done.one_sentence()
    assert not (tmp_path / "wallet.json").exists()


def test_what_is_no_key_is_refused_before_a_password_is_asked_for(tmp_path: Path) -> None:
    code, shown = _type_into(command("wallet", "import"), ["0x12"], tmp_path)
    assert code == 125
    assert "not a private key" in shown
    assert "password" not in shown


def test_without_terminal_or_password_it_says_what_to_set(tmp_path: Path) -> None:
    done = run("wallet", "new", home=tmp_path)
    assert done.code == 125
    assert "COMPUTESWARM_PASSWORD" in done.one_sentence()


def test_balance_comes_from_the_chain(tmp_path: Path, module_devnet) -> None:
    run("wallet", "import", home=tmp_path, stdin=KEY, COMPUTESWARM_PASSWORD="pw")
    done = run("wallet", "balance", "--json", "--rpc", module_devnet.url, home=tmp_path)
    assert done.code == 0, done.err
    assert done.json["usdc_atoms"] == 10_000 * 10**6
    assert done.json["usdc"] == "10000.00"
