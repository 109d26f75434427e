"""What is particular to containers: their description, the engine's moods, spares, leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker_engine import ask
from sandbox_bench import SMALL, Bench, until

from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors.base import Launch
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.docker.engine import Engine, Facts, socket_path
from computeswarm.seller.executors.docker.spec import OWNER_LABEL, Shape, Surroundings, container
from computeswarm.seller.executors.docker.toolkit import toolkit_problems
from computeswarm.seller.images import host_python
from computeswarm.seller.images.containers import EngineImages

CARD = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=1, uuid="GPU-11")
SLICE = GPUInfo(vendor="nvidia", model="A100 MIG 1g", memory_bytes=1, uuid="MIG-22")


@pytest.fixture
async def bench(docker_engine: str, tmp_path: Path, noted: Path) -> AsyncIterator[Bench]:
    home = tmp_path / "seller"
    executor = DockerExecutor(home, socket=docker_engine)
    assert await executor.check() == []
    made = Bench(executor, home)
    images = EngineImages(noted, executor.engine)
    made.image = await images.ensure(host_python(), lambda _: None)
    yield made
    await made.close()


def _ours(engine: str) -> list[dict[str, Any]]:
    """Containers of any seller, as the engine tells."""
    listed: list[dict[str, Any]] = json.loads(ask(engine, "GET", "/containers/json?all=1")[1])
    return [one for one in listed if OWNER_LABEL in one["Labels"]]


def _of(engine: str, executor: DockerExecutor) -> list[str]:
    tag = executor._places.tag
    return [one["Id"] for one in _ours(engine) if one["Labels"][OWNER_LABEL] == tag]


def _body(gpus: tuple[GPUInfo, ...], **around: Any) -> dict[str, Any]:
    shape = Shape("sha256:1", "/usr/bin/python3", None, SMALL, gpus)
    return container(shape, Surroundings(tag="t", **around), Path("/w"), "1:1")


def test_a_job_gets_its_cards_by_name_and_no_others() -> None:
    new = _body((CARD, SLICE), cdi=True)["HostConfig"]
    assert new["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-11", "nvidia.com/gpu=MIG-22"]}
    ]
    old = _body((SLICE,))["HostConfig"]
    assert old["DeviceRequests"] == [
        {
            "Driver": "nvidia",
            "DeviceIDs": ["MIG-22"],
            "Capabilities": [["gpu", "compute", "utility"]],
        }
    ]
    none = _body(())
    assert none["HostConfig"]["DeviceRequests"] == []
    assert none["Env"] == ["NVIDIA_VISIBLE_DEVICES=void"]  # whatever the image says


def test_cards_of_amd_come_as_device_nodes() -> None:
    amd = GPUInfo(vendor="amd", model="MI", memory_bytes=1, uuid="GPU-a")
    host = _body((amd,), devices=("/dev/kfd", "/dev/dri/renderD128"), groups=(44,))["HostConfig"]
    assert [d["PathOnHost"] for d in host["Devices"]] == ["/dev/kfd", "/dev/dri/renderD128"]
    assert {d["CgroupPermissions"] for d in host["Devices"]} == {"rw"}
    assert host["GroupAdd"] == ["44"]


def test_gvisor_gets_room_for_its_own_threads() -> None:
    assert _body((), runtime="runsc")["HostConfig"]["PidsLimit"] == 256
    assert _body(())["HostConfig"]["PidsLimit"] == SMALL.pids


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("NVIDIA Container Toolkit CLI version 1.17.7\ncommit: x", "1.17.7"),
        ("NVIDIA Container Toolkit CLI version 1.9.0", "1.9.0"),
        ("what?", "unknown version"),
    ],
)
def test_a_toolkit_that_lets_jobs_out_is_refused(
    said: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_toolkit(tmp_path, said)
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = toolkit_problems()
    assert found in problem.what
    assert "nvidia-container-toolkit" in problem.fix


def test_a_sound_toolkit_is_taken_and_a_missing_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "isn't installed" in toolkit_problems()[0].what
    for version in ("1.17.8", "1.18.0", "2.0.0"):
        _fake_toolkit(tmp_path, f"NVIDIA Container Toolkit CLI version {version}")
        assert toolkit_problems() == []


def _fake_toolkit(folder: Path, said: str) -> None:
    program = folder / "nvidia-ctk"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)


async def test_without_an_engine_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    (problem,) = await DockerExecutor(tmp_path, socket=str(tmp_path / "none")).check()
    assert "apt-get install docker.io" in problem.fix
    assert "systemctl start docker" in problem.fix
    silent = await asyncio.start_unix_server(lambda r, w: w.close(), tmp_path / "silent")
    async with silent:
        engine = Engine(str(tmp_path / "silent"))
        facts, problems = await engine.check()
        await engine.close()
    assert facts is None
    assert "doesn't answer" in problems[0].what


def test_engines_that_can_not_keep_a_job_in_are_refused() -> None:
    able = {"MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True}
    good = {**able, "SecurityOptions": ["name=seccomp,profile=default"]}
    assert Facts.read({"ApiVersion": "1.41"}, good).problems() == []
    for version, info, why in (
        ("1.40", good, "too old"),
        ("1.41", {**good, "SecurityOptions": ["name=seccomp", "name=rootless"]}, "rootless"),
        ("1.41", {**good, "SecurityOptions": []}, "seccomp"),
        ("1.41", {**good, "MemoryLimit": False}, "memory"),
    ):
        (problem,) = Facts.read({"ApiVersion": version}, info).problems()
        assert why in problem.what, problem


def test_only_a_socket_of_this_machine_is_an_engine_here() -> None:
    assert socket_path({"DOCKER_HOST": "unix:///run/user/1/docker.sock"}).startswith("/run/user")
    assert socket_path({"DOCKER_HOST": "tcp://elsewhere:2375"}) == "/var/run/docker.sock"
    assert socket_path({}) == "/var/run/docker.sock"


async def test_a_spare_is_used_once(bench: Bench, docker_engine: str) -> None:
    executor = bench.executor
    assert isinstance(executor, DockerExecutor)
    await executor.expect(bench.image, SMALL)
    await executor.expect(bench.image, SMALL)  # one is enough
    (spare,) = _of(docker_engine, executor)
    result = await bench.run("open('/tmp/mine', 'w').write('x'); print('one')")
    assert result.text == "one\n"
    assert executor._spare is None
    assert bench._spaces[0].container.id == spare  # type: ignore[attr-defined]
    second = await bench.run("import os; print(os.listdir('/tmp'), sorted(os.listdir('.')))")
    assert second.text == "[] ['main.py', 'outputs']\n"
    assert bench._spaces[1].container.id != spare  # type: ignore[attr-defined]


async def test_a_spare_that_has_died_costs_no_job(bench: Bench, docker_engine: str) -> None:
    executor = bench.executor
    assert isinstance(executor, DockerExecutor)
    await executor.expect(bench.image, SMALL)
    (spare,) = _of(docker_engine, executor)
    assert ask(docker_engine, "POST", f"/containers/{spare}/kill")[0] == 204
    assert (await bench.run("print('one')")).text == "one\n"
    assert spare not in _of(docker_engine, executor)


async def test_a_spare_of_another_shape_is_left_alone_and_then_replaced(
    bench: Bench, docker_engine: str
) -> None:
    executor = bench.executor
    assert isinstance(executor, DockerExecutor)
    await executor.expect(bench.image, SMALL)
    (old,) = _of(docker_engine, executor)
    larger = replace(SMALL, memory_bytes=2 * SMALL.memory_bytes)
    assert (await bench.run("print(1)", limits=larger)).text == "1\n"
    assert old in _of(docker_engine, executor)
    await executor.expect(bench.image, larger)
    assert old not in _of(docker_engine, executor)


async def test_only_what_is_ours_is_reaped(
    bench: Bench, docker_engine: str, tmp_path: Path
) -> None:
    executor = bench.executor
    assert isinstance(executor, DockerExecutor)
    neighbour = DockerExecutor(tmp_path / "neighbour", socket=docker_engine)
    await executor.expect(bench.image, SMALL)
    await neighbour.expect(bench.image, SMALL)
    (theirs,) = _of(docker_engine, neighbour)
    await executor.reap()
    assert _of(docker_engine, executor) == []
    assert _of(docker_engine, neighbour) == [theirs]
    await neighbour.close()
    assert _of(docker_engine, neighbour) == []


async def test_a_volume_of_the_image_is_no_way_to_the_hosts_disk(
    bench: Bench, docker_engine: str
) -> None:
    status, _ = ask(
        docker_engine,
        "POST",
        "/containers/create?name=computeswarm-volume-test",
        {"Image": bench.image.container, "Cmd": ["true"]},
    )
    assert status == 201
    try:
        status, made = ask(
            docker_engine,
            "POST",
            "/commit?container=computeswarm-volume-test&repo=computeswarm/volume&tag=test",
            {"Volumes": {"/data": {}}, "Env": ["NVIDIA_VISIBLE_DEVICES=all"]},
        )
        assert status == 201
        bench.image = replace(bench.image, container=json.loads(made)["Id"])
        result = await bench.run(
            "import os\nsize = 0\ntry:\n"
            "    with open('/data/x', 'wb', buffering=0) as file:\n"
            "        while size < 64: size += file.write(b'x' * 2**20) / 2**20\n"
            "except OSError as error: print(error.errno)\n"
            "print(size <= 16)"
        )
        assert result.text == "28\nTrue\n"
        volumes = json.loads(ask(docker_engine, "GET", "/volumes")[1])["Volumes"] or []
        assert volumes == []
    finally:
        ask(docker_engine, "DELETE", "/containers/computeswarm-volume-test?force=1&v=1")
        await bench.close()
        ask(docker_engine, "DELETE", "/images/computeswarm/volume:test?force=1")


@asynccontextmanager
async def cuttable(engine: str, path: Path) -> AsyncIterator[asyncio.Event]:
    """A way to the engine that is there until the event is set."""
    cut = asyncio.Event()
    writers: set[asyncio.StreamWriter] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if cut.is_set():
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(engine)
        writers.update((writer, far_writer))
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))
        writer.close()
        far_writer.close()

    async def cutting() -> None:
        await cut.wait()
        for writer in writers:
            writer.transport.abort()

    task = asyncio.create_task(cutting())
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield cut
    finally:
        cut.set()
        await task
        server.close()


async def test_an_engine_that_goes_in_mid_job_ends_it_with_a_reason(
    docker_engine: str, tmp_path: Path, noted: Path
) -> None:
    async with cuttable(docker_engine, tmp_path / "way") as cut:
        executor = DockerExecutor(tmp_path / "seller", socket=str(tmp_path / "way"))
        bench = Bench(executor, tmp_path / "seller")
        bench.image = await EngineImages(noted, executor.engine).ensure(
            host_python(), lambda _: None
        )
        job, space = await bench.start("print('up', flush=True); import time; time.sleep(600)")
        stream = job.output()
        await anext(stream)
        running = Path(f"/proc/{job.pid}")
        assert running.exists()
        cut.set()
        async with asyncio.timeout(30):
            with pytest.raises(ExecutorError, match="engine"):
                await job.wait()
            rest = [chunk async for _, chunk in stream]  # it ends, and ends empty
            assert b"".join(rest).strip() == b""
        # the life line is gone, and so is the job, though the engine never heard of us again
        await until(lambda: not running.exists())
        await space.close()
        await executor.close()
    after = DockerExecutor(tmp_path / "seller", socket=docker_engine)
    await after.reap()
    assert _of(docker_engine, after) == []
    await after.close()


async def test_a_job_can_not_write_into_process_one(bench: Bench) -> None:
    """It is the job's own user; if it could, it would outlive the seller."""
    result = await bench.run(
        "import os\n"
        "for name in ('mem', 'environ', 'fd', 'maps'):\n"
        "    try:\n"
        "        path = f'/proc/1/{name}'\n"
        "        os.listdir(path) if name == 'fd' else open(path).read(1)\n"
        "        print(name, 'read')\n"
        "    except OSError: print(name, 'denied')\n"
        "os.kill(1, 9); os.kill(1, 19)\n"
        "print('still here')"
    )
    assert result.text == "mem denied\nenviron denied\nfd denied\nmaps denied\nstill here\n"


