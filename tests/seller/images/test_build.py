"""This machine's Python as a container, and images that are built, tried out and removed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from cli_program import run

from computeswarm.core.errors import ConfigError, NotFound
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.docker.engine import Engine
from computeswarm.seller.executors.process import ProcessExecutor
from computeswarm.seller.images import ImageError, ImageStore, host_python
from computeswarm.seller.images.check import check_in, try_out
from computeswarm.seller.images.containers import EngineImages
from computeswarm.seller.images.root import write_root


def fake_pip(tmp_path: Path, body: str) -> list[str]:
    """A pip that runs this with ``site`` as its target."""
    script = tmp_path / "pip.py"
    head = "import sys, pathlib\nsite = pathlib.Path(sys.argv[sys.argv.index('--target') + 1])\n"
    script.write_text(f"{head}site.mkdir()\n{body}")
    return [sys.executable, str(script)]


def test_a_root_is_the_same_every_time_and_whole(tmp_path: Path) -> None:
    image = host_python()
    sums = []
    for name in ("one", "two"):
        with (tmp_path / name).open("wb") as out:
            write_root(out, image.python, image.prefix)
        with (tmp_path / name).open("rb") as done:
            sums.append(hashlib.file_digest(done, "sha256").hexdigest())  # type: ignore[arg-type]
    assert sums[0] == sums[1]
    with tarfile.open(tmp_path / "one") as tar:
        names = set(tar.getnames())
        odd = [m.name for m in tar if m.mode & 0o6000 or m.uid or m.gid or m.isdev()]
    assert not odd
    python = str(image.python).lstrip("/")
    for wanted in (python, "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "tmp"):
        assert wanted in names
    assert any(name.endswith("/libc.so.6") for name in names)
    assert any("/__pycache__/os." in name for name in names)
    assert not any("/site-packages/" in name for name in names)


async def test_the_machines_python_is_imported_once_and_works(
    engine: Engine, docker_engine: str, tmp_path: Path
) -> None:
    told: list[str] = []
    images = EngineImages(tmp_path / "a/images", engine)
    first = await ImageStore(tmp_path / "a", containers=images).ensure("python", told.append)
    assert first.container.startswith("sha256:")
    told.clear()
    # another start of the program finds the note, another seller the same bytes
    again = EngineImages(tmp_path / "a/images", engine)
    assert await again.ensure(host_python(), told.append) == first
    assert told == []
    other = EngineImages(tmp_path / "b/images", engine)
    assert (await other.ensure(host_python(), told.append)).container == first.container
    assert sorted(p.name for p in (tmp_path / "a/images").iterdir()) == ["container.json"]
    # a note of an image that is gone, or is nonsense, is no harm
    (tmp_path / "a/images/container.json").write_text("{")
    assert (await again.ensure(host_python(), told.append)).container == first.container
    executor = DockerExecutor(tmp_path / "jobs", socket=docker_engine)
    try:
        assert await executor.check() == []
        assert await try_out(executor, first) == []
    finally:
        await executor.close()


async def test_what_is_broken_is_said_precisely(tmp_path: Path) -> None:
    body = """
for name, code in (("good", "X = 1"), ("bad", "import nowhere_at_all")):
    (site / f"{name}.py").write_text(code)
    facts = site / f"{name}-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n")
    (facts / "top_level.txt").write_text(name)
"""
    home = tmp_path / "seller"
    store = ImageStore(home, pip=fake_pip(tmp_path, body))
    await store.build("mine", ["good==1", "bad", "absent>=2"])
    executor = ProcessExecutor(tmp_path / "jobs")
    try:
        problems = [str(p) for p in await check_in(executor, home, "mine")]
        assert await check_in(executor, home, "python") == []
        assert "isn't built" in str((await check_in(executor, home, "nothing"))[0])
    finally:
        await executor.close()
    assert len(problems) == 2
    assert "bad can't be used" in problems[0] and "nowhere_at_all" in problems[0]
    assert "absent can't be used (it isn't installed)" in problems[1]


async def test_an_image_a_job_runs_in_is_not_removed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, pip=fake_pip(tmp_path, "(site / 'x.py').write_text('')"))
    image = await store.build("mine", ["x"])
    assert image.site is not None
    with store.using("mine"):
        with pytest.raises(ImageError, match="A job runs in the image mine"):
            await ImageStore(tmp_path).remove("mine")  # as from another process
        assert (image.site / "x.py").exists()
    await store.remove("mine")
    assert not image.site.exists() and not list((tmp_path / "images").glob("[!.]*"))
    with pytest.raises(NotFound):
        store.using("mine")


async def test_a_crash_in_a_build_leaves_the_image_that_was(tmp_path: Path) -> None:
    pip = fake_pip(tmp_path, "(site / 'x.py').write_text('')")
    before = await ImageStore(tmp_path, pip=pip).build("mine", ["x"])
    kill = fake_pip(tmp_path, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    code = (
        "import asyncio, sys, pathlib\n"
        "from computeswarm.seller.images import ImageStore\n"
        "store = ImageStore(pathlib.Path(sys.argv[1]), pip=sys.argv[2:])\n"
        "asyncio.run(store.build('mine', ['y']))"
    )
    argv = [sys.executable, "-c", code, str(tmp_path), *kill]
    done = await asyncio.to_thread(subprocess.run, argv, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    store = ImageStore(tmp_path, pip=fake_pip(tmp_path, "(site / 'z.py').write_text('')"))
    assert store.get("mine") == before and store.check("mine") == []
    (tmp_path / "images/.gone-7").mkdir()  # a crash while something was deleted
    built = await store.build("mine", ["z"])
    assert built.site is not None and os.listdir(built.site) == ["z.py"]
    assert len(list((tmp_path / "images/mine").glob("site-*"))) == 1
    assert not list((tmp_path / "images").glob(".gone-*"))


async def test_a_full_disk_is_said(tmp_path: Path) -> None:
    body = "print('ERROR: Could not install: [Errno 28] No space left on device')\nsys.exit(1)"
    store = ImageStore(tmp_path, pip=fake_pip(tmp_path, body))
    with pytest.raises(ImageError, match="the disk is full"):
        await store.build("mine", ["x"])


def test_the_commands(tmp_path: Path, docker_engine: str) -> None:
    def images(*args: str) -> object:
        done = run("images", *args, "--json", home=tmp_path, DOCKER_HOST=f"unix://{docker_engine}")
        assert done.code == 0, done.err
        return done.json

    built = images("build", "python")
    assert isinstance(built, dict) and built["container"].startswith("sha256:")
    reference = f"localhost:9/theirs@sha256:{'0' * 64}"
    images("add", "theirs", reference)
    listed = images("list")
    assert {i["name"]: i["state"] for i in listed["images"]} == {  # type: ignore[index]
        "python": "ready",
        "theirs": "to be pulled",
        "python-ml": "not built",
    }
    checked = json.loads(json.dumps(images("check", "python")))
    assert checked["images"][0]["sandboxes"]["docker"] == []
    failed = run("images", "pull", "theirs", home=tmp_path, DOCKER_HOST=f"unix://{docker_engine}")
    assert failed.code == 125 and "The image can't be pulled" in failed.err.splitlines()[-1]
    images("remove", "theirs")
    tag = run("images", "add", "theirs", "python:3.12", home=tmp_path)
    assert tag.code == 125 and "digest" in tag.one_sentence()


async def test_the_python_that_is_always_there_is_not_changed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with pytest.raises(ConfigError, match="another name"):
        await store.build("python", ["numpy"])
    with pytest.raises(ConfigError, match="always stays"):
        await store.remove("python")
