"""sandbox-exec: its profile as text anywhere, and at work on a Mac."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_bench import SMALL, Bench

from computeswarm.core.nodes import GPUInfo, Isolation
from computeswarm.seller.executors.base import Launch
from computeswarm.seller.executors.macos import PROGRAM, SandboxExecExecutor, profile
from computeswarm.seller.images import host_python


def _launch(workdir: Path) -> Launch:
    return Launch("job-1", ("python", "main.py"), {}, workdir, host_python(), SMALL)


def test_everything_is_denied_but_what_a_job_needs(tmp_path: Path) -> None:
    rules = profile(_launch(tmp_path)).splitlines()
    assert rules[:2] == ["(version 1)", "(deny default)"]
    assert rules[-1] == "(deny network*)"
    (writes,) = (rule for rule in rules if rule.startswith("(allow file-write*"))
    assert writes == f'(allow file-write* (subpath "{tmp_path.resolve()}"))'
    reads = " ".join(rule for rule in rules if rule.startswith("(allow file-read*"))
    assert str(Path.home()) + '"' not in reads
    assert not any("mach-lookup" in rule or "iokit" in rule for rule in rules)


def test_a_job_with_the_gpu_may_reach_it(tmp_path: Path) -> None:
    gpu = GPUInfo(vendor="apple", model="M3", memory_bytes=1)
    rules = profile(replace(_launch(tmp_path), gpus=(gpu,)))
    assert "AGXDeviceUserClient" in rules


def test_a_path_can_not_end_its_string(tmp_path: Path) -> None:
    odd = tmp_path / 'a") (allow default) ("b\\'
    odd.mkdir()
    rules = profile(_launch(odd))
    assert '\\") (allow default) (\\"b\\\\"' in rules
    assert "(allow default)" not in rules.replace('\\") (allow default) (\\"', "")


def test_the_command_goes_behind_the_wall(tmp_path: Path) -> None:
    launch = _launch(tmp_path)
    argv = SandboxExecExecutor(tmp_path).walled(launch, ["python3", "main.py"])
    assert argv == [PROGRAM, "-p", profile(launch), "python3", "main.py"]
    assert SandboxExecExecutor.owner_only
    assert SandboxExecExecutor.isolation is Isolation.MACOS


@pytest.mark.skipif(platform.system() != "Darwin", reason="sandbox-exec is macOS's own")
async def test_on_a_mac_the_network_and_the_owners_files_are_shut(tmp_path: Path) -> None:
    bench = Bench(SandboxExecExecutor(tmp_path / "seller"), tmp_path / "seller")
    secret = Path.home() / ".computeswarm-test"
    secret.write_text("key")
    try:
        result = await bench.run(
            "import socket\n"
            f"for act in (lambda: open({str(secret)!r}), lambda: socket.create_server(('', 0)),\n"
            "            lambda: open('/tmp/x', 'w')):\n"
            "    try: act(); print('done')\n"
            "    except OSError: print('denied')\n"
            "open('outputs/x', 'w').write('kept')"
        )
        assert result.text == "denied\n" * 3, result.stderr
        assert (result.workdir / "outputs/x").read_text() == "kept"
    finally:
        secret.unlink()
        await bench.close()
