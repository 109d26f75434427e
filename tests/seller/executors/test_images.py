"""Images made with pip, used in every executor although they lie where only root may look."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from sandbox_bench import Bench

from computeswarm.core.errors import ConfigError, NotFound
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.images import Image, ImageError, ImageStore
from computeswarm.seller.images.containers import EngineImages


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one package, which is all that pip can find."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    facts = "swarmtest-1.0.dist-info"
    with zipfile.ZipFile(folder / "swarmtest-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("swarmtest.py", "ANSWER = 42\n")
        wheel.writestr(
            f"{facts}/METADATA", "Metadata-Version: 2.1\nName: swarmtest\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        wheel.writestr(f"{facts}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


async def ready(bench: Bench, image: Image) -> Image:
    """The image as that executor takes it."""
    if not isinstance(bench.executor, DockerExecutor):
        return image
    images = EngineImages(bench.home / "images", bench.executor.engine)
    return await images.ensure(image, lambda _: None)


async def test_a_built_image_runs(bench: Bench, wheels: Path) -> None:
    bench.home.mkdir(mode=0o700, exist_ok=True)
    store = ImageStore(bench.home)
    assert store.check("mine")
    lines: list[str] = []
    mask = os.umask(0o077)
    try:
        built = await store.build("mine", ["swarmtest==1.0"], progress=lines.append)
    finally:
        os.umask(mask)
    assert any("swarmtest" in line for line in lines)
    assert store.check("mine") == []
    assert [image.name for image in store.list()] == ["python", "mine"]
    assert store.get("mine") == built
    assert built.packages == ("swarmtest==1.0",)
    bench.image = await ready(bench, built)
    result = await bench.run("import swarmtest, math; print(swarmtest.ANSWER)")
    assert (result.text, result.exit.code) == ("42\n", 0), result.stderr
    bench.image = await ready(bench, store.get("python"))
    assert (await bench.run("import swarmtest")).exit.code == 1


async def test_a_rebuilt_image_is_seen(bench: Bench, wheels: Path) -> None:
    store = ImageStore(bench.home)
    for answer in ("1", "2", "3"):
        bench.image = await ready(bench, await store.build("mine", ["swarmtest"]))
        assert bench.image.site is not None
        (bench.image.site / "swarmtest.py").write_text(f"ANSWER = {answer}")
        result = await bench.run("import swarmtest; print(swarmtest.ANSWER)")
        assert result.text == f"{answer}\n"
    sites = bench.home / "images/mine"
    assert len(list(sites.glob("site-*"))) == 1
    with store.using("mine"):
        await store.build("mine", ["swarmtest"])
        assert len(list(sites.glob("site-*"))) == 2  # a job may run on the former one
    await store.build("mine", ["swarmtest"])
    assert [p.name for p in sites.glob("site-*")] == ["site-5"]
    assert not list((bench.home / "images").glob(".gone-*"))


async def test_packages_can_not_be_changed_by_a_job(walled: Bench, wheels: Path) -> None:
    built = await ImageStore(walled.home).build("mine", ["swarmtest"])
    walled.image = await ready(walled, built)
    result = await walled.run(
        "import swarmtest, sys, os\n"
        "for place in (swarmtest.__file__, os.__file__, sys.executable):\n"
        " try: open(place, 'r+b'); print('open')\n"
        " except OSError as error: print(error.errno)"
    )
    assert set(result.text.split()) <= {"30", "13"}


async def test_debians_python(bench: Bench) -> None:
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("there is no /usr/bin/python3")
    bench.image = await ready(bench, Image("debian", "", python, Path("/usr")))
    result = await bench.run("import sys, ssl, sqlite3; print(sys.prefix)")
    assert result.text == "/usr\n", result.stderr
    shell = await bench.run("", command=("sh", "-c", "python3 -c 'print(6*7)'"))
    assert shell.text == "42\n", shell.stderr


async def test_what_can_not_be_built(tmp_path: Path, wheels: Path) -> None:
    store = ImageStore(tmp_path / "seller")
    for packages in (["--index-url=http://x"], ["../evil"], ["a @ http://x"], []):
        with pytest.raises(ConfigError):
            await store.build("mine", packages)
    with pytest.raises(ConfigError):
        await store.build("../mine", ["swarmtest"])
    with pytest.raises(ImageError, match="nothere"):
        await store.build("mine", ["nothere==1"])
    assert not list((tmp_path / "seller/images/mine").iterdir())
    with pytest.raises(NotFound, match="images build python-ml"):
        store.get("python-ml")
    with pytest.raises(NotFound):
        store.get("../../etc")


async def test_an_image_of_another_python_is_told(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(tmp_path / "seller")
    image = await store.build("mine", ["swarmtest"])
    assert image.site is not None
    assert image.site.stat().st_mode & stat.S_IROTH
    monkeypatch.setattr("computeswarm.seller.images.store._version", lambda: "9.9")
    assert "9.9" in store.check("mine")[0].what
