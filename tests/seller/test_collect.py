"""Collecting the outputs of a job that means harm."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from computeswarm.core.errors import NotFound
from computeswarm.seller.outputs import OutputsTooLarge, collect, open_output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "outputs"
    (made / "sub/deep").mkdir(parents=True)
    (made / "a.txt").write_text("alpha")
    (made / "sub/deep/b.bin").write_bytes(bytes(range(256)))
    return made


def test_plain_files_are_copied_with_their_digests(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    found = collect(root, max_files=10, max_bytes=1000, store=store)
    assert [(f.path, f.size) for f in found.files] == [("a.txt", 5), ("sub/deep/b.bin", 256)]
    assert found.refused == ()
    for file in found.files:
        assert hashlib.sha256((store / file.path).read_bytes()).hexdigest() == file.sha256
        with open_output(store, file.path) as opened:
            assert len(opened.read()) == file.size


def test_tricks_are_left_out(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "wallet.json"
    secret.write_text("key")
    (root / "link").symlink_to(secret)
    (root / "dirlink").symlink_to(tmp_path)
    os.link(secret, root / "hard")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    (root / "bad\nname").write_text("x")
    (root / "esc\x1b[2J").write_text("x")
    open(os.fsencode(root) + b"/\xff", "w").close()
    deep = root
    for _ in range(40):
        deep /= "d"
        deep.mkdir()
    (deep / "bottom").write_text("x")
    listener = socket.socket(socket.AF_UNIX)
    home = os.getcwd()
    os.chdir(root)  # a socket's path must be short
    try:
        listener.bind("sock")
    finally:
        os.chdir(home)
        listener.close()
    found = collect(root, max_files=100, max_bytes=10_000, store=tmp_path / "store")
    assert [f.path for f in found.files] == ["a.txt", "sub/deep/b.bin"]
    assert len(found.refused) == 10
    assert all(line.isprintable() and line.isascii() for line in found.refused)
    for name in ("link", "hard", "fifo", "sub", "dirlink/wallet.json", "../wallet.json", ""):
        with pytest.raises(NotFound):
            open_output(root, name)
    with pytest.raises(NotFound):
        open_output(root, str(secret))


def test_a_replaced_root_has_no_files(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    assert collect(link, max_files=10, max_bytes=1000).files == ()
    assert collect(tmp_path / "gone", max_files=10, max_bytes=1000).files == ()


def test_caps(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputsTooLarge, match="files"):
        collect(root, max_files=1, max_bytes=1000)
    with pytest.raises(OutputsTooLarge, match="bytes"):
        collect(root, max_files=10, max_bytes=260, store=tmp_path / "store")


def test_many_directories_do_not_use_up_descriptors(root: Path) -> None:
    for number in range(1500):
        (root / f"d{number}").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    assert len(collect(root, max_files=10, max_bytes=1000).files) == 2
    assert len(os.listdir("/proc/self/fd")) == before
