"""What every executor does: output as it comes, exit codes, signals, cleaning up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_bench import SMALL, Bench, alive, read_all, until

from computeswarm.core.errors import ExecutorError, Unprocessable
from computeswarm.seller.executors.base import Launch
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.workspace import Places

DAEMON = """
import os, time
up, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("daemon", flush=True)
        os.write(told, b"x")
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(up, 1)
"""


async def test_output_exit_and_outputs(bench: Bench) -> None:
    result = await bench.run(
        "import os, sys; print('out', *sys.argv[1:]); print('err', file=sys.stderr)\n"
        "assert os.environ['HOME'] == os.getcwd() and os.environ['WHO'] == 'you'\n"
        "open(os.environ['COMPUTESWARM_OUTPUTS'] + '/r', 'w').write('42'); sys.exit(7)",
        command=("python", "main.py", "--x"),
        env={"WHO": "you"},
    )
    assert (result.text, result.stderr) == ("out --x\n", b"err\n")
    assert (result.exit.code, result.exit.signal, result.exit.status) == (7, None, 7)
    assert (result.workdir / "outputs/r").read_text() == "42"
    assert result.exit.usage.cpu_seconds > 0
    assert result.exit.usage.max_memory_bytes > 0


async def test_first_output_comes_before_the_end(bench: Bench) -> None:
    job, _ = await bench.start("print('first'); import time; time.sleep(600)")
    async with asyncio.timeout(20):
        async for chunk in job.output():
            assert chunk[0] == "stdout"
            assert chunk[1].startswith(b"first")
            break
    assert (await job.kill()).signal == signal.SIGKILL


async def test_any_bytes_pass(bench: Bench) -> None:
    raw = bytes(range(256)) + b"\xf0\x9f\x92"
    result = await bench.run(f"import os; os.write(1, {raw!r})")
    assert result.stdout == raw


async def test_a_reader_that_stops_stops_the_writer(bench: Bench) -> None:
    chunk, chunks = 4096, 2000
    job, space = await bench.start(
        "import os\nlog = open('count', 'w')\n"
        f"for n in range({chunks}):\n os.write(1, b'x' * {chunk})\n"
        " log.seek(0); log.write(str(n)); log.flush()"
    )
    counts: list[int] = []

    def stands() -> bool:
        file = space.path / "count"
        counts.append(int(file.read_text() or 0) if file.exists() else 0)
        return len(counts) > 30 and counts[-30] == counts[-1] > 0

    await until(stands)
    # the engine has buffers of its own between the job and us
    docker = bench.executor.name == "docker"
    assert counts[-1] * chunk <= (4 * 1024 if docker else 256) * 1024
    assert len((await read_all(job))["stdout"]) == chunk * chunks


async def test_a_flood_is_cut(bench: Bench) -> None:
    result = await bench.run(
        "import sys\nfor _ in range(300): sys.stdout.write('y' * 10000)",
        limits=replace(SMALL, output_bytes=100_000),
    )
    assert len(result.stdout) == 100_000
    assert result.truncated
    assert result.exit.code == 0


async def test_terminate_asks_first(bench: Bench) -> None:
    job, _ = await bench.start(
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(5))\n"
        "print('up'); time.sleep(600)"
    )
    stream = job.output()
    await anext(stream)
    assert (await job.terminate(20)).code == 5


async def test_terminate_ends_a_tree_that_ignores_it(bench: Bench) -> None:
    job, _ = await bench.start(
        "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "os.fork(); os.fork(); print('up'); time.sleep(600)"
    )
    await anext(job.output())
    loop = asyncio.get_running_loop()
    began = loop.time()
    ended = await job.terminate(0.2)
    assert ended.signal == signal.SIGKILL
    assert loop.time() - began < 15


async def test_daemons_end_with_the_job(bench: Bench) -> None:
    job, _ = await bench.start(DAEMON)
    async with asyncio.timeout(20):
        output = await read_all(job)  # ends only when the daemon's copy of stdout is closed
        ended = await job.wait()
    assert output["stdout"] == b"daemon\n"
    assert ended.code == 0


async def test_death_by_signal_is_told(bench: Bench) -> None:
    result = await bench.run("import os; os.kill(os.getpid(), 11)")
    assert result.exit.status == 128 + 11
    assert result.exit.signal == 11


async def test_a_command_that_does_not_exist(bench: Bench) -> None:
    result = await bench.run("", command=("/nonexistent/tool",))
    assert result.exit.code == 127
    assert b"/nonexistent/tool" in result.stderr


async def test_nothing_of_the_agents_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "hunter2")
    steered = {"LD_PRELOAD": "x", "NVIDIA_VISIBLE_DEVICES": "all", "PYTHONSTARTUP": "x", "OK": "1"}
    result = await bench.run(
        "import os, json; print(json.dumps(dict(os.environ)))\n"
        "print(open('/proc/self/environ').read())",
        env=steered,
    )
    env = json.loads(result.text.splitlines()[0])
    assert env["OK"] == "1"
    assert not {"LD_PRELOAD", "NVIDIA_VISIBLE_DEVICES", "PYTHONSTARTUP"} & env.keys()
    assert "hunter2" not in result.text


async def test_other_users_see_no_arguments_or_secrets(bench: Bench) -> None:
    job, _ = await bench.start(
        "print('up'); import time; time.sleep(600)", env={"TOKEN": "hunter2"}
    )
    await anext(job.output())
    assert b"hunter2" not in Path(f"/proc/{job.pid}/cmdline").read_bytes()


async def test_temporary_files_go_where_the_job_may_write(bench: Bench) -> None:
    result = await bench.run(
        "import tempfile\nwith tempfile.NamedTemporaryFile() as file: print(file.name)"
    )
    assert result.exit.code == 0, result.stderr
    if bench.executor.owner_only:  # no /tmp of its own, so below what is removed with it
        assert Path(result.text.strip()).parent == result.workdir


async def test_refuses_what_it_did_not_prepare(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Unprocessable):
        await bench.executor.prepare("../escape", SMALL)
    await bench.executor.prepare("twice", SMALL)
    with pytest.raises(ExecutorError):
        await bench.executor.prepare("twice", SMALL)
    launch = Launch("twice", ("python",), {}, tmp_path, bench.image, SMALL)
    with pytest.raises(ExecutorError):
        await bench.executor.start(launch)


AGENT = """
import asyncio, sys
from pathlib import Path
from computeswarm.seller.executors.base import Launch, Limits
from dataclasses import replace
from {module} import {kind} as Kind
from computeswarm.seller.images import host_python

