"""Packages put into a directory by pip."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from computeswarm.core.errors import ConfigError
from computeswarm.seller.images.image import ImageError

Progress = Callable[[str], None]

PIP = (sys.executable, "-m", "pip")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?([=<>!~]=?[^\s;@]+)?")


def refuse_odd(packages: Sequence[str]) -> None:
    """Raises ConfigError: a requirement that isn't a plain name or version."""
    odd = next((p for p in packages if not _REQUIREMENT.fullmatch(p)), None)
    if odd is not None:
        raise ConfigError(f"{odd[:60]!r} isn't a package; write a name or name==version.")


async def install(
    pip: Sequence[str], site: Path, packages: Sequence[str], progress: Progress
) -> None:
    """Fill ``site``, readable by everybody: a job runs as another user, whatever umask we have.

    Args:
        pip: the command that installs.
        progress: gets pip's lines.

    Raises:
        ImageError: pip failed, or there is no pip.
    """
    argv = [*pip, "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
    argv += ["--progress-bar", "off", "--target", str(site), *packages]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1024 * 1024,
    )
    assert process.stdout is not None
    last = ""
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            progress(line)
            last = line if line.startswith("ERROR") or not last.startswith("ERROR") else last
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        full = "No space left" in last
        why = "the disk is full" if full else last[:300].rstrip(".")
        raise ImageError(f"The packages can't be installed: {why}.")
    await asyncio.to_thread(_open_to_readers, site)


def _open_to_readers(site: Path) -> None:
    site.mkdir(exist_ok=True)  # pip makes none where there is nothing to install
    site.chmod(0o755)
    for path in site.rglob("*"):
        mode = path.lstat().st_mode
        if path.is_dir():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