async def test_an_image_lays_no_links_where_the_seller_writes_inputs(
    bench: Bench, tmp_path: Path
) -> None:
    """The image's own Python is started before the inputs are written, by root."""
    victim, site = tmp_path / "victim", tmp_path / "site"
    site.mkdir()
    evil = site / "evil"
    trap = f"ln -s {victim} /job/data.txt; ln -s {tmp_path} /job/outputs/x"
    evil.write_text(f'#!/bin/sh\n{trap}\nexec {bench.image.python} "$@"\n')
    for path, mode in ((tmp_path, 0o755), (site, 0o755), (evil, 0o755)):
        path.chmod(mode)
    honest, executor = bench.image, bench.executor
    assert isinstance(executor, DockerExecutor)
    image = replace(honest, site=site, python=Path("/opt/site/evil"))
    space = await executor.prepare("job-evil", SMALL, image=image)
    try:
        assert space.container is not None
        line = Path(f"/proc/{space.container.pid}/cmdline")
        await until(lambda: b"shim" in line.read_bytes() and b"evil" not in line.read_bytes())
        (space.path / "data.txt").write_text("owned")
        assert not victim.exists()
        assert not (space.path / "outputs/x").is_symlink()
        script = "open('outputs/o', 'w').write(open('data.txt').read()); open('new', 'w')"
        launch = Launch(
            "job-evil", ("sh", "-c", f'{honest.python} -c "{script}"'), {}, space.path, image, SMALL
        )
        job = await executor.start(launch)
        async with asyncio.timeout(60):
            assert (await job.wait()).status == 0
        assert (space.path / "outputs/o").read_text() == "owned"
    finally:
        await space.close()


async def test_somebody_elses_image_does_not_run_ahead_of_a_paid_job(bench: Bench) -> None:
    executor = bench.executor
    assert isinstance(executor, DockerExecutor)
    await executor.expect(replace(bench.image, reference=f"theirs@sha256:{'0' * 64}"), SMALL)
    assert await executor._ours() == []
    await executor.expect(bench.image, SMALL)
    assert len(await executor._ours()) == 1
