"""Where a demo keeps its state: a throwaway folder, or the one that was asked for.

A demo holds a lock on its folder while it runs. The kernel lets go of the lock however the demo
ends, so the next one knows which folders were left behind and clears them away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths

_PREFIX = "computeswarm-demo-"
_MARK = "demo.lock"


@dataclass(frozen=True, slots=True)
class DemoHome:
    """A folder that belongs to one running demo."""

    folder: Path
    throwaway: bool

    @property
    def paths(self) -> Paths:
        return Paths.find({"COMPUTESWARM_HOME": str(self.folder)})

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def log_file(self) -> Path:
        return self.folder / "demo.log"


@contextmanager
def demo_home(wanted: str) -> Iterator[DemoHome]:
    """Make and lock the folder; remove it afterwards unless it was asked for.

    Args:
        wanted: the folder to use, or an empty text for a throwaway one.

    Raises:
        ConfigError: another demo runs there, or it holds somebody's real state.
    """
    folder, lock = _own(Path(wanted).expanduser().absolute()) if wanted else _make_throwaway()
    try:
        yield DemoHome(folder, throwaway=not wanted)
    finally:
        if not wanted:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def stale_homes() -> list[Path]:
    """Throwaway folders whose demo has ended without clearing up (killed, or a power cut)."""
    with _folders_lock() as root:
        return [path for path in root.glob(f"{_PREFIX}*") if _is_abandoned(path)]


def _own(folder: Path) -> tuple[Path, int]:
    mark = folder / _MARK
    if not mark.exists() and any(
        (folder / name).exists() for name in ("wallet.json", "config.toml")
    ):
        raise ConfigError(
            f"{folder} holds your own wallet or settings; give the demo an empty folder instead."
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _try_lock(mark)
    if lock is None:
        raise ConfigError(f"A demo runs in {folder} already; end it, or choose another folder.")
    return folder, lock


def _make_throwaway() -> tuple[Path, int]:
    with _folders_lock():
        return _own(Path(tempfile.mkdtemp(prefix=_PREFIX)))


def _is_abandoned(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir() or path.stat().st_uid != os.geteuid():
        return False
    lock = _try_lock(path / _MARK)
    if lock is None:
        return False
    os.close(lock)
    return True


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None when somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _folders_lock() -> Iterator[Path]:
    """Held while folders are made or looked through, so that none is judged half made."""
    root = Path(tempfile.gettempdir())
    path = root / f".computeswarm-demos-{os.geteuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield root
    finally:
        os.close(descriptor)
