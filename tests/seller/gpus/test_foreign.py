"""Who uses a GPU besides our jobs, with a made-up driver and a made-up /proc; and its power."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from test_gpus import FakeNvml, no_torch

from computeswarm.seller.gpus import GpuFault, GpuMonitor, GpuReading, GpuUser, detect
from computeswarm.seller.gpus.foreign import ForeignUse
from computeswarm.seller.gpus.nvidia import NvidiaBackend


def family(proc: Path, parents: dict[int, tuple[int, str]]) -> None:
    for pid, (parent, name) in parents.items():
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1 1")
        (proc / str(pid) / "comm").write_text(f"{name}\n")


@pytest.fixture
def use(tmp_path: Path) -> ForeignUse:
    """A seller (100) with a job (200) whose grandchild is 202; a game (300), a desktop (400)."""
    family(
        tmp_path,
        {
            100: (1, "computeswarm"),
            200: (100, "bwrap"),
            201: (200, "sh"),
            202: (201, "python"),
            300: (1, "game\x1b[31m.exe"),
            400: (1, "Xorg"),
        },
    )
    return ForeignUse(lambda: [200], proc=tmp_path)


def at_work(*users: GpuUser, load: int | None = None) -> GpuReading:
    return GpuReading(utilization_pct=load, users=users)


def test_what_works_and_is_not_ours_is_foreign(use: ForeignUse) -> None:
    desktop = GpuUser(400, "graphics", 12)
    assert use.look(0, at_work(GpuUser(202, "compute", 99), desktop), held=True) == ""
    game = use.look(
        0, at_work(GpuUser(202, "compute", 50), GpuUser(300, "graphics", 40)), held=True
    )
    assert game == "game.exe (process 300)"
    assert use.look(0, at_work(GpuUser(300, "compute", 6)), held=False)
    # a model that is loaded and idle takes nobody's time
    assert use.look(0, at_work(GpuUser(300, "compute", 0)), held=False) == ""
    # where the driver tells no loads, whoever computes counts, and whoever draws does not
    assert use.look(0, at_work(GpuUser(300, "compute")), held=False)
    assert use.look(0, at_work(GpuUser(300, "graphics")), held=False) == ""
    # a process that can't be seen from here may well be our own job's
    assert use.look(0, at_work(GpuUser(999, "compute", 99)), held=True) == ""


def test_a_load_that_lasts_on_a_gpu_without_a_job_is_somebodys(use: ForeignUse) -> None:
    busy, calm = at_work(load=60), at_work(load=3)
    assert [bool(use.look(0, busy, held=False)) for _ in range(4)] == [False, False, True, True]
    assert use.look(1, busy, held=False) == ""  # each GPU for itself
    assert use.look(0, calm, held=False) == ""
    assert [bool(use.look(0, busy, held=True)) for _ in range(4)] == [False] * 4  # our own job's


async def test_nvidia_tells_who_works_and_takes_a_limit(tmp_path: Path) -> None:
    nvml = FakeNvml(1)
    (tmp_path / "nvidiactl").touch()
    backend = NvidiaBackend(nvml, device=tmp_path / "nvidiactl")
    monitor = GpuMonitor(await detect(backends=[backend], torch=no_torch))
    sample = SimpleNamespace
    nvml.answers |= {
        "nvmlDeviceGetGraphicsRunningProcesses": lambda h: [sample(pid=5), sample(pid=6)],
        "nvmlDeviceGetComputeRunningProcesses": lambda h: [sample(pid=6), sample(pid=7)],
        "nvmlDeviceGetProcessUtilization": lambda h, since: [
            sample(pid=6, smUtil=10, encUtil=0, decUtil=0),
            sample(pid=6, smUtil=40, encUtil=0, decUtil=0),
            sample(pid=5, smUtil=1, encUtil=30, decUtil=0),
        ],
    }
    (reading,) = await monitor.sample()
    five, six, seven = reading.users
    assert (five, six) == (GpuUser(5, "graphics", 30), GpuUser(6, "compute", 40))
    assert seven == GpuUser(7, "compute", 0)
    nvml.fail["nvmlDeviceGetProcessUtilization"] = nvml.NVML_ERROR_NOT_FOUND
    assert {user.load_pct for user in (await monitor.sample())[0].users} == {0}
    nvml.fail["nvmlDeviceGetProcessUtilization"] = nvml.NVML_ERROR_NOT_SUPPORTED
    assert {user.load_pct for user in (await monitor.sample())[0].users} == {None}
    nvml.fail["nvmlDeviceGetComputeRunningProcesses"] = nvml.NVML_ERROR_NOT_SUPPORTED
    assert [user.pid for user in (await monitor.sample())[0].users] == [5, 6]

    limits: list[int] = []
    nvml.answers["nvmlDeviceSetPowerManagementLimit"] = lambda h, mw: limits.append(mw)
    for watts in (250, 9_999, 1, 0):
        assert await monitor.limit_power({0: watts}) == []
    assert limits == [250_000, 450_000, 100_000, 400_000]  # within what it can; 0 is its own
    nvml.fail["nvmlDeviceSetPowerManagementLimit"] = nvml.NVML_ERROR_NO_PERMISSION
    (problem,) = await monitor.limit_power({0: 250})
    assert "GPU 0: Only root may" in problem
    with pytest.raises(GpuFault):
        backend.limit_power(0, 250)
    await monitor.close()
