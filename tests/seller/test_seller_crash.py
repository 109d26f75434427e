"""kill -9 with real sandboxes: nothing of the jobs survives, and each is refunded or goes on."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sqlite3
from pathlib import Path

import pytest
from lone_seller import moved, seller_process
from seller_rig import open_rig, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.states import JobState
from computeswarm.seller.executors.base import Executor
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.process import ProcessExecutor
from computeswarm.seller.recovery import MAX_RESTARTS

TREE = (
    "import os,time\n"
    "for n in range(3):\n"
    "  if os.fork() == 0:\n"
    "    os.setsid(); time.sleep(600)\n"
    "print('up', flush=True)\n"
    "time.sleep(600)"
)


def with_mark(mark: str, but: bytes = b"seller_process") -> list[int]:
    """Processes whose command line holds it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if mark.encode() in line and but not in line:
            found.append(int(path.parent.name))
    return found


KINDS = [BubblewrapExecutor, ProcessExecutor, DockerExecutor]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_nothing_of_a_killed_sellers_jobs_survives(
    kind: type[Executor],
    devnet: Devnet,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind is DockerExecutor:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{request.getfixturevalue('docker_engine')}")
    executor = kind(tmp_path / "probe")  # type: ignore[call-arg]
    if problems := await executor.check():
        pytest.skip(" ".join(map(str, problems)))
    await executor.close()
    mark = f"mark-{secrets.token_hex(8)}"
    async with seller_process(devnet, tmp_path, executor=kind.name, slots=2) as (process, r):
        before = await r.balance()
        two = [await r.buy(spec(f"# {mark}\n{TREE}")) for _ in range(2)]
        waiting = await r.buy(spec("print('goes on')"))
        for bought in two:
            await bought.first_output()
        assert len(with_mark(mark)) >= 8
        process.kill()
        await process.wait()
        async with asyncio.timeout(30):
            while with_mark(mark):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    async with open_rig(devnet, tmp_path, executor=kind.name, slots=2) as again:
        for bought in two:
            view = await again.refunded(moved(bought, again))
            assert view.state is JobState.SELLER_LOST and view.cost == 0
        ended = await moved(waiting, again).ended()
        assert ended.state is JobState.SUCCEEDED
        await again.refunded(moved(waiting, again))
        assert before - await again.balance() == ended.cost
        left = list((again.paths.seller / kind.name).glob("**/job-*"))
        assert not [path for path in left if path.exists()]


async def test_what_was_starting_at_a_crash_runs_unless_it_is_the_cause(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with seller_process(devnet, tmp_path, executor="process") as (process, r):
        before = await r.balance()
        running = await r.buy(spec("import time\nprint(1, flush=True)\ntime.sleep(600)"))
        starting, behind, guilty = [await r.buy(spec(f"print({n})")) for n in range(3)]
        await running.first_output()
        process.kill()
        await process.wait()
    # as if the crash had come while these were being started
    jobs = sqlite3.connect(tmp_path / "seller-home" / "seller" / "jobs.db")
    with jobs:
        states = [(starting.job_id,), (guilty.job_id,)]
        jobs.executemany("UPDATE jobs SET state = 'starting' WHERE job_id = ?", states)
        jobs.execute("INSERT INTO restarts VALUES (?, ?)", (guilty.job_id, MAX_RESTARTS))
    jobs.close()
    async with open_rig(devnet, tmp_path) as again:
        first, second = moved(starting, again), moved(behind, again)
        one, two = await asyncio.gather(first.ended(), second.ended())
        assert one.state is two.state is JobState.SUCCEEDED
        assert (one.phases.ended or 0) <= (two.phases.starting or 0)  # at its old place
        page = (await first.call("GET", "/events?since=0")).json["events"]
        assert any("waits at its old place" in event.get("reason", "") for event in page)
        lost = await again.refunded(moved(guilty, again))
        assert lost.state is JobState.SELLER_LOST and "each time" in lost.reason
        for bought in (running, starting, behind):
            await again.refunded(moved(bought, again))
        assert before - await again.balance() == one.cost + two.cost


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_what_stands_still_at_a_crash_is_gone_after_it(
    kind: type[Executor],
    devnet: Devnet,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket = ""
    if kind is DockerExecutor:
        socket = request.getfixturevalue("docker_engine")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    executor = kind(tmp_path / "probe")  # type: ignore[call-arg]
    if problems := await executor.check():
        pytest.skip(" ".join(map(str, problems)))
    await executor.close()
    mark = f"mark-{secrets.token_hex(8)}"
    async with seller_process(devnet, tmp_path, executor=kind.name) as (process, r):
        bought = await r.buy(spec(f"# {mark}\n{TREE}"))
        await bought.first_output()
        if socket:
            ours = DockerExecutor(r.paths.seller, socket=socket)
            for container in await ours._ours():
                if container.id in cgroup_of(with_mark(mark)[0]):
                    await container.pause()
            await ours.engine.close()
        else:
            for pid in with_mark(mark, but=b"supervisor.py"):  # which no pause stops
                os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(30):
            while not all_stand_still(with_mark(mark, but=b"supervisor.py")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
    async with open_rig(devnet, tmp_path, executor=kind.name) as again:
        assert (await again.refunded(moved(bought, again))).state is JobState.SELLER_LOST
        async with asyncio.timeout(30):
            while with_mark(mark):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def all_stand_still(pids: list[int]) -> bool:
    """T where a process is stopped, D where its group is frozen."""
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in pids]
    return len(pids) >= 4 and {stat.rpartition(")")[2].split()[0] for stat in stats} <= {"T", "D"}


def cgroup_of(pid: int) -> str:
    """The groups a process is in, which name its container."""
    return Path(f"/proc/{pid}/cgroup").read_text()