async def main():
    home, container, socket = sys.argv[1:]
    executor = Kind(Path(home), socket=socket) if socket else Kind(Path(home))
    image = replace(host_python(), container=container)
    space = await executor.prepare("orphan", Limits(disk_bytes=2**23, inodes=256))
    (space.path / "main.py").write_text({job!r})
    launch = Launch("orphan", ("python", "main.py"), {{}}, space.path, image, Limits())
    job = await executor.start(launch)
    seen = b""
    async for _, chunk in job.output():
        seen += chunk
        if b"parted" in seen:
            print(job.pid, space.path, flush=True)

asyncio.run(main())
"""
STAYING = DAEMON + 'print("parted", flush=True)\ntime.sleep(600)\n'
"""By its last word nothing of the tree is about to end or to be adopted by another process."""


async def test_a_killed_agent_takes_its_jobs_along(bench: Bench, tmp_path: Path) -> None:
    kind = type(bench.executor)
    code = AGENT.format(module=kind.__module__, kind=kind.__name__, job=STAYING)
    socket = bench.executor.engine.path if isinstance(bench.executor, DockerExecutor) else ""
    argv = [sys.executable, "-c", code, str(bench.home), bench.image.container, socket]
    agent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert agent.stdout is not None
        line = await asyncio.to_thread(agent.stdout.readline)
        pid, path = int(line.split()[0]), Path(line.split()[1])
        tree = _tree(pid)
        assert len(tree) >= 3  # the child itself, the script and its daemon
    finally:
        agent.kill()
        agent.wait()
        assert agent.stdout is not None
        agent.stdout.close()
    await until(lambda: not any(alive(p) for p in tree))
    assert path.exists()
    await bench.executor.reap()
    assert not path.exists()
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


async def test_nothing_is_left_behind(bench: Bench) -> None:
    tag = Places.of(bench.home / bench.executor.name).tag
    for _ in range(3):
        assert (await bench.run("")).exit.code == 0
    await bench.executor.prepare("never-started", SMALL)
    mounts = [line for line in _traces(tag) if "/views/" in line]
    assert len(mounts) <= 1  # a later job doesn't mount its image again
    await bench.close()
    assert _traces(tag) == []
    assert not list(bench.home.rglob("*.img"))


def _traces(tag: str) -> list[str]:
    """Mounts and control groups of one seller."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    # os.walk passes over groups that vanish meanwhile (those of other sellers); Path.glob raises
    groups = [
        f"{base}/{name}"
        for base, names, _ in os.walk("/sys/fs/cgroup")
        if base.endswith(f"/computeswarm-{tag}")
        for name in names
    ]
    return [line for line in mounts if tag in line] + groups


def _tree(pid: int) -> set[int]:
    """A process and all that came of it; orphans are found by their session's supervisor."""
    found, todo = {pid}, [pid]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            children = {int(word) for word in task.read_text().split()} - found
            found |= children
            todo += children
    return found
