"""From files and arguments to a job spec."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from computeswarm.buyer.spec import plan_job
from computeswarm.core.errors import BadRequest, NotFound, TooLarge


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_scripts_run_by_their_ending_and_travel_inline(here: Path) -> None:
    Path("a.py").write_text("1")
    Path("deep").mkdir()
    Path("deep/b.sh").write_text("2")

    python = plan_job("a.py", ["--n", "3"], env={"K": "v=w"}, max_seconds=60).spec
    assert python.command == ("python", "a.py", "--n", "3")
    assert (python.env, python.max_seconds, python.name) == ({"K": "v=w"}, 60, "a.py")
    assert python.inputs[0].data() == b"1"
    shell = plan_job("deep/b.sh").spec
    assert shell.command == ("bash", "b.sh")
    assert plan_job(None, ["echo", "hi"]).spec.command == ("echo", "hi")


def test_files_keep_their_place_below_the_folder_and_their_name_outside(
    here: Path, tmp_path: Path
) -> None:
    Path("a.py").write_text("1")
    Path("data/x").mkdir(parents=True)
    Path("data/x/1.csv").write_text("1")
    Path("data/2.csv").write_text("2")
    (tmp_path / "far").mkdir()
    (tmp_path / "far/3.csv").write_text("3")

    plan = plan_job("a.py", inputs=["data", tmp_path / "far", "../far/3.csv"])
    assert [f.path for f in plan.spec.inputs] == [
        "a.py",
        "data/2.csv",
        "data/x/1.csv",
        "far/3.csv",
        "3.csv",
    ]
    assert plan_job("a.py", inputs=["."]).spec.inputs[1].path == "data/2.csv"


def test_what_is_large_is_uploaded(here: Path) -> None:
    Path("a.py").write_text("1")
    big = b"x" * 300_000
    Path("big").write_bytes(big)
    for number in range(6):
        Path(f"part{number}").write_bytes(bytes([number]) * 250_000)

    plan = plan_job("a.py", inputs=["big", *[f"part{n}" for n in range(6)]])
    uploaded = [f for f in plan.spec.inputs if f.content is None]
    assert [f.path for f in uploaded] == ["big", "part4", "part5"]  # 1 MiB travels inline
    assert plan.spec.disk_bytes == 2**30 + 300_000 + 6 * 250_000 + 1
    assert plan.sources[hashlib.sha256(big).hexdigest()] == here / "big"


def test_mistakes_are_sentences(here: Path) -> None:
    with pytest.raises(NotFound, match=r"nope\.py does not exist"):
        plan_job("nope.py")
    with pytest.raises(NotFound, match="input nope"):
        Path("a.py").write_text("")
        plan_job("a.py", inputs=["nope"])
    with pytest.raises(BadRequest, match="folder"):
        plan_job(".")
    with pytest.raises(BadRequest, match="nothing to run"):
        plan_job(None)
    Path("big.py").write_bytes(b"#" * 300_000)
    with pytest.raises(TooLarge, match="script"):
        plan_job("big.py")
    Path("d").mkdir()
    Path("d/a.py").write_text("2")
    (here.parent / "a.py").write_text("3")
    with pytest.raises(BadRequest, match="Two inputs"):
        plan_job("a.py", inputs=[here.parent / "a.py"])
    with pytest.raises(BadRequest):
        plan_job("a.py", env={"NO-NAME": "x"})
    with pytest.raises(BadRequest):
        plan_job("a.py", image="Bad Image")
