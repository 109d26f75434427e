"""Finding commands, what they import, and how everything that goes wrong is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_program import command, run

from computeswarm.cli.main import COMMANDS, main

HEAVY = ("textual", "aiohttp", "httpx", "pydantic", "web3", "eth_account", "torch", "asyncio")


def _modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(chr(10).join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    loaded = _modules_after("from computeswarm.cli.main import main\nmain(['--help'])")
    assert loaded.isdisjoint(HEAVY)
    assert "computeswarm.cli.main" in loaded


def test_help_of_a_command_imports_only_that_command() -> None:
    loaded = _modules_after(
        "from computeswarm.cli.main import main\n"
        "try: main(['wallet', '--help'])\nexcept SystemExit: pass"
    )
    commands = {name for name in loaded if name.startswith("computeswarm.cli.commands.")}
    assert commands == {"computeswarm.cli.commands.wallet"}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([name, "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: computeswarm {name}")
    assert "--json" in shown
    assert "--home" in shown


def test_top_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["walet"], "wallet"),
        (["wallet", "steal"], "invalid choice"),
        (["wallet", "show", "--nonsense"], "nonsense"),
        (["wallet", "show", "--network", "many"], "base-sepolia"),
        (["wallet", "show", "--", "x"], "nothing after --"),
        (["run", "job.py", "--steps", "3"], "arguments come after --"),
        (["images", "build"], "which image"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_125(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 125
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_with_json_an_error_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wallet", "show", "--json"]) == 125
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["error"]["code"] == "wallet"


def test_an_unexpected_error_shows_no_traceback_but_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("computeswarm.cli.context.Paths.find", lambda environ: 1 / 0)
    assert main(["wallet", "show"]) == 125
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    path = err.rsplit(" ", 1)[1].strip().rstrip(".")
    assert path.endswith(".log")
    with open(path) as file:
        assert "ZeroDivisionError" in file.read()


def test_a_reader_that_left_is_no_error() -> None:
    line = f"{' '.join(command('--help'))} | head -c 1"
    script = f"set -o pipefail; {line}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("closed", "argv", "code"),
    [
        (">&-", "ledger", 0),
        ("2>&-", "run --json x.py", 125),
        ("<&- >&- 2>&-", "wallet import", 125),
    ],
)
def test_closed_streams_are_like_ones_that_nobody_reads(
    closed: str, argv: str, code: int, tmp_path: Path
) -> None:
    line = f"exec {sys.executable} -m computeswarm {argv} --home {tmp_path} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "unexpected" not in done.stdout + done.stderr
    assert all(json.loads(line) for line in done.stdout.splitlines() if "--json" in argv)


def test_the_terminal_app_needs_a_terminal() -> None:
    done = run()
    assert done.code == 125
    assert "terminal" in done.one_sentence()
