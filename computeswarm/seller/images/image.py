"""What an image is, and which ones can be built."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.errors import ExecutorError


@dataclass(frozen=True, slots=True)
class Image:
    """What a job finds around it.

    Paths are the host's; an executor with its own root decides where they appear inside.
    """

    name: str
    description: str
    python: Path
    """The interpreter."""
    prefix: Path
    """The directory the interpreter and its standard library live under, such as ``/usr``."""
    site: Path | None = None
    """A directory of packages, put on PYTHONPATH."""
    packages: tuple[str, ...] = ()
    """What was asked of pip, as asked."""
    libpath: Path | None = None
    """Directory of ``libpython`` where the interpreter needs it."""
    reference: str = ""
    """``repository@sha256:…`` of an image that is somebody else's; empty for the machine's own."""
    container: str = ""
    """The id of its container image in Docker's engine, ``sha256:…``; empty where there is none.
    The paths above are then those inside, but ``site`` stays the host's."""
    root: Path | None = None
    """A directory that becomes ``/`` (read-only); ``None`` is the machine's own ``/usr``."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image that can be built, whether or not it has been."""

    name: str
    description: str
    packages: tuple[str, ...]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("python", "Python and its standard library", ()),
        Recipe("python-ml", "Python with NumPy and PyTorch", ("numpy>=2", "torch==2.13.0")),
    )
}


class ImageError(ExecutorError):
    """An image can't be built or used."""

    code = "image"
    title = "The image can't be used"


def host_python(name: str = "python", description: str = RECIPES["python"].description) -> Image:
    """The interpreter that runs this program, without the packages of its virtual environment."""
    prefix = Path(sys.base_prefix).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [prefix / "bin" / n for n in (version, "python3", "python")]
    python = next((p for p in candidates if p.exists()), None)
    if python is None:
        raise ImageError(f"No Python was found in {prefix}/bin; reinstall it.")
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    return Image(name, description, python, prefix, libpath=prefix / "lib" if shared else None)
