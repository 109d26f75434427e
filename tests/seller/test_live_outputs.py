"""Looks at the outputs of a job that writes while it is looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from computeswarm.core.errors import StorageFull
from computeswarm.seller import liveoutputs
from computeswarm.seller.liveoutputs import LiveOutputs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "outputs"
    (made / "sub").mkdir(parents=True)
    return made


def live(root: Path, **changes: int) -> LiveOutputs:
    caps = {"max_files": 100, "max_bytes": 10_000} | changes
    return LiveOutputs(root, root.parent / "live", **caps)


def read(looks: LiveOutputs, path: str) -> bytes:
    found = looks.find(path)
    assert found is not None
    return found[1].read_bytes()


def test_a_file_counts_once_it_stood_still_from_one_look_to_the_next(root: Path) -> None:
    looks = live(root)
    (root / "sub/a").write_text("one")
    assert looks.look() == []
    (file,) = looks.look()
    assert (file.path, file.size, read(looks, "sub/a")) == ("sub/a", 3, b"one")
    assert looks.look() == []
    (root / "sub/a").write_text("two")
    assert looks.look() == [] and read(looks, "sub/a") == b"one"
    (again,) = looks.look()
    assert again.sha256 != file.sha256 and read(looks, "sub/a") == b"two"
    assert looks.files() == (again,)
    assert len(list((root.parent / "live").iterdir())) == 1  # only the newest is kept
    (root / "sub/a").unlink()
    looks.look()
    assert looks.files() == () and not list((root.parent / "live").iterdir())
    looks.close()
    assert not (root.parent / "live").exists()


def test_a_file_that_changes_under_the_copy_waits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = live(root)
    (root / "a").write_text("x" * 100)
    looks.look()
    copy = liveoutputs.copy_file

    def meanwhile(*args: Any) -> str:
        digest = copy(*args)
        (root / "a").write_text("y" * 100)
        return digest

    monkeypatch.setattr(liveoutputs, "copy_file", meanwhile)
    assert looks.look() == [] and looks.files() == ()
    assert not list((root.parent / "live").iterdir())
    monkeypatch.undo()
    looks.look()
    assert [f.path for f in looks.look()] == ["a"] and read(looks, "a") == b"y" * 100


def test_tricks_and_what_has_no_room_are_left_for_the_end(root: Path) -> None:
    looks = live(root, max_files=2, max_bytes=1000)
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    (root / "large").write_bytes(b"x" * 1001)
    for name in ("a", "b", "c"):
        (root / name).write_text(name)
    looks.look()
    assert len(looks.look()) == 2
    assert looks.look() == []
    assert {f.path for f in looks.files()} < {"a", "b", "c"}


def test_a_full_disk_is_told(root: Path) -> None:
    looks = live(root)
    (root / "a").write_text("x")
    looks.look()
    (root.parent / "live").write_text("in the way")
    with pytest.raises(StorageFull):
        looks.look()
