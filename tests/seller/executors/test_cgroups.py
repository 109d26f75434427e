"""Control groups of both versions, on a made-up tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors.base import MIB, Limits, Usage
from computeswarm.seller.executors.cgroups import Group, find_hierarchy

LIMITS = Limits(cpus=1.5, memory_bytes=64 * MIB, pids=10)


def fake_proc(tmp_path: Path, mounts: list[tuple[str, str, str]], own: list[str]) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    lines = [f"1 1 0:1 / {where} rw - {kind} cgroup {opts}" for where, kind, opts in mounts]
    (proc / "mountinfo").write_text("\n".join(lines))
    (proc / "cgroup").write_text("\n".join(own))
    return proc


def test_version_1(tmp_path: Path) -> None:
    own = ["3:memory:/outer", "2:pids:/", "1:cpu,cpuacct:/gone", "0::/"]
    mounts = [
        (f"{tmp_path}/{c.split(',')[0]}", "cgroup", f"rw,{c}")
        for c in ("memory", "pids", "cpu,cpuacct")
    ]
    (tmp_path / "memory/outer").mkdir(parents=True)
    (tmp_path / "pids").mkdir()
    (tmp_path / "cpu").mkdir()
    found = find_hierarchy("cs", proc=fake_proc(tmp_path, mounts, own))
    assert found.bases["memory"] == tmp_path / "memory/outer/cs"  # below the agent's own limit
    group = found.create("job", LIMITS)
    assert (tmp_path / "memory/outer/cs/job/memory.limit_in_bytes").read_text() == str(64 * MIB)
    assert (tmp_path / "pids/cs/job/pids.max").read_text() == "10"
    assert (tmp_path / "cpu/cs/job/cpu.cfs_quota_us").read_text() == "150000"
    assert len(group.join_files) == 3  # cpu and cpuacct are one
    memory = tmp_path / "memory/outer/cs/job"
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    (memory / "memory.max_usage_in_bytes").write_text("77\n")
    (tmp_path / "cpu/cs/job/cpuacct.usage").write_text("1500000000\n")
    assert group.oom_killed()
    assert group.usage() == Usage(1.5, 77)
    assert {g.directories[0].name for g in found.leftovers()} == {"job"}


def test_version_2(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "service").mkdir(parents=True)
    (top / "service/cgroup.procs").write_text(f"{os.getpid()}\n")
    proc = fake_proc(tmp_path, [(str(top), "cgroup2", "rw")], ["0::/service"])
    found = find_hierarchy("cs", proc=proc, root=False)
    assert found.bases == {"unified": top / "service/cs"}
    # Processes may not stand beside child groups, so that the agent moves into one of its own.
    assert (top / "service/computeswarm-agent/cgroup.procs").read_text() == str(os.getpid())
    assert (top / "service/cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    group = found.create("job", LIMITS)
    directory = group.directories[0]
    assert (directory / "memory.max").read_text() == str(64 * MIB)
    assert (directory / "cpu.max").read_text() == "150000 100000"
    assert (directory / "pids.max").read_text() == "10"
    # absent where the kernel doesn't count swap
    (directory / "memory.swap.max").touch()
    assert (directory / "memory.swap.max", "0") in found._settings("job", LIMITS)
    (directory / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (directory / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (directory / "memory.peak").write_text("99\n")
    assert group.oom_killed()
    assert group.usage() == Usage(2.5, 99)


def test_version_2_shared_with_others(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "session").mkdir(parents=True)
    (top / "session/cgroup.procs").write_text("1\n2\n")
    proc = fake_proc(tmp_path, [(str(top), "cgroup2", "rw")], ["0::/session"])
    with pytest.raises(ExecutorError, match="Delegate=yes"):
        find_hierarchy("cs", proc=proc, root=False)
    assert find_hierarchy("cs", proc=proc, root=True).bases == {"unified": top / "cs"}


def test_none(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match="mount cgroup2"):
        find_hierarchy("cs", proc=fake_proc(tmp_path, [], []), root=True)


def test_a_process_out_of_sight_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n7\n")
    assert Group((tmp_path,), 1).pids() == {7}


def test_a_vanished_group_is_empty(tmp_path: Path) -> None:
    group = Group((tmp_path / "gone",), 1)
    assert group.pids() == set()
    group.destroy()
